"""An inventory of many devices into the CMDB: what is sent, how often, and how much memory it takes.

The devices are named by ARP lines of Suricata, then by the API of a Defender sensor (`Sensor`). The simulator's ledger says which requests came, its tables what is there.
The peak of resident memory is `VmHWM` of the process while it runs. What `wait4` says when it has ended is no measure: there
the kernel counts the memory of this script too, from which the process was started.
"""

import http.server
import json
import os
import pathlib
import random
import sys
import tempfile
import threading
import time

import scene

DEVICES = int(os.environ.get("DEVICES", "10000"))
KILLS = int(os.environ.get("KILLS", "5"))
SEED = int(os.environ.get("SEED", "1"))
# Most requests that the first sync may take: two items a device, fifty an answer.
REQUESTS = DEVICES // 20 + 10
MORE = '\n[devices]\nservicenow = "sim"\n'
# Rows of staging tables, each a request or all of a table at once.
STAGED = {"rows": 'method = "import-set"\n', "import sets": 'method = "import-set"\ninsert_multiple = true\n'}
STAGING = ["--table", "u_plant", "--import", "u_otrelay_device=u_plant:correlation_id"]
ONLY = 'tables = { connection = "", firmware = "" }\n'


def mac(number):
    return "00:1b:" + ":".join(f"{number >> shift & 0xff:02x}" for shift in (24, 16, 8, 0))


def address(number):
    return f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


def line(number):
    arp = {"opcode": "request", "src_mac": mac(number), "src_ip": address(number),
           "dest_mac": "00:00:00:00:00:00", "dest_ip": "10.0.0.254"}
    return json.dumps({"timestamp": "2026-11-21T08:15:00.000000+0000", "event_type": "arp", "arp": arp}) + "\n"


def lease(number):
    """The same device tells its name."""
    told = {"type": "reply", "client_mac": mac(number), "assigned_ip": address(number), "dhcp_type": "ack", "hostname": f"host-{number}"}
    return json.dumps({"timestamp": "2026-11-21T08:16:00.000000+0000", "event_type": "dhcp", "dhcp": told}) + "\n"


