"""kill -9 at random moments, on the same database, while alerts come in, files rotate and answers get lost.

Called by tests/kill.sh. Rounds are a mix of the service (`run`) and of `run --once`: the service takes in and syncs when
it thinks fit, the other one is sure to be sending when it is hit.
"""

import os
import random
import signal
import subprocess
import sys
import time

import scene


# The create is carried out and its answer lost.
LOST_ANSWERS = f"commit-drop:rate=0.3,method=POST,path=/api/now/table/{scene.TABLE}"


class Ended(Exception):
    """otrelay ended before it was killed."""


def wait(process, seconds):
    try:
        raise Ended(process.wait(timeout=seconds))
    except subprocess.TimeoutExpired:
        pass


def round_(agent, rng, number, feeder, rotation):
    """Starts otrelay and kills it; a rotation is done before that or meanwhile. Says whether it still ran."""
    arguments = ("run", "--once") if rng.random() < 0.5 else ("run",)
    life, meanwhile = rng.uniform(0.05, 0.6), rng.random() < 0.5
    if rotation and not meanwhile:
        feeder.rotate(rotation)
        rotation = None
    process = agent.start(*arguments)
    try:
        wait(process, life / 2)
        if rotation:
            feeder.rotate(rotation)
            rotation = None
        wait(process, life / 2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    except Ended as e:
        code = e.args[0]
        if "--once" not in arguments or code not in (scene.OK, scene.TRY_LATER):
            raise scene.Failed(f"round {number}: `{' '.join(arguments)}` ended by itself with {code}") from None
        if rotation:
            feeder.rotate(rotation)
        return False


def main():
    scene.binary()
    seed = int(os.environ.get("SEED") or random.randrange(1, 1_000_000))
    kills = int(os.environ.get("KILLS") or 100)
    rng = random.Random(seed)
    print(f"kill: seed {seed}, {kills} kills", flush=True)
    began = time.monotonic()
    with scene.Scratch("kill") as directory:
        simulator = scene.Simulator(directory, seed, LOST_ANSWERS)
        agent = scene.Agent(directory, simulator.url)
        feeder = scene.Feeder(agent.eve, random.Random(seed + 1))
        try:
            feeder.start(per_second=40)
            rotations = dict(zip([kills * n // 4 for n in (1, 2, 3)], rng.sample(("rename", "copytruncate", "new_name"), 3)))
            hit = rounds = 0
            while hit < kills:
                if rounds > 20 * kills:
                    raise scene.Failed("otrelay ends before it can be killed")
                due = rotations.pop(hit, None)
                hit += round_(agent, rng, rounds, feeder, due)
                rounds += 1
            feeder.stop()
            lost = simulator.mend()
            runs = agent.drain()
            scene.judge(simulator, feeder.written)
            # Nothing is left, so nothing happens.
            agent.drain()
            tickets = scene.judge(simulator, feeder.written)
            scene.check_status(agent, tickets)
        except BaseException as e:
            feeder.over.set()
            print(scene.tail(agent.log), file=sys.stderr)
            print(f"FAILED: {e}\nagain:  SEED={seed} KILLS={kills} tests/kill.sh", file=sys.stderr)
            raise
        finally:
            simulator.stop()
    print(f"F2: {hit} kills in {rounds} starts, rotations {', '.join(feeder.rotations)}, {feeder.lines} lines, "
          f"{tickets} fingerprints, {tickets} tickets: none lost, none doubled; {lost} answers lost, "
          f"drained in {runs} runs; seed {seed}, "
          f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
