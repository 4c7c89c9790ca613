#!/usr/bin/env python3
"""Counts the devices in recorded lines of Suricata and Zeek by itself, lets otrelay read the same, and compares: how many
devices, of which type, how many speak which protocol. Without a path: the lines of tests/fixtures/inventory.

  OTRELAY=target/release/otrelay tests/inventory_count.py [DIRECTORY]

The directory has EVE files (*.json, *.json.gz) and Zeek logs (*.log) at any depth. Nothing of otrelay is used for the count: a
MAC is a device; an address is one where no MAC (or one with a lease) says that it is its own; a serial number is one device, at
whatever addresses.
"""

import collections
import gzip
import ipaddress
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
# Zeek's logs of one protocol, each record between a client and a server.
TRAFFIC = {"modbus": "Modbus", "dnp3": "DNP3", "s7comm": "Siemens S7", "enip": "EtherNet/IP", "cip": "EtherNet/IP",
           "bacnet": "BACnet", "iec104": "IEC 60870-5-104", "omron_fins": "Omron FINS"}
EVE = {"modbus": "Modbus", "dnp3": "DNP3", "enip": "EtherNet/IP"}
SHARED = ("00:00:5e:00:01:", "00:00:5e:00:02:", "00:00:0c:07:ac:", "00:00:0c:9f:f")
TYPES = {"Programmable Logic Controller": "PLC"}


def own(mac):
    """The MAC, if it is that of one device."""
    mac = str(mac or "").lower()
    parts = mac.split(":")
    if len(parts) != 6 or mac == "00:00:00:00:00:00" or mac.startswith(SHARED) or int(parts[0], 16) & 1:
        return None
    return mac


