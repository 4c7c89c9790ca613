"""A database of a version that is still to come is refused and not touched (F12). That an older one is taken over, and what
fails on the way, is tried by unit tests with a step that only they have: no version with another schema was released.
"""

import contextlib
import hashlib
import sqlite3
import sys

import cases
import database
import scene


def version(agent):
    with contextlib.closing(sqlite3.connect(agent.state / database.NAME)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]


def digests(agent):
    """What must not change of a database that is refused. A WAL of no bytes is none."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in agent.state.iterdir()
            if p.name in (database.NAME, database.NAME + "-wal") and p.stat().st_size}


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
    before = digests(case.agent)
    code = case.agent.start("run", "--once").wait(timeout=60)
    if code != scene.CONFIG:
        raise scene.Failed(f"a newer database ends the program with {code}")
    if digests(case.agent) != before:
        raise scene.Failed(f"a newer database is refused and was changed: {before} to {digests(case.agent)}")
    with contextlib.closing(sqlite3.connect(case.agent.state / database.NAME)) as db:
        db.execute(f"PRAGMA user_version = {now}")
    return "refused"


def main():
    scene.binary()
    cases.run("F12", "upgrade", ["newer", "newer with WAL"], newer, lambda results: f"{len(results)} refused")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
