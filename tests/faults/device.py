"""A block device that fails (root): what can be done about it is done, and what is said of it is so.

shutdown  the file system shuts down under the service, as it does when its journal cannot be written: the service ends with
          74 and says why, so does each next start, `status` says that it cannot read, and a mount later nothing is missing.
          On ext4 and xfs.
cut       writes of new blocks fail for a time: the process ends with 74. It starts again on a device that writes, takes
          alerts in and answers; then the power goes, and the sensor's file is gone. What was taken in is there. ext4 calls
          a page whose write failed clean, so that it can be read and is not on the disk.
reads     each read of the database fails for the first 20 s: nothing is set aside, and nothing is missing once they work.
inodes    no inode is left: what it says names `df -i`.

Writes that fail: the device is a file with holes on a tmpfs that is full. Reads: it is a file on a file system that has shut
down.
"""

import os
import signal
import subprocess
import sys
import time

import loop
import scene

EACH = 40
# Seconds. systemd would start it again every five.
FAILING = 20


def feed(agent, numbers, pad=600):
    lines = "".join(scene.eve_line(n, 1779084000_000000 + n * 6_000_000, pad) for n in numbers)
    with open(agent.eve / "eve.json", "a", encoding="utf-8") as file:
        file.write(lines)


def status(agent):
    done = subprocess.run([agent.program, "--config", str(agent.config), "status"], capture_output=True, text=True,
                          env=agent.environment, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def ends(process, seconds=90):
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise scene.Failed(f"it runs on for {seconds} s") from None


def said(agent, words, wrong=("made anew",)):
    text = agent.log.read_text(errors="replace")
    for word in words:
        if word not in text:
            raise scene.Failed(f"`{word}` was not said: {scene.tail(agent.log)}")
    for word in wrong:
        if word in text:
            raise scene.Failed(f"`{word}` was said, and it is not so: {scene.tail(agent.log)}")


def cannot_read(agent, when):
    code, text = status(agent)
    if code == scene.OK or "waiting" in text or "os error 5" not in text and "I/O error" not in text and "unable to open" not in text:
        raise scene.Failed(f"{when} `status` does not say what cannot be read (exit {code}): {text}")


def set_aside(agent):
    return [p.name for p in agent.state.glob("queue.db.corrupt-*")]


def whole(agent, simulator, count):
    agent.drain()
    if aside := set_aside(agent):
        raise scene.Failed(f"{aside} was set aside")
    return scene.judge(simulator, range(count))


def shutdown(agent, simulator, disk):
    disk.mount(agent.state)
    process = agent.serve()
    feed(agent, range(EACH))
    agent.until_taken(EACH)
    disk.shut_down()
    cannot_read(agent, "beside the service")
    feed(agent, range(EACH, 2 * EACH))
    codes = [ends(process)]
    cannot_read(agent, "without a service")
    codes += [ends(agent.start("run")) for _ in range(2)]
    if set(codes) != {scene.IO}:
        raise scene.Failed(f"on a file system that shut down it ended with {codes}, not {scene.IO}: {scene.tail(agent.log)}")
    said(agent, ["the disk failed", "error"])
    place = disk.place
    disk.unmount()
    disk.mount(place)
    return whole(agent, simulator, 2 * EACH)


def another_file(agent, number):
    """What the sensor wrote is gone; it goes on in a new file."""
    (agent.eve / "eve.json").unlink()
    feed(agent, [number])


def room(directory, free):
    """Fills a file system but for so many bytes."""
    stat = os.statvfs(directory)
    with open(directory / "filling", "wb") as file:
        for _ in range((stat.f_bavail * stat.f_frsize - free) // 4096):
            file.write(bytes(4096))


def cut(agent, simulator, memory):
    """`memory`: a tmpfs, on which the disk will be."""
    make = ("mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", "-J", "size=4")
    disk = loop.Disk(memory, make, 48 << 20, whole=True)
    try:
        disk.mount(agent.state)
        # What is free becomes holes; its journal and its tables have their room.
        loop.run("fstrim", str(agent.state))
        process = agent.serve()
        feed(agent, range(EACH))
        agent.until_taken(EACH)
        loop.run("sync", "-f", str(agent.state))
        room(memory, 0)
        count, code = EACH, None
        while code is None and count < 200 * EACH:
            feed(agent, range(count, count + EACH), 3000)
            count += EACH
            agent.ask("status")
            code = process.poll()
        code = ends(process, 30) if code is None else code
        if code != scene.IO:
            raise scene.Failed(f"with writes that fail it ended with {code}: {scene.tail(agent.log)}")
        (memory / "filling").unlink()
        process = agent.serve()
        feed(agent, range(count, count + EACH))
        count += EACH
        agent.until_taken(count)
        # The power goes: what the device has by now is all that there is.
        place = disk.place
        disk.shut_down()
        process.kill()
        process.wait()
        disk.unmount()
        another_file(agent, count)
        disk.mount(place)
        return whole(agent, simulator, count + 1)
    finally:
        disk.close()


def reads(agent, simulator, outer):
    """The disk is a file on `outer`."""
    under = agent.state.parent / "under"
    under.mkdir()
    outer.mount(under)
    disk = loop.Disk(under, loop.Disk.EXT4, 64 << 20)
    try:
        disk.mount(agent.state)
        # With a log, as a cut leaves it: it is written again before it is trusted.
        process = agent.serve()
        feed(agent, range(4 * EACH))
        agent.until_taken(4 * EACH)
        process.kill()
        process.wait()
        place = disk.place
        disk.unmount()
        disk.mount(place)
        # Names are known, contents are not.
        for path in agent.state.iterdir():
            path.stat()
        outer.shut_down()
        fails_to_read(agent)
        another_file(agent, 4 * EACH)
        disk.close()
        outer.unmount()
        outer.mount(under)
        disk = loop.Disk(under, None)
        disk.mount(place)
        return whole(agent, simulator, 4 * EACH + 1)
    finally:
        disk.close()


def fails_to_read(agent):
    until, codes = time.monotonic() + FAILING, set()
    while time.monotonic() < until:
        process = agent.start("run")
        try:
            codes.add(process.wait(timeout=FAILING))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            codes.add(ends(process))
        cannot_read(agent, "on a device that cannot be read")
        time.sleep(2)
    # Mounted read-only by then, it is passed by: alerts go through memory, until a person stops it.
    if not codes <= {scene.IO, scene.OK}:
        raise scene.Failed(f"on a device that cannot be read it ended with {codes}, not {scene.IO}: {scene.tail(agent.log)}")
    said(agent, ["Input/output error", *(["alerts are kept in memory only"] if scene.OK in codes else [])])


def inodes(agent, simulator, disk):
    disk.mount(agent.state)
    made = 0
    try:
        while True:
            (agent.state / f"file-{made}").touch()
            made += 1
    except OSError:
        pass
    feed(agent, range(EACH))
    process = agent.start("run")
    time.sleep(5)
    if process.poll() is None:
        told = status(agent)[1]
        process.send_signal(signal.SIGTERM)
        ends(process)
    else:
        told = ""
    if "df -i" not in told + agent.log.read_text(errors="replace"):
        raise scene.Failed(f"without inodes `df -i` is not named: {told}{scene.tail(agent.log)}")
    for path in agent.state.glob("file-*"):
        path.unlink()
    return whole(agent, simulator, EACH)


def on_memory(body):
    """The disk on a tmpfs, so that there is an end to its room."""
    def run(agent, simulator, disk):
        memory = agent.state.parent / "memory"
        memory.mkdir()
        loop.run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(memory))
        try:
            return body(agent, simulator, memory)
        finally:
            loop.run("umount", "-l", str(memory))
    return run


CASES = {
    "shutdown of ext4": (loop.Disk.EXT4, shutdown),
    "shutdown of xfs": (loop.Disk.XFS, shutdown),
    "cut after failed writes": (loop.Disk.EXT4, on_memory(cut)),
    "reads that fail": (loop.Disk.EXT4, reads),
    "no inodes": ((*loop.Disk.EXT4, "-N", "64"), inodes),
}


def main():
    scene.binary()
    done, left_out, failed = [], [], []
    for name, (make, body) in CASES.items():
        if os.environ.get("ONLY") not in (None, "", name):
            continue
        try:
            tried, what = loop.on_disk("device", make, body)
            (done if tried else left_out).append(f"{name} ({what}{' tickets' if tried else ''})")
        except scene.Failed as e:
            failed.append(name)
            print(f"FAILED: {name}: {e}", file=sys.stderr)
    print(f"device: {len(done)} ways of a device to fail: {', '.join(done + left_out)}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