def unicast(text):
    """The address, if it can be that of one device."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    last = ip.version == 4 and ip.packed[3] == 255
    bad = ip.is_link_local or ip.is_unspecified or ip.is_loopback or ip.is_multicast or last
    return None if bad else str(ip)


class Count:
    """What was seen."""

    def __init__(self):
        self.holders = collections.defaultdict(set)   # address: MACs that said it is theirs
        self.leased = set()                           # MACs with a lease
        self.macs = set()
        self.talk = collections.defaultdict(set)      # address: protocols
        self.serials = collections.defaultdict(set)   # address: serial numbers
        self.types = {}                               # address: type

    def eve(self, line):
        try:
            record = json.loads(line)
        except ValueError:
            return
        kind = record.get("event_type")
        if kind == "arp":
            said = record.get("arp", {})
            self.pair(said.get("src_mac"), said.get("src_ip"))
        elif kind == "dhcp":
            said = record.get("dhcp", {})
            given = unicast(said.get("assigned_ip")) if said.get("dhcp_type") == "ack" else None
            mac = own(said.get("client_mac"))
            if mac and (given or said.get("hostname", "").strip("\0 ")):
                self.macs.add(mac)
                if given:
                    self.leased.add(mac)
        elif kind in EVE:
            for end in ("src_ip", "dest_ip"):
                ip = unicast(record.get(end))
                if ip:
                    self.talk[ip].add(EVE[kind])
            self.identity(record)

    def identity(self, record):
        identity = record.get("enip", {}).get("response", {}).get("identity")
        if not identity:
            return
        ip = unicast(record["src_ip"] if record.get("src_port") == 44818 else record["dest_ip"])
        if ip and identity.get("serial"):
            self.serials[ip].add(identity["serial"])
        if ip and identity.get("device_type"):
            self.types[ip] = TYPES.get(identity["device_type"], identity["device_type"])

    def pair(self, mac, ip):
        mac, ip = own(mac), unicast(ip)
        if mac and ip:
            self.macs.add(mac)
            self.holders[ip].add(mac)

    def zeek(self, path):
        kind, fields = "", []
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                line = line.rstrip("\n")
                if line.startswith("#path"):
                    kind = line.split("\t")[1]
                elif line.startswith("#fields"):
                    fields = line.split("\t")[1:]
                elif not line.startswith("#"):
                    self.row(kind, dict(zip(fields, line.split("\t"))))

    def row(self, kind, row):
        if kind in TRAFFIC:
            for end in ("id.orig_h", "id.resp_h"):
                ip = unicast(row.get(end))
                if ip:
                    self.talk[ip].add(TRAFFIC[kind])
        elif kind in ("known_devices", "dhcp") and own(row.get("mac")):
            self.macs.add(own(row["mac"]))
            if kind == "dhcp" and any(unicast(row.get(name, "")) for name in ("assigned_addr", "client_addr", "assigned_ip")):
                self.leased.add(own(row["mac"]))

    def devices(self):
        """Each device with its protocols and its type."""
        fixed = {ip: [mac for mac in sorted(macs) if mac not in self.leased] for ip, macs in self.holders.items()}
        by = {mac: (set(), set()) for mac in self.macs}
        for ip in sorted(set(self.talk) | set(self.types)):
            holders = fixed.get(ip)
            # Several MACs with one address: one of them is it.
            names = holders[:1] if holders else sorted(self.serials[ip]) or [ip]
            for name in names:
                protocols, types = by.setdefault(name, (set(), set()))
                protocols |= self.talk[ip]
                if ip in self.types:
                    types.add(self.types[ip])
        return by

    def table(self):
        devices = self.devices()
        counts = {"devices": len(devices)}
        for protocols, types in devices.values():
            for name in [f"protocol {one}" for one in protocols] + [f"type {one}" for one in types]:
                counts[name] = counts.get(name, 0) + 1
        return counts


def otrelay(eve, zeek):
    """The same table, as otrelay has it."""
    program = str(pathlib.Path(os.environ.get("OTRELAY", HERE.parent / "target/release/otrelay")).resolve())
    with tempfile.TemporaryDirectory(prefix="otrelay-count-") as directory:
        work = pathlib.Path(directory)
        (work / "state").mkdir(mode=0o700)
        (work / "eve").mkdir()
        for number, file in enumerate(eve):
            (work / "eve" / f"{number}.json").write_bytes(lines(file))
        sources = [("eve", "suricata-eve", f"{work}/eve/*.json")] if eve else []
        # Files of one stream have one name; each log is a source of its own.
        (work / "zeek").mkdir()
        for file in zeek:
            (work / "zeek" / file.name).write_bytes(file.read_bytes())
        sources += [("zeek", "zeek", f"{work}/zeek/*.log")] if zeek else []
        text = f'[agent]\nname = "count"\nstate_dir = "{work}/state"\n[sync]\nenabled = false\nbackfill = "all"\n'
        text += f'[servicenow.none]\ninstance = "http://127.0.0.1:9"\nauth = "basic"\nusername = "x"\npassword = {{ file = "{work}/password" }}\n'
        (work / "password").touch(mode=0o600)
        (work / "password").write_text("x")
        for name, kind, path in sources:
            text += f'[[source]]\nname = "{name}"\nkind = "{kind}"\npath = "{path}"\n'
        text += '[[rule]]\nname = "none"\nmin_severity = "critical"\n[[rule.action]]\nservicenow = "none"\ntable = "incident"\n'
        (work / "otrelay.toml").write_text(text)
        command = [program, "--config", str(work / "otrelay.toml")]
        env = {k: v for k, v in os.environ.items() if k not in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "OTRELAY_CONFIG")}
        ran = subprocess.run([*command, "run", "--once"], env=env, capture_output=True, text=True)
        if ran.returncode not in (0, 75):
            sys.exit(f"otrelay ended with {ran.returncode}: {ran.stderr}")
        told = subprocess.run([*command, "devices", "--json"], env=env, capture_output=True, text=True, check=True).stdout
    counts = {}
    for device in json.loads(told):
        device = device.get("device", device)
        names = ["devices"] + [f"protocol {one}" for one in device.get("protocols") or []]
        kind = device.get("kind") or device.get("type")
        for name in names + ([f"type {kind}"] if kind else []):
            counts[name] = counts.get(name, 0) + 1
    return counts


def lines(file):
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()


def main():
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "fixtures/inventory"
    eve = sorted(p for p in root.rglob("*") if p.name.endswith((".json", ".json.gz")))
    zeek = sorted(root.rglob("*.log"))
    wrong = 0
    for name, some in (("EVE", (eve, [])), ("Zeek", ([], zeek)), ("both", (eve, zeek))):
        count = Count()
        for file in some[0]:
            for line in lines(file).splitlines():
                count.eve(line)
        for file in some[1]:
            count.zeek(file)
        expected, got = count.table(), otrelay(*some)
        for key in sorted(set(expected) | set(got)):
            same = expected.get(key, 0) == got.get(key, 0)
            wrong += not same
            print(f"{name:5} {key:30} counted {expected.get(key, 0):6} otrelay {got.get(key, 0):6}{'' if same else '  DIFFERS'}")
    if root == HERE / "fixtures/inventory":
        by_hand = dict(line.rsplit(" ", 1) for line in (root / "counted.txt").read_text().splitlines())
        wrong += {key: str(value) for key, value in expected.items()} != by_hand
    sys.exit(f"{wrong} figures differ" if wrong else 0)


if __name__ == "__main__":
    main()
