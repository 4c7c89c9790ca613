"""A full btrfs: each page that is written again needs a new block there, also in mapped memory, and a service whose index was
one ended by SIGBUS. Here the disk is filled to its last block while alerts come in and others read the store: the service
lives, and once there is room again each finding has its one ticket.

Needs root, losetup and mkfs.btrfs (btrfs-progs); where they are missing it says so and tries nothing.
"""

import os
import random
import shutil
import signal
import sys

import scene
import wear

ROUNDS, EACH = 8, 40


def fill(place, name):
    """To the last block: large pieces first."""
    for piece in (1 << 20, 4096, 1):
        try:
            with open(place / name, "ab", buffering=0) as file:
                while True:
                    file.write(bytes(piece))
        except OSError:
            pass
    wear.run("sync", "-f", str(place))


def feed(agent, numbers):
    lines = "".join(scene.eve_line(n, 1779084000_000000 + n * 6_000_000, 600) for n in numbers)
    with open(agent.eve / "eve.json", "a", encoding="utf-8") as file:
        file.write(lines)


def main():
    scene.binary()
    seed = int(os.environ.get("SEED") or random.randrange(1, 1_000_000))
    if os.geteuid() or not all(shutil.which(tool) for tool in ("losetup", "mkfs.btrfs", "mount")):
        print("btrfs: 0 fillings: left out, it needs root, losetup and mkfs.btrfs (btrfs-progs)")
        return
    with scene.Scratch("btrfs") as directory:
        try:
            disk = wear.Disk(directory, wear.Disk.BTRFS)
        except scene.Failed as e:
            print(f"btrfs: 0 fillings: left out, no loop device or no btrfs here ({e})")
            return
        simulator = scene.Simulator(directory, seed)
        try:
            agent = scene.Agent(directory / "agent", simulator.url)
            disk.mount(agent.state)
            process = agent.serve()
            feed(agent, range(EACH))
            agent.until_taken(EACH)
            for turn in range(1, ROUNDS + 1):
                fill(agent.state, f"filling-{turn}")
                feed(agent, range(turn * EACH, (turn + 1) * EACH))
                agent.ask("status")
                agent.ask("sync")
                if process.poll() is not None:
                    raise scene.Failed(f"the service ended with {process.returncode} on a full btrfs, filling {turn}")
            for filling in agent.state.glob("filling-*"):
                filling.unlink()
            total = (ROUNDS + 1) * EACH
            agent.until_taken(total)
            if agent.ask("sync") is None:
                raise scene.Failed("the service does not answer once there is room")
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
            scene.judge(simulator, range(total))
        finally:
            simulator.stop()
            disk.close()
    print(f"btrfs: {ROUNDS} fillings of a btrfs to its last block while {total} alerts came in: the service lives, each ticket once")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed as e:
        print(f"FAILED: {e}", file=sys.stderr)
        sys.exit(1)
