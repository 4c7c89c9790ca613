"""A full disk (F6), a write that finds no space (F7), a read-only file system (F8).

Called by tests/full_disk.sh, inside a user and mount namespace of its own: there a plain user may mount a tmpfs of a few
MiB for the state directory, fill it, and mount it read-only. Every run has its own agent on the common simulator; runs
wait most of their time, so several go side by side.

What has to hold, in every run: the process does not end by itself; the state directory stays within `[buffer] max_size`;
memory stays within 64 MiB; `status` says what is the case while it is so; and when it is over, each finding that was
written to the sensor's files has exactly one ticket, with nothing given up.
"""

import collections
import concurrent.futures
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import scene

MIB = 1 << 20
# A run that has not come to its end by then hangs.
PATIENCE = 150
# Memory looks every 30 s whether the directory can be written again.
HOME = 45
SIDE_BY_SIDE = 6
RSS_MAX_KIB = 64 * 1024


def mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise scene.Failed(f"mount {' '.join(arguments)}: {done.stderr.strip()}")


class Disk:
    """A tmpfs under the state directory."""

    def __init__(self, path, mib):
        self.path = path
        mount("-t", "tmpfs", "-o", f"size={mib}m,mode=0700", "tmpfs", str(path))
        self.filler = path / "filler"

    def fill(self, leave=0):
        """Takes all but `leave` bytes."""
        with open(self.filler, "ab", buffering=0) as file:
            for step in (65536, 4096):
                try:
                    while True:
                        room = os.statvfs(self.path)
                        if room.f_bavail * room.f_frsize < leave + step:
                            break
                        file.write(b"f" * step)
                except OSError:
                    pass

    def free(self):
        self.filler.unlink()

    def remount(self, how):
        mount("-o", f"remount,{how}", str(self.path))

    def used(self):
        """Bytes of otrelay's files."""
        total = 0
        for path in self.path.iterdir():
            if path != self.filler:
                try:
                    total += path.stat().st_size
                except FileNotFoundError:
                    pass
        return total


class Run:
    """An agent on a disk of its own, watched."""

    def __init__(self, directory, simulator, name, seed, disk_mib=32, max_mib=8):
        self.name, self.simulator, self.rng = name, simulator, random.Random(f"{seed} {name}")
        self.agent = scene.Agent(directory / name, simulator.url, name)
        self.state = directory / name / "state"
        self.disk = Disk(self.state, disk_mib)
        self.cap = max_mib * MIB
        with open(self.agent.config, "a", encoding="utf-8") as config:
            config.write(f'\n[buffer]\nmax_size = "{max_mib}MiB"\n')
        # The socket is elsewhere, as it is under systemd: it has to answer while the state directory is read-only.
        runtime = directory / name / "run"
        runtime.mkdir()
        self.agent.environment["RUNTIME_DIRECTORY"] = str(runtime)
        self.feeder = scene.Feeder(self.agent.eve, self.rng)
        self.process, self.over, self.largest, self.memory = None, threading.Event(), 0, 0
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def watch(self):
        while not self.over.wait(0.1):
            self.largest = max(self.largest, self.disk.used())

    def start(self):
        self.process = self.agent.start("run")
        self.until("the service answers", lambda: self.agent.status()[1].get("running"), 30)

    def stop(self):
        self.look()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        if code != scene.OK:
            raise scene.Failed(f"the service ended with {code}")
        self.process = None

    def look(self):
        """It still runs, and with how much memory."""
        if self.process.poll() is not None:
            raise scene.Failed(f"the service ended by itself with {self.process.returncode}")
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        self.memory = max(self.memory, int(re.search(r"VmHWM:\s+(\d+)", text)[1]))

    def until(self, what, holds, seconds):
        end = time.monotonic() + seconds
        while not holds():
            if self.process and self.process.poll() is not None:
                raise scene.Failed(f"it ended with {self.process.returncode} before this was so: {what}")
            if time.monotonic() > end:
                raise scene.Failed(f"not within {seconds} s: {what}")
            time.sleep(0.3)

    def says(self, words):
        """What `status` has for attention has these words, with a remedy."""
        return any(words in a["text"] and a["remedy"] for a in self.agent.status()[1]["health"])

    def feed(self, alerts):
        for _ in range(alerts):
            self.feeder.some()

    def sync(self):
        done = subprocess.run([scene.binary(), "--config", str(self.agent.config), "sync"], capture_output=True,
                              timeout=120, env=self.agent.environment, check=False)
        return done.returncode

    def delivered(self):
        self.sync()
        try:
            return scene.judge(self.simulator, self.feeder.written, self.name) > 0
        except scene.Failed:
            # While tickets are made, a page may show one twice; the judge looks again when all is over.
            return False

    def judge(self):
        """After a fault-free end: every finding has its ticket, and the counters say so."""
        self.agent.drain()
        tickets = scene.judge(self.simulator, self.feeder.written, self.name)
        self.check_status(tickets)
        self.over.set()
        self.watcher.join()
        if self.largest > self.cap:
            raise scene.Failed(f"the state directory had {self.largest} bytes, the cap is {self.cap}")
        if self.memory > RSS_MAX_KIB:
            raise scene.Failed(f"{self.memory} KiB of memory")
        return tickets

    def check_status(self, tickets):
        """Nothing is left and nothing was given up. What was settled may have been forgotten for the sake of space, and
        is then new again when it is seen again."""
        code, told = self.agent.status()
        left = {name: told[name] for name in ("backlog", "dead", "shed") if told[name]}
        source = told["sources"][0]
        if code != scene.OK or left or source["new"] < tickets or source["rejected"] or source["trouble"]:
            raise scene.Failed(f"status: exit {code}, {left}, {source['new']} new for {tickets} tickets, {source}")

    def well_again(self):
        """What is new now goes its way within seconds; then it stops and is judged."""
        self.feed(3)
        self.until("a fresh alert becomes a ticket", self.delivered, 15)
        self.stop()
        return self.judge()

    def end(self):
        self.over.set()
        self.watcher.join()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        subprocess.run(["umount", "-l", str(self.state)], capture_output=True, check=False)


