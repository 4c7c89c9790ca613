"""Two agents on one state directory, what a killed one leaves behind, and too little memory (F13, F32)."""

import os
import signal
import subprocess
import sys
import time

import cases
import scene

MIB = 1 << 20


def second(case, label):
    """The second one says that the directory is taken, and how soon. Gives the seconds."""
    if label in ("run beside run", "run --once beside run"):
        service = case.agent.serve()
        try:
            return refused(case, *label.partition(" beside")[0].split())
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(timeout=60)
    if label == "started together":
        both = [case.agent.start("run") for _ in range(2)]
        began = time.monotonic()
        while all(p.poll() is None for p in both) and time.monotonic() < began + 20:
            time.sleep(0.01)
        took, codes = time.monotonic() - began, [p.poll() for p in both]
        for p in both:
            p.terminate()
            p.wait(timeout=60)
        if sorted(c is None for c in codes) != [False, True] or scene.TRY_LATER not in codes:
            raise scene.Failed(f"of two that were started together, the ends are {codes}")
        return took
    if label == "lock of a dead process":
        (case.agent.state / "lock").write_text("1\n")
    if label == "lock and socket of a killed one":
        service = case.agent.serve()
        service.kill()
        service.wait()
    service = case.agent.serve()
    service.send_signal(signal.SIGTERM)
    if service.wait(timeout=60) != scene.OK:
        raise scene.Failed(f"the service ended with {service.returncode}")
    return 0


def refused(case, *arguments):
    began = time.monotonic()
    process = case.agent.start(*arguments)
    try:
        code = process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        raise scene.Failed("a second agent does not end") from None
    if code != scene.TRY_LATER:
        raise scene.Failed(f"a second agent ended with {code}")
    return time.monotonic() - began


def starved(case, label):
    """An end by lack of memory is an end: nothing is acknowledged that is not there."""
    limit = int(label.split()[0]) * MIB + os.stat(scene.binary()).st_size
    for _ in range(300):
        case.feeder.some()
    process = case.agent.start("run", "--once", before=[sys.executable, "-c", (
        "import os, resource, sys\n"
        "limit = int(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "os.execv(sys.argv[2], sys.argv[2:])"), str(limit)])
    code = process.wait(timeout=120)
    if code not in (scene.OK, scene.FAILURE, scene.IO, scene.TRY_LATER, -signal.SIGABRT):
        raise scene.Failed(f"with {label} it ended with {code}")
    return code


def main():
    scene.binary()
    cases.run("F13", "agents", ["run beside run", "run --once beside run", "started together", "lock of a dead process",
                                  "lock and socket of a killed one"], second,
                lambda took: f"refused within {max(took.values(), default=0):.2f} s")
    cases.run("F32", "agents", [f"{n} MiB and itself" for n in (8, 16, 48, 96, 128, 256)], starved,
                lambda codes: ", ".join(f"{label.split()[0]} MiB: exit {c}" for label, c in codes.items()))


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
