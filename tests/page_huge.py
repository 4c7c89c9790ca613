#!/usr/bin/env python3
"""How fast the status page answers, and in how much memory, with very many alerts queued: for docs/figures.md, not a gate.

    OTRELAY=target/release/otrelay tests/page_huge.py [ALERTS]      1000000 by default; needs some 2 GB of disk

A service of its own on a throw-away state directory takes in that many findings; its instance is an address where nobody
answers, so all of them wait. Then each page is asked for 20 times. Shown: bytes, median and worst wall time, CPU time of the
service a page, and by how much the most memory the process ever had has grown.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

PAGES = ["/", "/alerts", "/tickets", "/devices", "/queue", "/issues", "/metrics"]
ROUNDS = 20


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def feed(path, count):
    """EVE alerts, each a finding of its own: 250 addresses times as many signatures as it takes."""
    with open(path, "w") as out:
        for n in range(count):
            out.write(
                '{"timestamp":"2026-11-27T10:00:00.000000+0000","event_type":"alert","src_ip":"10.%d.%d.%d","src_port":4000,'
                '"dest_ip":"10.9.9.9","dest_port":502,"proto":"TCP","app_proto":"modbus","alert":{"action":"allowed","gid":1,'
                '"signature_id":2250005,"rev":2,"signature":"SURICATA Modbus finding %d","category":"Generic",'
                '"severity":%d}}\n' % (n >> 16 & 255, n >> 8 & 255, n & 255, n, 1 + n % 3)
            )


def memory(pid, what):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what))


def cpu(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.monotonic()
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    took = time.monotonic() - began
    assert answer.status == 200, (path, answer.status)
    return took, len(body)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    program = os.path.abspath(os.environ.get("OTRELAY", "target/release/otrelay"))
    with tempfile.TemporaryDirectory(prefix="otrelay-page-") as directory:
        port, config = free_port(), os.path.join(directory, "otrelay.toml")
        feed(os.path.join(directory, "eve.json"), count)
        with open(config, "w") as out:
            out.write(
                f'[agent]\nname = "huge"\nid = "huge"\nstate_dir = "{directory}/state"\n'
                '[sync]\nbackfill = "all"\nenabled = false\n[buffer]\nmax_size = "8GiB"\n'
                f'[status]\nlisten = "127.0.0.1:{port}"\n'
                '[servicenow.prod]\ninstance = "https://127.0.0.1:9"\nauth = "basic"\nusername = "u"\n'
                'password = { env = "P" }\n'
                f'[[source]]\nname = "eve"\nkind = "suricata-eve"\npath = "{directory}/eve.json"\n'
                '[[rule]]\nname = "all"\n[[rule.action]]\ntable = "incident"\n'
            )
        os.chmod(config, 0o600)
        environment = {"P": "p", "PATH": os.environ["PATH"]}
        command = [program, "--config", config]
        service = subprocess.Popen([*command, "run"], env=environment, stderr=subprocess.DEVNULL)
        try:
            began, backlog = time.monotonic(), -1
            while backlog < count:
                time.sleep(2)
                said = subprocess.run([*command, "status", "--json"], env=environment, capture_output=True, text=True)
                if said.returncode == 0:
                    backlog = json.loads(said.stdout)["backlog"]
                assert service.poll() is None, "the service ended"
                assert time.monotonic() - began < 3600, f"{backlog} queued after an hour"
            print(f"{count} queued after {time.monotonic() - began:.0f} s, {memory(service.pid, 'VmRSS') / 1024:.1f} MiB resident")
            # What it had while it took them in is no measure of the page: a new process has only opened them.
            service.terminate()
            service.wait()
            service = subprocess.Popen([*command, "run"], env=environment, stderr=subprocess.DEVNULL)
            while True:
                try:
                    get(port, "/health")
                    break
                except OSError:
                    time.sleep(0.1)
            time.sleep(3)
            print(f"{'page':9} {'bytes':>8} {'median ms':>10} {'worst ms':>9} {'CPU ms':>7} {'peak + KiB':>11}")
            for path in PAGES:
                peak, before, times = memory(service.pid, "VmHWM"), cpu(service.pid), []
                for _ in range(ROUNDS):
                    took, size = get(port, path)
                    times.append(took * 1000)
                times.sort()
                spent = (cpu(service.pid) - before) * 1000 / ROUNDS
                grown = memory(service.pid, "VmHWM") - peak
                print(f"{path:9} {size:8} {times[len(times) // 2]:10.1f} {times[-1]:9.1f} {spent:7.1f} {grown:11}")
        finally:
            service.kill()
            service.wait()


main()
