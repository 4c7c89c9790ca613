#!/bin/sh
# Damaged databases: copies of a real one, damaged in one place each; the program starts on them, says what is lost and
# delivers the rest. What it does stands in faults/corrupt.py.
#
#   OTRELAY=target/release/otrelay DATABASES=400 SEED=1 KEEP=1 tests/corrupt.sh
#   SEED=1 CASE=F10:17 tests/corrupt.sh     one of them again
#
# Needs Python 3.
set -eu
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/faults/corrupt.py"
