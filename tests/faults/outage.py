"""otrelay is down while its files are rotated (F25): what they still hold arrives, what is gone is counted."""

import gzip
import os
import shutil
import signal
import sys

import cases
import scene


def more(case, count=8):
    before = set(case.feeder.written)
    for _ in range(count):
        case.feeder.some()
    return case.feeder.written - before


def rename(case):
    case.feeder.rotate("rename")
    return set()


def copytruncate(case):
    case.feeder.rotate("copytruncate")
    return set()


def copy_elsewhere(case):
    """The copy has a name that the pattern does not lead to; it is found by how it begins."""
    feeder = case.feeder
    shutil.copyfile(feeder.path, feeder.path.with_name("eve.json.1"))
    os.ftruncate(feeder.file.fileno(), 0)
    return set()


def twice(case):
    """Two rotations while nobody looks: the middle file was never seen under a name that the pattern has."""
    case.feeder.rotate("rename")
    more(case)
    case.feeder.rotate("new_name")
    return set()


def packed(case):
    """The old file is renamed, packed and deleted: it is read on in the packed one."""
    new_file(case)
    old = case.feeder.directory / "eve.json.1"
    old.with_name("eve.json.1.gz").write_bytes(gzip.compress(old.read_bytes()))
    old.unlink()
    return set()


def deleted(case):
    lost = unread(case)
    new_file(case)
    (case.feeder.directory / "eve.json.1").unlink()
    return lost


def inode_again(case):
    """The new file has the inode of the old one, as file systems like to do; it must be read from its beginning."""
    lost = unread(case)
    feeder = case.feeder
    feeder.file.close()
    inode = feeder.path.stat().st_ino
    feeder.path.unlink()
    for n in range(200):
        feeder.file = open(feeder.path, "ab", buffering=0)
        if os.fstat(feeder.file.fileno()).st_ino == inode:
            break
        # Kept, so that the next one is another.
        feeder.file.close()
        feeder.path.rename(feeder.directory / f"other.{n}")
    return lost


def truncated(case):
    """Emptied without a copy."""
    lost = unread(case)
    os.ftruncate(case.feeder.file.fileno(), 0)
    return lost


def unread(case):
    """Numbers that are only in the part that was not read."""
    return case.behind


def new_file(case):
    feeder = case.feeder
    feeder.file.close()
    feeder.path.rename(feeder.directory / "eve.json.1")
    feeder.file = open(feeder.path, "ab", buffering=0)


WAYS = {f.__name__.replace("_", " "): f for f in (rename, copytruncate, copy_elsewhere, twice, packed, deleted, inode_again,
                                                  truncated)}


def down(case, label):
    """Reads some, goes down, misses some, the file is rotated, comes up. Gives whether a gap had to be counted."""
    service = case.agent.serve()
    case.agent.until_taken(len(case.feeder.written))
    service.send_signal(signal.SIGTERM)
    service.wait(timeout=60)
    case.behind = more(case)
    lost = WAYS[label](case)
    more(case)
    case.feeder.written -= lost
    if lost:
        # Said once, and not as trouble that lasts.
        case.agent.drain()
        code, told = case.agent.status()
        counted = told["sources"][0]["rejected"]
        if code != scene.OK or sum(counted.values()) != 1:
            raise scene.Failed(f"{len(lost)} alerts are gone, and the gap is counted as {counted}")
        scene.judge(case.simulator, case.feeder.written, case.label)
        case.settle = lambda: None
    return bool(lost)


def main():
    scene.binary()
    cases.run("F25", "outage", list(WAYS), down, lambda gaps: f"{sum(gaps.values())} gaps counted")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed:
        sys.exit(1)
