"""What an alert's life costs a flash card: bytes that reach a block device, by the kernel's own count.

A quiet sensor, ten alerts a minute, in less than a minute: the state directory is an ext4 file system on a loop device; each
five alerts are one commit, as the intake gathers them for 30 s (here a question for the status ends the wait sooner), and
each fifty are one sync. What is measured is half an hour of that, one round of the write-ahead log with its checkpoint.
Before it, syncs with nothing to do, which must cost nothing.

Needs root, losetup and mkfs.ext4; where they are missing it says so and tries nothing.
"""

import signal

import loop
import scene

# The gate is a tenth above the goal: where pages fall is not the same in each run.
GOAL, GATE = 16_000, 17_600
GROUPS, EACH, ROUNDS = 10, 5, 7


def ask(agent, what):
    if agent.ask(what) is None:
        raise scene.Failed(f"the service does not answer `{what}`")


def empty_syncs(agent, disk):
    # The first of a process is kept, so that the next start knows when it was.
    # After the second, no look at the log is new.
    for _ in range(2):
        ask(agent, "sync")
    before = disk.written()
    for _ in range(3):
        ask(agent, "sync")
    return (disk.written() - before) // 3


class Sensor:
    """Writes ten alerts a minute, and has them committed and synced as the service would."""

    def __init__(self, agent):
        self.agent, self.number = agent, 0

    def some_minutes(self):
        for _ in range(GROUPS):
            first, self.number = self.number, self.number + EACH
            lines = "".join(scene.eve_line(n, 1779084000_000000 + n * 6_000_000, 600) for n in range(first, self.number))
            with open(self.agent.eve / "eve.json", "a", encoding="utf-8") as file:
                file.write(lines)
            self.agent.until_taken(self.number)
        ask(self.agent, "sync")


def lives(sensor, disk):
    """Bytes an alert, once the write-ahead log has its size: until then each commit makes the file longer as well."""
    log, before = sensor.agent.state / "queue.db-wal", -1
    while log.stat().st_size > before:
        before = log.stat().st_size
        sensor.some_minutes()
    first, before = sensor.number, disk.written()
    for _ in range(ROUNDS):
        sensor.some_minutes()
    return (disk.written() - before) // (sensor.number - first)


def main(agent, simulator, disk):
    disk.mount(agent.state)
    process = agent.serve()
    nothing = empty_syncs(agent, disk)
    sensor = Sensor(agent)
    each = lives(sensor, disk)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    scene.judge(simulator, range(sensor.number))
    if each > GATE or nothing:
        raise scene.Failed(f"an alert's life costs {each} bytes at the block device (goal {GOAL}), an empty sync {nothing} (0)")
    return f"{sensor.number} alerts at ten a minute: {each} bytes each at the block device (goal {GOAL}), an empty sync {nothing}"


if __name__ == "__main__":
    loop.main("wear", "alerts", loop.Disk.EXT4, main)
