"""SIGTERM and SIGHUP at every stage (F31): the service stops by itself with what it has taken in committed, and a reload,
good or bad, costs nothing."""

import os
import signal
import subprocess
import sys
import threading
import time

import cases
import scene

LONG = bool(os.environ.get("LONG"))


def term(case, label):
    """Told to stop after so many milliseconds, while alerts come and go. Gives the seconds that it took."""
    case.feeder.start(per_second=100)
    process = case.agent.start("run")
    time.sleep(int(label.split()[1]) / 1000)
    # A sync that was asked for is what there is to be stopped in.
    asked = threading.Thread(target=case.agent.ask, args=("sync",))
    asked.start()
    time.sleep(0.03)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise scene.Failed("it does not stop") from None
    took = time.monotonic() - began
    case.feeder.stop()
    asked.join()
    # Before the program has set its own way of ending, the kernel's is one, too: nothing was begun.
    if code not in (scene.OK, -signal.SIGTERM):
        raise scene.Failed(f"told to stop, it ended with {code}")
    return took


def hup(case, label):
    """Reloads at the same pace as alerts come, with configs of which every third is wrong."""
    service = case.agent.serve()
    good, pause = case.agent.config.read_text(), int(label.split()[1]) / 1000
    case.feeder.start(per_second=100)
    for n in range(12):
        changed = (good, good.replace('name = "everything"', 'name = "all"'), good + "\nnonsense = 1\n")[n % 3]
        case.agent.config.write_text(changed)
        service.send_signal(signal.SIGHUP)
        time.sleep(pause)
        if service.poll() is not None:
            raise scene.Failed(f"it ended with {service.returncode} when it was to reload")
    case.feeder.stop()
    case.agent.config.write_text(good)
    service.send_signal(signal.SIGHUP)
    case.agent.until_taken(len(case.feeder.written))
    began = time.monotonic()
    service.send_signal(signal.SIGTERM)
    if service.wait(timeout=60) != scene.OK:
        raise scene.Failed(f"told to stop, it ended with {service.returncode}")
    return time.monotonic() - began


def main():
    scene.binary()
    share = 5 if LONG else 1
    labels = [f"term {n * 75 // share}" for n in range(14 * share)] + [f"hup {n * 30 // share}" for n in range(6 * share)]
    cases.run("F31", "signals", labels, lambda c, l: (term if l.startswith("term") else hup)(c, l),
                lambda took: f"stopped within {max(took.values(), default=0):.1f} s")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
