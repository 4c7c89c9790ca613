"""The wall clock jumps under the running service; the monotonic clock does not, as on a real machine.

Called by tests/clock.sh. Each run is a service under libfaketime with a file of offsets. In any order: an hour back, two
days back, ten years back, to 1970, a year ahead. At each: alerts come in and must be taken in; while the clock is before
the release nothing may be sent; the service is reloaded, or stopped and started. At last it starts in 1970, as a machine
without a battery does, and the clock is set right: sending has to begin by itself within a minute.

Stops are measured too: with nothing that hangs on the other side, one may take five seconds.
"""

import concurrent.futures
import glob
import os
import random
import signal
import sys
import time

import scene

YEAR = 365 * 86_400
LIBRARY = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1") + glob.glob("/usr/lib*/faketime/libfaketime.so.1")), None)
STOP_MAX = 5.0
# A minute is what is promised; the rest is for a busy machine.
BEGIN_MAX = 75.0
AT_ONCE = 10


def steps(rng):
    """Offsets from the right time, in seconds, each with whether sending must be held."""
    to_1970 = -int(time.time()) + 86_400
    all_ = [("an hour back", -3_600, False), ("two days back", -2 * 86_400, False), ("ten years back", -10 * YEAR, True),
            ("to 1970", to_1970, True), ("a year ahead", YEAR, False)]
    rng.shuffle(all_)
    return all_, to_1970


class Clocked:
    """A service whose clock is ours."""

    def __init__(self, directory, simulator, name):
        self.agent = scene.Agent(directory, simulator.url, name)
        self.offset = directory / "offset"
        self.set(0)
        self.agent.environment |= {
            "LD_PRELOAD": LIBRARY, "FAKETIME_TIMESTAMP_FILE": str(self.offset), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
        self.stops = []
        self.process = None

    def set(self, seconds):
        part = self.offset.with_suffix(".part")
        part.write_text(f"{seconds:+d}\n")
        part.rename(self.offset)

    def start(self):
        self.process = self.agent.serve()

    def stop(self):
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.stops.append(time.monotonic() - began)
        if code != scene.OK:
            raise scene.Failed(f"the stop ended with {code}")
        if self.stops[-1] > STOP_MAX:
            raise scene.Failed(f"a stop took {self.stops[-1]:.1f} s")

    def sync(self):
        process = self.agent.start("sync")
        return process.wait(timeout=120)


def run(directory, simulator, seed, number):
    """One history. Gives the number of tickets, the stops, and how soon sending began after the clock was right."""
    rng = random.Random(f"{seed}:{number}")
    name = f"clock-{number}"
    service = Clocked(directory / name, simulator, name)
    agent = service.agent
    feeder = scene.Feeder(agent.eve, rng)

    def tickets():
        return sum(1 for n in feeder.written if scene.keys(name, n)[0] in held)

    try:
        service.start()
        plan, to_1970 = steps(rng)
        for what, offset, must_hold in plan:
            service.set(offset)
            # What was begun before the jump may end.
            time.sleep(rng.uniform(0, 0.3))
            service.sync()
            held = {row["correlation_id"] for row in simulator.records()}
            before = tickets()
            for _ in range(rng.randrange(3, 12)):
                feeder.some()
            agent.until_taken(len(feeder.written))
            code = service.sync()
            held = {row["correlation_id"] for row in simulator.records()}
            if must_hold and tickets() != before:
                raise scene.Failed(f"{what}: something was sent by a clock that cannot be right")
            if must_hold and code != scene.TRY_LATER:
                raise scene.Failed(f"{what}: `sync` ended with {code} though sending is held")
            if not must_hold and tickets() != len(feeder.written):
                raise scene.Failed(f"{what}: {len(feeder.written) - tickets()} were not sent")
            match rng.randrange(3):
                case 0:
                    service.stop()
                    service.start()
                case 1:
                    service.process.send_signal(signal.SIGHUP)
                case _:
                    # Whichever comes first: a reload must not be in the way of a stop.
                    service.process.send_signal(signal.SIGHUP)
                    time.sleep(rng.uniform(0, 0.1))
                    service.stop()
                    service.start()
        service.stop()
        service.set(to_1970)
        for _ in range(5):
            feeder.some()
        service.start()
        agent.until_taken(len(feeder.written))
        told = agent.ask("status")
        if not any("the clock says 1970" in a["text"] for a in told["health"]):
            # It is said at the first sync, which is at once when the last one seems to be to come.
            time.sleep(2)
            told = agent.ask("status")
            if not any("the clock says 1970" in a["text"] for a in told["health"]):
                raise scene.Failed(f"the clock is not named: {told['health']}")
        service.set(0)
        began = time.monotonic()
        while True:
            held = {row["correlation_id"] for row in simulator.records()}
            if tickets() == len(feeder.written):
                break
            if time.monotonic() - began > BEGIN_MAX:
                raise scene.Failed(f"{len(feeder.written) - tickets()} are not sent though the clock is right again")
            time.sleep(0.5)
        begun = time.monotonic() - began
        service.stop()
        count = scene.judge(simulator, feeder.written, name)
        scene.check_status(agent, count)
        return count, service.stops, begun
    except Exception:
        print(scene.tail(agent.log), file=sys.stderr)
        raise
    finally:
        feeder.stop()
        if service.process and service.process.poll() is None:
            service.process.kill()
            service.process.wait()


def one(directory, simulator, seed, number):
    try:
        return run(directory, simulator, seed, number)
    except Exception as e:
        print(f"FAILED in run {number}: {e}\nagain:  SEED={seed} CASE={number} tests/clock.sh", file=sys.stderr)
        raise


def main():
    scene.binary()
    if LIBRARY is None:
        sys.exit("libfaketime is not there (Debian: apt install faketime)")
    seed = int(os.environ.get("SEED") or random.randrange(1, 1_000_000))
    runs = int(os.environ.get("RUNS") or 10)
    only = os.environ.get("CASE")
    print(f"clock: seed {seed}, {runs} runs", flush=True)
    began, tickets, stops, begun = time.monotonic(), 0, [], []
    with scene.Scratch("clock") as directory:
        simulator = scene.Simulator(directory, seed)
        try:
            # Each of them waits most of its time, for a clock that is looked at every 30 s.
            with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
                numbers = range(runs) if only is None else [int(only)]
                for done in [pool.submit(one, directory, simulator, seed, number) for number in numbers]:
                    count, stopped, first = done.result()
                    tickets += count
                    stops += stopped
                    begun.append(first)
        finally:
            simulator.stop()
    print(f"F24: {len(begun)} runs with 7 jumps of the clock each, {tickets} fingerprints, {tickets} tickets: none lost, none "
          f"doubled; F31: {len(stops)} stops, the longest {max(stops):.2f} s; sending began {max(begun):.0f} s at the latest "
          f"after the clock was right; seed {seed}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
