"""Damaged databases (F10) and damaged WALs (F11): otrelay starts on them, says what is lost, and delivers the rest.

Called by tests/corrupt.sh. One real database, killed in the middle of its work, with alerts delivered, dead and waiting,
is copied and damaged in one place; then otrelay runs on it, against a ServiceNow that has what had been delivered, with
source files that hold everything and a few lines more. Then each alert must have one ticket with its own text; what was
set aside must be there and be told, and nothing is set aside without damage.
"""

import concurrent.futures
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time

import database
import scene

DELIVERED, DEAD, WAITING, FRESH = 40, 0, 50, 4
PAGE = 4096
# What a start may take on a damaged database: the goal is ten seconds; then doubtful ones wait six for the other side.
# Starts that may end because they met damage: the next one repairs it, or finds out that it was no failed read.
REPAIRS = 3
PATIENCE = 60


class Base:
    """The database that is damaged, and what belongs to it."""

    def __init__(self, directory, seed):
        self.directory = directory / "base"
        self.directory.mkdir()
        simulator = scene.Simulator(self.directory, seed)
        try:
            self.make(simulator, random.Random(f"{seed}:base"))
        finally:
            simulator.stop()

    def make(self, simulator, rng):
        self.agent = scene.Agent(self.directory, simulator.url)
        feeder = scene.Feeder(self.agent.eve, rng, pad=3000)
        self.feed(feeder, DELIVERED)
        self.agent.drain()
        self.records = simulator.records(fields=None)
        service = self.agent.serve()
        for _ in range(5):
            self.feed(feeder, WAITING // 5)
            self.agent.until_taken(len(feeder.written))
        service.send_signal(signal.SIGKILL)
        service.wait()
        self.eve, self.written = self.agent.eve, set(feeder.written)
        self.files = {p.name: p.read_bytes() for p in self.agent.state.iterdir() if p.name.startswith(database.NAME)
                      or p.is_file() and p.suffix not in (".sock",) and p.name != "lock"}
        self.flat = self.checkpointed()
        # Written after the copy was made: they show whether a cursor is still right.
        self.feed(feeder, FRESH)
        self.all = set(feeder.written)
        feeder.stop()

    @staticmethod
    def feed(feeder, count):
        upto = feeder.next + count
        while feeder.next < upto:
            feeder.some()

    def checkpointed(self):
        """The same with nothing left in the WAL."""
        place = self.directory / "flat"
        place.mkdir()
        for name, content in self.files.items():
            (place / name).write_bytes(content)
        with contextlib.closing(sqlite3.connect(place / database.NAME)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            found = database.deliveries(db)
            self.names = names(db)
        if (found.get("delivered"), found.get("dead", 0), found.get("pending")) != (DELIVERED, DEAD, WAITING):
            raise scene.Failed(f"the database to be damaged has {found}")
        files = {p.name: p.read_bytes() for p in place.iterdir()
                 if not p.name.endswith(("-wal", "-shm"))}
        shutil.rmtree(place)
        return files


# Damage. Each takes the files and a random number generator and says in words what it did.


def flip(content, rng, low, high, bits=1):
    places = []
    for _ in range(bits):
        at = rng.randrange(low, max(low + 1, min(high, len(content))))
        content[at] ^= 1 << rng.randrange(8)
        places.append(at)
    return f"bit flipped at {', '.join(map(str, places))}"


def page(content, rng):
    return rng.randrange(len(content) // PAGE) * PAGE


def flip_anywhere(files, rng):
    return flip(files[database.NAME], rng, 0, 1 << 40)


def flip_header(files, rng):
    return flip(files[database.NAME], rng, 0, 100)


def flip_many(files, rng):
    return flip(files[database.NAME], rng, 0, 1 << 40, 16)


def zero_page(files, rng):
    at = page(files[database.NAME], rng)
    files[database.NAME][at:at + PAGE] = bytes(PAGE)
    return f"page at {at} zeroed"


def garbage_page(files, rng):
    at = page(files[database.NAME], rng)
    files[database.NAME][at:at + PAGE] = rng.randbytes(PAGE)
    return f"page at {at} is garbage"


def swap_pages(files, rng):
    db = files[database.NAME]
    a, b = page(db, rng), page(db, rng)
    db[a:a + PAGE], db[b:b + PAGE] = db[b:b + PAGE], db[a:a + PAGE]
    return f"pages at {a} and {b} exchanged"


def truncate(files, rng):
    size = rng.randrange(len(files[database.NAME]))
    del files[database.NAME][size:]
    return f"cut to {size} bytes"


def truncate_to_pages(files, rng):
    size = page(files[database.NAME], rng)
    del files[database.NAME][size:]
    return f"cut to {size} bytes"


def longer(files, rng):
    files[database.NAME] += rng.randbytes(rng.randrange(1, 20_000))
    return "garbage behind the end"


def empty(files, _):
    files[database.NAME].clear()
    return "no byte left"


def random_bytes(files, rng):
    files[database.NAME][:] = rng.randbytes(len(files[database.NAME]))
    return "random bytes"


def foreign(files, rng):
    files[database.NAME][:] = other_database(rng)
    return "the database of something else"


def directory(files, _):
    files[database.NAME] = None
    return "a directory in its place"


def wal_flip(files, rng):
    return "WAL: " + flip(files[WAL], rng, 0, 1 << 40)


def wal_flip_header(files, rng):
    return "WAL: " + flip(files[WAL], rng, 0, 56)


def wal_truncate(files, rng):
    size = rng.randrange(len(files[WAL]))
    del files[WAL][size:]
    return f"WAL cut to {size} bytes"


def wal_missing(files, _):
    del files[WAL]
    return "no WAL"


def wal_zero_frame(files, rng):
    at = 32 + rng.randrange((len(files[WAL]) - 32) // (PAGE + 24)) * (PAGE + 24)
    files[WAL][at:at + PAGE + 24] = bytes(PAGE + 24)
    return f"WAL frame at {at} zeroed"


def wal_foreign(files, rng):
    files[WAL][:] = other_database(rng, "-wal")
    return "the WAL of something else"


def wal_random(files, rng):
    files[WAL][:] = rng.randbytes(rng.randrange(1, 60_000))
    return "WAL of random bytes"


def shm_garbage(files, rng):
    files[SHM] = bytearray(rng.randbytes(32768))
    return "garbage in the index of the WAL"


def shm_cut(files, rng):
    files[SHM] = bytearray(rng.randbytes(rng.randrange(0, 300)))
    return "the index of the WAL is cut"


WAL, SHM = database.NAME + "-wal", database.NAME + "-shm"
F10 = [flip_anywhere] * 4 + [flip_header, flip_many, zero_page, zero_page, garbage_page, swap_pages, truncate,
                             truncate_to_pages, longer, empty, random_bytes, foreign, directory]
F11 = [wal_flip] * 4 + [wal_flip_header, wal_truncate, wal_missing, wal_zero_frame, wal_foreign, wal_random,
                        shm_garbage, shm_cut]


def other_database(rng, suffix=""):
    """Some other program's file, in the middle of its work."""
    with scene.Scratch("other", memory=True) as place, contextlib.closing(sqlite3.connect(place / "x")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE bookmark (id INTEGER PRIMARY KEY, url TEXT)")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.executemany("INSERT INTO bookmark (url) VALUES (?)", [(f"https://{rng.random()}",) for _ in range(200)])
        db.commit()
        return (place / ("x" + suffix)).read_bytes()


def names(db):
    """What has no checksum and is asked for by its name: the schema, what the file says of itself, and the rules that
    tickets are of. Nothing where a table is not there."""
    schema = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2").fetchall()
    try:
        return (schema, db.execute("SELECT key, value FROM meta ORDER BY 1").fetchall(),
                db.execute("SELECT rule FROM ticket UNION SELECT name FROM rule ORDER BY 1").fetchall())
    except sqlite3.OperationalError:
        return None


# One try


class Try:
    """A damaged copy and otrelay on it."""

    def __init__(self, base, seed, fault, number, directory):
        self.base, self.directory = base, directory / f"{fault}-{number}"
        rng = random.Random(f"{seed}:{fault}:{number}")
        kinds = F10 if fault == "F10" else F11
        kind = kinds[number % len(kinds)]
        self.with_wal = fault == "F11" or rng.random() < 0.3
        files = {name: bytearray(content) for name, content in (base.files if self.with_wal else base.flat).items()}
        files.pop(SHM, None)
        self.what = f"{kind.__name__}: {kind(files, rng)}{', with its WAL' if self.with_wal else ''}"
        self.directory.mkdir()
        look = self.directory / "look"
        look.mkdir()
        self.lay(files, look)
        self.sound = self.is_sound(look, base.names)
        shutil.rmtree(look)
        self.simulator = scene.Simulator(self.directory, seed)
        self.agent = scene.Agent(self.directory, self.simulator.url, base.agent.name, base.eve)
        self.lay(files, self.agent.state)

    @staticmethod
    def lay(files, place):
        for name, content in files.items():
            if content is None:
                (place / name).mkdir()
            else:
                (place / name).write_bytes(content)

    @staticmethod
    def is_sound(place, expected):
        """True: all right. False: SQLite says that it is damaged. None: pages are right and a row or a name is not."""
        try:
            with contextlib.closing(sqlite3.connect(place / database.NAME)) as db:
                # A flipped bit may leave no text, even in a comment of the schema, of which SQLite says nothing.
                db.text_factory = lambda text: text.decode(errors="surrogateescape")
                if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                    return False
                is_named = names(db) == expected
        except (sqlite3.Error, UnicodeError):
            return False
        if not is_named:
            return None
        something = database.Promised()
        something.new = 1
        return True if not database.judge(place, something).wrong else None

    def run(self):
        for record in self.base.records:
            self.simulator.put(json.dumps(record).encode())
        began = time.monotonic()
        service = self.agent.serve(repairs=REPAIRS)
        took = time.monotonic() - began
        service.send_signal(signal.SIGTERM)
        if service.wait(timeout=PATIENCE) not in (scene.OK, scene.IO):
            raise scene.Failed(f"the service ended with {service.returncode}")
        self.agent.drain(PATIENCE, with_dead=True, repairs=REPAIRS)
        aside = sorted(p.name for p in self.agent.state.iterdir() if ".corrupt-" in p.name)
        code, told = self.agent.status()
        if code != scene.OK:
            raise scene.Failed(f"`status` ended with {code}")
        unreadable = self.check_tickets(told)
        heals = told.get("repairs") or []
        if bool(aside) != bool(heals):
            raise scene.Failed(f"set aside {aside}, and told {heals}")
        if self.sound is False and not aside:
            raise scene.Failed("SQLite finds it damaged, and nothing is set aside")
        if self.sound is True and aside and "flip_header" not in self.what:
            raise scene.Failed(f"nothing is wrong with it, and it is set aside: {heals}")
        after = database.judge(self.agent.state, database.Promised()).wrong
        if self.sound is None and not aside:
            # A row of something that is done with is not read again, and so not found out; how often it was seen may be
            # what was hit, or for which alerts a pack of bodies is, or which attempt an outcome of the history is of.
            unseen = ("checksum", "sightings were counted", "alerts have no body", database.OUTCOMES)
            after = [text for text in after if not text.endswith(unseen) and not text.startswith("the counter of ")]
        if aside:
            after = database.after_salvage(after)
        if after:
            raise scene.Failed(f"afterwards: {'; '.join(after)}")
        self.check_counts(heals)
        return took, bool(aside), unreadable

    def check_tickets(self, told):
        """All have one; those that the instance had refused may still be dead, and are told then. So are alerts whose body
        cannot be read where SQLite sees no damage: gives how many."""
        dead = told["dead"]
        have = {row["correlation_id"] for row in self.simulator.records()}
        missing = {n for n in self.base.all if scene.keys(self.agent.name, n)[0] not in have}
        unreadable = missing - set(range(DELIVERED, DELIVERED + DEAD))
        if len(missing) > dead or unreadable and self.sound is not None:
            raise scene.Failed(f"{len(missing)} alerts have no ticket, {dead} are told as dead: "
                               f"{scene.some_of(scene.title(n) for n in missing)}")
        scene.judge(self.simulator, self.base.all - missing, self.agent.name)
        return len(unreadable)

    def check_counts(self, heals):
        """What is salvaged and what is lost is what there was, unless nothing could be read of a table. Then only the tickets
        say that all was read again."""
        for heal in heals:
            for table, counter in (("alert", "alerts"), ("delivery", "deliveries")):
                had = len(self.base.written)
                count = heal["counts"].get(table, {})
                total = count.get("salvaged", 0) + count.get("lost", 0)
                # A flipped key makes a row of itself that was never there: one more that is told as lost.
                more = 16 if self.what.startswith("flip_many") else 0
                if count and not count.get("at_least") and not self.with_wal and not had <= total <= had + more \
                        and total != self.counted(heal, counter):
                    raise scene.Failed(f"of {had} rows of {table}, {count} are told")

    def counted(self, heal, counter):
        """What the damaged database itself says that there was: a counter has no checksum, and may be what was hit."""
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.agent.state / heal['kept_as']}?mode=ro", uri=True)) as db:
                # What is planned will be deliveries.
                sql = "SELECT value FROM counter WHERE scope = 'store' AND name = ?"
                planned = db.execute(sql, ("planned",)).fetchone() if counter == "deliveries" else None
                return db.execute(sql, (counter,)).fetchone()[0] + (planned[0] if planned else 0)
        except (sqlite3.Error, UnicodeError, TypeError):
            return None


def one(task):
    base, seed, fault, number, directory = task
    attempt = None
    try:
        attempt = Try(base, seed, fault, number, directory)
        took, aside, unreadable = attempt.run()
    except Exception as e:
        what = attempt.what if attempt else "?"
        log = scene.tail(attempt.agent.log, 12) if attempt else ""
        return fault, number, f"{what}: {type(e).__name__}: {e}\n{log}", 0, False, 0
    finally:
        if attempt:
            attempt.simulator.stop()
    shutil.rmtree(attempt.directory, ignore_errors=True)
    return fault, number, None, took, aside, unreadable


def main():
    scene.binary()
    seed = int(os.environ.get("SEED") or random.randrange(1, 1_000_000))
    count = int(os.environ.get("DATABASES") or 400)
    tasks = [("F10", n) for n in range(count * 3 // 4)] + [("F11", n) for n in range(count - count * 3 // 4)]
    if os.environ.get("CASE"):
        fault, _, number = os.environ["CASE"].partition(":")
        tasks = [(fault, int(number))]
    print(f"corrupt: seed {seed}, {len(tasks)} databases", flush=True)
    began = time.monotonic()
    with scene.Scratch("corrupt") as files, scene.Scratch("corrupt", memory=True) as directory:
        base = Base(files, seed)
        with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("AT_ONCE") or 8)) as pool:
            done = list(pool.map(one, [(base, seed, *task, directory) for task in tasks]))
        wrong = [d for d in done if d[2]]
        for fault, number, text, *_ in wrong[:20]:
            print(f"{text}\nagain:  SEED={seed} CASE={fault}:{number} tests/corrupt.sh", file=sys.stderr)
        if wrong:
            raise scene.Failed(f"{len(wrong)} of {len(done)} databases are not handled as they must be")
    for fault in ("F10", "F11"):
        these = [d for d in done if d[0] == fault]
        if these:
            print(f"{fault}: {len(these)} damaged databases: none lost, none doubled, {sum(d[4] for d in these)} set aside, "
                  f"{sum(d[5] for d in these)} alerts told as dead letters because their row is damaged; "
                  f"answers after at most {max(d[3] for d in these):.1f} s; seed {seed}, {time.monotonic() - began:.0f} s",
                  flush=True)


if __name__ == "__main__":
    try:
        main()
    except scene.Failed as error:
        print(f"FAILED: {error}", file=sys.stderr)
        sys.exit(1)
