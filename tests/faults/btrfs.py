"""A full btrfs: each page that is written again needs a new block there, also in mapped memory, and a service whose index was
one ended by SIGBUS. Here the disk is filled to its last block while alerts come in and others read the store: the service
lives, what looks at the store after its end sees all of it, and once there is room again each finding has its one ticket.

Needs root, losetup and mkfs.btrfs (btrfs-progs); where they are missing it says so and tries nothing.
"""

import signal
import subprocess

import loop
import scene

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
    loop.run("sync", "-f", str(place))


def feed(agent, numbers):
    lines = "".join(scene.eve_line(n, 1779084000_000000 + n * 6_000_000, 600) for n in numbers)
    with open(agent.eve / "eve.json", "a", encoding="utf-8") as file:
        file.write(lines)


def look(agent, findings):
    """`status` without a service, while there is no block left: its index of the log cannot grow."""
    done = subprocess.run([agent.program, "--config", str(agent.config), "status"], capture_output=True, text=True,
                          env=agent.environment, timeout=60, check=False)
    if done.returncode != scene.OK or f"({findings} findings" not in done.stdout:
        raise scene.Failed(f"`status` on a full btrfs does not see {findings} findings (exit {done.returncode}): "
                           f"{done.stdout}{done.stderr}")


def main(agent, simulator, disk):
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
    fill(agent.state, "filling-last")
    taken = agent.ask("status")["sources"][0]["new"]
    stop(process)
    fill(agent.state, "filling-after")
    look(agent, taken)
    for filling in agent.state.glob("filling-*"):
        filling.unlink()
    process, total = agent.serve(), (ROUNDS + 1) * EACH
    agent.until_taken(total)
    if agent.ask("sync") is None:
        raise scene.Failed("the service does not answer once there is room")
    stop(process)
    scene.judge(simulator, range(total))
    return f"{ROUNDS} fillings of a btrfs to its last block while {total} alerts came in: the service lives, each ticket once"


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)


if __name__ == "__main__":
    loop.main("btrfs", "fillings", loop.Disk.BTRFS, main)