# F6


def full_at_start(run):
    """The disk is full before the first start, or before the next one; then space returns."""
    if run.rng.random() < 0.5:
        run.feed(30)
        run.agent.drain()
        run.feed(20)
        # The ballast is of no use to somebody who takes that, too.
        (run.state / "ballast").unlink(missing_ok=True)
    run.disk.fill()
    run.start()
    run.feed(40)
    run.until("status says that the disk is full", lambda: run.says("full"), 20)
    run.feed(20)
    run.disk.free()
    run.until("each finding has a ticket", run.delivered, 60)
    run.until("status has nothing to say", lambda: not run.agent.status()[1]["health"], HOME)


def full_under_load(run):
    """Others fill the disk while alerts come in."""
    run.start()
    run.feeder.start(per_second=150)
    time.sleep(run.rng.uniform(0.2, 2))
    run.disk.fill()
    run.until("status says that the disk is full", lambda: run.says("full"), 20)
    run.sync()
    time.sleep(run.rng.uniform(0, 1.5))
    run.look()
    run.feeder.stop()
    run.disk.free()
    run.until("each finding has a ticket", run.delivered, 60)
    run.until("status has nothing to say", lambda: not run.agent.status()[1]["health"], HOME)


def full_at_checkpoint(run):
    """What is left is enough for some commits and too little for the checkpoint; claims and settles go on."""
    run.start()
    run.feed(run.rng.randrange(50, 400))
    run.until("something is stored", lambda: run.agent.status()[1]["backlog"] > 0, 20)
    run.disk.fill(leave=run.rng.randrange(0, 24) * 32768)
    run.feed(run.rng.randrange(50, 400))
    time.sleep(run.rng.uniform(0, 1))
    # Then the rest is taken, too: the ballast has to do.
    run.disk.fill()
    for _ in range(4):
        run.sync()
        time.sleep(0.5)
    run.look()
    run.until("status says that the disk is full", lambda: run.says("full"), 20)
    backlog = run.agent.status()[1]["backlog"]
    if backlog:
        raise scene.Failed(f"on a full disk {backlog} deliveries could not be settled")
    run.disk.free()
    run.until("each finding has a ticket", run.delivered, 60)


FULL = [full_at_start, full_under_load, full_at_checkpoint]


