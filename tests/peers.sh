#!/bin/sh
# otrelay beside Fluent Bit and rsyslog, where they are installed, on the same file of EVE alerts: CPU, wall time, memory,
# bytes written, of each. What it does, and what is not the same, stands in peers/run.py. Not a part of CI.
#
#   OTRELAY=target/release/otrelay ALERTS=50000 ROUNDS=3 tests/peers.sh
#
# Needs Python 3; rsyslog is Debian's (apt install rsyslog), Fluent Bit its own.
set -eu
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/peers/run.py"
