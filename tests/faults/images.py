"""Power cuts: real runs of otrelay are replayed onto a disk that forgets what was not synced (disk.py), and what such a
disk may hold is judged (database.py): thousands of images fast, some of them by starting otrelay on them.

Called by tests/images.sh. An image is named by recording, event and number; the same seed makes the same image of the
same recording. After a failure the recordings are kept, and the line that is printed judges that image again.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import math
import multiprocessing
import os
import random
import shutil
import sys
import threading
import time

import database
import record
import scene
import trace

# Requests that may be on their way at once (max_in_flight): of the last ones nobody knows whether they arrived.
IN_FLIGHT = 2
BALLAST = "ballast"


def image_rng(seed, recording, event, number):
    return random.Random(f"{seed}:{recording.name}:{event}:{number}")


def lay(image, directory):
    """Writes an image down as a state directory."""
    for path, content in image.items():
        place = directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def replay(recording, upto):
    """The disk and the promises after so many events."""
    disk, promised = recording.disk(), recording.promised.copy()
    for event in recording.events[:upto]:
        disk.apply(event)
        promised.take(event)
    return disk, promised


def plan(recording, count, rng):
    """Which images: events at random, numbers in order."""
    often = collections.Counter(rng.randint(0, len(recording.events)) for _ in range(count))
    return sorted((event, number) for event, n in often.items() for number in range(n))


def digest(image):
    total = hashlib.blake2b(digest_size=16)
    for path, content in sorted(image.items()):
        total.update(f"{path} {len(content)} ".encode())
        total.update(content)
    return total.digest()


def sweep(recording, images, seed, scratch, enough=20):
    """Judges images in the order of their events. Gives those that are wrong, and a checksum of each. The same image with
    the same promises gets the verdict that it had."""
    disk, promised = recording.disk(), recording.promised.copy()
    at, wrong, sums, verdicts = 0, [], set(), {}
    for event, number in images:
        for happened in recording.events[at:event]:
            disk.apply(happened)
            if promised.take(happened):
                verdicts.clear()
        at = event
        image = disk.image(image_rng(seed, recording, event, number))
        # Space held in reserve, of which only the size counts: large to write and nothing to judge.
        image.pop(BALLAST, None)
        total = digest(image)
        sums.add(total)
        if total not in verdicts:
            verdicts[total] = verdict(image, scratch / f"{recording.name}-{event}-{number}", promised, recording.sources)
        if verdicts[total]:
            wrong.append((event, number, verdicts[total]))
            if len(wrong) >= enough:
                break
    return wrong, sums


def verdict(image, place, promised, sources):
    place.mkdir()
    lay(image, place)
    found = database.judge(place, promised, sources)
    shutil.rmtree(place)
    return found.wrong


# Of the processes that judge: they get it by being forked, since a recording is large.
JUDGED = []


def worker(task):
    index, images, seed, scratch = task
    return sweep(JUDGED[index], images, seed, scratch)


def processes():
    """That judge at once: one for each core that there is, or as many as JUDGES says."""
    return int(os.environ.get("JUDGES") or len(os.sched_getaffinity(0)))


def judge_all(recordings, counts, seed, scratch):
    """All images of all recordings, on all cores. Gives (recording, event, number, what) of the wrong ones, their count
    and how many are different ones."""
    tasks = []
    for index, recording in enumerate(recordings):
        images = plan(recording, counts[recording.name], random.Random(f"{seed}:{recording.name}"))
        size = max(50, len(images) // 8 + 1)
        tasks += [(index, images[n:n + size], seed, scratch) for n in range(0, len(images), size)]
    wrong, sums = [], collections.defaultdict(set)
    JUDGED[:] = recordings
    with multiprocessing.get_context("fork").Pool(processes()) as pool:
        for task, (bad, found) in zip(tasks, pool.imap(worker, tasks)):
            wrong += [(recordings[task[0]], *w) for w in bad]
            sums[task[0]] |= found
    return wrong, sum(len(t[1]) for t in tasks), sum(len(s) for s in sums.values())


# otrelay itself on an image


class Restart:
    """otrelay on an image, and a ServiceNow that has what had been sent to it."""

    def __init__(self, recording, event, number, seed, directory, image=None, promised=None):
        self.directory = directory
        disk, known = (None, promised) if image is not None else replay(recording, event)
        self.rng = image_rng(seed, recording, event, number)
        self.image, self.promised = (image if image is not None else disk.image(self.rng)), known
        self.recording = recording
        directory.mkdir()
        # What was delivered by the image arrived; of the others the last ones may not have.
        look = directory / "look"
        look.mkdir()
        lay(self.image, look)
        self.found = database.judge(look, self.promised, recording.sources)
        shutil.rmtree(look)
        self.simulator = scene.Simulator(directory, seed)
        self.agent = scene.Agent(directory, self.simulator.url, recording.agent, recording.eve, recording.more)
        lay(self.image, self.agent.state)

    def send(self):
        posts, dice = self.promised.posts, random.Random(self.rng.random())
        # What was sent before the first trace has been answered.
        answered = len(self.recording.promised.posts)
        for n, (key, body) in enumerate(posts):
            last = n >= max(answered, len(posts) - IN_FLIGHT)
            if last and key not in self.found.delivered and dice.random() < 0.5:
                continue
            self.simulator.put(body)

    def run(self, traced=False):
        """Drains and judges. Gives the trace of the first run, if it was to be traced."""
        self.send()
        path = self.directory / "trace-0"
        if traced:
            process = self.agent.start("run", "--once", before=["strace", *trace.OPTIONS, "-o", str(path)])
            code = process.wait(timeout=120)
            if code not in (scene.OK, scene.TRY_LATER, scene.IO):
                raise scene.Failed(f"`run --once` on the image ended with {code}")
        self.agent.drain(repairs=3 if self.recording.name.startswith(HEAL) else 0)
        scene.judge(self.simulator, self.recording.sources.expected(self.found), self.recording.agent)
        aside = [p.name for p in self.agent.state.iterdir() if ".corrupt-" in p.name]
        if aside and not self.recording.name.startswith(HEAL):
            raise scene.Failed(f"a power cut was taken for damage: {aside}")
        healing = self.recording.name.startswith(HEAL)
        after = database.judge(self.agent.state, database.Promised() if healing else self.promised).wrong
        if healing:
            after = database.after_salvage(after)
        if after:
            raise scene.Failed(f"after the restart: {'; '.join(after)}")
        return path

    def close(self):
        self.simulator.stop()


def restart(recording, event, number, seed, scratch, image=None, promised=None, traced=False):
    """What is wrong with it, or nothing; and the recording of the recovery when it was traced."""
    name = f"restart-{recording.name}-{event}-{number}"
    directory, one = scratch / name, None
    try:
        one = Restart(recording, event, number, seed, directory, image, promised)
        path = one.run(traced)
        recovery = Recovery(one, path, event, number) if traced else None
    except (scene.Failed, trace.Unknown) as e:
        log = scene.tail(one.agent.log, 8) if one else ""
        return f"{e}\n{log}", None
    finally:
        if one:
            one.close()
    shutil.rmtree(directory, ignore_errors=True)
    return None, recovery


class Recovery:
    """A run on an image as a recording of its own: the power goes again."""

    def __init__(self, one, path, event, number):
        self.name = f"{one.recording.name}@{event}.{number}"
        self.agent, self.more, self.eve, self.written = (
            one.recording.agent, one.recording.more, one.recording.eve, one.recording.written)
        self.sources, self.promised, self.files = one.recording.sources, one.promised, one.image
        files = trace.Files(one.agent.state)
        self.inodes = files.take(self.files)
        files.read(path)
        self.events = files.events

    disk = record.Recording.disk


# The whole


# Images of one set of recordings.
PART = 20_000


class Budget:
    """How many of what in one round. By default what CI runs."""

    def __init__(self, seed, images):
        self.seed, self.images = seed, images
        self.restarts = int(os.environ.get("RESTARTS") or min(200, max(images // 25, 1)))
        self.recoveries = int(os.environ.get("RECOVERIES") or max(min(images // 10, 1000), 1))
        # Runs of which the recovery is cut off, too.
        self.traced = max(4, min(self.restarts // 10, 20))
        self.at_once = int(os.environ.get("AT_ONCE") or 16)


# How many of a hundred images each recording gives: large ones are slow to judge, short ones are soon exhausted.
SHARES = {"first": 25, "load": 40, "lost": 25, "small": 10, "reload": 10}


# A damaged database is no database to be judged: only starts show what otrelay makes of it.
HEAL = "heal"


def shares(recordings, count):
    total = sum(SHARES.get(r.name, 0) for r in recordings)
    return {r.name: math.ceil(count * SHARES.get(r.name, 0) / total) for r in recordings}


def recorded(directory, seed, kinds):
    recordings = []
    for kind in kinds:
        recording = kinds[kind](directory, seed)
        recordings.append(recording)
        posts = sum(e[0] == "post" for e in recording.events)
        told = sum(e[0] == "status" for e in recording.events)
        print(f"  {kind}: {len(recording.events)} events, {sum(e[0] == 'sync' for e in recording.events)} syncs, "
              f"{posts} sends, {told} answers, {len(recording.written)} findings", flush=True)
    return recordings


def restarts(recordings, budget, scratch):
    """otrelay on images of the short recordings. Gives what is wrong and the traced recoveries."""
    jobs, rng = [], random.Random(budget.seed)
    usable = [r for r in recordings if r.name != "small"]
    for n in range(budget.restarts):
        recording = usable[n % len(usable)]
        jobs.append((recording, rng.randint(0, len(recording.events)), 1_000_000 + n, n < budget.traced))
    wrong, recoveries, lock = [], [], threading.Lock()

    def one(job):
        recording, event, number, traced = job
        bad, recovery = restart(recording, event, number, budget.seed, scratch, traced=traced)
        with lock:
            if bad:
                wrong.append((recording, event, number, [bad]))
            if recovery:
                recoveries.append(recovery)

    with concurrent.futures.ThreadPoolExecutor(budget.at_once) as pool:
        list(pool.map(one, jobs))
    return wrong, recoveries


def again(recoveries, budget, scratch):
    """Images of recoveries: judged, and a few of them started once more."""
    whole = [r for r in recoveries if not r.name.startswith(HEAL)]
    counts = {r.name: max(1, budget.recoveries // len(whole)) for r in whole}
    wrong, images, different = judge_all(whole, counts, budget.seed, scratch)
    for n, recovery in enumerate(recoveries[:8]):
        event = random.Random(budget.seed + n).randint(0, len(recovery.events))
        disk, promised = replay(recovery, event)
        image = disk.image(image_rng(budget.seed, recovery, event, n))
        bad, _ = restart(recovery, event, n, budget.seed, scratch, image, promised)
        if bad:
            wrong.append((recovery, event, n, [bad]))
    return wrong, images, different


class Lying:
    """A disk that does not do one kind of sync."""

    ENDS = {"wal": "-wal", "database": ".db"}

    def __init__(self, recording, deaf):
        names = {inode: path for path, inode in recording.inodes.items()}
        names |= {e[2]: e[1] for e in recording.events if e[0] == "create"}
        self.deaf, self.disk = deaf, recording.disk
        self.events = [e for e in recording.events if not self.ignores(e, names)]
        self.name, self.sources, self.promised = f"{recording.name}-{deaf}", recording.sources, recording.promised

    def ignores(self, event, names):
        if event[0] == "sync-dir":
            return self.deaf in ("all", "directory")
        if event[0] != "sync":
            return False
        return self.deaf == "all" or self.deaf in self.ENDS and names[event[1]].endswith(self.ENDS[self.deaf])


def self_test(recordings, budget, scratch):
    """A judge that never complains is worth nothing: on disks that lie it has to."""
    few = min(200, max(40, budget.images // 50))
    for deaf in ("all", "wal", "database", "directory"):
        lying = [Lying(r, deaf) for r in recordings if r.name in ("first", "load", "lost", "small")]
        wrong, images, _ = judge_all(lying, {r.name: few for r in lying}, budget.seed, scratch)
        if not wrong:
            raise scene.Failed(f"the judge finds nothing wrong with a disk without syncs ({deaf})")
        kinds = collections.Counter(w.split(" ", 1)[-1][:40] for _, _, _, texts in wrong for w in texts)
        print(f"  without syncs ({deaf}): at least {len(wrong)} of {images} images are wrong, as they have to be: "
              f"{', '.join(k for k, _ in kinds.most_common(3))}", flush=True)


def fail(wrong, directory, seed):
    for recording, event, number, texts in wrong[:10]:
        print(f"{recording.name} after event {event}, image {number}: {'; '.join(texts)}", file=sys.stderr)
        base = recording.name.partition("@")[0]
        print(f"again:  SEED={seed} tests/images.sh --recording {directory / base} --image {event}:{number}",
              file=sys.stderr)
    raise scene.Failed(f"{len(wrong)} images are not what they must be")


def one_image(arguments, seed):
    """Judges one image of a kept recording, both ways."""
    recording = record.Recording(arguments.recording)
    event, number = (int(n) for n in arguments.image.split(":"))
    with scene.Scratch("image", memory=True) as scratch:
        wrong, _ = sweep(recording, [(event, number)], seed, scratch)
        bad, _ = restart(recording, event, number, seed, scratch)
    print(f"{recording.name} {event}:{number}: {wrong[0][2] if wrong else 'right'}; started: {bad or 'right'}")
    sys.exit(1 if wrong or bad else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--self-test", action="store_true", help="only show that the judge finds what is wrong")
    parser.add_argument("--recording", help="a kept recording")
    parser.add_argument("--image", help="EVENT:NUMBER of it")
    arguments = parser.parse_args()
    scene.binary()
    seed = int(os.environ.get("SEED") or random.randrange(1, 1_000_000))
    if arguments.image:
        one_image(arguments, seed)
    if not shutil.which("strace"):
        print("images: skipped: strace is not installed")
        return
    images = int(os.environ.get("IMAGES") or 5000)
    # New recordings for each part of a long run: other moments, other order.
    rounds = max(1, images // PART)
    print(f"images: seed {seed}, {images} images in {rounds} rounds", flush=True)
    began, sums = time.monotonic(), collections.Counter()
    for n in range(rounds):
        budget = Budget(seed + n, images // rounds)
        with scene.Scratch("images") as directory, scene.Scratch("images", memory=True) as scratch:
            try:
                recordings = recorded(directory, budget.seed, record.kinds())
                self_test(recordings, budget, scratch)
                if arguments.self_test:
                    print(f"images: the judge sees what it must see; {time.monotonic() - began:.0f} s")
                    return
                sums += run(recordings, budget, directory, scratch)
            except scene.Failed as e:
                print(f"FAILED: {e}\nall again:  SEED={budget.seed} IMAGES={budget.images} tests/images.sh", file=sys.stderr)
                raise
    seeds = f"seed {seed}" + (f" to {seed + rounds - 1}" if rounds > 1 else "")
    print(f"F3: {sums['images']} power-cut images ({sums['different']} different) of {sums['events']} events, otrelay "
          f"started on {sums['starts']} of them: none lost, none doubled, none damaged; {seeds}, {sums['seconds']} s")
    print(f"F4: {sums['again']} images of {sums['recoveries']} recoveries ({sums['again different']} different): none "
          f"lost, none doubled, none damaged; {seeds}, {sums['again seconds']} s", flush=True)


def run(recordings, budget, directory, scratch):
    """One round. Gives its numbers."""
    began = time.monotonic()
    wrong, images, different = judge_all(recordings, shares(recordings, budget.images), budget.seed, scratch)
    bad, recoveries = restarts(recordings, budget, scratch)
    if wrong or bad:
        fail(wrong + bad, directory, budget.seed)
    middle = time.monotonic()
    wrong, again_images, again_different = again(recoveries, budget, scratch)
    if wrong:
        fail(wrong, directory, budget.seed)
    print(f"  seed {budget.seed}: {images} images, {budget.restarts} starts, {again_images} images of recoveries: all right",
          flush=True)
    return collections.Counter({
        "images": images, "different": different, "events": sum(len(r.events) for r in recordings),
        "starts": budget.restarts, "seconds": round(middle - began), "again": again_images, "again different": again_different,
        "recoveries": len(recoveries), "again seconds": round(time.monotonic() - middle)})


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
