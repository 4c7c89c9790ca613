#!/bin/sh
# All faults that the program has to survive, one after the other, with a table at the end; in CI in a few minutes. What
# they are stands in faults/table.py and in the headers of the scripts that it names.
#
#   OTRELAY=target/release/otrelay tests/faults.sh [images kill ...]
#   tests/faults.sh --long       2 000 kills, 200 000 power-cut images, 10 000 damaged databases; writes docs/faults-report.md
#
# The long run is made of parts; each is in the report when it ends, and is not run again. So it may be stopped and begun
# again, and run side by side: three scripts in one call, or two calls at the same time, each on a core of its own.
#
#   tests/faults.sh --long --lanes 3 [--minutes 40] [images kill ...]
#   taskset -c 0 tests/faults.sh --long images & taskset -c 1 tests/faults.sh --long --lanes 2 --without images
#
# Needs Python 3 and strace. SEED makes all of them the same again; KEEP keeps what they made; target/faults has what each
# of them said.
set -eu
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/faults/table.py" "$@"
