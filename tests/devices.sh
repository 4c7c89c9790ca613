#!/bin/sh
# An inventory from a sensor's lines into the CMDB: the first sync tells each device once, the second nothing, and when one
# in a hundred has changed, one in a hundred is told; killed anywhere, by identification and as rows of staging tables, nothing is
# doubled; memory. See faults/inventory.py.
#
#   OTRELAY=target/release/otrelay DEVICES=10000 KILLS=5 SEED=1 tests/devices.sh
#
# Needs Python 3.
set -eu
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/faults/inventory.py"
