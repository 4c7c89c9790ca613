#!/bin/sh
# A full disk, a write that finds no space, a read-only file system: the agent keeps running, says so, and when it is over
# each finding has one ticket. What it does stands in faults/full_disk.py.
#
#   OTRELAY=target/release/otrelay FULL=12 NOSPACE=60 READONLY=4 SEED=1 KEEP=1 tests/full_disk.sh
#   ONLY=full-3 SEED=1 tests/full_disk.sh      one run alone
#
# Needs Python 3, strace and user namespaces (unshare -Urm); where those are refused it says so and passes. No root.
set -eu
script="$(dirname "$0")/faults/full_disk.py"
if why=$(unshare -Urm sh -c 'd=$(mktemp -d) && mount -t tmpfs -o size=1m tmpfs "$d" && umount "$d" && rmdir "$d"' 2>&1); then
    exec env PYTHONDONTWRITEBYTECODE=1 unshare -Urm python3 "$script"
fi
printf '%s\n' '' '*** full_disk: SKIPPED, nothing was tested ***' "this machine refuses unshare -Urm: $why" >&2
