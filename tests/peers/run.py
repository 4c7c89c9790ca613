"""otrelay beside its peers on one file of EVE alerts: what it costs to have all of it durable while nobody takes it.

Each program follows the same file with the same durability as far as it has one, and sends to a port where nobody listens:
otrelay to its store; Fluent Bit (JSON parsed) to chunks on disk with `storage.sync full` and checksums; rsyslog to a disk
queue that is synced, with a checkpoint for each message. In each round all of them run, one after the other, in turning
order; told are medians. CPU decides: wall time is the machine's. What is not installed is left out, and said.

    OTRELAY=target/release/otrelay ALERTS=50000 ROUNDS=3 tests/peers.sh

What is not the same: otrelay commits the place in the file with the alerts and groups commits; rsyslog syncs each message;
Fluent Bit syncs its offsets before its chunks, so that a power cut can take some.
"""

import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))
import scene  # noqa: E402

ALERTS = int(os.environ.get("ALERTS") or 50_000)
ROUNDS = int(os.environ.get("ROUNDS") or 3)
# Names of those that run, with commas; none: all that are installed.
ONLY = [name for name in (os.environ.get("ONLY") or "").split(",") if name]
# So that a line has some 470 bytes, as most of those that were recorded.
PADDING = 80
PATIENCE = 1_200


class Measured:
    """A process from its start until it has all of the file."""

    def __init__(self, directory, command, has_all, environment=None):
        log = open(directory / "log", "wb")
        began = time.monotonic()
        self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        try:
            while not has_all():
                if self.process.poll() is not None or time.monotonic() - began > PATIENCE:
                    raise scene.Failed(f"{command[0]} does not take all in (exit {self.process.poll()}): "
                                       f"{scene.tail(directory / 'log', 8)}")
                time.sleep(0.1)
            self.wall = time.monotonic() - began
            self.cpu, self.memory, self.written = self.costs()
        finally:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
        self.on_disk = 0

    def costs(self):
        proc = pathlib.Path(f"/proc/{self.process.pid}")
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
        io = dict(line.split(":") for line in (proc / "io").read_text().splitlines())
        return cpu, int(status["VmHWM"].split()[0]) / 1024, int(io["write_bytes"])

    def keeps(self, place):
        self.on_disk = sum(p.stat().st_blocks * 512 for p in place.rglob("*") if p.is_file())
        return self


def otrelay(directory, eve):
    agent = scene.Agent(directory / "agent", f"http://127.0.0.1:{scene.free_port()}", eve=eve.parent)

    def has_all():
        told = agent.ask("status")
        return bool(told and told["sources"] and told["sources"][0]["new"] >= ALERTS)

    command = [agent.program, "--config", str(agent.config), "run"]
    return Measured(directory, command, has_all, agent.environment).keeps(agent.state)


def rsyslog(directory, eve):
    queue, stats = directory / "queue", directory / "stats"
    queue.mkdir()
    config = directory / "rsyslog.conf"
    config.write_text(f"""\
global(workDirectory="{queue}" maxMessageSize="64k")
module(load="impstats" interval="1" format="json" log.file="{stats}" log.syslog="off")
module(load="imfile")
input(type="imfile" file="{eve}" tag="eve" ruleset="out")
ruleset(name="out") {{
  action(type="omfwd" name="out" target="127.0.0.1" port="{scene.free_port()}" protocol="tcp" action.resumeRetryCount="-1"
         queue.type="Disk" queue.filename="out" queue.syncqueuefiles="on" queue.checkpointInterval="1"
         queue.maxDiskSpace="8g" queue.size="100000000" queue.timeoutEnqueue="100000")
}}
""")

    def has_all():
        lines = stats.read_text().splitlines() if stats.exists() else []
        for line in reversed(lines):
            if '"out queue"' in line or '"name":"out queue"' in line:
                return json.loads(line[line.index("{"):])["enqueued"] >= ALERTS
        return False

    return Measured(directory, ["rsyslogd", "-n", "-f", str(config), "-i", str(directory / "pid")], has_all).keeps(queue)


