#!/usr/bin/env bash
# What otrelay writes for others is read by others: the update set of `instance-setup` by Python's XML reader (expat), also what is
# packed in it; the capture that it attaches to a ticket by Debian's tcpdump.
#
#   OTRELAY=target/release/otrelay tests/readers.sh      (default: the debug build)
#
# Needs Python 3 and tcpdump, and the right to install that where it is missing. Listens on loopback only; everything it makes
# is in a directory that it removes. KEEP=1 keeps it.
set -euo pipefail
# shellcheck source=tests/scratch.sh
. "$(dirname "$0")/scratch.sh"
otrelay=${OTRELAY:-$PWD/target/debug/otrelay}
export PATH=$PATH:/usr/sbin
command -v tcpdump >/dev/null || apt tcpdump

"$otrelay" simulate --listen 127.0.0.1:0 >"$work/simulator" &
pids+=($!)
until_true "the simulator listens" grep -q '^instance' "$work/simulator"
url=$(sed -n 's/^instance *\(http[^ ]*\)$/\1/p' "$work/simulator")

mkdir -m 0700 "$work/state"
(umask 077 && printf admin >"$work/password")
cat >"$work/otrelay.toml" <<END
[agent]
name = "readers"
id = "readers"
state_dir = "$work/state"
[sync]
backfill = "all"
[servicenow.prod]
instance = "$url"
auth = "basic"
username = "admin"
password = { file = "$work/password" }
[[source]]
name = "eve"
kind = "suricata-eve"
path = "$work/eve.json"
[[rule]]
name = "all"
[[rule.action]]
attach = ["raw", "pcap"]
[[rule.action]]
report_type = "application"
table = "u_alerts"
columns = { title = "u_title" }
fields = { u_plant = "<Nord> & 'Süd' ]]>" }
[devices]
enabled = true
method = "import-set"
insert_multiple = true
columns = { vendor = "Vendor & <Maker> ]]>" }
END

run() { "$otrelay" --config "$work/otrelay.toml" "$@"; }

run instance-setup >"$work/set.xml" 2>"$work/said" || fail "$(cat "$work/said")"
run instance-setup 2>/dev/null | cmp - "$work/set.xml" || fail "the same config makes another update set"
python3 - "$work/set.xml" <<'END'
import sys
import xml.etree.ElementTree as tree

unload = tree.parse(sys.argv[1]).getroot()
assert unload.tag == "unload", unload.tag
first, *updates = unload
assert first.tag == "sys_remote_update_set" and first.findtext("state") == "loaded"
own, ids, kinds, made = first.findtext("sys_id"), set(), [], {}
for update in updates:
    assert update.tag == "sys_update_xml" and update.findtext("remote_update_set") == own
    payload = tree.fromstring(update.findtext("payload").encode())
    (record,) = payload
    assert payload.tag == "record_update" and record.tag == payload.get("table"), update.findtext("name")
    assert record.get("action") == "INSERT_OR_UPDATE"
    for sys_id in (update.findtext("sys_id"), record.findtext("sys_id")):
        assert len(sys_id) == 32 and sys_id not in ids, sys_id
        ids.add(sys_id)
    kinds.append(record.tag)
    made.setdefault(record.tag, []).append(record)
# Nothing leads to what comes later, or to what is not in the set.
for tag, field, to in (("sys_security_acl_role", "sys_security_acl", "sys_security_acl"),
                       ("sys_security_acl_role", "sys_user_role", "sys_user_role"), ("sys_transform_entry", "map", "sys_transform_map")):
    known = {record.findtext("sys_id") for record in made[to]}
    assert all(record.findtext(field) in known for record in made[tag]), tag
    assert kinds.index(to) < kinds.index(tag)
tables = {record.findtext("name") for record in made["sys_db_object"]}
assert tables == {"u_alerts", "u_otrelay_device", "u_otrelay_connection", "u_otrelay_firmware"}, tables
columns = {(r.findtext("name"), r.findtext("element")): r.findtext("column_label") for r in made["sys_dictionary"]}
assert {table for table, _ in columns} == tables
assert columns["u_otrelay_device", "vendor"] == "Vendor & <Maker> ]]>", columns["u_otrelay_device", "vendor"]
assert ("u_alerts", "u_title") in columns and ("u_alerts", "u_plant") in columns
assert {r.findtext("name") for r in made["sys_security_acl"]} == tables, "access to what is there already is left alone"
keys = [r.findtext("target_field") for r in made["sys_transform_entry"] if r.findtext("coalesce") == "true"]
assert keys == ["correlation_id"], keys
print(f"the update set: {len(updates)} records, read by expat {__import__('pyexpat').EXPAT_VERSION}")
END

# A Modbus request to write one coil, Ethernet and IPv4 around it.
packet=$(python3 - <<'END'
import base64
import struct

modbus = bytes.fromhex("000100000006010500acff00")
tcp = struct.pack("!HHIIBBHHH", 49152, 502, 1, 1, 5 << 4, 0x18, 8192, 0, 0) + modbus
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0, bytes([192, 0, 2, 7]), bytes([192, 0, 2, 9]))
print(base64.b64encode(bytes.fromhex("02000000000102000000000208 00") + ip + tcp).decode())
END
)
printf '%s\n' '{"timestamp":"2026-05-18T06:07:08.123456+0000","flow_id":1,"event_type":"alert","src_ip":"192.0.2.7","src_port":49152,"dest_ip":"192.0.2.9","dest_port":502,"proto":"TCP","app_proto":"modbus","alert":{"action":"allowed","gid":1,"signature_id":2000001,"rev":1,"signature":"TEST coil written","category":"Misc Attack","severity":1},"packet":"'"$packet"'","packet_info":{"linktype":1}}' \
    >"$work/eve.json"
# The staging table is not there, and devices are none: what counts here is the file.
run run --once >"$work/once" 2>&1 || true
python3 - "$url" "$work/packet.pcap" <<'END'
import base64
import json
import sys
import urllib.request

def get(path):
    request = urllib.request.Request(sys.argv[1] + path)
    request.add_header("Authorization", "Basic " + base64.b64encode(b"admin:admin").decode())
    request.add_header("Accept", "application/json, */*")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()

files = json.loads(get("/api/now/table/sys_attachment?sysparm_fields=sys_id,file_name"))["result"]
(capture,) = [file for file in files if file["file_name"].endswith(".pcap")]
open(sys.argv[2], "wb").write(get(f"/api/now/attachment/{capture['sys_id']}/file"))
END
said=$(TZ=UTC tcpdump -nn -tttt -r "$work/packet.pcap" 2>"$work/tcpdump") || fail "tcpdump does not read it: $(cat "$work/tcpdump")"
case $said in
    "2026-05-18 06:07:08.123456 IP 192.0.2.7.49152 > 192.0.2.9.502: Flags [P.]"*"length 12"*) ;;
    *) fail "tcpdump reads something else: $said" ;;
esac
[ "$(printf '%s\n' "$said" | wc -l)" = 1 ] || fail "more than one packet: $said"
say "the capture: $said"
