"""The packages that the suite installs: today's .deb, and the version before it made of it."""

import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The first version of which a state directory may be somewhere: its schema is 1.
FIRST = "05500a0"


class Missing(Exception):
    """It has to be built first; the text says how."""


def newest(pattern):
    found = sorted((ROOT / "target/dist").glob(pattern), key=lambda p: p.stat().st_mtime)
    return found[-1] if found else None


def today():
    given = os.environ.get("OTRELAY_DEB")
    path = pathlib.Path(given) if given else newest("*_amd64.deb")
    if not path or not path.exists():
        raise Missing("no .deb: build it (packaging/build.sh) or set OTRELAY_DEB")
    return path.resolve()


def tarball():
    given = os.environ.get("OTRELAY_TARBALL")
    path = pathlib.Path(given) if given else newest("otrelay-*-x86_64-*.tar.gz")
    return path.resolve() if path and path.exists() else None


def unpacked(deb, into):
    subprocess.run(["dpkg-deb", "-R", str(deb), str(into)], check=True)
    return into


def first_binary():
    """The program of the version before this one. `None`, with the reason, where there is none."""
    done = subprocess.run([ROOT / "tests/previous.sh"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None, done.stderr.strip()[-300:]
    return pathlib.Path(done.stdout.strip()), "of the version before this one"


def previous(deb, binary, directory):
    """Today's package around the program of then, with a lower version. That program does not speak to systemd, so its unit
    does not expect it to."""
    tree = unpacked(deb, directory / "previous")
    shutil.copy(binary, tree / "usr/bin/otrelay")
    (tree / "usr/bin/otrelay").chmod(0o755)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    version = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("Version:"))
    lines = [f"Version: {version}~previous" if line.startswith("Version:") else line for line in lines]
    control.write_text("\n".join(lines) + "\n")
    unit = next(p for p in (tree / "lib/systemd/system/otrelay.service", tree / "usr/lib/systemd/system/otrelay.service")
                if p.exists())
    text = unit.read_text().replace("Type=notify", "Type=exec").replace("WatchdogSec=60", "WatchdogSec=0")
    unit.write_text(text)
    # The sums would name the files of today.
    (tree / "DEBIAN/md5sums").unlink(missing_ok=True)
    out = directory / "previous.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(tree), str(out)], check=True,
                   capture_output=True)
    return out
