"""The judge of a database that was found after a power cut, or after anything else.

Reads it with Python's own SQLite, which recovers it as otrelay's would, and says what is wrong: pages, rows without what
they hang on, counters that do not add up, checksums, a cursor that is ahead of what it stands for, and what had been
promised to somebody outside and is not there. Which tables have checksums and counters, and over what, stands in
catalog.json, which a unit test keeps as src/store/catalog.rs.
"""

import hashlib
import json
import pathlib
import sqlite3
import struct

import scene

NAME = "queue.db"
CATALOG = json.loads((pathlib.Path(__file__).parent / "catalog.json").read_text())


# CRC-32C, reflected polynomial of Castagnoli.
def _table():
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        yield n


TABLE = list(_table())


def crc32c(content):
    value = 0xFFFFFFFF
    for byte in content:
        value = TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


# Rows repeat from image to image; computing a checksum in Python is slow.
KNOWN = {}


def checksum(numbers, texts):
    content = b"".join(struct.pack("<q", n) for n in numbers)
    for text in texts:
        content += struct.pack("<Q", len(text)) + text
    key = hashlib.blake2b(content, digest_size=16).digest()
    found = KNOWN.get(key)
    if found is None:
        if len(KNOWN) > 200_000:
            KNOWN.clear()
        found = KNOWN[key] = crc32c(content)
    return found


def correlation(fingerprint, generation):
    digest = hashlib.sha256(fingerprint + scene.part(scene.DESTINATION) + scene.part(scene.TABLE)
                            + struct.pack(">I", generation)).hexdigest()
    return "otrelay-" + digest[:32]


class Promised:
    """What had left the program when the power went."""

    def __init__(self):
        self.posts, self.new, self.delivered = [], 0, 0

    def copy(self):
        other = Promised()
        other.posts, other.new, other.delivered = list(self.posts), self.new, self.delivered
        return other

    def take(self, event):
        """Says whether more is promised now."""
        before = len(self.posts), self.new, self.delivered
        if event[0] == "post":
            self.posts.append((event[1], event[2]))
        elif event[0] == "status":
            self.new = max(self.new, event[1]["new"])
            self.delivered = max(self.delivered, event[1]["delivered"])
        return before != (len(self.posts), self.new, self.delivered)

    @property
    def keys(self):
        return {key for key, _ in self.posts}


class Sources:
    """What the source's files hold: for each inode, where which alert ends. `in_place`: the inodes of the files that a
    source finds by their names, rotated ones too; another one it only finds when it knows it."""

    def __init__(self, lines, in_place, agent):
        number = {scene.fingerprint(agent, n): n for ends in lines.values() for _, n in ends}
        prints = {n: f for f, n in number.items()}
        self.number, self.in_place, self.exact = number, in_place, True
        self.lines = {inode: [(end, prints[n]) for end, n in ends] for inode, ends in lines.items()}

    def expected(self, found):
        """The alerts that otrelay has or can find."""
        inodes = self.in_place | found.cursors.keys()
        there = {f for inode in inodes & self.lines.keys() for _, f in self.lines[inode]} | found.fingerprints
        return {self.number[f] for f in there}


class Found:
    """What there was; `wrong` is empty when it is as it must be."""

    def __init__(self):
        self.wrong, self.delivered, self.fingerprints, self.cursors = [], set(), set(), {}


def judge(directory, promised, sources=None):
    found = Found()
    path = pathlib.Path(directory) / NAME
    if not path.exists():
        nothing(found, promised)
        return found
    try:
        db = sqlite3.connect(path)
        db.text_factory = bytes
        try:
            look(db, found, promised, sources)
        finally:
            db.close()
    except (sqlite3.Error, UnicodeError) as e:
        found.wrong.append(f"SQLite: {e}")
    return found


def nothing(found, promised):
    if promised.new or promised.posts:
        found.wrong.append(f"there is no database, and {promised.new} alerts and {len(promised.posts)} sends had left it")


