#!/bin/sh
# All faults that the program has to survive, one after the other, with a table at the end; in CI in a few minutes. What
# they are stands in faults/table.py and in the headers of the scripts that it names.
#
#   OTRELAY=target/release/otrelay tests/faults.sh [images kill ...]
#   tests/faults.sh --long       2 000 kills, 200 000 power-cut images, 10 000 damaged databases; writes docs/faults-report.md
#
# Needs Python 3 and strace. SEED makes all of them the same again; KEEP keeps what they made.
set -eu
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/faults/table.py" "$@"
