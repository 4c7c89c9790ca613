#!/usr/bin/env bash
# packaging/reproduce.sh TARGET: does the same source give the same program? Builds a copy of the tree in another
# directory, with another CARGO_HOME, from nothing, and compares the result with target/dist/TARGET/otrelay, which
# packaging/build.sh made. Ends with 1 when they differ.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"

[ $# = 1 ] || fail "one target: ${TARGETS[*]}"
first=$DIST/$1/otrelay
[ -x "$first" ] || fail "no program to compare with: run packaging/build.sh $1"
place=$(mktemp -d "${TMPDIR:-/tmp}/otrelay-second-build.XXXXXX")
trap 'rm -rf "$place"' EXIT
tree=$place/a/longer/way/down/tree
mkdir -p "$tree/target" "$place/cargo/registry"
if git rev-parse --git-dir >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree"
else
    tar -c --exclude=./target . | tar -x -C "$tree"
fi
# What was fetched is taken along; what was unpacked from it is unpacked again, in another place.
home=${CARGO_HOME:-$HOME/.cargo}
# With the lock that cargo takes while it fetches, as another one may do so right now.
copy() {
    for part in registry/index registry/cache config.toml; do
        [ ! -e "$home/$part" ] || cp -a --reflink=auto "$home/$part" "$place/cargo/$part"
    done
}
mkdir -p "$home"
(flock -s 9 && copy) 9<>"$home/.package-cache"
ln -s "$TOOLS" "$tree/target/tools"
CARGO_HOME=$place/cargo "$tree/packaging/build.sh" "$1"
second=$tree/target/dist/$1/otrelay
sha256sum "$first" "$second"
if ! cmp "$first" "$second"; then
    fail "$1: two builds, two programs"
fi
say "$1: two builds, one hash"