def look(db, found, promised, sources):
    checked = b"; ".join(r[0] for r in db.execute("PRAGMA integrity_check(5)"))
    if checked != b"ok":
        found.wrong.append(f"integrity_check: {checked.decode(errors='replace')}")
        return
    tables = {r[0].decode() for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "delivery" not in tables:
        if tables - {"sqlite_sequence"}:
            found.wrong.append(f"half a schema: {sorted(tables)}")
        nothing(found, promised)
        return
    broken = db.execute("PRAGMA foreign_key_check").fetchall()
    if broken:
        found.wrong.append(f"{len(broken)} rows refer to nothing, the first in {broken[0][0].decode()}")
    tally = {(s.decode(), n.decode()): v for s, n, v in db.execute("SELECT scope, name, value FROM counter")}
    check_checksums(db, found)
    check_counters(db, found, tally)
    alerts = check_alerts(db, found, tally)
    check_tickets(db, found, tally)
    check_promises(db, found, promised, tally, alerts)
    found.cursors = dict(db.execute("SELECT inode, offset FROM cursor"))
    if sources:
        check_cursors(found, sources, alerts, tally)


def total(tally, prefix, name):
    return sum(v for (scope, n), v in tally.items() if scope.startswith(prefix) and n == name)


def forgotten(tally, alerts):
    return total(tally, "source:", "new") - len(alerts)


def check_checksums(db, found):
    for of in CATALOG["checksums"]:
        numbers, texts = of["numbers"], of["texts"]
        rows = db.execute(f"SELECT {', '.join(numbers + texts)}, crc FROM {of['table']}")
        bad = sum(checksum([n or 0 for n in row[:len(numbers)]], [t or b"" for t in row[len(numbers):-1]]) != row[-1]
                  for row in rows)
        if bad:
            found.wrong.append(f"{bad} rows of {of['table']} have a wrong checksum")


def check_counters(db, found, tally):
    for of in CATALOG["counters"]:
        are, counted = db.execute(f"SELECT count(*) FROM {of['table']}").fetchone()[0], tally.get(("store", of["counter"]))
        if are != counted:
            found.wrong.append(f"the counter of {of['table']} says {counted}, and there are {are}")


def check_alerts(db, found, tally):
    """Findings by fingerprint: their id and how often they were seen."""
    alerts, twins = {}, 0
    for key, fingerprint, occurrences in db.execute("SELECT id, fingerprint, occurrences FROM alert"):
        twins += fingerprint in alerts
        alerts[fingerprint] = (key, occurrences)
    found.fingerprints = set(alerts)
    if twins:
        found.wrong.append(f"{twins} fingerprints have more than one alert")
    if forgotten(tally, alerts) < 0:
        found.wrong.append(f"{len(alerts)} alerts, and {total(tally, 'source:', 'new')} were counted as new")
    if forgotten(tally, alerts) == 0:
        seen = sum(n for _, n in alerts.values())
        counted = total(tally, "source:", "alerts") - sum(v for (s, _), v in tally.items() if s.startswith("filtered:"))
        if seen != counted:
            found.wrong.append(f"the alerts were seen {seen} times, and {counted} sightings were counted")
    check_bodies(db, found)
    return alerts


def check_bodies(db, found):
    """Each alert has a body in a pack."""
    has = set()
    for first, last in db.execute("SELECT first_id, last_id FROM body_pack"):
        has.update(range(first, last + 1))
    bare = sum(key not in has for key, in db.execute("SELECT id FROM alert"))
    if bare:
        found.wrong.append(f"{bare} alerts have no body")


# A half transaction after a power cut, and harmless after a database was salvaged: deliveries that were done with are not
# read from a page that is gone, nor outcomes of attempts, and counters of what was done cannot be made again.
OPEN = "open tickets have no delivery"
OUTCOMES = "deliveries lack the outcome of an attempt"
HARMLESS = ("counted", OPEN, OUTCOMES)


def after_salvage(wrong):
    """What is wrong with a database though it is one that was salvaged."""
    return [text for text in wrong if not any(words in text for words in HARMLESS)]


def check_tickets(db, found, tally):
    halves = {
        "alerts have no ticket": "SELECT count(*) FROM alert WHERE route_id IS NULL AND id NOT IN (SELECT alert_id FROM ticket)",
        "waiting tickets have no delivery":
            "SELECT count(*) FROM ticket WHERE state = 'opening' AND id NOT IN (SELECT ticket_id FROM delivery WHERE ticket_id IS NOT NULL)",
        OPEN: "SELECT count(*) FROM ticket WHERE state = 'open' AND id NOT IN (SELECT ticket_id FROM delivery WHERE ticket_id IS NOT NULL)",
        "tickets are open and their delivery is not delivered, or the other way round":
            "SELECT count(*) FROM ticket t JOIN delivery d ON d.ticket_id = t.id"
            " WHERE (t.state = 'open') != (d.state = 'delivered')",
        "findings have more than one live ticket":
            "SELECT count(*) FROM (SELECT 1 FROM ticket WHERE state IN ('opening', 'open') GROUP BY alert_id, route_id"
            " HAVING count(*) > 1)",
        OUTCOMES:
            "SELECT count(*) FROM delivery d WHERE d.attempts > 0 AND NOT EXISTS"
            " (SELECT 1 FROM outcome o WHERE o.id = d.id * 32 + d.attempts % 32 AND o.n = d.attempts)",
    }
    for text, sql in halves.items():
        count = db.execute(sql).fetchone()[0]
        if count:
            found.wrong.append(f"{count} {text}")
    states = deliveries(db)
    # What is claimed counts as pending.
    for these in (("pending", "claimed"), ("dead",)):
        are, counted = sum(states.get(s, 0) for s in these), sum(total(tally, "destination:", s) for s in these)
        if are != counted:
            found.wrong.append(f"{are} deliveries are {' or '.join(these)}, {counted} are counted")


def deliveries(db):
    """How many are in each state. What is planned waits in the row of its alert (src/store/op/plan.rs)."""
    text = lambda s: s.decode() if isinstance(s, bytes) else s  # noqa: E731
    states = {text(s): n for s, n in db.execute("SELECT state, count(*) FROM delivery GROUP BY state")}
    planned = db.execute("SELECT count(*) FROM alert WHERE route_id IS NOT NULL").fetchone()[0]
    if planned:
        states["pending"] = states.get("pending", 0) + planned
    return states


def check_promises(db, found, promised, tally, alerts):
    new, delivered = total(tally, "source:", "new"), total(tally, "destination:", "delivered")
    if new < promised.new:
        found.wrong.append(f"{promised.new} alerts were acknowledged, {new} are there")
    if delivered < promised.delivered:
        found.wrong.append(f"{promised.delivered} deliveries were told, {delivered} are there")
    sent, keys = {}, KEYS
    for fingerprint, generation, state, attempts, doubtful in db.execute(
            "SELECT a.fingerprint, t.generation, d.state, d.attempts, d.doubtful FROM delivery d"
            " JOIN ticket t ON t.id = d.ticket_id JOIN alert a ON a.id = t.alert_id"
            " UNION ALL SELECT fingerprint, 0, CAST('pending' AS BLOB), 0, 0 FROM alert WHERE route_id IS NOT NULL"):
        key = keys.get((fingerprint, generation))
        if key is None:
            key = keys[fingerprint, generation] = correlation(fingerprint, generation)
        sent[key] = state != b"pending" or attempts > 0 or doubtful
        if state == b"delivered":
            found.delivered.add(key)
    missing = [key for key in promised.keys if key not in sent]
    if len(missing) > forgotten(tally, alerts):
        found.wrong.append(f"{len(missing)} records were sent of findings that are not there: {scene.some_of(missing)}")
    unclaimed = [key for key in promised.keys if key in sent and not sent[key]]
    if unclaimed:
        found.wrong.append(f"{len(unclaimed)} records were sent that are not claimed: {scene.some_of(unclaimed)}")


KEYS = {}


def check_cursors(found, sources, alerts, tally):
    """What lies before a cursor has been taken in."""
    seen = {}
    for inode, offset in found.cursors.items():
        for end, fingerprint in sources.lines.get(inode, ()):
            if end > offset:
                break
            seen[fingerprint] = seen.get(fingerprint, 0) + 1
    if forgotten(tally, alerts) > 0 or not sources.exact:
        return
    ahead = [f for f in seen if f not in alerts]
    if ahead:
        found.wrong.append(f"{len(ahead)} findings lie before a cursor and are not there")
    elif (few := [f for f, n in seen.items() if alerts[f][1] < n]):
        found.wrong.append(f"{len(few)} findings were seen less often than their lines before a cursor say")
