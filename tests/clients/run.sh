#!/bin/sh
# Runs real ServiceNow clients against `otrelay simulate`: what they depend on, the simulator has to have.
# Needs python3 with venv and a way to PyPI. SIMULATE names the command if it is not a debug build.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
simulate=${SIMULATE:-$root/target/debug/otrelay simulate}
work=$(mktemp -d)
pids=
# shellcheck disable=SC2086
trap 'kill $pids 2>/dev/null || true; rm -rf "$work"' EXIT INT TERM

venv=${VENV:-$root/target/clients}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"

# start NAME ARGUMENT...: a simulator on a free port; its address is in $url.
start() {
    name=$1
    shift
    # shellcheck disable=SC2086
    OTRELAY_SIM_API_KEY=clients-key $simulate --listen 127.0.0.1:0 "$@" >"$work/$name" &
    pids="$pids $!"
    tries=0
    url=
    while [ -z "$url" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "the simulator did not start" >&2; exit 1; }
        sleep 0.1
        url=$(sed -n 's/^instance  *//p' "$work/$name")
    done
}

start plain
OAUTHLIB_INSECURE_TRANSPORT=1 "$venv/bin/python" -W ignore "$here/with_pysnow.py" "$url"

# PySNC refuses plain HTTP.
start tls --tls --ca-out "$work/ca.pem"
REQUESTS_CA_BUNDLE="$work/ca.pem" "$venv/bin/python" -W ignore "$here/with_pysnc.py" "$url" "$work/ca.pem"
