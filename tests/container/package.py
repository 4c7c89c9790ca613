"""The packages that the suite installs: today's .deb, and the version before it made of it."""

import os
import pathlib
import shutil
import subprocess
import tempfile

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
    """The program as it was at FIRST: given, kept from an earlier run, or built in the tree's own target directory, where
    the dependencies are built already. `None`, with the reason, where that cannot be."""
    given = os.environ.get("OTRELAY_PREVIOUS")
    if given:
        return pathlib.Path(given).resolve(), "given"
    kept = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "otrelay-rootfs" / f"otrelay-{FIRST}"
    if kept.exists():
        return kept, "kept from an earlier run"
    if subprocess.run(["git", "-C", ROOT, "cat-file", "-e", f"{FIRST}^{{commit}}"], capture_output=True, check=False).returncode:
        return None, f"the history has no {FIRST}"
    if not shutil.which("cargo"):
        return None, "there is no cargo"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as tree:
        archive = subprocess.run(["git", "-C", ROOT, "archive", FIRST], stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
        target = ROOT / "target"
        # A binary of that age must not stay where today's belongs; cargo links it again when it is asked next.
        done = subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=tree, capture_output=True, text=True,
                              env={**os.environ, "CARGO_TARGET_DIR": str(target)}, check=False)
        built = target / "debug/otrelay"
        if done.returncode != 0:
            return None, f"it does not build: {done.stderr.strip()[-300:]}"
        shutil.copy(built, kept.with_suffix(".part"))
        built.unlink()
        kept.with_suffix(".part").rename(kept)
    return kept, "built"


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
