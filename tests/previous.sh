#!/usr/bin/env bash
# The program of the version before this one, for upgrades and the way back: built from the history into target/previous
# and printed as a path. OTRELAY_PREVIOUS names another one instead. Without that commit in the history (a shallow clone)
# it says so and ends with 3; whoever asked then does without.
set -euo pipefail
cd "$(dirname "$0")/.."
FIRST=05500a0 # version 0.1.0, schema 1

if [ -n "${OTRELAY_PREVIOUS:-}" ]; then
    realpath "$OTRELAY_PREVIOUS"
    exit
fi
kept=$PWD/target/previous/otrelay-$FIRST
if [ ! -x "$kept" ]; then
    git cat-file -e "$FIRST^{commit}" 2>/dev/null || { echo "the history has no $FIRST" >&2; exit 3; }
    tree=$(mktemp -d)
    trap 'rm -rf "$tree"' EXIT
    git archive "$FIRST" | tar -x -C "$tree"
    # The libraries are built already; the program of then must not stay where today's belongs.
    export CARGO_TARGET_DIR=$PWD/target
    (cd "$tree" && cargo build --locked --quiet) >&2
    mkdir -p target/previous
    mv target/debug/otrelay "$kept"
fi
echo "$kept"
