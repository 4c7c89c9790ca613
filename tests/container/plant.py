"""What stands around otrelay in the container: a ServiceNow simulator as a unit of its own, a sensor's log file, and
the config between the two. The judge of tests/faults counts tickets against what the sensor wrote.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))
import scene  # noqa: E402
from machine import Failed  # noqa: E402

PORT = 8600
# Nobody else has this text, so that it can be looked for.
PASSWORD = "canary-password-7c21"
LOG = "/var/log/suricata/eve.json"
CA = "/etc/otrelay/plant-ca.pem"
DROP_INS = "/etc/systemd/system/otrelay.service.d"

MAIN = f"""\
[agent]
name = "{scene.AGENT}"
id = "{scene.AGENT}"

[sync]
interval = "60m"
backfill = "all"
"""

DESTINATION = f"""\
[servicenow.{scene.DESTINATION}]
instance = "https://127.0.0.1:{PORT}"
auth = "basic"
username = "{scene.USER}"
password = {{ credential = "servicenow-password" }}
tls = {{ ca_file = "{CA}" }}
requests_per_hour = 1000000

[[source]]
name = "{scene.SOURCE}"
kind = "suricata-eve"
path = "/var/log/suricata/eve*.json"
"""

RULE = f"""\
[[rule]]
name = "everything"
protocols = PROTOCOLS

[[rule.action]]
servicenow = "{scene.DESTINATION}"
table = "{scene.TABLE}"

[rule.action.fields]
short_description = "{{{{ title }}}}"
"""

# One request, made inside the container's network by the Python of this machine.
REQUEST = """\
import base64, ssl, sys, urllib.error, urllib.request
method, url, login, body = sys.argv[1:5]
request = urllib.request.Request(url, method=method, data=body.encode() or None)
request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
request.add_header("Accept", "application/json")
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
try:
    sys.stdout.write(opener.open(request, timeout=20).read().decode())
except urllib.error.HTTPError as e:
    sys.exit(4 if e.code == 404 else f"{e.code} {e.read()[:300]}")
"""


class Destination:
    """The simulator: a copy of the binary, so that it lives through upgrades and a purge."""

    def __init__(self, machine, binary):
        self.machine = machine
        machine.put(binary, "/opt/destination/otrelay")
        machine.run("chmod", "0755", "/opt/destination/otrelay")
        self.start()

    def start(self):
        self.machine.path("/opt/destination/ca.pem").unlink(missing_ok=True)
        self.machine.run("systemd-run", "-q", "--unit=destination", f"--setenv=OTRELAY_SIM_PASS={PASSWORD}",
                         "/opt/destination/otrelay", "simulate", "--tls", "--ca-out", "/opt/destination/ca.pem", "--listen",
                         f"127.0.0.1:{PORT}")
        self.machine.wait("the simulator's certificate", self.machine.path("/opt/destination/ca.pem").exists, 20)

    def ask(self, path, method="GET", body="", **params):
        url = f"https://127.0.0.1:{PORT}{path}?{urllib.parse.urlencode(params)}"
        done = subprocess.run(["nsenter", "-t", str(self.machine.pid), "-n", "--", sys.executable, "-c", REQUEST, method, url,
                               f"{scene.USER}:{PASSWORD}", body], capture_output=True, text=True, timeout=60, check=False,
                              env={k: v for k, v in os.environ.items() if "proxy" not in k.lower()})
        if done.returncode == 4:
            return {"result": []}
        if done.returncode != 0:
            raise Failed(f"the simulator does not answer {path}: {done.stderr.strip()[-400:]}")
        return json.loads(done.stdout) if done.stdout else {}

    records = scene.Simulator.records

    def down(self):
        self.ask("/simulator/faults", "POST", "status=503:path=/api")

    def up(self):
        self.ask("/simulator/faults", "DELETE")


class Plant:
    """One machine with a destination, a sensor and a configured otrelay."""

    def __init__(self, machine, binary):
        self.machine, self.destination = machine, Destination(machine, binary)
        self.wanted, self.next = set(), 0
        machine.run("groupadd", "-r", "suricata")
        # As Debian's suricata with `run-as` has it: the file and its directory are for root and the group.
        self.fresh_log()
        machine.run("chown", "root:suricata", "/var/log/suricata")
        machine.run("chmod", "2750", "/var/log/suricata")

    def fresh_log(self):
        """A sensor that has been running: an empty file would be looked at every ten seconds only."""
        self.machine.write(LOG, scene.other_line(1), "root:suricata", "0640")

    def configure(self, credentials):
        """As an operator does after the installation."""
        machine = self.machine
        machine.put(machine.path("/opt/destination/ca.pem"), CA)
        machine.write("/etc/otrelay/otrelay.toml", MAIN, "root:otrelay", "0640")
        machine.write("/etc/otrelay/conf.d/10-plant.toml", DESTINATION, "root:otrelay", "0640")
        self.rule('"any"')
        machine.write("/etc/otrelay/secrets/password", PASSWORD + "\n", "root:root", "0600")
        for name, text in credentials.items():
            machine.write(f"{DROP_INS}/{name}.conf", text)
        machine.run("systemctl", "daemon-reload")

    def rule(self, protocols):
        self.machine.write("/etc/otrelay/conf.d/20-rules.toml", RULE.replace("PROTOCOLS", protocols), "root:otrelay", "0640")

    def alerts(self, count, wanted=True):
        """The sensor finds something."""
        numbers = range(self.next, self.next + count)
        self.next += count
        start = int(time.time() * 1_000_000)
        with open(self.machine.path(LOG), "a") as log:
            for i, number in enumerate(numbers):
                log.write(scene.eve_line(number, start + i * 1009))
        if wanted:
            self.wanted.update(numbers)

    def status(self):
        code, text = self.machine.do("otrelay", "status", "--json")
        try:
            return json.loads(text[text.index("{"):])
        except ValueError:
            raise Failed(f"`otrelay status --json` wrote no JSON (exit {code}): {text[:500]}") from None

    def read(self, seconds=20):
        """Until the service has taken in what the sensor wrote."""
        lines = sum(1 for _ in open(self.machine.path(LOG)))
        self.machine.wait(f"all {lines} lines taken in", lambda: self.lines() >= lines, seconds)

    def lines(self):
        sources = self.status()["sources"]
        return sources[0]["lines"] if sources else 0

    def delivered(self):
        """All that was written and wanted is there, once: by a sync that root asks for."""
        self.read()
        code, text = self.machine.do("otrelay", "sync")
        if code != 0:
            raise Failed(f"`otrelay sync` ended with {code}: {text.strip()[-600:]}")
        return self.judge()

    def judge(self):
        return scene.judge(self.destination, self.wanted)
