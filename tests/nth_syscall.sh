#!/bin/sh
# kill -9 at the N-th system call that matters, for one N after the other; the same judge as kill.sh. What it does stands
# in faults/nth_syscall.py.
#
#   OTRELAY=target/release/otrelay POINTS=340 SEED=1 tests/nth_syscall.sh
#   CALL=fdatasync AT=3 tests/nth_syscall.sh     one point alone
#
# Needs Python 3 and strace; without a usable strace it says so and passes.
set -eu
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/faults/nth_syscall.py"
