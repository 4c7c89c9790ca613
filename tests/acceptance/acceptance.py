"""Recorded EVE files through the whole program; see ../acceptance.sh."""

import base64
import collections
import gzip
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
COUNT = ROOT / "tests/fixtures/eve/count.py"
OTRELAY = str(pathlib.Path(os.environ.get("OTRELAY", ROOT / "target/release/otrelay")).resolve())

# name, keys of the rule, arguments of count.py
RULES = [
    ("major and worse", 'min_severity = "major"', ["--min-severity", "major"]),
    (
        "Modbus and DNP3",
        'min_severity = "minor"\nprotocols = ["Modbus", "DNP3"]',
        ["--min-severity", "minor", "--protocol", "Modbus", "--protocol", "DNP3"],
    ),
    (
        "malware and anomaly",
        'min_severity = "minor"\nengines = ["malware", "anomaly"]',
        ["--min-severity", "minor", "--engine", "malware", "--engine", "anomaly"],
    ),
]
LOSSES = [[], ["--fault", "commit-drop:rate=0.3,method=POST,path=/api/now/table/incident", "--seed", "5"]]

CONFIG = """
[agent]
name = "acceptance"
id = "acceptance"
state_dir = "{dir}/state"
[sync]
backfill = "all"
[servicenow.sim]
instance = "{url}"
auth = "password"
client_id = "otrelay"
client_secret = {{ env = "SECRET" }}
username = "admin"
password = {{ env = "PASSWORD" }}
requests_per_hour = 1000000
max_in_flight = 4
[[source]]
name = "eve"
kind = "suricata-eve"
path = "{dir}/eve.json"
[[rule]]
name = "{name}"
{rule}
[[rule.action]]
"""


class Simulator:
    def __init__(self, arguments):
        self.process = subprocess.Popen(
            [OTRELAY, "simulate", "--listen", "127.0.0.1:0", *arguments], stdout=subprocess.PIPE, text=True
        )
        self.url = re.search(r"http\S+", self.process.stdout.readline()).group()

    def records(self):
        """Correlation ids in the table, page by page."""
        rows, headers = [], {"Authorization": "Basic " + base64.b64encode(b"admin:admin").decode(), "Accept": "application/json"}
        while True:
            query = f"sysparm_fields=correlation_id&sysparm_limit=5000&sysparm_offset={len(rows)}"
            request = urllib.request.Request(f"{self.url}/api/now/table/incident?{query}", headers=headers)
            page = json.load(urllib.request.urlopen(request, timeout=60))["result"]
            rows += [row["correlation_id"] for row in page]
            if not page:
                return rows

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def run(directory):
    env = {**os.environ, "OTRELAY_CONFIG": f"{directory}/otrelay.toml", "SECRET": "otrelay", "PASSWORD": "admin"}
    code = 75
    for _ in range(20):  # 75: something waits for its time
        done = subprocess.run([OTRELAY, "run", "--once"], env=env, capture_output=True, text=True)
        code = done.returncode
        if code != 75:
            break
        time.sleep(5)
    return code, done.stderr.strip()


def case(eve, name, rule, count_arguments, loss):
    counted = subprocess.run(
        [sys.executable, COUNT, str(eve), *count_arguments], capture_output=True, text=True, check=True
    ).stdout
    expected = int(re.search(r"\d+", counted).group())
    with tempfile.TemporaryDirectory(prefix="otrelay-acceptance-") as directory:
        shutil.copyfile(eve, f"{directory}/eve.json")
        simulator = Simulator(loss)
        try:
            pathlib.Path(directory, "otrelay.toml").write_text(
                CONFIG.format(dir=directory, url=simulator.url, name=name, rule=rule)
            )
            code, words = run(directory)
            first = simulator.records()
            again, more_words = run(directory)
            second = simulator.records()
        finally:
            simulator.stop()
    double = [key for key, n in collections.Counter(second).items() if n > 1]
    problems = []
    if code or again:
        problems.append(f"exit codes {code}, {again}: {words} {more_words}")
    if len(first) != expected:
        problems.append(f"{len(first)} incidents, the independent count is {expected}")
    if len(second) != len(first):
        problems.append(f"the second run made {len(second) - len(first)}")
    if double:
        problems.append(f"{len(double)} are double")
    lost = "30 % of the answers lost" if loss else "no fault"
    print(f"{'FAIL' if problems else 'ok  '} {eve.name}, {name}, {lost}: {len(first)} incidents", flush=True)
    for problem in problems:
        print(f"     {problem}", flush=True)
    return not problems


def main():
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} DIRECTORY")
    good = bad = 0
    with tempfile.TemporaryDirectory(prefix="otrelay-eve-") as unpacked:
        found = pathlib.Path(sys.argv[1]).glob("*.json*")
        for packed in sorted(path for path in found if ".expected." not in path.name):
            eve = packed
            if packed.suffix == ".gz":
                eve = pathlib.Path(unpacked, packed.stem)
                eve.write_bytes(gzip.open(packed).read())
            for name, rule, arguments in RULES:
                for loss in LOSSES:
                    if case(eve, name, rule, arguments, loss):
                        good += 1
                    else:
                        bad += 1
    print(f"{good} passed, {bad} failed")
    sys.exit(1 if bad or not good else 0)


main()
