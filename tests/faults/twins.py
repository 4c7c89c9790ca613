"""Every fault of the other side at once, 10 000 tickets: none is lost, and none is there twice (F14 to F20).

For a while answers are lost after and before the work, cut at random, late, replaced by pages, by other records, by 202 and by
errors, while look-ups show new records late; the program is started again and again. Then the instance is well, what is left
is delivered, and each alert has exactly one ticket with the keys that it must have.

TICKETS and FAULTY (seconds) make it smaller; SEED makes it the same again.
"""

import os
import random
import sys
import time

import scene

TICKETS = int(os.environ.get("TICKETS", "10000"))
FAULTY = float(os.environ.get("FAULTY", "40"))
# How often each happens to a create. Together about every eighth goes wrong.
RATE = 0.01
FAULTS = ["drop-before", "commit-drop", "commit-500", "commit-202", "truncated-json", "status=500", "status=502", "status=503",
          "202", "replay", "delay=700", "index-lag=3000"]
CUTS = (0, 1, 15, 80, 200, 600, 3000)
# After these, and after a look-up that fails, the destination waits for half a minute or more: one each is enough.
ONCE = ["hibernate", "html-login", "semaphore", "rate-limit=1"]
# What is asked at the beginning is left alone: a table that nothing is known of gets nothing, and nothing would be tried.
WHERE = [f"path=/api/now/table/{scene.TABLE}", "path=/api/now/v1/batch"]


def faults():
    for where in WHERE:
        yield from (f"{kind}:rate={RATE},method=POST,{where}" for kind in FAULTS)
        yield from (f"commit-cut={cut}:rate={RATE / len(CUTS):.4f},method=POST,{where}" for cut in CUTS)
    look = f"method=GET,{WHERE[0]}"
    yield from (f"{kind}:rate=0.02,{look}" for kind in ("delay=700", "index-lag=3000"))
    yield f"commit-cut=200:count=1,after=9,{look}"
    yield from (f"{kind}:count=1,after={1500 * (at + 1)},method=POST,{WHERE[0]}" for at, kind in enumerate(ONCE))


def faulty(agent, until):
    """Runs that end well, that end with something left, and that are killed."""
    runs = 0
    while time.monotonic() < until:
        process, runs = agent.start("run", "--once"), runs + 1
        try:
            code = process.wait(timeout=max(0.1, until - time.monotonic()))
        except Exception:
            process.kill()
            process.wait()
            break
        if code == scene.OK:
            break
        if code not in (scene.TRY_LATER, scene.FAILURE):
            raise scene.Failed(f"`run --once` ended with {code}")
        # What an operator would do; it also tries what is on hold.
        time.sleep(0.2)
    return runs


def main():
    seed = int(os.environ.get("SEED") or random.randrange(1, 1_000_000))
    rng, began = random.Random(seed), time.monotonic()
    with scene.Scratch("twins") as directory:
        simulator = scene.Simulator(directory, seed, list(faults()), batches=rng.random() < 0.5)
        try:
            agent = scene.Agent(directory / "agent", simulator.url)
            feeder = scene.Feeder(agent.eve, rng, repeats=False)
            for _ in range(TICKETS):
                feeder.some()
            runs = faulty(agent, time.monotonic() + FAULTY)
            fired = simulator.mend()
            before = len(simulator.records())
            runs += agent.drain(seconds=120, with_dead=True)
            tickets = scene.judge(simulator, feeder.written)
            scene.check_status(agent, tickets)
            if fired < 20 or before < TICKETS / 20:
                raise scene.Failed(f"nothing was tried: {fired} faults, {before} tickets while there were any")
        except scene.Failed as e:
            print(scene.tail(agent.log), file=sys.stderr)
            print(f"FAILED: {e}\nagain:  SEED={seed} python3 tests/faults/twins.py", file=sys.stderr)
            raise
        finally:
            simulator.stop()
    print(f"F17: {tickets} tickets, none twice; {fired} faults of {len(FAULTS) + len(CUTS) + len(ONCE)} kinds, {before} tickets while there were "
          f"any, {runs} runs, {time.monotonic() - began:.0f} s, seed {seed}")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
