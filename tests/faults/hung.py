"""A disk that hangs (F9): a sync that takes long, and one that never comes back.

strace holds back the fdatasync of the running service, which has the socket and the watchdog of a service manager. One
that takes seconds is no reason to be killed: signs of life go on. Of one that never ends the journal says who is stuck,
systemd hears nothing any more, and after the kill that follows nothing is lost.
"""

import socket
import subprocess
import sys
import threading
import time

import cases
import scene

# $WATCHDOG_USEC of the service.
LIMIT = 8
# src/status/keeper.rs: so long the store may owe an answer. A busy machine may take longer to say so.
ALLOWANCE = 20
SAID_WITHIN = ALLOWANCE + 40
STUCK = "has not moved for"


class Manager:
    """Hears what the service tells its manager, with the time of each."""

    def __init__(self, case):
        path = case.directory / "notify"
        self.ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ear.bind(str(path))
        self.ear.settimeout(0.2)
        self.heard, self.over = [], threading.Event()
        case.agent.environment |= {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(LIMIT * 1_000_000)}
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        while not self.over.is_set():
            try:
                for line in self.ear.recv(4096).decode().splitlines():
                    self.heard.append((time.monotonic(), line))
            except TimeoutError:
                pass

    def alive(self, since):
        """Signs of life since then."""
        return [at for at, line in self.heard if line == "WATCHDOG=1" and at >= since]

    def close(self):
        self.over.set()
        self.thread.join()
        self.ear.close()


def hold_back(service, seconds):
    """strace on the running service. Each of its syncs waits so long before it begins."""
    strace = subprocess.Popen(["strace", "-f", "-e", "trace=fdatasync", "-e",
                               f"inject=fdatasync:delay_enter={seconds * 1_000_000}", "-o", "/dev/null", "-p", str(service.pid)],
                              stderr=subprocess.PIPE, text=True)
    # It says when it is attached.
    said = strace.stderr.readline()
    if "attached" not in said:
        raise scene.Failed(f"strace cannot attach: {said}")
    threading.Thread(target=strace.stderr.read, daemon=True).start()
    return strace


def hang(case, label):
    manager = Manager(case)
    service = strace = None
    try:
        service = case.agent.serve()
        case.agent.until_taken(len(case.feeder.written))
        slow = label.startswith("slow")
        strace = hold_back(service, int(label.split()[1]) if slow else 3600)
        began = time.monotonic()
        for _ in range(5):
            case.feeder.some()
        return (slow_sync if slow else never)(case, manager, service, began)
    finally:
        # Only a kill ends a process that a tracer holds.
        if service:
            service.kill()
        if strace:
            strace.kill()
            strace.wait()
        if service:
            service.wait()
        manager.close()


def slow_sync(case, manager, service, began):
    """It is alive all the time, and what was written is taken in."""
    case.agent.until_taken(len(case.feeder.written), 90)
    took = time.monotonic() - began
    signs = [began, *manager.alive(began), time.monotonic()]
    gap = max(b - a for a, b in zip(signs, signs[1:]))
    if gap > LIMIT:
        raise scene.Failed(f"systemd heard nothing for {gap:.1f} s of a service that was only slow")
    if STUCK in case.agent.log.read_text() or service.poll() is not None:
        raise scene.Failed("a slow disk was taken for one that hangs")
    return f"slow: alive for {took:.0f} s"


def never(case, manager, service, began):
    """The journal says who is stuck; from then on the manager hears nothing, and kills."""
    until = time.monotonic() + SAID_WITHIN
    while STUCK not in case.agent.log.read_text():
        if service.poll() is not None:
            raise scene.Failed(f"it ended by itself with {service.returncode}")
        if time.monotonic() > until:
            raise scene.Failed(f"after {SAID_WITHIN} s nothing is said of a disk that hangs")
        time.sleep(0.5)
    said = time.monotonic()
    before = manager.alive(began)
    if said - began < ALLOWANCE - 1 or not before:
        raise scene.Failed(f"it was given up after {said - began:.0f} s, with {len(before)} signs of life before")
    # The last sign may have been on its way when it was said.
    time.sleep(LIMIT + 1)
    if late := manager.alive(said + 0.5):
        raise scene.Failed(f"{len(late)} signs of life of a service that is stuck")
    line = next(line for line in case.agent.log.read_text().splitlines() if STUCK in line)
    if "systemd" not in line:
        raise scene.Failed(f"the journal does not say what comes of it: {line}")
    return f"hung: said after {said - began:.0f} s"


def main():
    scene.binary()
    cases.run("F9", "hung", ["slow 4", "hung"], hang, lambda told: ", ".join(sorted(told.values())))


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
