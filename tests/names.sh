#!/usr/bin/env bash
# Names that are not answered as they should be (F21): in a network namespace of its own, with a resolver that says what it is told
# to: no such name, a failure, nothing at all, an empty answer, another answer each time, another address. Nothing is lost, what
# comes meanwhile is taken in, the operator reads that it is the name, and the right address is used as soon as there is one.
#
#   OTRELAY=target/release/otrelay tests/names.sh      (default: the debug build)
#
# Needs Python 3 and unshare (util-linux), as root or where users may have namespaces. Everything it makes is in a directory
# that it removes. KEEP=1 keeps it.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/../packaging/common.sh"
otrelay=$(realpath "${OTRELAY:-$PWD/target/debug/otrelay}")
if [ -z "${OTRELAY_NAMES:-}" ]; then
    if ! unshare -rmn true 2>/dev/null; then
        say "LEFT OUT: this machine gives no namespaces (unshare -rmn)"
        exit 0
    fi
    OTRELAY=$otrelay OTRELAY_NAMES=1 exec unshare -rmn -- "$0"
fi

PATIENCE=300
# shellcheck source=tests/scratch.sh
. tests/scratch.sh
# The loopback of the namespace is down at first; SIOCSIFFLAGS with IFF_UP, as `ip` is not everywhere.
python3 -c 'import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh22x", b"lo", 1))'

# Says what the file `answer` says, to every question, over UDP.
cat >"$work/resolver.py" <<'END'
import pathlib
import socket
import struct
import sys

told = pathlib.Path(sys.argv[1])
ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ear.bind(("127.0.0.1", 53))
print("ready", flush=True)
count = 0
while True:
    question, sender = ear.recvfrom(4096)
    end = 12
    while question[end]:
        end += question[end] + 1
    asked = question[12:end + 5]
    is_a = struct.unpack("!H", asked[-4:-2])[0] == 1
    how, count = told.read_text().strip(), count + 1
    if how == "flapping":
        how = ("SERVFAIL", "empty", "127.0.0.1")[count // 2 % 3]
    if how == "nothing":
        continue
    code = {"NXDOMAIN": 3, "SERVFAIL": 2}.get(how, 0)
    address = socket.inet_aton(how) if how[0].isdigit() and is_a else b""
    answer = struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + address if address else b""
    head = question[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, 1 if address else 0, 0, 0)
    ear.sendto(head + asked + answer, sender)
END
printf '127.0.0.1\n' >"$work/answer"
printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:2\n' >"$work/resolv.conf"
printf 'hosts: dns\n' >"$work/nsswitch.conf"
mount --bind "$work/resolv.conf" /etc/resolv.conf
mount --bind "$work/nsswitch.conf" /etc/nsswitch.conf
python3 "$work/resolver.py" "$work/answer" >"$work/resolver" &
pids+=($!)

until_true "the resolver listens" grep -q ready "$work/resolver"

# simulate ADDRESS:PORT NAME: an instance; the same name and CA for all.
simulate() {
    "$otrelay" simulate --tls --tls-name instance.example --ca-out "$work/$2.pem" --listen "$1" >"$work/$2" &
    pids+=($!)
    until_true "the instance $2 listens" grep -q '^instance' "$work/$2"
}
simulate 127.0.0.1:8443 first
simulate 127.0.0.2:8443 second
cat "$work/first.pem" "$work/second.pem" >"$work/ca.pem"

mkdir -m 0700 "$work/state"
(umask 077 && printf admin >"$work/password")
cat >"$work/otrelay.toml" <<END
[agent]
name = "names"
id = "names"
state_dir = "$work/state"
[sync]
backfill = "all"
[servicenow.prod]
instance = "https://instance.example:8443"
auth = "basic"
username = "admin"
password = { file = "$work/password" }
tls = { ca_file = "$work/ca.pem" }
[[source]]
name = "eve"
kind = "suricata-eve"
path = "$work/eve.json"
[[rule]]
name = "all"
[[rule.action]]
END
touch "$work/eve.json"
number=0

# One more alert.
feed() {
    number=$((number + 1))
    printf '{"timestamp":"2026-05-18T06:07:08.123456+0000","flow_id":%d,"event_type":"alert","src_ip":"192.0.2.%d","src_port":49152,"dest_ip":"192.0.2.200","dest_port":502,"proto":"TCP","alert":{"action":"allowed","gid":1,"signature_id":2000001,"rev":1,"signature":"TEST %d","category":"Misc Attack","severity":1}}\n' \
        "$number" "$number" "$number" >>"$work/eve.json"
}

run() { "$otrelay" --config "$work/otrelay.toml" "$@"; }
# waiting N: the running service holds so many and nothing is lost.
waiting() { [ "$(run status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["backlog"])')" = "$1" ]; }
tickets() { run tickets --json -n 0 | python3 -c 'import json, sys; print(sum(t["state"] == "open" for t in json.load(sys.stdin)))'; }

# The service from anew: one that has a connection asks for no name.
service=
serve() {
    if [ -n "$service" ]; then
        kill "$service"
        wait "$service" || fail "the service ended with $?: $(tail -n 5 "$work/log")"
    fi
    "$otrelay" --config "$work/otrelay.toml" run >>"$work/log" 2>&1 &
    service=$!
    until_true "the service answers" run status
}
trap '[ -z "$service" ] || kill "$service" 2>/dev/null || true; clean' EXIT

for how in NXDOMAIN SERVFAIL nothing empty; do
    printf '%s\n' "$how" >"$work/answer"
    feed
    serve
    until_true "$how: what comes is stored" waiting 1
    # A question that hangs holds up no intake: it is stored while the sync still asks.
    run sync >"$work/sync" 2>&1 & asking=$!
    feed
    until_true "$how: what comes meanwhile is stored" waiting 2
    code=0
    wait "$asking" || code=$?
    [ "$code" = 75 ] || fail "$how: sync ended with $code: $(cat "$work/sync")"
    grep -q 'instance.example' "$work/sync" || fail "$how: it does not name the name: $(cat "$work/sync")"
    run status | grep -q 'waits: .*instance.example' || fail "$how: nothing is said of it: $(run status)"
    say "$how: $(grep -m 1 instance.example "$work/sync" | cut -c 1-240)"
    printf '127.0.0.1\n' >"$work/answer"
    run sync >"$work/sync" 2>&1 || fail "$how: it does not go on: $(cat "$work/sync")"
    waiting 0 || fail "$how: something is left"
done
printf 'flapping\n' >"$work/answer"
feed
serve
until_true "it is stored" waiting 1
left=40
until run sync >"$work/sync" 2>&1 && waiting 0; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || fail "flapping: in vain: $(cat "$work/sync")"
done
say "flapping: delivered after $((41 - left)) syncs"
[ "$(tickets)" = "$number" ] || fail "$(tickets) tickets of $number alerts"
# It moved: what is open to the old address is closed by then, and the name is asked anew.
kill "${pids[1]}"
printf '127.0.0.2\n' >"$work/answer"
feed
until_true "it is stored" waiting 1
left=10
until run sync >"$work/sync" 2>&1 && waiting 0; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || fail "another address: in vain: $(cat "$work/sync")"
    sleep 1
done
[ "$(tickets)" = "$number" ] || fail "another address: $(tickets) tickets of $number alerts"
say "another address: used with the next sync; $number alerts, $number tickets"
kill -0 "$service" || fail "the service has ended: $(cat "$work/log")"
