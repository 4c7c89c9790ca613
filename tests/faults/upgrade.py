"""Databases of other versions: a newer one is refused and not touched, an older one is migrated, also when the program is
killed while it does that, and the way back is open (F12, F33).

An older database is tests/fixtures/store/schema-1.sql. Where OTRELAY_PREVIOUS names a program of the previous version,
that one's own database is migrated, too, and both take turns on it (F33); without it the line of F33 says so. When both
have the same schema there is nothing to migrate, and the runs still show that one goes on with what the other left.
"""

import contextlib
import hashlib
import json
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
FIXTURE, FIXED = scene.ROOT / "tests/fixtures/store/schema-1.sql", "sensor-0-1-0"
FIXED_DELIVERED, FIXED_DEAD, FIXED_ALL = range(8), range(8, 10), range(22)
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
    if code in (scene.OK, scene.TRY_LATER) or case.agent.program == PREVIOUS and code == scene.FAILURE:
        # Not migrated yet; with dead letters it says 1.
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


def fixed(case):
    """The database of the fixture, with the delivered ones on a ServiceNow of their own: all of these have the same keys."""
    shutil.rmtree(case.directory)
    case.directory.mkdir()
    case.simulator = scene.Simulator(case.directory, 1)
    case.agent = scene.Agent(case.directory, case.simulator.url, FIXED)
    with contextlib.closing(sqlite3.connect(case.agent.state / database.NAME)) as db:
        db.executescript("PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;")
        db.executescript(FIXTURE.read_text())
    for number in FIXED_DELIVERED:
        correlation, sys_id = scene.keys(FIXED, number)
        case.simulator.put(json.dumps({"correlation_id": correlation, "sys_id": sys_id,
                                       "short_description": scene.title(number)}).encode())
    case.feeder = scene.Feeder(case.agent.eve, case.rng)
    case.feeder.next = len(FIXED_ALL)
    case.feeder.some()

    def settle():
        try:
            case.agent.drain(with_dead=True)
            scene.judge(case.simulator, (set(FIXED_ALL) | case.feeder.written) - set(FIXED_DEAD), FIXED)
            dead = case.agent.status()[1]["dead"]
            if dead != len(FIXED_DEAD):
                raise scene.Failed(f"of {len(FIXED_DEAD)} dead letters {dead} are there")
        finally:
            case.simulator.stop()
        shutil.rmtree(case.directory, ignore_errors=True)
    case.settle = settle


def killed(case, label):
    """The first start of this version is killed at the N-th call."""
    origin, calls, number = re.match(r"(\S+) (\S+) (\d+)", label).groups()
    (fixed if origin == "fixture" else queued)(case)
    names = ",".join("?" + n.lstrip("?") for n in calls.split(","))
    code = case.agent.start("run", "--once", before=[
        "strace", "-f", "-qq", "-e", f"trace={names}", "-e", f"inject={names}:signal=SIGKILL:when={number}",
        "-o", "/dev/null"]).wait(timeout=120)
    # The fixture has dead letters, so a run that is not hit ends with 1.
    if code not in (*KILLED, scene.OK, scene.TRY_LATER, *([scene.FAILURE] if origin == "fixture" else [])):
        raise scene.Failed(f"it was not killed but ended with {code}")
    # Then an impatient administrator tries the old one.
    if PREVIOUS and int(number) % 3 == 0:
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
    """Kills while an older database is migrated; the fixture's alone without a previous version."""
    share = 1 if LONG else 6
    origins = ("fixture", "previous") if PREVIOUS else ("fixture",)
    return [f"{origin} {call} {n}" for origin in origins for call, most in CALLS.items()
            for n in range(1, most + 1, share if most > 16 else 1)]


def main():
    scene.binary()
    labels = ["newer", "newer with WAL", *(points() if shutil.which("strace") else [])]
    cases.run("F12", "upgrade", labels, lambda c, l: (newer if l.startswith("newer") else killed)(c, l), count)
    if PREVIOUS:
        cases.run("F33", "upgrade", ["forth", "half delivered", "back", "back with the copy"], forth, count)
    else:
        print("F33: not run: OTRELAY_PREVIOUS names no program of the previous version")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
