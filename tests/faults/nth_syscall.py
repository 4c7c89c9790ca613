"""kill -9 at the N-th system call that matters, for one N after the other: SQLite's loop, on the whole program.

Called by tests/nth_syscall.sh. For each kind of call a run without a kill is counted; then POINTS kills are spread over
the kinds and over N, each on a fresh state directory, until a run passes unharmed. After each kill a clean run drains,
and the judge looks at the tickets. The simulator is well all the time: a kill between the answer and the note of it is
what a lost answer is, and no pause after a failure makes the runs longer.
"""

import collections
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import scene

# `?`: not on every architecture. Several names are one kind.
KINDS = ["pwrite64", "fdatasync,fsync", "ftruncate", "?unlink,unlinkat", "sendto", "recvfrom"]
# rustls and hyper write with these where the runtime prefers them.
ALSO = {"sendto": "?sendto,sendmsg,writev", "recvfrom": "?recvfrom,recvmsg"}
ALERTS = 12
# strace dies of the signal that its child died of; a shell in between would add 128.
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


def usable():
    """Why strace can't be used here; nothing when it can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-qq", "-e", "trace=openat", "-e", "inject=openat:signal=SIGKILL:when=1",
                            "-o", "/dev/null", "cat", "/dev/null"], capture_output=True, check=False)
    if tried.returncode in KILLED:
        return ""
    return f"strace can't kill here (exit {tried.returncode}) {tried.stderr.decode(errors='replace').strip()}"


class Point:
    """A fresh agent with a name of its own on the common simulator."""

    def __init__(self, directory, simulator, name, rng):
        self.simulator = simulator
        self.agent = scene.Agent(directory / name, simulator.url, name)
        feeder = scene.Feeder(self.agent.eve, rng)
        for _ in range(ALERTS // 2):
            feeder.some()
        # Never read before: what is not in the glob does not exist for the source.
        feeder.rotate("copytruncate")
        while feeder.next < ALERTS:
            feeder.some()
        self.written = feeder.written
        self.directory = directory / name

    def traced(self, *options):
        return self.agent.start("run", "--once", before=["strace", "-f", "-qq", *options]).wait(timeout=120)

    def count(self, names):
        """How often each thread makes one of these calls; the highest of them."""
        trace = self.directory / "trace"
        code = self.traced("-e", f"trace={names}", "-e", "signal=none", "-o", str(trace))
        if code not in (scene.OK, scene.TRY_LATER):
            raise scene.Failed(f"a run under strace, without a kill, ended with {code}")
        per_thread = collections.Counter(re.match(r"\d+", line)[0] for line in trace.read_text(errors="replace").splitlines()
                                         if "resumed>" not in line)
        trace.unlink()
        return max(per_thread.values(), default=0)

    def kill_at(self, names, number):
        # Not with --seccomp-bpf: strace 6.1 then injects nothing, and says nothing.
        code = self.traced("-e", f"trace={names}", "-e", f"inject={names}:signal=SIGKILL:when={number}",
                           "-o", "/dev/null")
        if code in (scene.OK, scene.TRY_LATER):
            return False
        if code not in KILLED:
            raise scene.Failed(f"it was not killed but ended with {code}")
        return True

    def check(self):
        self.agent.drain()
        scene.judge(self.simulator, self.written, self.agent.name)
        shutil.rmtree(self.directory, ignore_errors=True)


def spread(highest, points):
    """At most `points` numbers of 1..highest: the first ones, then evenly, then one beyond the end."""
    if highest <= points:
        return list(range(1, highest + 2))
    first = points // 4
    step = (highest - first) / (points - first)
    return [*range(1, first + 1), *sorted({first + round(step * (n + 1)) for n in range(points - first)}), highest + 1]


def main():
    reason = usable()
    if reason:
        print(f"nth_syscall: skipped: {reason}")
        return
    scene.binary()
    seed = int(os.environ.get("SEED") or random.randrange(1, 1_000_000))
    points = int(os.environ.get("POINTS") or 60)
    only = os.environ.get("CALL")
    print(f"nth_syscall: seed {seed}, {points} points", flush=True)
    began, killed, where = time.monotonic(), 0, "start"
    with scene.Scratch("nth-syscall") as directory:
        simulator = scene.Simulator(directory, seed)
        point = None
        try:
            kinds = [k for k in KINDS if not only or k == only]
            for kind in kinds:
                names = ",".join("?" + n.lstrip("?") for n in ALSO.get(kind, kind).split(","))
                where = f"CALL='{kind}'"
                label = re.sub(r"\W+", "-", kind).strip("-")
                point = Point(directory, simulator, f"{label}-count", random.Random(seed))
                highest = point.count(names)
                point.check()
                numbers = spread(highest, max(1, points // len(kinds)))
                if os.environ.get("AT"):
                    numbers = [int(os.environ["AT"])]
                here = 0
                for number in numbers:
                    where = f"CALL='{kind}' AT={number}"
                    point = Point(directory, simulator, f"{label}-{number}", random.Random(seed + number))
                    hit = point.kill_at(names, number)
                    point.check()
                    here += hit
                killed += here
                if highest and not here and not os.environ.get("AT"):
                    raise scene.Failed(f"{kind} is called {highest} times and none of {len(numbers)} kills hit")
                print(f"  {kind}: up to {highest} in a thread, killed at {here} of them", flush=True)
        except BaseException as e:
            if point:
                print(scene.tail(point.agent.log), file=sys.stderr)
            print(f"FAILED at {where}: {e}\nagain:  SEED={seed} {where} tests/nth_syscall.sh", file=sys.stderr)
            raise
        finally:
            simulator.stop()
    print(f"nth_syscall: {killed} kills, {ALERTS} fingerprints each: none missing, none doubled; "
          f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
