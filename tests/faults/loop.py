"""An agent whose state directory is a file system of its own on a loop device: the frame of what needs root.

Where root, a tool or loop devices are missing it says so, and nothing is tried.
"""

import fcntl
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys

import scene

SECTOR = 512
# XFS_IOC_GOINGDOWN and EXT4_IOC_SHUTDOWN; nothing is written any more, not even the log.
SHUT_DOWN, NO_LOG_FLUSH = 0x8004587D, 2


class Disk:
    """A file as a block device with a file system, and what was written to it."""

    EXT4 = ("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0")
    BTRFS = ("mkfs.btrfs", "-q")
    XFS = ("mkfs.xfs", "-q")

    def __init__(self, directory, make=EXT4, size=320 << 20, whole=False):
        """`make`: nothing where the image is there. `whole`: without holes."""
        self.image = directory / "disk"
        if make:
            with open(self.image, "wb") as file:
                file.truncate(size)
            run(*make, str(self.image))
            if whole:
                self.fill_holes()
        self.device = run("losetup", "--show", "-f", str(self.image)).strip()
        self.place = None

    def fill_holes(self):
        with open(self.image, "r+b") as file:
            while piece := file.read(1 << 20):
                file.seek(-len(piece), os.SEEK_CUR)
                file.write(piece)

    def mount(self, place):
        run("mount", "-o", "noatime", self.device, str(place))
        self.place = place
        place.chmod(0o700)

    def written(self):
        run("sync", "-f", str(self.place))
        stat = pathlib.Path(f"/sys/block/{pathlib.Path(self.device).name}/stat").read_text().split()
        return int(stat[6]) * SECTOR

    def shut_down(self):
        """The file system takes and gives nothing any more, as when its journal cannot be written."""
        handle = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUT_DOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def unmount(self):
        run("umount", str(self.place))
        self.place = None

    def close(self):
        if self.place:
            # Lazily: what a case left behind must not keep the device.
            run("umount", "-l", str(self.place))
        run("losetup", "-d", self.device)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise scene.Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def missing(make):
    """Why it cannot be tried here; nothing where it can."""
    if os.geteuid():
        return "it needs root"
    lacks = [tool for tool in ("losetup", "mount", make[0]) if not shutil.which(tool)]
    return f"it needs {' and '.join(lacks)}" if lacks else None


def on_disk(name, make, body):
    """What `body` says of an agent, a simulator and a disk for its state directory, which it mounts; or why it was left out."""
    if why := missing(make):
        return False, f"left out, {why}"
    with scene.Scratch(name) as directory:
        try:
            disk = Disk(directory, make)
        except scene.Failed as e:
            return False, f"left out, no loop device or no such file system here ({e})"
        simulator = scene.Simulator(directory, seed())
        try:
            return True, body(scene.Agent(directory / "agent", simulator.url), simulator, disk)
        finally:
            simulator.stop()
            disk.close()


def seed():
    return int(os.environ.get("SEED") or random.randrange(1, 1_000_000))


def main(name, what, make, body):
    """One script of one case."""
    scene.binary()
    try:
        tried, said = on_disk(name, make, body)
        print(f"{name}: {said}" if tried else f"{name}: 0 {what}: {said}")
    except scene.Failed as e:
        print(f"FAILED: {e}", file=sys.stderr)
        sys.exit(1)
