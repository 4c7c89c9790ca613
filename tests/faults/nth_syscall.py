"""kill -9 at the N-th system call that matters, for one N after the other: SQLite's loop, on the whole program.

Called by tests/nth_syscall.sh. For each kind of call a run without a kill is counted; then POINTS kills are spread over
the kinds and over N, each on a fresh state directory, until a run passes unharmed. After each kill a clean run drains,
and the judge looks at the tickets. The simulator is well all the time: a kill between the answer and the note of it is
what a lost answer is, and no pause after a failure makes the runs longer. What was in doubt waits six seconds for the
other side's index, so many points are tried at once.
"""

import collections
import concurrent.futures
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
KINDS = ["pwrite64", "fdatasync,fsync", "ftruncate", "?unlink,unlinkat", "?rename,renameat,renameat2", "write", "sendto",
         "recvfrom"]
# rustls and hyper write with these where the runtime prefers them.
ALSO = {"sendto": "?sendto,sendmsg,writev", "recvfrom": "?recvfrom,recvmsg"}
AT_ONCE = 12
ALERTS = int(os.environ.get("ALERTS") or 60)
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

    def check(self, records=None):
        """Drains and judges; `records`: what the simulator has, asked for once for many points."""
        if records is None:
            self.agent.drain()
        scene.judge(self.simulator, self.written, self.agent.name, records)
        shutil.rmtree(self.directory, ignore_errors=True)


def spread(highest, points):
    """At most `points` numbers of 1..highest: the first ones, then evenly, then one beyond the end."""
    if highest <= points:
        return list(range(1, highest + 2))
    first = points // 4
    step = (highest - first) / (points - first)
    return [*range(1, first + 1), *sorted({first + round(step * (n + 1)) for n in range(points - first)}), highest + 1]


class Failed(scene.Failed):
    """Says at which point, too."""

    def __init__(self, where, log, error):
        super().__init__(f"{where}: {error}")
        self.where, self.log = where, log


class Suite:
    """All points of one seed, on one simulator."""

    def __init__(self, directory, seed):
        self.directory, self.seed = directory, seed
        self.simulator = scene.Simulator(directory, seed)

    def at(self, kind, number, work):
        """A point, with its place in what goes wrong."""
        label = re.sub(r"\W+", "-", kind).strip("-")
        point = Point(self.directory, self.simulator, f"{label}-{number}", random.Random(f"{self.seed}:{kind}:{number}"))
        try:
            return point, work(point)
        except Exception as e:
            raise Failed(f"CALL='{kind}' AT={number}", point.agent.log, e) from e

    def kill(self, kind, number):
        def work(point):
            hit = point.kill_at(calls(kind), number)
            point.agent.drain()
            return hit
        return self.at(kind, number, work)

    def points(self, kinds, points, only):
        """Kinds and numbers: each kind gets its part, and what a kind has no use for the others get."""
        highest = {kind: self.at(kind, 0, lambda p, k=kind: p.count(calls(k)))[1] for kind in kinds}
        if only:
            return highest, [(kind, only) for kind in kinds]
        plan, left = [], points
        for n, kind in enumerate(sorted(kinds, key=lambda k: highest[k])):
            numbers = spread(highest[kind], max(1, left // (len(kinds) - n))) if highest[kind] else []
            left -= len(numbers)
            plan += [(kind, number) for number in numbers]
        return highest, plan

    def run(self, plan):
        """Kills at all points; how many were hit, by kind."""
        hits = collections.Counter()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            tried = [(kind, number, pool.submit(self.kill, kind, number)) for kind, number in plan]
            try:
                done = [(kind, number, one.result()) for kind, number, one in tried]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        records = self.simulator.records()
        for kind, number, (point, hit) in done:
            hits[kind] += hit
            try:
                point.check(records)
            except scene.Failed as e:
                raise Failed(f"CALL='{kind}' AT={number}", point.agent.log, e) from e
        return hits


def calls(kind):
    return ",".join("?" + n.lstrip("?") for n in ALSO.get(kind, kind).split(","))


def main():
    reason = usable()
    if reason:
        print(f"nth_syscall: skipped: {reason}")
        return
    scene.binary()
    seed = int(os.environ.get("SEED") or random.randrange(1, 1_000_000))
    points = int(os.environ.get("POINTS") or 340)
    kinds = [k for k in KINDS if os.environ.get("CALL") in (None, "", k)]
    print(f"nth_syscall: seed {seed}, {points} points", flush=True)
    began = time.monotonic()
    with scene.Scratch("nth-syscall") as directory:
        suite = Suite(directory, seed)
        try:
            highest, plan = suite.points(kinds, points, int(os.environ.get("AT") or 0))
            hits = suite.run(plan)
            for kind in kinds:
                tried = sum(k == kind for k, _ in plan)
                print(f"  {kind}: up to {highest[kind]} in a thread, killed at {hits[kind]} of {tried}", flush=True)
                if highest[kind] and not hits[kind] and not os.environ.get("AT"):
                    raise scene.Failed(f"{kind} is called {highest[kind]} times and none of {tried} kills hit")
        except Failed as e:
            print(scene.tail(e.log), file=sys.stderr)
            print(f"FAILED at {e}\nagain:  SEED={seed} {e.where} tests/nth_syscall.sh", file=sys.stderr)
            raise
        finally:
            suite.simulator.stop()
    print(f"F1: {sum(hits.values())} kills at {len(plan)} points, {ALERTS} fingerprints each: none lost, none doubled; "
          f"seed {seed}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
