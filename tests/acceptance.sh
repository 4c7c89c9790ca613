#!/bin/sh
# Your own recorded EVE files through the whole program, against an independent count: for each file and each rule, the
# incidents in the simulator are as many as tests/fixtures/eve/count.py counts distinct findings; a second run creates
# none; with 30 % of the answers lost there are still as many, and none is double.
#
#   OTRELAY=target/release/otrelay tests/acceptance.sh DIRECTORY      (*.json, *.json.gz)
#
# Needs Python 3.
set -eu
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/acceptance/acceptance.py" "$@"
