"""All faults, one script after the other, and what came of them as a table.

Called by tests/faults.sh. Names of scripts choose some. Each run draws a seed for all of them, or has it from SEED, and
prints the line that repeats a script. A script prints `F3: ...` for each fault that it covers, or `name: ...` for all of
them: that line is the row, and its first number says how often it was tried.

`--long` runs what is too long for each change, in parts, and keeps its books in docs/faults-report.md (report.py): a part
that has ended is there at once and is not run again, so a long run may be stopped and begun again, and further runs of
the same tree may be started beside it: no two of them have the same script at a time.
"""

import argparse
import concurrent.futures
import dataclasses
import fcntl
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

import report
import scene


@dataclasses.dataclass(frozen=True)
class Script:
    """One script, its faults, what happens; sizes in the environment: in CI and for each of the `parts` of a long run."""

    name: str
    faults: str
    what: str
    short: dict = dataclasses.field(default_factory=dict)
    long: dict = dataclasses.field(default_factory=dict)
    parts: int = 1

    @property
    def python(self):
        return scene.ROOT / f"tests/faults/{self.name}.py"

    @property
    def shell(self):
        return scene.ROOT / f"tests/{self.name}.sh"

    def command(self):
        return [str(self.shell)] if self.shell.exists() else [sys.executable, str(self.python)]

    def again(self, size, seed):
        """The line that does the same once more."""
        name = f"tests/{self.name}.sh" if self.shell.exists() else f"python3 tests/faults/{self.name}.py"
        return " ".join([f"SEED={seed}", *(f"{k}={v}" for k, v in size.items()), name])


# In the order in which a long run begins them: what takes longest comes first.
TABLE = [
    Script("images", "F3 F4", "power cuts, and power cuts while recovering", {"IMAGES": "1700"}, {"IMAGES": "20000"}, 10),
    Script("corrupt", "F10 F11", "damaged databases and WALs", {"DATABASES": "130"},
           {"DATABASES": "1000"}, 10),
    Script("clock", "F24", "clocks that step"),
    Script("kill", "F2", "kill -9 at random, on one database", {"KILLS": "34"}, {"KILLS": "500"}, 4),
    Script("full_disk", "F6 F7 F8", "full and read-only disks", {},
           {"FULL": "12", "NOSPACE": "120", "READONLY": "4"}, 5),
    Script("nth_syscall", "F1", "kill -9 at the N-th system call", {"POINTS": "115"}, {"POINTS": "500", "ALERTS": "150"}, 2),
    Script("storage", "F5 F9", "failed syncs, writes, reads; slow disks", {}, {"LONG": "1"}),
    Script("hung", "F9", "a disk that hangs, and the watchdog"),
    Script("upgrade", "F12", "databases of a newer version"),
    Script("signals", "F31", "SIGTERM and SIGHUP at every stage", {}, {"LONG": "1"}),
    Script("agents", "F13 F32", "two agents, stale locks, too little memory"),
    Script("wear", "wear", "bytes that reach the block device"),
    Script("btrfs", "btrfs", "a full disk where each write needs a new block"),
    Script("device", "device", "block devices that fail, file systems that shut down"),
    Script("outage", "F25", "rotation while it is down"),
    Script("twins", "F17", "10 000 tickets with every fault of the other side at once"),
]
WHAT = {s.name: s.what for s in TABLE}
LINE = re.compile(r"^(F\d+): (.*)$", re.MULTILINE)
# Seeds of the parts of a run are so far apart: a script may use some after its own.
STRIDE = 1000


