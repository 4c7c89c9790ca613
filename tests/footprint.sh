#!/usr/bin/env bash
# What the service costs the machine: size, memory, threads, wake-ups, writes, time to start, requests. Prints one line
# for each figure with its goal, PASS or MISS; docs/figures.md has the goals. Ends with 1 only when a bound is broken
# by more than its margin (column `gate`: the goal and a tenth to a quarter more; where a goal is missed so far, what is
# reached and a tenth, so that it does not get worse). Times are shown and never gated: the machines of CI are noisy.
#
#   tests/footprint.sh                 builds the release first
#   OTRELAY=/usr/bin/otrelay tests/footprint.sh
#   IDLE=60 ALERTS=200000 PACED=2000   seconds idle (20), alerts of the burst (200000), alerts at 200 a second (2000)
#
# Linux only: it reads /proc. Needs bash, coreutils and awk.
set -euo pipefail
cd "$(dirname "$0")/.."
IDLE=${IDLE:-20} ALERTS=${ALERTS:-200000} PACED=${PACED:-2000}
if [ -z "${OTRELAY:-}" ]; then
    cargo build --locked --release --quiet
    OTRELAY=${CARGO_TARGET_DIR:-target}/release/otrelay
fi
OTRELAY=$(realpath "$OTRELAY")
mkdir -p target
WORK=$(mktemp -d "$PWD/target/footprint.XXXXXX") # on the disk of the tree: /tmp may be memory
broken=0
started=()

clean_up() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$WORK"
}
trap clean_up EXIT

# row NAME MEASURED UNIT GOAL [GATE]: at most GOAL is a pass, above GATE the script fails at its end.
row() {
    local verdict=PASS gate=${5:-}
    if awk -v a="$2" -v b="$4" 'BEGIN { exit !(a > b) }'; then verdict=MISS; fi
    if [ -n "$gate" ] && awk -v a="$2" -v b="$gate" 'BEGIN { exit !(a > b) }'; then
        verdict=BROKEN
        broken=1
    fi
    printf '%-52s %12s %-8s %12s %12s  %s\n' "$1" "$2" "$3" "$4" "${gate:--}" "$verdict"
}

