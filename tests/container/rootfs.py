"""A fresh Debian, made once by debootstrap and kept outside the tree; each run works on an overlay above it.

The mirror is the one that apt on this machine is set up with; there is none in this file. Where apt's sources name no
Debian, debootstrap takes its own default. The directory's name has the suite and a digest of what is in it, so a change
here makes a new one.
"""

import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

SUITE = os.environ.get("OTRELAY_SUITE", "bookworm")
# What a small server has, and nothing that otrelay's package should bring along itself.
PACKAGES = ("systemd", "systemd-sysv", "dbus", "ca-certificates")


class Unavailable(Exception):
    """This machine cannot make it; the text says why. No fault of otrelay."""


def cache():
    base = os.environ.get("XDG_CACHE_HOME") or "/var/cache"
    digest = hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:12]
    return pathlib.Path(base) / "otrelay-rootfs" / f"{SUITE}-{digest}"


def mirror():
    """Of apt's sources, the archive that has the suite; `None` when there is none that may have it."""
    found = []
    for path in sorted(pathlib.Path("/etc/apt").glob("sources.list*")):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            text = file.read_text(errors="replace")
            if file.suffix == ".sources":
                for stanza in re.split(r"\n\s*\n", text):
                    fields = dict(re.findall(r"^(\w[\w-]*):[ \t]*(.+)$", stanza, re.M))
                    if "deb" in fields.get("Types", "").split():
                        found += [(uri, fields.get("Suites", "").split()) for uri in fields.get("URIs", "").split()]
            else:
                for uri, suite in re.findall(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)", text, re.M):
                    found.append((uri, [suite]))
    release = pathlib.Path("/etc/os-release").read_text(errors="replace")
    here = re.search(r"^VERSION_CODENAME=(\w+)$", release, re.M)
    # A mirror of this machine's own Debian has the others as well.
    wanted = [SUITE, here[1]] if here and re.search(r"^ID=debian$", release, re.M) else [SUITE]
    return next((uri for suite in wanted for uri, suites in found if suite in suites and uri.startswith("http")), None)


def proxied():
    """debootstrap fetches by itself and does not know what apt knows about a proxy."""
    environment = dict(os.environ)
    try:
        done = subprocess.run(["apt-config", "dump", "Acquire::http::Proxy"], capture_output=True, text=True, check=False)
        proxy = re.search(r'"(http[^"]+)"', done.stdout)
        if proxy:
            environment.setdefault("http_proxy", proxy[1])
    except OSError:
        pass
    return environment


def install(*packages):
    """Debian's packages of this machine, where it has apt."""
    if not shutil.which("apt-get"):
        raise Unavailable(f"{', '.join(packages)} is missing and there is no apt-get to install it")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        for attempt in (1, 2, 3):
            done = subprocess.run(["apt-get", "-qq", *command], env=environment, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
    if done.returncode != 0:
        raise Unavailable(f"apt-get cannot install {', '.join(packages)}: {done.stderr.strip()[-300:]}")


def tools():
    missing = [package for program, package in (("systemd-nspawn", "systemd-container"), ("debootstrap", "debootstrap"))
               if not shutil.which(program)]
    if missing:
        install(*missing)


def ready():
    """Its directory. Two runs at a time make it once."""
    there = cache()
    there.parent.mkdir(parents=True, exist_ok=True)
    with open(there.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (there / "usr/lib/systemd/systemd").exists():
            return there, False
        making = pathlib.Path(tempfile.mkdtemp(prefix=f"{there.name}.", dir=there.parent))
        making.chmod(0o755)
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(making)]
        source = os.environ.get("OTRELAY_MIRROR") or mirror()
        try:
            done = subprocess.run(command + ([source] if source else []), env=proxied(), capture_output=True, text=True,
                                  check=False)
            if done.returncode != 0:
                log = making / "debootstrap/debootstrap.log"
                more = log.read_text(errors="replace")[-600:] if log.exists() else ""
                raise Unavailable(f"debootstrap ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}{more}")
            # Packages are in the image now; their files would only be copied about.
            shutil.rmtree(making / "var/cache/apt/archives", ignore_errors=True)
            making.rename(there)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return there, True