class Runner:
    """Runs scripts, each in a process group of its own, which ends with this process."""

    def __init__(self, seed):
        self.seed, self.processes, self.lock = seed, set(), threading.RLock()
        self.ended = False

    def run(self, script, size, part=None):
        """Shows what it says as it comes, and keeps it in target/faults. Gives its exit code, the lines of its faults, the
        seconds, and the line that repeats it."""
        seed = self.seed + (part - 1) * STRIDE if part else self.seed
        size = {name: os.environ.get(name) or value for name, value in size.items()}
        seed = size.pop("SEED", seed)
        label = f"{script.name} {part}/{script.parts}: " if part else ""
        began, said = time.monotonic(), []
        with self.lock:
            if self.ended:
                raise KeyboardInterrupt
            process = subprocess.Popen(script.command(), env={**os.environ, **size, "SEED": str(seed)}, text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
            self.processes.add(process)
        with open(report.PLACE / f"{script.name}-{part or 'short'}.log", "w", encoding="utf-8") as log:
            for line in process.stdout:
                print(f"{label}{line}", end="", flush=True)
                log.write(line)
                said.append(line)
        code, said = process.wait(), "".join(said)
        with self.lock:
            self.processes.discard(process)
            if self.ended:
                raise KeyboardInterrupt
        lines = LINE.findall(said)
        lines = lines or [(script.faults, text) for text in re.findall(f"^{script.name}: (.*)$", said, re.MULTILINE)[-1:]]
        return code, lines, time.monotonic() - began, script.again(size, seed)

    def end(self, *_):
        with self.lock:
            self.ended = True
            for process in self.processes:
                try:
                    os.killpg(process.pid, signal.SIGTERM)
                except ProcessLookupError:
                    pass


def short(scripts, runner, program):
    """All of them, one after the other, and the table. Says which failed."""
    told, failed = [], []
    for script in scripts:
        print(f"--- {script.faults}: {script.what}", flush=True)
        code, lines, seconds, again = runner.run(script, script.short)
        if code:
            failed.append(script.name)
            told.append(f"  {script.faults:9} {script.what}: FAILED (exit {code}); {seconds:.0f} s; again: {again}")
        elif not lines:
            told.append(f"  {script.faults:9} {script.what}: nothing was said; {seconds:.0f} s")
        told += [f"  {fault:9} {script.what}: {text}" for fault, text in lines if not code]
    print("\n".join([f"faults, {program}, seed {runner.seed}", *told]))
    return failed


class Long:
    """The parts of a long run: which are done, which somebody is at, which is next."""

    def __init__(self, scripts, runner, program, minutes):
        self.scripts, self.runner, self.program = scripts, runner, program
        self.until = time.monotonic() + minutes * 60 if minutes else None
        self.turn = threading.Lock()

    def claim(self):
        """The first script that nobody is at and that has parts left, with the lowest of them; nothing when there is none.
        The lock is that of an open file: it goes when its process does."""
        with self.turn:
            if self.until and time.monotonic() > self.until:
                return None
            for script in self.scripts:
                lock = open(report.PLACE / f"{script.name}.lock", "w", encoding="utf-8")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    done = report.done(script.name, script.parts, self.program)
                    left = [n for n in range(1, script.parts + 1) if n not in done]
                    if left:
                        return script, left[0], lock
                except BlockingIOError:
                    pass
                lock.close()
        return None

    def lane(self):
        """Part after part until none is left. Gives those that failed."""
        failed = []
        while claimed := self.claim():
            script, part, lock = claimed
            with lock:
                print(f"--- {script.name} {part}/{script.parts} ({script.faults}: {script.what}) begins", flush=True)
                code, lines, seconds, again = self.runner.run(script, script.long, part)
                if code or not lines:
                    failed.append(f"{script.name} {part}/{script.parts}")
                    lines = [(script.faults, f"FAILED (exit {code}); again: {again}")]
                rows = [report.Row(script.name, part, script.parts, fault, text, report.now(), round(seconds), self.program)
                        for fault, text in lines]
                report.add(rows, WHAT)
                print(f"--- {script.name} {part}/{script.parts} ended with {code} after {seconds:.0f} s; "
                      f"{report.summary(self.scripts, self.program)}", flush=True)
        return failed

    def run(self, lanes):
        with concurrent.futures.ThreadPoolExecutor(lanes) as pool:
            running = [pool.submit(self.lane) for _ in range(lanes)]
            return [name for lane in running for name in lane.result()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="in parts, into docs/faults-report.md")
    parser.add_argument("--lanes", type=int, default=1, help="so many scripts side by side (--long)")
    parser.add_argument("--minutes", type=float, help="begin nothing after so many (--long)")
    parser.add_argument("--anew", action="store_true", help="forget the parts that were done (--long)")
    parser.add_argument("--without", action="append", default=[], metavar="SCRIPT", help="all but this one")
    parser.add_argument("scripts", nargs="*", help="only these")
    arguments = parser.parse_args()
    scripts = chosen(arguments.scripts, arguments.without)
    program = report.program()
    report.PLACE.mkdir(parents=True, exist_ok=True)
    runner = Runner(int(os.environ.get("SEED") or random.randrange(1, 1_000_000)))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, runner.end)
    try:
        if arguments.long:
            if any(name in os.environ for s in scripts for name in s.long):
                # A run of other sizes is no long run: it has a report of its own.
                report.PATH = report.PLACE / "report.md"
            if arguments.anew:
                report.forget([s.name for s in scripts], WHAT)
            if arguments.lanes > 1:
                os.environ.setdefault("JUDGES", str(max(1, len(os.sched_getaffinity(0)) // arguments.lanes)))
            failed = Long(scripts, runner, program, arguments.minutes).run(arguments.lanes)
            print(f"{report.summary(scripts, program)}, in {report.PATH.relative_to(scene.ROOT)}")
        else:
            failed = short(scripts, runner, program)
    except KeyboardInterrupt:
        sys.exit("stopped")
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)}")


def chosen(names, without):
    known = {s.name for s in TABLE}
    unknown = {*names, *without} - known
    if unknown:
        sys.exit(f"no such script: {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in TABLE)}")
    return [s for s in TABLE if s.name not in without and (s.name in names or not names)]


if __name__ == "__main__":
    main()