now_us() { echo "${EPOCHREALTIME/[.,]/}"; }
status() { awk -v key="$2:" '$1 == key { print $2 }' "/proc/$1/status"; }
io() { awk -v key="$2:" '$1 == key { print $2 }' "/proc/$1/io"; }
mib() { awk -v kib="$1" 'BEGIN { printf "%.1f", kib / 1024 }'; }
wakes() { cat "/proc/$1"/task/*/status | awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n + 0 }'; }
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

# alerts FROM TO FINDINGS: EVE lines of about 1 200 bytes; the number of the line modulo FINDINGS decides the addresses.
# The payload is noise in base64, as `payload: yes` writes it, another one in each of 64 lines: what packs well would
# flatter the bytes written.
alerts() {
    awk -v from="$1" -v to="$2" -v findings="$3" 'BEGIN {
        srand(1)
        digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        for (i = 0; i < 64; i++) {
            for (j = 0; j < 624; j++) pad[i] = pad[i] substr(digits, 1 + int(rand() * 64), 1)
        }
        for (n = from; n < to; n++) {
            f = n % findings
            printf "{\"timestamp\":\"2026-11-20T06:%02d:%02d.%06d+0000\",\"flow_id\":%d,\"in_iface\":\"eth1\",\"event_type\":\"alert\",\"src_ip\":\"10.%d.%d.%d\",\"src_port\":%d,\"dest_ip\":\"10.0.0.11\",\"dest_port\":502,\"proto\":\"TCP\",\"app_proto\":\"modbus\",\"direction\":\"to_server\",\"alert\":{\"action\":\"allowed\",\"gid\":1,\"signature_id\":2250005,\"rev\":2,\"signature\":\"SURICATA Modbus invalid Function code\",\"category\":\"Generic Protocol Command Decode\",\"severity\":3,\"metadata\":{\"signature_severity\":[\"Major\"]}},\"flow\":{\"pkts_toserver\":12,\"pkts_toclient\":10,\"bytes_toserver\":1034,\"bytes_toclient\":900},\"payload\":\"%s\"}\n",
                n / 60 % 60, n % 60, n % 1000000, 900000000000000 + n, 1 + f / 62500, f / 250 % 250, 1 + f % 250, 49152 + n % 10000, pad[n % 64]
        }
    }'
}

# config NAME ENABLED: a directory with config, secrets, state; the instance is the simulator.
config() {
    local dir=$WORK/$1
    mkdir -p "$dir"
    (umask 077 && printf admin >"$dir/password" && printf otrelay >"$dir/secret")
    cat >"$dir/otrelay.toml" <<TOML
[agent]
name = "footprint-$1"
id = "footprint-$1"
state_dir = "$dir/state"
[sync]
enabled = $2
backfill = "all"
interval = "60m"
[buffer]
max_size = "4GiB"
[servicenow.prod]
instance = "$INSTANCE"
auth = "password"
client_id = "otrelay"
client_secret = { file = "$dir/secret" }
username = "admin"
password = { file = "$dir/password" }
requests_per_hour = 1000000
[[source]]
name = "eve"
kind = "suricata-eve"
path = "$dir/eve.json"
[[rule]]
name = "all"
[[rule.action]]
servicenow = "prod"
table = "incident"
TOML
    : >"$dir/eve.json"
}

# run NAME: starts the service, sets PID when it says that it runs.
run() {
    local dir=$WORK/$1 line
    mkfifo "$dir/log" 2>/dev/null || true
    # A process is charged with what its children wrote when it has waited for them: so the last checkpoint counts too.
    rm -f "$dir/pid" "$dir/wrote"
    (
        "$OTRELAY" --config "$dir/otrelay.toml" run 2>"$dir/log" &
        echo $! >"$dir/pid"
        wait $! || true
        io "$BASHPID" write_bytes >"$dir/wrote"
    ) &
    SHELL_PID=$!
    exec {log}<"$dir/log"
    until [ -s "$dir/pid" ]; do sleep 0.01; done
    PID=$(<"$dir/pid")
    started+=("$PID")
    while read -r line <&"$log"; do
        case $line in *"otrelay runs"*) return ;; esac
        echo "$line" >&2
    done
    echo "the service did not start" >&2
    exit 1
}

stop() {
    kill "$PID"
    wait "$SHELL_PID" || true
    exec {log}<&-
}

# taken NAME: alerts that the service says it has stored.
taken() {
    "$OTRELAY" --config "$WORK/$1/otrelay.toml" status --json | awk -F'[:,]' '/"alerts"/ { n += $2 } END { print n + 0 }'
}

# The book of the simulator: its number of requests.
requests() {
    local host=${INSTANCE#http://} line body=
    exec {book}<>"/dev/tcp/${host%:*}/${host#*:}"
    printf 'GET /simulator/ledger?last=0 HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$host" >&"$book"
    while read -r line <&"$book" || [ -n "$line" ]; do body+=$line; done
    exec {book}<&-
    [[ $body =~ \"requests\":\ *([0-9]+) ]] && echo "${BASH_REMATCH[1]}"
}

# Under an emulator some of this is read in another way: tests/footprint_arm.sh.
# shellcheck source=tests/footprint/emulated.sh
[ -z "${EMULATED:-}" ] || . "$EMULATED"

: >"$WORK/simulator"
"$OTRELAY" simulate --listen 127.0.0.1:0 >"$WORK/simulator" &
started+=("$!")
for _ in $(seq 100); do
    INSTANCE=$(awk '/^instance/ { print $2 }' "$WORK/simulator")
    [ -n "$INSTANCE" ] && break
    sleep 0.1
done

printf '%-52s %12s %-8s %12s %12s\n' figure measured unit goal gate
row "size of the program" "$(stat -c %s "${PROGRAM:-$OTRELAY}")" bytes 10000000 15000000

# Time to start, with an empty store that exists.
config start true
run start
stop
times=()
for _ in $(seq 10); do
    before=$(now_us)
    run start
    times+=($(($(now_us) - before)))
    stop
done
median=$(printf '%s\n' "${times[@]}" | sort -n | sed -n 5p)
row "start until it runs, median of 10" "$(awk -v us="$median" 'BEGIN { printf "%.1f", us / 1000 }')" ms 100

# Idle.
config idle true
run idle
sleep 12 # the first sync is done and helper threads have gone
row "resident memory, $IDLE s idle from here" "$(mib "$(status "$PID" VmRSS)")" MiB 10 15.6
wakes_before=$(wakes "$PID") ticks_before=$(ticks "$PID") bytes_before=$(io "$PID" write_bytes)
sleep "$IDLE"
row "resident memory after it" "$(mib "$(status "$PID" VmRSS)")" MiB 10 15.6
row "of which heap and stacks" "$(mib "$(status "$PID" RssAnon)")" MiB 8
row "peak since the start" "$(mib "$(status "$PID" VmHWM)")" MiB 64 64
row "threads" "$(status "$PID" Threads)" "" 4 4
row "wake-ups" "$(awk -v n=$(($(wakes "$PID") - wakes_before)) -v s="$IDLE" 'BEGIN { printf "%.2f", n / s }')" per-s 2 4
row "CPU" "$(awk -v n=$(($(ticks "$PID") - ticks_before)) -v s="$IDLE" 'BEGIN { printf "%.3f", n / s }')" % 0.1
row "bytes written" "$(($(io "$PID" write_bytes) - bytes_before))" bytes 0 0
stop

# A burst: all at once.
config burst false
alerts 0 "$ALERTS" 100000000 >"$WORK/burst/eve.json"
before=$(now_us)
run burst
while [ "$(taken burst)" -lt "$ALERTS" ]; do sleep 0.2; done
wall=$(($(now_us) - before))
echo "burst: $ALERTS alerts in $((wall / 1000)) ms, $((ALERTS * 1000000 / wall)) a second, looking on included"
row "peak of memory, $ALERTS alerts at once" "$(mib "$(status "$PID" VmHWM)")" MiB 24 32
row "threads" "$(status "$PID" Threads)" "" 4 4
row "bytes written for an alert, at once" "$(($(io "$PID" write_bytes) / ALERTS))" bytes 3000 6500
# What is queued does not slow the start down.
stop
before=$(now_us)
run burst
row "start with $ALERTS queued" "$(awk -v us=$(($(now_us) - before)) 'BEGIN { printf "%.1f", us / 1000 }')" ms 300
sleep 2
row "resident memory with $ALERTS queued" "$(mib "$(status "$PID" VmHWM)")" MiB 24 30
stop

# A life at 200 a second: taken in, pushed, settled.
config paced true
run paced
sleep 2
bytes_before=$(io "$PID" write_bytes) given_before=$(io "$PID" wchar)
for ((n = 0; n < PACED; n += 20)); do
    alerts "$n" $((n + 20)) 100000000 >>"$WORK/paced/eve.json"
    sleep 0.1
done
while [ "$(taken paced)" -lt "$PACED" ]; do sleep 0.2; done
in_bytes=$(($(io "$PID" write_bytes) - bytes_before))
"$OTRELAY" --config "$WORK/paced/otrelay.toml" sync >/dev/null
row "bytes written to take an alert in, 200 a second" $((in_bytes / PACED)) bytes 3000
given=$(($(io "$PID" wchar) - given_before)) peak=$(status "$PID" VmHWM)
stop
life=$(($(<"$WORK/paced/wrote") - bytes_before))
row "bytes written in its life: in, pushed, settled, closed" $((life / PACED)) bytes 3000 3400
row "bytes given to write() before the close" $((given / PACED)) bytes 3000
row "peak of memory" "$(mib "$peak")" MiB 24 30

# Requests: 10 000 alerts of 500 findings.
config requests true
alerts 0 10000 500 >"$WORK/requests/eve.json"
requests_before=$(requests)
"$OTRELAY" --config "$WORK/requests/otrelay.toml" run --once 2>"$WORK/requests/said"
cat "$WORK/requests/said"
row "requests for 10 000 alerts of 500 findings" $(($(requests) - requests_before)) "" 600 600

exit $broken
