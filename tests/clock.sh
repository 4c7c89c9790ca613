#!/bin/sh
# The clock of the machine jumps while the service runs: an hour and ten years back, to 1970, a year ahead, and right
# again, with stops, reloads and restarts in between; then a judge counts tickets. What it does stands in faults/clock.py.
#
#   OTRELAY=target/debug/otrelay RUNS=10 SEED=1 KEEP=1 tests/clock.sh
#
# Needs Python 3, libfaketime (Debian: faketime) and a binary that is linked with the system's C library.
set -eu
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/faults/clock.py"