def fluent_bit(directory, eve):
    chunks, port = directory / "chunks", scene.free_port()
    (directory / "parsers.conf").write_text("[PARSER]\n    Name json\n    Format json\n")
    config = directory / "fluent-bit.conf"
    config.write_text(f"""\
[SERVICE]
    Flush 1
    Parsers_File {directory}/parsers.conf
    HTTP_Server On
    HTTP_Listen 127.0.0.1
    HTTP_Port {port}
    storage.path {chunks}
    storage.sync full
    storage.checksum on
    storage.max_chunks_up 32
[INPUT]
    Name tail
    Path {eve}
    Parser json
    Read_from_Head true
    DB {directory}/offsets.db
    DB.sync full
    storage.type filesystem
[OUTPUT]
    Name http
    Match *
    Host 127.0.0.1
    Port {scene.free_port()}
    Retry_Limit no_limits
""")

    def has_all():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/metrics", timeout=5) as answer:
                inputs = json.load(answer)["input"]
        except (OSError, ValueError):
            return False
        return sum(one["records"] for one in inputs.values()) >= ALERTS

    return Measured(directory, [program("fluent-bit"), "-c", str(config)], has_all).keeps(chunks)


def program(name):
    return shutil.which(name) or shutil.which(name, path="/opt/fluent-bit/bin:/usr/sbin:/usr/local/bin")


PEERS = {"otrelay": (None, otrelay), "Fluent Bit": ("fluent-bit", fluent_bit), "rsyslog": ("rsyslogd", rsyslog)}


def version(name):
    said = subprocess.run([program(name), "-v" if name == "rsyslogd" else "--version"], capture_output=True, text=True, check=False)
    return said.stdout.splitlines()[0].strip() if said.stdout else name


def main():
    print(f"otrelay: {scene.binary()}")
    present = {}
    for name, (needs, run) in PEERS.items():
        if ONLY and name not in ONLY:
            print(f"LEFT OUT: {name}, ONLY does not name it")
            continue
        if needs and not program(needs):
            print(f"LEFT OUT: {name}, {needs} is not installed")
            continue
        present[name] = run
        print(f"{name}: {version(needs) if needs else subprocess.check_output([scene.binary(), '--version'], text=True).strip()}")
    runs = {name: [] for name in present}
    for turn in range(ROUNDS):
        order = list(present.items())
        for name, run in order[turn % len(order):] + order[:turn % len(order)]:
            with scene.Scratch("peer") as directory:
                (directory / "eve").mkdir()
                eve = directory / "eve" / "eve.json"
                with open(eve, "w", encoding="utf-8") as file:
                    for n in range(ALERTS):
                        file.write(scene.eve_line(n, 1779084000_000000 + n * 1_000, PADDING))
                size = eve.stat().st_size / ALERTS
                runs[name].append(run(directory, eve))
    print(f"{ALERTS} distinct alerts of {size:.0f} bytes, {ROUNDS} rounds, medians; nobody takes what is sent")
    print(f"{'':12}{'k alerts per CPU s':>20}{'k/s wall':>10}{'MiB memory':>12}{'bytes written':>15}{'on disk':>9}{'CPU to otrelay':>16}")
    own = [r.cpu for r in runs["otrelay"]]
    for name, these in runs.items():
        median = lambda of: statistics.median(map(of, these))  # noqa: E731
        ratio = statistics.median(r.cpu / one for r, one in zip(these, own))
        print(f"{name:12}{ALERTS / 1000 / median(lambda r: r.cpu):20.1f}{ALERTS / 1000 / median(lambda r: r.wall):10.1f}"
              f"{median(lambda r: r.memory):12.0f}{median(lambda r: r.written) / ALERTS:15.0f}"
              f"{median(lambda r: r.on_disk) / ALERTS:9.0f}{ratio:15.2f}x")


if __name__ == "__main__":
    try:
        main()
    except scene.Failed as e:
        print(f"FAILED: {e}", file=sys.stderr)
        sys.exit(1)
