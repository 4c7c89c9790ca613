"""Real runs of otrelay under strace: what power-cut images are made of.

A recording is a directory: the traces of all runs on one state directory, the files of the source as they were at the
end, and what was written into them. It can be kept and judged again, image by image, by another run of images.py.
"""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import threading
import time

import cases
import database
import disk
import scene
import trace

TICKETS_LOST = f"commit-drop:rate=0.3,method=POST,path=/api/now/table/{scene.TABLE}"
SMALL = '\n[buffer]\nmax_size = "8MiB"\nwhen_full = "refuse"\n'


class Recorder:
    """Makes a recording: starts, stops and asks the agent while strace looks on."""

    def __init__(self, directory, name, seed, fault=None, more="", pad=0, repeats=True):
        self.directory, self.name, self.seed = directory / name, name, seed
        self.directory.mkdir()
        self.rng = random.Random(f"{seed}:{name}")
        self.simulator = scene.Simulator(self.directory, seed, fault)
        self.agent = scene.Agent(self.directory, self.simulator.url, more=more)
        self.feeder = scene.Feeder(self.agent.eve, self.rng, pad=pad, repeats=repeats)
        self.more, self.traces, self.process, self.pid = more, [], None, None
        self.promises = {"new": 0, "delivered": 0, "posts": []}
        self.over = threading.Event()

    def start(self, *arguments):
        path = self.directory / f"trace-{len(self.traces)}"
        self.traces.append(path.name)
        self.process = self.agent.start(*arguments, before=["strace", *trace.OPTIONS, "-o", str(path)])

    def once(self):
        self.start("run", "--once")
        code = self.process.wait(timeout=120)
        if code == scene.IO and self.name == "heal":
            # It met damage, which the next one repairs.
            return self.once()
        if code not in (scene.OK, scene.TRY_LATER):
            raise scene.Failed(f"recording {self.name}: `run --once` ended with {code}")
        return code

    def serve(self):
        path = self.directory / f"trace-{len(self.traces)}"
        self.traces.append(path.name)
        self.process = self.agent.serve(before=["strace", *trace.OPTIONS, "-o", str(path)])
        self.pid = cases.child(self.process)

    def stop(self, how):
        if self.pid:
            os.kill(self.pid, how)
        self.process.wait(timeout=60)

    def poll(self, seconds):
        """Asks for the status again and again: each answer is a promise."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.over.is_set():
            self.agent.ask("status")
            time.sleep(0.03)

    def until_taken(self):
        """What is written by now. A file that is renamed before it was ever seen is nobody's to find."""
        self.agent.until_taken(len(self.feeder.written))

    def feed(self, count):
        for _ in range(count):
            self.feeder.some()

    def close(self):
        self.over.set()
        if self.process and self.process.poll() is None:
            self.pid = cases.child(self.process)
            self.stop(signal.SIGKILL)
        self.simulator.stop()

    def before(self, delivered):
        """What is on the disk before the first trace, and what had been promised by then."""
        place = self.directory / "before"
        place.mkdir()
        for path in self.agent.state.iterdir():
            if path.is_file() and not trace.VOLATILE.search(path.name):
                shutil.copyfile(path, place / path.name)
        posts = [[row["correlation_id"], json.dumps(row)] for row in self.simulator.records(fields=None)]
        self.promises = {"new": len(self.feeder.written), "delivered": delivered, "posts": posts}

    def save(self):
        (self.directory / "recording.json").write_text(json.dumps({
            "name": self.name, "seed": self.seed, "agent": self.agent.name, "more": self.more,
            "written": sorted(self.feeder.written), "traces": self.traces, "promises": self.promises,
            "truncated": "copytruncate" in self.feeder.rotations}))
        return Recording(self.directory)


