# shellcheck shell=bash
# What the scripts of this directory share; sourced by them, with bash and `set -euo pipefail`.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Shellcheck cannot see who reads these.
# shellcheck disable=SC2034
TARGETS=(x86_64-unknown-linux-musl aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf)
# shellcheck disable=SC2034
VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
DIST=$PWD/target/dist
TOOLS=$PWD/target/tools
export PATH="$TOOLS/bin:$TOOLS/venv/bin:$PATH"
# Whatever has to have a time gets this one, so that the same tree makes the same files.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null \
        || sed -n 's/^pub const RELEASED_AT.*from_secs(\([0-9_]*\)).*/\1/p' src/clock.rs | tr -d _)
fi
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
umask 022

say() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

# Registries and mirrors are away for a moment now and then.
retry() {
    local left
    for left in 3 2 1 0; do
        "$@" && return
        [ "$left" = 0 ] || sleep $((20 - 5 * left))
    done
    return 1
}

# apt PACKAGE…: installs where it may; otherwise names what is missing.
apt() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "needed and cannot be installed by this user: $* (Debian's names)"
    fi
    say "installing $*"
    retry apt-get update -qq >/dev/null || true
    retry apt-get install -y -qq --no-install-recommends "$@" >/dev/null </dev/null
}

# cargo_tool NAME VERSION: a cargo command of exactly this version. Not optimised: it runs for seconds and would be
# compiled for minutes. One directory for all of them, as they share half of their libraries.
cargo_tool() {
    [ -x "$TOOLS/bin/$1" ] && grep -qxF "$1 $2" "$TOOLS/versions" 2>/dev/null && return
    say "installing $1 $2"
    CARGO_TARGET_DIR=$TOOLS/build retry cargo install --locked --debug --quiet --root "$TOOLS" --version "$2" "$1"
    printf '%s %s\n' "$1" "$2" >>"$TOOLS/versions"
}
