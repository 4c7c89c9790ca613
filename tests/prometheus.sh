#!/usr/bin/env bash
# What Prometheus says of /metrics, of the file for node_exporter, of the alert rules and of the dashboard: Debian's
# promtool checks names and rules, and every query of the dashboard has to be one and to ask for a number that is there.
#
#   OTRELAY=target/release/otrelay tests/prometheus.sh      (default: the debug build)
#
# Listens on loopback only; everything it makes is in a directory that it removes.
set -euo pipefail
# Two minutes each.
PATIENCE=1200
# shellcheck source=tests/scratch.sh
. "$(dirname "$0")/scratch.sh"
otrelay=${OTRELAY:-$PWD/target/debug/otrelay}
command -v promtool >/dev/null || apt prometheus
promtool check rules packaging/prometheus/otrelay.rules.yml
promtool test rules packaging/prometheus/otrelay.rules.test.yml

"$otrelay" simulate --listen 127.0.0.1:0 >"$work/simulator" 2>&1 &
pids+=($!)
until_true "the simulator listens" grep -o 'http://127.0.0.1:[0-9]*' "$work/simulator"
url=$(grep -o -m1 'http://127.0.0.1:[0-9]*' "$work/simulator" | head -1)
python3 - "$work" <<'P'
import sys, zlib
recorded = zlib.decompress(open("tests/fixtures/eve/plant.json.zlib", "rb").read())
open(sys.argv[1] + "/eve.json", "wb").write(recorded + b"no record at all\n")
P
for secret in otrelay admin; do (umask 077 && printf %s "$secret" >"$work/$secret"); done
(umask 077 && cat >"$work/otrelay.toml") <<T
[agent]
name = "line4"
id = "line4"
state_dir = "$work/state"
[sync]
backfill = "all"
[servicenow.prod]
instance = "$url"
auth = "password"
client_id = "otrelay"
client_secret = { file = "$work/otrelay" }
username = "admin"
password = { file = "$work/admin" }
[[source]]
name = "eve"
kind = "suricata-eve"
path = "$work/eve.json"
[[rule]]
name = "Major and worse"
min_severity = "major"
[[rule.action]]
servicenow = "prod"
[status]
listen = "127.0.0.1:0"
textfile = "$work/otrelay.prom"
T
"$otrelay" --config "$work/otrelay.toml" run >"$work/service" 2>&1 &
pids+=($!)
until_true "the page is there" grep -o 'status page is at' "$work/service"
page=$(grep -o 'http://127.0.0.1:[0-9]*' "$work/service" | head -1)
until_true "/metrics has the last sync" sh -c "curl -sf $page/metrics | grep -q '^otrelay_last_sync_duration_seconds'"

curl -sf "$page/metrics" >"$work/open"
curl -sf -H 'Accept: text/plain' "$page/metrics" >"$work/text"
[ "$(tail -1 "$work/open")" = "# EOF" ]
promtool check metrics <"$work/text"
until_true "the text file is written" grep -q otrelay_alerts_total "$work/otrelay.prom"
promtool check metrics <"$work/otrelay.prom"
# The same numbers by both formats.
diff <(grep -v '^#' "$work/open" | grep -v seconds) <(grep -v '^#' "$work/text" | grep -v seconds)
curl -sf "$page/metrics" | diff <(grep -v seconds "$work/open") <(grep -v seconds /dev/stdin)

python3 - "$work/text" "$work/dashboard.yml" <<'P'
import json, re, sys
there = {re.split(r"[{ ]", line)[0] for line in open(sys.argv[1]) if not line.startswith("#")}
# What is only there when something is wrong.
there |= {"otrelay_alerts_shed_total", "otrelay_health_issues", "otrelay_backlog_oldest_timestamp_seconds"}
rules = []
for panel in json.load(open("packaging/grafana/otrelay.json"))["panels"]:
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
        missing = set(re.findall(r"otrelay_\w+", expression)) - there
        if missing:
            sys.exit(f"the dashboard asks for {missing} in {panel['title']}")
        rules.append({"record": f"panel{panel['id']}:{target['refId']}", "expr": expression})
for name in re.findall(r"otrelay_\w+", " ".join(re.findall(r"expr: (.*)", open("packaging/prometheus/otrelay.rules.yml").read()))):
    if name not in there:
        sys.exit(f"the alert rules ask for {name}")
json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, open(sys.argv[2], "w"))
P
promtool check rules "$work/dashboard.yml"
echo "metrics, rules and dashboard are as Prometheus wants them"
