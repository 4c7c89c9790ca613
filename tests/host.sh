#!/bin/sh
# What a source of kind "host" sees under /proc as the unit mounts it, and as the drop-in host.conf does: the program runs
# as nobody in a mount namespace with a /proc of the options that both files ask for.
#
#   OTRELAY=target/release/otrelay tests/host.sh
#
# Needs root, unshare and setpriv; without them it says NOT RUN and ends with 0.
set -eu
cd "$(dirname "$0")/.."
binary=$(realpath "${OTRELAY:-target/release/otrelay}")
[ -x "$binary" ] || { echo "$binary is not there: build it (cargo build --release) or set OTRELAY" >&2; exit 1; }

# The last of these keys counts, as for systemd.
key() {
    name=$1
    shift
    cat "$@" | sed -n "s/^$name=//p" | tail -n 1
}

# As systemd mounts it for these files.
options() {
    case $(key ProtectProc "$@") in
        invisible) hide=hidepid=invisible ;;
        default) hide=hidepid=off ;;
        *) echo "ProtectProc= is neither invisible nor default in $*" >&2; exit 1 ;;
    esac
    case $(key ProcSubset "$@") in
        pid) echo "$hide,subset=pid" ;;
        all) echo "$hide" ;;
        *) echo "ProcSubset= is neither pid nor all in $*" >&2; exit 1 ;;
    esac
}

unit=systemd/otrelay.service
hidden=$(options $unit)
shown=$(options $unit systemd/drop-in/host.conf)
unshare -m sh -c "mount -t proc -o $hidden proc /proc && setpriv --reuid=nobody true" 2>/dev/null || {
    echo "NOT RUN: what a host source sees: no root, or no /proc with $hidden here"
    exit 0
}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp "$binary" "$dir/otrelay"
cat >"$dir/otrelay.toml" <<CONFIG
[agent]
name = "host"
id = "host"
state_dir = "$dir/state"
[sync]
enabled = false
[[source]]
name = "machine"
kind = "host"
process = ["sh"]
CONFIG
chmod 600 "$dir/otrelay.toml"
chown -R nobody "$dir"

fails() {
    printf 'FAILED: %s\n%s\n' "$1" "$2" >&2
    exit 1
}

# check NAME OPTIONS PATTERN: whether the trouble of the source is as it should be.
check() {
    rm -rf "$dir/state"
    as="setpriv --reuid=nobody --regid=nogroup --clear-groups $dir/otrelay --config $dir/otrelay.toml"
    unshare -m sh -c "mount -t proc -o $2 proc /proc && exec timeout --preserve-status 30 $as run" 2>"$dir/log" &
    runs=$!
    # The device is written after the first look.
    for _ in $(seq 100); do
        devices=$($as devices --json 2>/dev/null) || devices=
        case $devices in *'"machine"'*) break ;; esac
        sleep 0.1
    done
    trouble=$($as status --json 2>/dev/null | python3 -c 'import json, sys; print(json.load(sys.stdin)["sources"][0].get("trouble"))')
    kill "$runs" 2>/dev/null || true
    wait "$runs" || fails "$1: it did not end well" "$(cat "$dir/log")"
    case $devices in *'"machine"'*) ;; *) fails "$1: the machine is no device" "$(cat "$dir/log")" ;; esac
    case $trouble in
        $3) printf 'ok  %s (%s): the machine is a device; trouble: %s\n' "$1" "$2" "$trouble" ;;
        *) fails "$1: the trouble is another one" "$trouble" ;;
    esac
}

check "the unit" "$hidden" "*drop-in host.conf*"
check "with host.conf" "$shown" None
