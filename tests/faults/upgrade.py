"""Databases of other versions: a newer one is refused and not touched, an older one is migrated, also when the program is
killed while it does that, and the way back is open (F12, F33).

The previous version is the program that OTRELAY_PREVIOUS names; without it only the newer database is tried, and the
lines say so. When both have the same schema there is nothing to migrate, and the runs still show that one goes on with
what the other left.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import sys

import cases
import database
import scene

PREVIOUS = os.environ.get("OTRELAY_PREVIOUS")
LONG = bool(os.environ.get("LONG"))
CALLS = {"pwrite64": 120, "fdatasync,fsync": 16, "?rename,renameat,renameat2": 3, "?unlink,unlinkat": 6, "ftruncate": 4}
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


def version(agent):
    with contextlib.closing(sqlite3.connect(agent.state / database.NAME)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]


def digests(agent):
    """What must not change of a database that is refused. A WAL of no bytes is none."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in agent.state.iterdir()
            if p.name in (database.NAME, database.NAME + "-wal") and p.stat().st_size}


def refused(case):
    """Whether the agent's program refuses the database; if so this version must not have touched it. (0.1.0 puts the WAL of
    what it refuses into the database, which loses nothing.)"""
    before = digests(case.agent)
    code = case.agent.start("run", "--once").wait(timeout=60)
    if code in (scene.OK, scene.TRY_LATER):
        return False
    if code != scene.CONFIG:
        raise scene.Failed(f"a newer database is refused with {code}")
    if case.agent.program != PREVIOUS and digests(case.agent) != before:
        raise scene.Failed(f"a newer database is refused and was changed: {before} to {digests(case.agent)}")
    return True


def newer(case, label):
    """A database of a version that is still to come, closed or with a WAL."""
    if label == "newer":
        case.agent.drain()
    else:
        service = case.agent.serve()
        case.agent.until_taken(len(case.feeder.written))
        service.kill()
        service.wait()
    now = version(case.agent)
    db = sqlite3.connect(case.agent.state / database.NAME)
    db.execute("PRAGMA user_version = 99")
    if label == "newer":
        db.close()
    else:
        # Closing would put the WAL into the database: what is there now is kept.
        kept = {p: p.read_bytes() for p in case.agent.state.glob("queue.db*") if not p.name.endswith("-shm")}
        db.close()
        for path, content in kept.items():
            path.write_bytes(content)
    if not refused(case):
        raise scene.Failed("a newer database is used")
    with contextlib.closing(sqlite3.connect(case.agent.state / database.NAME)) as db:
        db.execute(f"PRAGMA user_version = {now}")
    return "refused"


def queued(case, more=0):
    """The previous version takes in what there is, delivers nothing, and is killed."""
    case.agent.program = PREVIOUS
    for _ in range(more):
        case.feeder.some()
    service = case.agent.serve()
    case.agent.until_taken(len(case.feeder.written))
    service.kill()
    service.wait()
    case.agent.program = scene.binary()


def killed(case, label):
    """The first start of this version is killed at the N-th call."""
    queued(case)
    calls, number = re.match(r"migration (\S+) (\d+)", label).groups()
    names = ",".join("?" + n.lstrip("?") for n in calls.split(","))
    code = case.agent.start("run", "--once", before=[
        "strace", "-f", "-qq", "-e", f"trace={names}", "-e", f"inject={names}:signal=SIGKILL:when={number}",
        "-o", "/dev/null"]).wait(timeout=120)
    if code not in (*KILLED, scene.OK, scene.TRY_LATER):
        raise scene.Failed(f"it was not killed but ended with {code}")
    # Then an impatient administrator tries the old one.
    if int(number) % 3 == 0:
        case.agent.program = PREVIOUS
        refused(case)
        case.agent.program = scene.binary()
    return "killed" if code in KILLED else "passed"


def forth(case, label):
    """Another version goes on with a full queue."""
    queued(case, more=20)
    if label == "half delivered":
        case.agent.program = PREVIOUS
        code = case.agent.start("run", "--once", before=[
            "strace", "-f", "-qq", "-e", "trace=?sendto,sendmsg,writev", "-e",
            "inject=?sendto,sendmsg,writev:signal=SIGKILL:when=9", "-o", "/dev/null"]).wait(timeout=120)
        case.agent.program = scene.binary()
        if code not in KILLED:
            raise scene.Failed(f"it was not killed but ended with {code}")
        return "gone on"
    if label == "forth":
        return "gone on"
    # This version takes in more and is killed, then the previous one is installed again.
    case.feeder.some()
    service = case.agent.serve()
    case.agent.until_taken(len(case.feeder.written))
    service.kill()
    service.wait()
    case.agent.program = PREVIOUS
    if not refused(case):
        return "gone on, back too"
    if label == "back with the copy":
        copies = sorted(case.agent.state.glob("queue.db.v*"))
        if not copies:
            raise scene.Failed("the previous version refuses the database, and no copy of the old one is there")
        for suffix in ("", "-wal", "-shm"):
            (case.agent.state / (database.NAME + suffix)).unlink(missing_ok=True)
        shutil.copyfile(copies[-1], case.agent.state / database.NAME)
        case.agent.drain()
        scene.judge(case.simulator, case.feeder.written, case.label)
    case.agent.program = scene.binary()
    return "refused"


def count(results):
    return ", ".join(f"{sum(v == word for v in results.values())} {word}" for word in sorted(set(results.values())))


def points():
    share = 1 if LONG else 6
    return [f"migration {call} {n}" for call, most in CALLS.items() for n in range(1, most + 1, share if most > 16 else 1)]


def main():
    scene.binary()
    old = " by the previous version" if PREVIOUS else "; OTRELAY_PREVIOUS names no previous version, nothing was migrated"
    labels = ["newer", "newer with WAL", *(points() if PREVIOUS and shutil.which("strace") else [])]
    cases.run("F12", "upgrade", labels, lambda c, l: (newer if l.startswith("newer") else killed)(c, l),
                lambda r: count(r) + ("" if PREVIOUS else old))
    if PREVIOUS:
        cases.run("F33", "upgrade", ["forth", "half delivered", "back", "back with the copy"], forth, count)
    else:
        print("F33: not run: OTRELAY_PREVIOUS names no program of the previous version")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
