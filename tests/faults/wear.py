"""What an alert's life costs a flash card: bytes that reach a block device, by the kernel's own count.

A quiet sensor, ten alerts a minute, in less than a minute: the state directory is an ext4 file system on a loop device; each
five alerts are one commit, as the intake gathers them for 30 s (here a question for the status ends the wait sooner), and
each fifty are one sync. What is measured is half an hour of that, one round of the write-ahead log with its checkpoint.
Before it, syncs with nothing to do, which must cost nothing.

Needs root, losetup and mkfs.ext4; where they are missing it says so and tries nothing.
"""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys

import scene

# The gate is a tenth above the goal: where pages fall is not the same in each run.
GOAL, GATE = 16_000, 17_600
GROUPS, EACH, ROUNDS = 10, 5, 7
SECTOR = 512


class Disk:
    """A file as a block device with a file system, and what was written to it."""

    EXT4 = ("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0")
    BTRFS = ("mkfs.btrfs", "-q")

    def __init__(self, directory, make=EXT4):
        image = directory / "disk"
        with open(image, "wb") as file:
            file.truncate(256 << 20)
        run(*make, str(image))
        self.device = run("losetup", "--show", "-f", str(image)).strip()
        self.place = None

    def mount(self, place):
        run("mount", "-o", "noatime", self.device, str(place))
        self.place = place
        place.chmod(0o700)

    def written(self):
        run("sync", "-f", str(self.place))
        stat = pathlib.Path(f"/sys/block/{pathlib.Path(self.device).name}/stat").read_text().split()
        return int(stat[6]) * SECTOR

    def close(self):
        if self.place:
            run("umount", str(self.place))
        run("losetup", "-d", self.device)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise scene.Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def ask(agent, what):
    if agent.ask(what) is None:
        raise scene.Failed(f"the service does not answer `{what}`")


def empty_syncs(agent, disk):
    # The first of a process is kept, so that the next start knows when it was.
    # After the second, no look at the log is new.
    for _ in range(2):
        ask(agent, "sync")
    before = disk.written()
    for _ in range(3):
        ask(agent, "sync")
    return (disk.written() - before) // 3


class Sensor:
    """Writes ten alerts a minute, and has them committed and synced as the service would."""

    def __init__(self, agent):
        self.agent, self.number = agent, 0

    def some_minutes(self):
        for _ in range(GROUPS):
            first, self.number = self.number, self.number + EACH
            lines = "".join(scene.eve_line(n, 1779084000_000000 + n * 6_000_000, 600) for n in range(first, self.number))
            with open(self.agent.eve / "eve.json", "a", encoding="utf-8") as file:
                file.write(lines)
            self.agent.until_taken(self.number)
        ask(self.agent, "sync")


def lives(sensor, disk):
    """Bytes an alert, once the write-ahead log has its size: until then each commit makes the file longer as well."""
    log, before = sensor.agent.state / "queue.db-wal", -1
    while log.stat().st_size > before:
        before = log.stat().st_size
        sensor.some_minutes()
    first, before = sensor.number, disk.written()
    for _ in range(ROUNDS):
        sensor.some_minutes()
    return (disk.written() - before) // (sensor.number - first)


def main():
    scene.binary()
    seed = int(os.environ.get("SEED") or random.randrange(1, 1_000_000))
    if os.geteuid() or not all(shutil.which(tool) for tool in ("losetup", "mkfs.ext4", "mount")):
        print("wear: 0 alerts: left out, it needs root, losetup and mkfs.ext4")
        return
    with scene.Scratch("wear") as directory:
        try:
            disk = Disk(directory)
        except scene.Failed as e:
            print(f"wear: 0 alerts: left out, no loop device here ({e})")
            return
        simulator = scene.Simulator(directory, seed)
        try:
            agent = scene.Agent(directory / "agent", simulator.url)
            disk.mount(agent.state)
            process = agent.serve()
            nothing = empty_syncs(agent, disk)
            sensor = Sensor(agent)
            each = lives(sensor, disk)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
            scene.judge(simulator, range(sensor.number))
        finally:
            simulator.stop()
            disk.close()
        if each > GATE or nothing:
            raise scene.Failed(f"an alert's life costs {each} bytes at the block device (goal {GOAL}), an empty sync {nothing} (0)")
    print(f"wear: {sensor.number} alerts at ten a minute: {each} bytes each at the block device (goal {GOAL}), an empty sync {nothing}")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed as e:
        print(f"FAILED: {e}", file=sys.stderr)
        sys.exit(1)
