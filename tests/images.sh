#!/bin/sh
# Power cuts: what a disk may hold after real runs of the program, thousands of times, judged; some of them by starting the
# program on them. What it does stands in faults/images.py.
#
#   OTRELAY=target/release/otrelay IMAGES=5000 SEED=1 KEEP=1 tests/images.sh
#   tests/images.sh --self-test                                 the judge has to find what disks lose that do not sync
#   SEED=1 tests/images.sh --recording DIR --image EVENT:NUMBER     one image of a kept recording again
#
# Needs Python 3 and strace; without a usable strace it says so and passes.
set -eu
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/faults/images.py" "$@"