class Recording:
    """A recording as it lies there: events, and what the files of the source hold."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        told = json.loads((self.directory / "recording.json").read_text())
        self.name, self.agent, self.more, self.seed = told["name"], told["agent"], told["more"], told["seed"]
        self.written = set(told["written"])
        self.promised = database.Promised()
        self.promised.new, self.promised.delivered = told["promises"]["new"], told["promises"]["delivered"]
        self.promised.posts = [(key, body.encode()) for key, body in told["promises"]["posts"]]
        self.eve = self.directory / "eve"
        files = trace.Files(self.directory / "state")
        before = self.directory / "before"
        self.files = {p.name: p.read_bytes() for p in before.iterdir()} if before.is_dir() else {}
        self.inodes = files.take(self.files)
        for name in told["traces"]:
            files.read(self.directory / name)
        self.events = files.events
        # A file that was truncated no longer holds what was read of it.
        lines = {p.stat().st_ino: ends(p) for p in self.eve.iterdir()}
        # A generation that a rotation left belongs to the pattern of its old name, and is read where it has no cursor.
        in_place = {p.stat().st_ino for pattern in ("eve*.json", "eve*.json.[0-9]*") for p in self.eve.glob(pattern)}
        self.sources = database.Sources(lines, in_place, self.agent)
        # A cursor in a file that was truncated since says nothing of its lines.
        self.sources.exact = not told["truncated"]

    def disk(self):
        return disk.Disk(self.files, self.inodes)


def ends(path):
    """Where each alert of a file ends, and its number."""
    at, found = 0, []
    for line in path.read_bytes().splitlines(keepends=True):
        at += len(line)
        if b'"event_type":"alert"' in line:
            found.append((at, int(json.loads(line)["alert"]["signature"].rpartition(" ")[2])))
    return found


# What is recorded


def first(directory, seed):
    """The first start ever, with files that are there already; sends, stops, starts again with nothing new."""
    r = Recorder(directory, "first", seed)
    try:
        r.feed(20)
        r.serve()
        r.until_taken()
        r.agent.ask("sync")
        r.poll(0.2)
        r.stop(signal.SIGTERM)
        r.feed(10)
        r.serve()
        r.until_taken()
        r.stop(signal.SIGTERM)
        r.feeder.stop()
        return r.save()
    finally:
        r.close()


def load(directory, seed):
    """The service while alerts come, files rotate, somebody asks and syncs; killed, started again, stopped."""
    r = Recorder(directory, "load", seed)
    try:
        r.serve()
        r.feeder.start(per_second=20)
        asking = threading.Thread(target=r.poll, args=(30,))
        asking.start()
        time.sleep(0.3)
        r.until_taken()
        r.agent.ask("sync")
        r.feeder.rotate("rename")
        r.until_taken()
        r.agent.ask("sync")
        time.sleep(0.4)
        r.stop(signal.SIGKILL)
        r.serve()
        r.until_taken()
        r.feeder.rotate("new_name")
        r.agent.ask("sync")
        time.sleep(0.3)
        r.feeder.stop()
        r.until_taken()
        r.stop(signal.SIGTERM)
        r.over.set()
        asking.join()
        return r.save()
    finally:
        r.close()


def lost(directory, seed):
    """Short runs one after the other; answers to creates get lost, files are copied and truncated."""
    r = Recorder(directory, "lost", seed, TICKETS_LOST)
    try:
        r.feed(15)
        r.once()
        r.feed(10)
        r.feeder.rotate("copytruncate")
        r.feed(5)
        r.once()
        r.simulator.mend()
        r.feed(5)
        r.once()
        return r.save()
    finally:
        r.close()


def small(directory, seed):
    """A buffer of 8 MiB that gets tight: delivered findings are forgotten, pages are used again, checkpoints run."""
    # What is forgotten and seen again is new again; without repeats the judge can be strict.
    r = Recorder(directory, "small", seed, more=SMALL, pad=9000, repeats=False)
    try:
        r.serve()
        for _ in range(4):
            r.feed(130)
            r.until_taken()
            r.agent.ask("sync")
            r.poll(0.1)
        r.feed(40)
        r.until_taken()
        r.stop(signal.SIGTERM)
        return r.save()
    finally:
        r.close()


def reload(directory, seed):
    """SIGHUP with a config that is good, and with one that is not, while alerts come in."""
    r = Recorder(directory, "reload", seed)
    try:
        r.feed(10)
        r.serve()
        text = r.agent.config.read_text()
        for changed in (text.replace('name = "everything"', 'name = "all"'), text + "\nnonsense = 1\n", text):
            r.agent.config.write_text(changed)
            os.kill(r.pid, signal.SIGHUP)
            r.feed(10)
            r.until_taken()
        r.agent.ask("sync")
        r.stop(signal.SIGTERM)
        return r.save()
    finally:
        r.close()


def heal(directory, seed):
    """A damaged database is set aside and salvaged; the power may go at any step of that."""
    r = Recorder(directory, "heal", seed)
    try:
        r.feed(20)
        r.agent.drain()
        r.feed(15)
        service = r.agent.serve()
        r.until_taken()
        service.kill()
        service.wait()
        with contextlib.closing(sqlite3.connect(r.agent.state / database.NAME)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            pages = [row[0] for row in db.execute("SELECT rootpage FROM sqlite_master WHERE name IN ('delivery', 'alert')")]
        (r.agent.state / (database.NAME + "-wal")).unlink(missing_ok=True)
        with open(r.agent.state / database.NAME, "r+b") as file:
            file.seek((r.rng.choice(pages) - 1) * 4096)
            file.write(bytes(4096))
        r.before(delivered=20)
        r.once()
        return r.save()
    finally:
        r.close()


def kinds():
    """What can be recorded here."""
    all_kinds = [first, load, lost, small, reload, heal]
    return {k.__name__: k for k in all_kinds}
