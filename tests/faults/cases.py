"""Many tries of one fault: each has an agent of its own on a common simulator, and ends with the same judgement.

A suite prints one line for the table of all faults, and for what fails the line that repeats that case alone.
"""

import concurrent.futures
import os
import pathlib
import random
import re
import shutil
import sys
import time

import scene


class Case:
    """One try on a common simulator: an agent of its own with some alerts in its files."""

    def __init__(self, directory, simulator, label, seed, alerts=12, more=""):
        self.label = re.sub(r"\W+", "-", label).strip("-")
        self.directory, self.simulator, self.rng = directory / self.label, simulator, random.Random(f"{seed}:{label}")
        self.agent = scene.Agent(self.directory, simulator.url, self.label, more=more)
        self.feeder = scene.Feeder(self.agent.eve, self.rng)
        for _ in range(alerts):
            self.feeder.some()

    def settle(self):
        """A clean run delivers what there is; then each alert has one ticket and the books are right."""
        self.agent.drain()
        tickets = scene.judge(self.simulator, self.feeder.written, self.label)
        scene.check_status(self.agent, tickets)
        shutil.rmtree(self.directory, ignore_errors=True)


def run(fault, script, cases, try_one, told, at_once=8):
    """Runs `try_one(case)` for all labels of `cases`, or for the one that CASE names, many at once, on one simulator; prints
    the line that the table of all faults is made of. `told(results)` adds to it."""
    seed = int(os.environ.get("SEED") or random.randrange(1, 1_000_000))
    labels = [c for c in cases if os.environ.get("CASE") in (None, "", c)]
    began, results = time.monotonic(), {}
    with scene.Scratch(script) as directory:
        simulator = scene.Simulator(directory, seed)

        def one(label):
            case = Case(directory, simulator, label, seed)
            try:
                results[label] = try_one(case, label)
                case.settle()
            except Exception as e:
                print(scene.tail(case.agent.log), file=sys.stderr)
                print(f"FAILED at {label}: {e}\nagain:  SEED={seed} CASE='{label}' python3 tests/faults/{script}.py",
                      file=sys.stderr)
                raise

        try:
            with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
                for done in [pool.submit(one, label) for label in labels]:
                    done.result()
        finally:
            simulator.stop()
    more = told({label: results[label] for label in labels})
    print(f"{fault}: {len(labels)} runs: none lost, none doubled{'; ' + more if more else ''}; seed {seed}, "
          f"{time.monotonic() - began:.0f} s", flush=True)


def peak_memory(pid):
    """VmHWM in KiB; 0 when it is gone."""
    try:
        found = re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) if found else 0
    except OSError:
        return 0


def child(process):
    """The otrelay that strace runs; for a moment there are others below it. 0 when it has ended."""
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == process.pid and os.readlink(entry / "exe") == scene.binary():
                    return int(entry.name)
            except (OSError, IndexError):
                continue
        time.sleep(0.02)
    return 0
