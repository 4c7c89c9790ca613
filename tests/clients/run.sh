#!/bin/sh
# Runs real ServiceNow clients against `otrelay simulate`: what they depend on, the simulator has to have.
# Needs python3 with venv and a way to PyPI, node with npm and a way to its registry; what cannot be fetched is said as
# LEFT OUT. SIMULATE names the command if it is not a debug build, VENV and NODE_HOME where the clients are kept.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
simulate=${SIMULATE:-$root/target/debug/otrelay simulate}
work=$(mktemp -d)
pids=
# shellcheck disable=SC2086
trap 'kill $pids 2>/dev/null || true; rm -rf "$work"' EXIT INT TERM

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

fetch_python() {
    venv=${VENV:-$root/target/clients}
    { [ -x "$venv/bin/python" ] || python3 -m venv "$venv"; } &&
        "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
}

fetch_node() {
    node_home=${NODE_HOME:-$root/target/clients-node}
    mkdir -p "$node_home" && cp "$here/package.json" "$node_home" &&
        npm install --prefix "$node_home" --silent --no-audit --no-fund --no-package-lock
}

if fetch_python >"$work/fetched" 2>&1; then
    for client in pysnow aiosnow servicenowpy snowclient; do
        start "$client"
        OAUTHLIB_INSECURE_TRANSPORT=1 "$venv/bin/python" -W ignore "$here/with_$client.py" "$url"
    done
    # PySNC refuses plain HTTP.
    start tls --tls --ca-out "$work/ca.pem"
    REQUESTS_CA_BUNDLE="$work/ca.pem" "$venv/bin/python" -W ignore "$here/with_pysnc.py" "$url" "$work/ca.pem"
else
    tail -2 "$work/fetched"
    echo "LEFT OUT: the clients of PyPI cannot be fetched"
fi

if fetch_node >"$work/fetched" 2>&1; then
    start node --tls --ca-out "$work/node.pem"
    NODE_EXTRA_CA_CERTS="$work/node.pem" node "$here/with_rest_api.js" "$url" "$node_home"
else
    tail -2 "$work/fetched"
    echo "LEFT OUT: the clients of npm cannot be fetched"
fi