def full(directory, simulator, seed, number):
    rng = random.Random(f"{seed} full-{number}")
    disk = [8, 4, 32][number // len(FULL) % 3]
    run = Run(directory, simulator, f"full-{number}", seed, disk, rng.choice((8, 8, 24)) if disk == 32 else 8)
    try:
        FULL[number % len(FULL)](run)
        return run.well_again()
    finally:
        run.end()


# F7


def no_space(directory, simulator, seed, number):
    """The N-th write finds no space, once or some times or from then on; then the machine is well again."""
    run = Run(directory, simulator, f"nospace-{number}", seed)
    try:
        run.feed(12)
        if run.rng.random() < 0.3:
            run.agent.drain()
            run.feed(12)
        first = number + 1
        when = run.rng.choice((f"{first}", f"{first}", f"{first}..{first + run.rng.randrange(1, 30)}", f"{first}+"))
        # Once, SQLite cannot tell a used-up quota from a disk that fails; it can when that lasts.
        error = run.rng.choice(("ENOSPC", "EDQUOT")) if when.endswith("+") else "ENOSPC"
        # Not with --seccomp-bpf: strace 6.1 then injects nothing, and says nothing.
        code = run.agent.start("run", "--once", before=[
            "strace", "-f", "-qq", "-e", "trace=pwrite64", "-e", f"inject=pwrite64:error={error}:when={when}",
            "-o", "/dev/null"]).wait(timeout=PATIENCE)
        if code not in (scene.OK, scene.TRY_LATER):
            raise scene.Failed(f"with {error} at write {when} it ended with {code}")
        return run.judge()
    finally:
        run.end()


# F8


def read_only_at_start(run, before):
    """Mounted read-only before the start: tickets are made all the same; then it is mounted for writing."""
    if before:
        run.feed(30)
        run.agent.drain()
        run.feed(30)
        # Left by a kill: with a WAL.
        process = run.agent.start("run")
        time.sleep(1.5)
        process.kill()
        process.wait()
    run.disk.remount("ro")
    run.start()
    run.feed(20)
    run.until("status says so", lambda: run.says("read-only"), 20)
    run.until("each finding has a ticket though it is read-only", run.delivered, 60)
    lists = subprocess.run([scene.binary(), "--config", str(run.agent.config), "tickets", "--json"],
                           capture_output=True, text=True, env=run.agent.environment, check=False)
    if lists.returncode or "INC" not in lists.stdout:
        raise scene.Failed(f"`tickets` on a read-only state directory: {lists.returncode} {lists.stderr}")
    run.feed(10)
    run.disk.remount("rw")
    run.until("status has nothing to say", lambda: not run.agent.status()[1]["health"], HOME)


def read_only_in_flight(run):
    """Every write fails as on a file system that the kernel made read-only; nothing else can be done without root."""
    run.start()
    run.feeder.start(per_second=50)
    time.sleep(run.rng.uniform(0.5, 2))
    strace = subprocess.Popen(["strace", "-f", "-qq", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EROFS",
                               "-o", "/dev/null", "-p", str(run.process.pid)], stderr=subprocess.DEVNULL)
    try:
        run.until("status says so", lambda: run.says("read-only"), 20)
        run.feeder.stop()
        run.until("each finding has a ticket though it is read-only", run.delivered, 60)
        run.feed(10)
    finally:
        strace.terminate()
        strace.wait()
    run.until("status has nothing to say", lambda: not run.agent.status()[1]["health"], HOME)


def read_only_once(run):
    """`run --once` does it in memory, and the next one finds what is there."""
    run.feed(25)
    run.disk.remount("ro")
    code = run.agent.start("run", "--once").wait(timeout=PATIENCE)
    if code != scene.OK:
        raise scene.Failed(f"`run --once` on a read-only state directory ended with {code}")
    scene.judge(run.simulator, run.feeder.written, run.name)
    run.disk.remount("rw")


def read_only(directory, simulator, seed, number):
    run = Run(directory, simulator, f"readonly-{number}", seed)
    try:
        kind = number % 4
        if kind == 3:
            read_only_once(run)
            return run.judge()
        if kind == 2:
            read_only_in_flight(run)
        else:
            read_only_at_start(run, before=kind == 1)
        return run.well_again()
    finally:
        run.end()


KINDS = {"full": (full, "FULL", 12, "F6"), "nospace": (no_space, "NOSPACE", 60, "F7"), "readonly": (read_only, "READONLY", 4, "F8")}


def main():
    scene.binary()
    seed = int(os.environ.get("SEED") or random.randrange(1, 1_000_000))
    only = os.environ.get("ONLY")
    wanted = {kind: int(os.environ.get(variable) or count) for kind, (_, variable, count, _) in KINDS.items()}
    if not shutil.which("strace"):
        print("full_disk: no strace: the NOSPACE runs and one of READONLY are left out", file=sys.stderr)
        wanted.update(nospace=0, readonly=min(wanted["readonly"], 2))
    jobs = [(kind, n) for kind in ("readonly", "full", "nospace") for n in range(wanted[kind])]
    if only:
        kind, number = only.rsplit("-", 1)
        jobs = [(kind, int(number))]
    print(f"full_disk: seed {seed}, {', '.join(f'{v} {k}' for k, v in wanted.items())}", flush=True)
    began, failed, tickets = time.monotonic(), [], collections.Counter()
    with scene.Scratch("full-disk") as directory:
        simulator = scene.Simulator(directory, seed)
        try:
            with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
                runs = {pool.submit(KINDS[kind][0], directory, simulator, seed, n): f"{kind}-{n}" for kind, n in jobs}
                for run in concurrent.futures.as_completed(runs):
                    name = runs[run]
                    try:
                        tickets[name.partition("-")[0]] += run.result()
                        shutil.rmtree(directory / name, ignore_errors=True)
                    except Exception as e:  # pylint: disable=broad-except
                        failed.append(name)
                        print(scene.tail(directory / name / "agent.log"), file=sys.stderr)
                        print(f"FAILED {name}: {type(e).__name__} {e}\n"
                              f"again:  SEED={seed} ONLY={name} tests/full_disk.sh", file=sys.stderr, flush=True)
            if failed:
                raise scene.Failed(f"{len(failed)} of {len(jobs)} runs: {' '.join(sorted(failed))}")
        finally:
            simulator.stop()
    for kind, (*_, fault) in KINDS.items():
        runs = sum(k == kind for k, _ in jobs)
        if runs:
            print(f"{fault}: {runs} runs, {tickets[kind]} tickets: none lost, none doubled, none given up; seed {seed}, "
                  f"{time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main()
    except scene.Failed as broken:
        print(f"full_disk: {broken}", file=sys.stderr)
        sys.exit(1)
