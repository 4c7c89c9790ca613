#!/bin/sh
# kill -9 of the whole program at random moments while alerts come in, files rotate and answers get lost; then a judge
# counts tickets: each finding has one, none is missing, none is doubled. What it does stands in faults/kill.py.
#
#   OTRELAY=target/release/otrelay KILLS=100 SEED=1 KEEP=1 tests/kill.sh
#
# Needs Python 3. KEEP keeps the directory of the run; after a failure it is kept anyway.
set -eu
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/faults/kill.py"
