# shellcheck shell=bash
# What scripts share that start programs and wait for them; sourced by them, with bash and `set -euo pipefail`. `work` is a
# directory that goes at the end (KEEP=1 keeps it), and with it the programs whose numbers were put into `pids`.

# shellcheck source=packaging/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../packaging/common.sh"
work=$(mktemp -d)
pids=()
clean() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    if [ -n "${KEEP:-}" ]; then say "kept: $work"; else rm -rf "$work"; fi
}
trap clean EXIT

# until_true WHAT COMMAND…: tries until it succeeds, for PATIENCE tenths of a second.
until_true() {
    local what=$1 left=${PATIENCE:-150}
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "in vain: $what"
        sleep 0.1
    done
}