class Sensor:
    """A Defender sensor that has devices and no alerts (its API: /api/v1)."""

    TOKEN = "sensor-token"

    def __init__(self, count):
        self.devices = [{"id": n + 1, "name": address(n), "type": "PLC", "vendor": "Plant Devices", "operatingSystem": None,
                         "ipAddresses": [address(n)], "macAddresses": [mac(n)], "engineeringStation": False,
                         "authorized": True, "scanner": False, "protocols": [{"id": 1, "name": "MODBUS", "addresses": ["1"]}],
                         "firmware": None, "hasDynamicAddress": False} for n in range(count)]
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.source = (f'\n[[source]]\nname = "sensor"\nkind = "defender-sensor"\n'
                       f'url = "http://127.0.0.1:{self.server.server_port}"\ntoken = "{self.TOKEN}"\npoll_interval = "5s"\n')

    def handler(sensor):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = self.path.split("?")[0]
                lists = {"/api/v1/devices": sensor.devices, "/api/v1/devices/connections": [], "/api/v1/devices/cves": [],
                         "/api/v1/alerts": [], "/api/v2/alerts": []}
                is_known = self.headers.get("Authorization") == sensor.TOKEN
                body = json.dumps(lists.get(path, {"error": "not found"})).encode()
                self.send_response(401 if not is_known else 200 if path in lists else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler


def feed(agent, lines):
    with open(agent.eve / "eve.json", "a", encoding="utf-8") as file:
        file.writelines(lines)


def run(agent, kill_after=None, kill_when=None):
    """`run --once`. Gives its exit code, the seconds it took and its peak of memory in MiB. Killed after so many seconds, or
    when `kill_when` says so."""
    began, peak = time.monotonic(), 0
    process = agent.start("run", "--once")
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        if kill_after is not None and time.monotonic() - began > kill_after or kill_when is not None and kill_when():
            process.kill()
        time.sleep(0.01)
    return process.returncode, time.monotonic() - began, peak / 1024


def resident(pid):
    """The peak of resident memory so far, in KiB; 0 when it has just ended."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def puts(simulator):
    return sum(1 for entry in simulator.ask("/simulator/ledger", last=10_000)["entries"] if "identifyreconcile" in entry["path"])


def rows(simulator, table, field):
    """All values of a field, page by page."""
    got = []
    while True:
        page = simulator.ask(f"/api/now/table/{table}", sysparm_fields=field, sysparm_limit=5000, sysparm_offset=len(got),
                             sysparm_query="ORDERBYsys_id")["result"]
        got += [row[field] for row in page]
        if len(page) < 5000:
            return got


def expect(what, is_so):
    if not is_so:
        raise scene.Failed(what)


def judge(simulator, count):
    macs = rows(simulator, "cmdb_ci_network_adapter", "mac_address")
    expect(f"{len(macs)} adapters of {len(set(macs))} MACs, {count} were to be there", len(macs) == len(set(macs)) == count)
    expect("CIs are doubled or missing", len(rows(simulator, "cmdb_ci_ot", "name")) == count)


def work(directory):
    rng = random.Random(SEED)
    simulator = scene.Simulator(directory, SEED)
    try:
        agent = scene.Agent(directory / "agent", simulator.url, more=MORE)
        feed(agent, (line(number) for number in range(DEVICES)))
        code, took, peak = run(agent)
        first = puts(simulator)
        print(f"first sync: {DEVICES} devices, {first} requests, {took:.1f} s, peak {peak:.0f} MiB (exit {code})")
        expect(f"the first sync ended with {code}", code == scene.OK)
        expect(f"{first} requests, at most {REQUESTS} were expected", first <= REQUESTS)
        judge(simulator, DEVICES)
        code, took, peak = run(agent)
        print(f"second: {puts(simulator) - first} requests, {took:.1f} s, peak {peak:.0f} MiB (exit {code})")
        expect("the second sync sent something", (code, puts(simulator)) == (scene.OK, first))
        changed = max(DEVICES // 100, 1)
        feed(agent, (lease(number) for number in rng.sample(range(DEVICES), changed)))
        code, took, peak = run(agent)
        now = puts(simulator)
        told = sum(1 for name in rows(simulator, "cmdb_ci_ot", "name") if name.startswith("host-"))
        print(f"one in a hundred changed: {told} told, {now - first} requests, {took:.1f} s, peak {peak:.0f} MiB (exit {code})")
        expect(f"{told} devices have their name, {changed} were to have one", told == changed)
        expect("more was sent than had changed", now - first <= changed // 20 + 3)
        judge(simulator, DEVICES)
        killed(agent, simulator, rng)
    finally:
        simulator.stop()


def killed(agent, simulator, rng):
    """As many devices again, a part of them before each kill."""
    part = max(DEVICES // 10 // max(KILLS, 1), 1)
    last = DEVICES
    for _ in range(KILLS):
        feed(agent, (line(number) for number in range(last, last + part)))
        last += part
        run(agent, kill_after=rng.uniform(0.05, 1.5))
    until = time.monotonic() + 300
    while (code := run(agent)[0]) == scene.TRY_LATER and time.monotonic() < until:
        time.sleep(1)
    expect(f"after the kills it ended with {code}", code == scene.OK)
    judge(simulator, last)
    print(f"{KILLS} kills: {last} devices, each once")


def polled(directory):
    """The same from the API of a sensor."""
    rng = random.Random(SEED)
    simulator, sensor = scene.Simulator(directory, SEED), Sensor(DEVICES)
    try:
        agent = scene.Agent(directory / "agent", simulator.url, more=MORE + sensor.source)
        code, took, peak = run(agent)
        first = puts(simulator)
        print(f"a sensor's API, first sync: {DEVICES} devices, {first} requests, {took:.1f} s, peak {peak:.0f} MiB (exit {code})")
        expect(f"the first sync ended with {code}", code == scene.OK)
        expect(f"{first} requests, at most {REQUESTS} were expected", first <= REQUESTS)
        # The sensor itself is one more.
        macs = rows(simulator, "cmdb_ci_network_adapter", "mac_address")
        expect(f"{len(macs)} adapters of {len(set(macs))} MACs", len(macs) == len(set(macs)) == DEVICES)
        expect("the second sync sent something", (run(agent)[0], puts(simulator)) == (scene.OK, first))
        changed = rng.sample(sensor.devices, max(DEVICES // 100, 1))
        for device in changed:
            device["name"] = f"plc-{device['id']}"
        code, took, peak = run(agent)
        now = puts(simulator)
        told = sum(1 for name in rows(simulator, "cmdb_ci_ot_plc", "name") if name.startswith("plc-"))
        print(f"a sensor's API, one in a hundred changed: {told} told, {now - first} requests, {took:.1f} s, peak {peak:.0f} MiB (exit {code})")
        expect(f"{told} devices have their name, {len(changed)} were to have one", told == len(changed))
        expect("more was sent than had changed", now - first <= len(changed) // 20 + 3)
    finally:
        sensor.server.shutdown()
        simulator.stop()


def staged(directory, how, rng):
    """The same as rows of staging tables, killed when some requests of a push were made: each device has its row, and one."""
    simulator = scene.Simulator(directory, SEED, more=STAGING)
    try:
        agent = scene.Agent(directory / "agent", simulator.url, more=MORE + STAGED[how] + ONLY)
        made = lambda: simulator.ask("/simulator/ledger", last=1)["requests"]
        count, hit = min(DEVICES, 300), 0
        part = max(count // max(KILLS, 1), 1)
        for number in range(KILLS):
            feed(agent, (line(number) for number in range(number * part, (number + 1) * part)))
            before, most = made(), rng.randint(1, 20 if how == "rows" else 3)
            hit += run(agent, kill_when=lambda: made() - before >= most)[0] == -9
        until = time.monotonic() + 300
        while (code := run(agent)[0]) == scene.TRY_LATER and time.monotonic() < until:
            time.sleep(1)
        expect(f"after the kills it ended with {code}", code == scene.OK)
        keys = rows(simulator, "u_plant", "correlation_id")
        expect(f"{len(keys)} rows of {len(set(keys))} devices, {part * KILLS} were to be there", len(keys) == len(set(keys)) == part * KILLS)
        before = len([entry for entry in simulator.ask("/simulator/ledger", last=10_000)["entries"] if "/import/" in entry["path"]])
        expect("a sync without changes failed", run(agent)[0] == scene.OK)
        after = len([entry for entry in simulator.ask("/simulator/ledger", last=10_000)["entries"] if "/import/" in entry["path"]])
        expect("a sync without changes sent rows", before == after)
        print(f"{how}: {hit} of {KILLS} kills in a push: {part * KILLS} devices, each once")
    finally:
        simulator.stop()


def main():
    print(f"seed {SEED}")
    with tempfile.TemporaryDirectory(prefix="otrelay-inventory-") as directory:
        try:
            work(pathlib.Path(directory))
            (pathlib.Path(directory) / "polled").mkdir()
            polled(pathlib.Path(directory) / "polled")
            for how in STAGED:
                (pathlib.Path(directory) / how).mkdir()
                staged(pathlib.Path(directory) / how, how, random.Random(SEED))
        except scene.Failed as broken:
            sys.exit(f"FAILED: {broken}")


if __name__ == "__main__":
    main()
