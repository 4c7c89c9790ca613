#!/usr/bin/env bash
# What the service costs on ARM: tests/footprint.sh under qemu's user emulation, for each target. The service itself runs
# emulated; the simulator and the questions to the service are this machine's own program. How the emulator is kept out
# of the figures: tests/footprint/emulated.sh. Ends with 1 when a bound is broken.
#
#   tests/footprint_arm.sh [TARGET…]   both ARM targets, or these; needs what packaging/build.sh made
#   tests/footprint_arm.sh --check     how good is the method? The x86-64 program on this machine, then emulated
#   IDLE=20 ALERTS=200000 PACED=2000   as tests/footprint.sh
#
# --check: an x86-64 guest cannot be given a range of its own (its vsyscall page would be outside), so there all is the
# guest's that is not known as the emulator's; the emulator's allocator is told to keep to its heap, which is. Bounds
# are not looked at: the two are there to be compared.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/../packaging/common.sh"

NATIVE=${NATIVE:-$DIST/$(uname -m)-unknown-linux-musl/otrelay}
[ -x "$NATIVE" ] || fail "no program at $NATIVE: run packaging/build.sh"
command -v qemu-arm-static >/dev/null || apt qemu-user-static
wrapper=$(mktemp "${TMPDIR:-/tmp}/otrelay-emulated.XXXXXX")
trap 'rm -f "$wrapper"' EXIT

# wrap PROGRAM COMMAND…: the wrapper starts the service with COMMAND before PROGRAM, all else natively.
wrap() {
    export OTRELAY=$wrapper PROGRAM=$1
    set -- "${@:2}" "$1"
    {
        echo '#!/bin/sh'
        printf 'case " $* " in\n*" run "*) exec %s "$@" ;;\nesac\nexec %q "$@"\n' "${*@Q}" "$NATIVE"
    } >"$wrapper"
    chmod 755 "$wrapper"
}

# A range far from where Linux puts anything by itself. 32-bit guests have 4 GiB by nature, the others get them.
guest() {
    export EMULATED=$PWD/tests/footprint/emulated.sh GUEST_FROM=$1 GUEST_TO=$2
}

measure() {
    local target=$1 program=$DIST/$1/otrelay base=0x400000000000 size=0x100000000
    [ -x "$program" ] || fail "no program for $target: run packaging/build.sh $target"
    guest $base $((base + size))
    case $target in
    aarch64-*) wrap "$program" qemu-aarch64-static -B $base -R $size ;;
    armv7-*) wrap "$program" qemu-arm-static -B $base ;;
    *) fail "$target is not one for ARM" ;;
    esac
    printf '\n%s, emulated\n' "$target"
    tests/footprint.sh
}

check() {
    [ "$(uname -m)" = x86_64 ] || fail "--check compares x86-64 with itself"
    wrap "$NATIVE"
    printf '\nx86-64, on this machine\n'
    EMULATED='' tests/footprint.sh || true
    guest 0 0
    wrap "$NATIVE" env MALLOC_MMAP_MAX_=0 MALLOC_ARENA_MAX=1 qemu-x86_64-static
    printf '\nx86-64, emulated\n'
    tests/footprint.sh || true
}

if [ "${1:-}" = --check ]; then
    check
    exit
fi
[ $# -gt 0 ] || set -- aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf
failed=
for target; do measure "$target" || failed=yes; done
[ -z "$failed" ]
