"""The packages that the suite installs: today's .deb, and the version before it made of it."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


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


def previous(deb, directory):
    """Today's package with a lower version: no version with another schema was released."""
    tree = unpacked(deb, directory / "previous")
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    version = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("Version:"))
    lines = [f"Version: {version}~previous" if line.startswith("Version:") else line for line in lines]
    control.write_text("\n".join(lines) + "\n")
    out = directory / "previous.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(tree), str(out)], check=True,
                   capture_output=True)
    return out
