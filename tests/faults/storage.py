"""A disk that says no, and a disk that is slow (F5, F9).

strace answers a call with EIO, once or from then on, at the N-th such call of a thread: syncs, writes and reads of the
database. otrelay may carry on where that is harmless, or end with the code for it, and never with a crash; what it had
not acknowledged comes again, and the next start delivers all of it. On a slow disk it takes longer and no more memory.
"""

import os
import subprocess
import sys

import cases
import scene

# Ends that are an answer: done, try again, the disk failed. A panic or a signal is none.
ANSWERS = (scene.OK, scene.TRY_LATER, scene.IO)
MEMORY_KIB = 64 * 1024
LONG = bool(os.environ.get("LONG"))


def broken():
    """Which call, its number, for how long: spread over a run."""
    numbers = {"fdatasync": range(1, 12), "pwrite64": (1, 2, 3, 5, 8, 13, 21, 34, 55, 70),
               "pread64": (1, 2, 3, 4, 6, 9, 14, 20)}
    if LONG:
        numbers = {"fdatasync": range(1, 14), "pwrite64": range(1, 180), "pread64": range(1, 108)}
    return [f"{call} {n} {long}" for call, these in {**numbers, "ftruncate": (1,)}.items() for n in these
            for long in ("once", "ever")]


def refuse(case, label):
    call, number, long = label.split()
    when = number if long == "once" else number + "+"
    if call == "pread64":
        # There has to be something to read.
        case.agent.drain()
        for _ in range(6):
            case.feeder.some()
    # Only of these files: the loader reads too.
    files = [o for suffix in ("", "-wal", "-journal") for o in ("-P", str(case.agent.state / ("queue.db" + suffix)))]
    process = case.agent.start("run", "--once", before=[
        "strace", "-f", "-qq", *files, "-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={when}", "-o", "/dev/null"])
    code = process.wait(timeout=120)
    # SQLite calls a page that cannot be read damaged; that run ends, and the next one looks whether it is.
    if code not in (*ANSWERS, *([scene.FAILURE] if call == "pread64" else [])):
        raise scene.Failed(f"`run --once` ended with {code}")
    return code


def slow(case, label):
    milliseconds = int(label.split()[1])
    process = case.agent.start("run", "--once", before=[
        "strace", "-f", "-qq", "-e", "trace=fdatasync", "-e", f"inject=fdatasync:delay_exit={milliseconds * 1000}",
        "-o", "/dev/null"])
    pid, peak = cases.child(process), 0
    while process.poll() is None:
        peak = max(peak, cases.peak_memory(pid) if pid else 0)
        if peak > MEMORY_KIB:
            raise scene.Failed(f"{peak} KiB of memory with syncs of {milliseconds} ms")
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            pass
    if process.returncode != scene.OK:
        raise scene.Failed(f"`run --once` ended with {process.returncode} with syncs of {milliseconds} ms")
    return peak


def main():
    scene.binary()
    cases.run("F5", "storage", broken(), refuse, lambda codes: ", ".join(
        f"exit {c}: {sum(v == c for v in codes.values())}" for c in sorted(set(codes.values()))))
    cases.run("F9", "storage", [f"sync {n} ms" for n in (5, 20, 100, 500, *((2000,) if LONG else (1000,)))], slow,
                lambda peaks: f"at most {max(peaks.values(), default=0)} KiB")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
