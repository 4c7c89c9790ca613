"""What the fault suites share: a simulator, an agent in a directory of its own, a feeder, and the judge.

Everything here treats otrelay as a black box: the binary, its config file, the files that it reads, and the tables of
the ServiceNow simulator. The judge knows what was written and nothing else. Keys of tickets are computed here a second
time, from the text of their definition (src/model/ticket.rs says why they must never change).

Each run prints its seed; the same seed gives the same alerts, rotations and moments. What the machine does in between
is not ours to repeat, so a reproduction may need several attempts.
"""

import base64
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
AGENT, SOURCE, DESTINATION, TABLE = "faults", "eve", "sim", "incident"
# What the simulator lets in.
USER, PASSWORD = "admin", "admin"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
SID, SERVER = 1000001, "10.40.1.11"

# Exit codes, as design and systemd unit have them.
OK, FAILURE, IO, TRY_LATER, CONFIG = 0, 1, 74, 75, 78


class Failed(Exception):
    """A promise was broken; the text says which."""


def binary():
    path = pathlib.Path(os.environ.get("OTRELAY", ROOT / "target/release/otrelay")).resolve()
    if not os.access(path, os.X_OK):
        sys.exit(f"{path} is not there: build it (cargo build --release) or set OTRELAY")
    return str(path)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# Keys


def part(text):
    data = text.encode()
    return struct.pack(">I", len(data)) + data


def source_ip(number):
    return f"10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def fingerprint(agent, number):
    # No network is named in these lines; the protocol is the one that is shown.
    identity = [agent, SOURCE, "derived", f"1:{SID}", "", source_ip(number), SERVER, "Modbus"]
    return hashlib.sha256(b"".join(part(p) for p in identity)).digest()


def keys(agent, number, generation=0):
    """`correlation_id` and `sys_id` of the ticket for alert `number`."""
    finding = fingerprint(agent, number)
    digest = hashlib.sha256(finding + part(DESTINATION) + part(TABLE) + struct.pack(">I", generation)).hexdigest()
    return "otrelay-" + digest[:32], digest[32:]


def title(number):
    return f"PLANT numbered alert {number:06}"


def padding(number, size):
    """Text that cannot be packed, the same for the same number."""
    text, n = "", 0
    while len(text) < size:
        text += base64.b64encode(hashlib.sha512(f"{number} {n}".encode()).digest()).decode()
        n += 1
    return text[:size]


def eve_line(number, micros, pad=0):
    """One alert; no two lines are alike, so that no two files begin alike. `pad`: so many bytes more."""
    seconds, fraction = divmod(micros, 1_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:06}+0000"
    return json.dumps({
        "timestamp": stamp, "flow_id": 1_000_000 + micros % 1_000_000_000, "event_type": "alert",
        "src_ip": source_ip(number), "src_port": 49152 + number % 10000, "dest_ip": SERVER, "dest_port": 502,
        "proto": "TCP",
        "alert": {"action": "allowed", "gid": 1, "signature_id": SID, "rev": 1, "signature": title(number),
                  "category": "Misc Attack", "severity": 1},
        "app_proto": "modbus", "direction": "to_server", **({"payload": padding(number, pad)} if pad else {}),
    }, separators=(",", ":")) + "\n"


def other_line(micros):
    return json.dumps({"timestamp": "2026-05-18T06:00:00.000000+0000", "flow_id": micros, "event_type": "flow",
                       "src_ip": "10.40.2.10", "dest_ip": SERVER, "proto": "TCP"}, separators=(",", ":")) + "\n"


# The other side


class Simulator:
    """`otrelay simulate` on a free port of loopback."""

    def __init__(self, directory, seed, fault=None, more=(), batches=False):
        """`fault`: one, or a list of them. `more`: further arguments of it. `batches`: it takes several requests in one."""
        for attempt in range(5):
            try:
                return self.start(directory, seed, fault, more, batches)
            except Failed:
                # Somebody else was given the port in between.
                if attempt == 4 or "in use" not in tail(self.log):
                    raise

    def start(self, directory, seed, fault, more, batches):
        self.port = free_port()
        self.log = directory / "simulator.log"
        command = [binary(), "simulate", "--listen", f"127.0.0.1:{self.port}", "--seed", str(seed), *more]
        if not batches:
            # One record a request: what strace saw of it is judged, and what is lost is one answer.
            command.append("--no-batch-api")
        for one in [fault] if isinstance(fault, str) else fault or []:
            command += ["--fault", one]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OTRELAY_SIM_")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise Failed(f"the simulator did not start: {tail(self.log)}") from None
                time.sleep(0.02)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path, method="GET", data=None, **params):
        """One request; asked again when the simulator's own faults get in the way."""
        request = urllib.request.Request(f"{self.url}{path}?{urllib.parse.urlencode(params)}", data, method=method)
        request.add_header("Authorization", BASIC)
        request.add_header("Accept", "application/json")
        for attempt in range(50):
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as e:
                # Past the last page an instance may say 404.
                if e.code == 404:
                    return {"result": []}
                error = e
            except (OSError, ValueError, http.client.HTTPException) as e:
                error = e
            time.sleep(0.05)
        raise Failed(f"the simulator does not answer {path}: {error}")

    def put(self, body):
        """A record as the agent once sent it. One that is there already stays as it is."""
        request = urllib.request.Request(f"{self.url}/api/now/table/{TABLE}", data=body, method="POST")
        for name, value in (("Authorization", BASIC), ("Content-Type", "application/json"), ("Accept", "application/json")):
            request.add_header(name, value)
        try:
            urllib.request.urlopen(request, timeout=30).close()
        except urllib.error.HTTPError as e:
            if e.code not in (400, 403, 409):
                raise

    def mend(self):
        """No faults from now on. Says how many answers were lost."""
        fired = sum(f["fired"] for f in self.ask("/simulator/faults")["faults"])
        self.ask("/simulator/faults", "DELETE")
        return fired

    def records(self, fields="sys_id,correlation_id,short_description,number"):
        """All tickets, page by page. What another agent makes meanwhile moves the pages, so a row may come twice."""
        rows, page = [], 500
        while True:
            got = self.ask(f"/api/now/table/{TABLE}", **({"sysparm_fields": fields} if fields else {}),
                           sysparm_query="correlation_idSTARTSWITHotrelay-^ORDERBYsys_id", sysparm_limit=page,
                           sysparm_offset=len(rows), sysparm_exclude_reference_link="true")["result"]
            rows += got
            if len(got) < page:
                return list({row["sys_id"]: row for row in rows}.values())

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


# The agent


class Agent:
    """A config, a state directory and a directory of EVE files; processes of otrelay come and go."""

    def __init__(self, directory, url, name=AGENT, eve=None, more=""):
        """`eve`: files that are another agent's too. `more`: further tables of the config."""
        self.name = name
        self.eve = eve or directory / "eve"
        self.log = directory / "agent.log"
        self.config = directory / "otrelay.toml"
        directory.mkdir(parents=True, exist_ok=True)
        self.eve.mkdir(exist_ok=True)
        state = self.state = directory / "state"
        state.mkdir(mode=0o700)
        secret = directory / "password"
        secret.touch(mode=0o600)
        secret.write_text(PASSWORD)
        self.config.write_text(f"""\
[agent]
name = "{name}"
id = "{name}"
state_dir = "{state}"

[sync]
interval = "5m"
backfill = "all"

[servicenow.{DESTINATION}]
instance = "{url}"
auth = "basic"
username = "{USER}"
password = {{ file = "{secret}" }}
requests_per_hour = 1000000

[[source]]
name = "{SOURCE}"
kind = "suricata-eve"
path = "{self.eve}/eve*.json"

[[rule]]
name = "everything"

[[rule.action]]
servicenow = "{DESTINATION}"
table = "{TABLE}"

[rule.action.fields]
short_description = "{{{{ title }}}}"
{more}""")
        # The control socket must not be that of a service on this machine.
        self.program = binary()
        self.environment = {k: v for k, v in os.environ.items()
                            if k not in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "NOTIFY_SOCKET", "OTRELAY_CONFIG")}

    def start(self, *arguments, before=()):
        command = [*before, self.program, "--config", str(self.config), *arguments]
        with open(self.log, "ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            log.flush()
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment)

    def drain(self, seconds=180, with_dead=False, repairs=0):
        """`run --once` until it says that all is delivered. Gives the number of runs. `with_dead`: dead letters may stay.
        `repairs`: so many may end because they met damage, which the next one repairs."""
        until, runs = time.monotonic() + seconds, 0
        while True:
            process, runs = self.start("run", "--once"), runs + 1
            try:
                code = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise Failed("`run --once` does not end") from None
            if code == OK or with_dead and code == FAILURE:
                return runs
            if code == IO and repairs > 0:
                repairs -= 1
                continue
            if code != TRY_LATER:
                raise Failed(f"`run --once` ended with {code}")
            if time.monotonic() > until:
                raise Failed(f"`run --once` still says {TRY_LATER} (try again later) after {seconds} s")
            time.sleep(0.5)

    def ask(self, what):
        """One question to the control socket of the running service; nothing when none answers."""
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(60)
                s.connect(str(self.state / "otrelay.sock"))
                s.sendall(json.dumps({"ask": what}).encode() + b"\n")
                answer = b""
                while part := s.recv(1 << 16):
                    answer += part
            return json.loads(answer).get("ok")
        except (OSError, ValueError):
            return None

    def serve(self, before=(), repairs=0):
        """Starts the service and waits until it answers; again, as systemd would, where it ends because it met damage."""
        process, until = self.start("run", before=before), time.monotonic() + 30
        while self.ask("status") is None:
            if process.poll() == IO and repairs > 0:
                return self.serve(before, repairs - 1)
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                raise Failed(f"the service does not answer (exit {process.poll()})")
            time.sleep(0.02)
        return process

    def until_taken(self, count, seconds=60):
        """Until the service has taken in so many findings."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            told = self.ask("status")
            if told and told["sources"] and told["sources"][0]["new"] >= count:
                return
            time.sleep(0.05)
        raise Failed(f"the service does not take in {count} findings within {seconds} s")

    def status(self):
        done = subprocess.run([self.program, "--config", str(self.config), "status", "--json"], capture_output=True,
                              timeout=30, env=self.environment, check=False)
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError:
            raise Failed(f"`status --json` wrote no JSON (exit {done.returncode}): {done.stdout[:300]!r} "
                         f"{done.stderr[:300]!r}") from None


class Feeder:
    """Writes numbered alerts as a sensor does, and rotates as its administrator does."""

    def __init__(self, directory, rng, numbers=None, pad=0, repeats=True):
        self.directory, self.rng, self.pad, self.repeats = directory, rng, pad, repeats
        self.written, self.lines, self.rotations = set(), 0, []
        self.path = directory / "eve.json"
        self.file = open(self.path, "ab", buffering=0)
        self.micros = 1779084000_000000
        self.next, self.limit = 0, numbers
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.trouble = None
        self.thread = None

    def line(self, number):
        self.micros += 1 + self.rng.randrange(1_000_000)
        return eve_line(number, self.micros, self.pad).encode()

    def write(self, data):
        """Now and then in two pieces: a reader must not take half a line for one."""
        if self.rng.random() < 0.1:
            cut = self.rng.randrange(1, len(data))
            self.file.write(data[:cut])
            time.sleep(0.002)
            data = data[cut:]
        self.file.write(data)

    def some(self):
        """One new alert, sometimes with other records and repeats of older alerts around it."""
        with self.lock:
            if self.rng.random() < 0.5:
                self.write(other_line(self.micros).encode())
                self.lines += 1
            number, self.next = self.next, self.next + 1
            again = [self.rng.randrange(self.next) for _ in range(self.rng.choice((0, 0, 0, 1, 2) if self.repeats else (0,)))]
            for n in [number, *again]:
                self.write(self.line(n))
                self.lines += 1
                self.written.add(n)

    def run(self, per_second):
        try:
            while not self.over.is_set() and (self.limit is None or self.next < self.limit):
                self.some()
                time.sleep(self.rng.random() * 2 / per_second)
        except OSError as e:
            self.trouble = e

    def start(self, per_second):
        self.thread = threading.Thread(target=self.run, args=(per_second,), daemon=True)
        self.thread.start()

    def stop(self):
        self.over.set()
        if self.thread:
            self.thread.join()
        if self.trouble:
            raise self.trouble

    def rotate(self, how):
        """The feeder is paused meanwhile: all that it was asked to write is written. The agent may be up or down."""
        with self.lock:
            getattr(self, how)()
            self.rotations.append(how)

    def old_name(self):
        return self.directory / f"eve-{len(self.rotations) + 1}.json"

    def rename(self):
        """Rename and reopen, as logrotate does: the new name is outside the source's glob, and the sensor goes on writing
        to the old file until it is told to reopen."""
        self.path.rename(self.path.with_name(self.path.name + ".1"))
        for _ in range(3):
            number, self.next = self.next, self.next + 1
            self.write(self.line(number))
            self.lines += 1
            self.written.add(number)
        self.file.close()
        self.file = open(self.path, "ab", buffering=0)

    def copytruncate(self):
        """Copy and truncate. The copy has a name that the source reads, so nothing is lost to a reader that is down."""
        copy = self.old_name()
        shutil.copyfile(self.path, copy.with_suffix(".part"))
        copy.with_suffix(".part").rename(copy)
        os.ftruncate(self.file.fileno(), 0)

    def new_name(self):
        """The sensor's own rotation: it goes on in a file of another name."""
        self.file.close()
        self.path = self.directory / f"eve-new-{len(self.rotations) + 1}.json"
        self.file = open(self.path, "ab", buffering=0)


# The judge


def some_of(things):
    things = sorted(things)
    more = f" and {len(things) - 5} more" if len(things) > 5 else ""
    return ", ".join(str(t) for t in things[:5]) + more


def judge(simulator, numbers, agent=AGENT, records=None):
    """Every number has exactly one ticket, with the keys and the text that it must have. Gives their count. `records`: what
    the simulator has, if it was asked already."""
    expected = {keys(agent, n): n for n in numbers}
    by_correlation = {k[0]: n for k, n in expected.items()}
    others = 0
    found, doubled, strange = {}, [], []
    for row in simulator.records() if records is None else records:
        correlation, sys_id = row["correlation_id"], row["sys_id"]
        number = by_correlation.get(correlation)
        if number is None:
            # Of another run on the same simulator, or of an alert that was never written.
            others += 1
            if row["short_description"].startswith("PLANT numbered") and agent == AGENT:
                strange.append(f"{row['short_description']} ({correlation})")
        elif number in found:
            doubled.append(title(number))
        else:
            found[number] = row
            if (correlation, sys_id) not in expected:
                strange.append(f"{title(number)} has sys_id {sys_id}, not the derived one")
            if row["short_description"] != title(number):
                strange.append(f"{title(number)} is called `{row['short_description']}`")
    missing = set(numbers) - found.keys()
    verdicts = [
        (missing, f"{len(missing)} of {len(numbers)} fingerprints have no ticket: {some_of(title(n) for n in missing)}"),
        (doubled, f"{len(doubled)} fingerprints have more than one ticket: {some_of(doubled)}"),
        (strange, f"{len(strange)} tickets are not what they must be: {some_of(strange)}"),
    ]
    broken = [text for bad, text in verdicts if bad]
    if broken:
        raise Failed("; ".join(broken))
    return len(found)


def check_status(agent, tickets):
    """`status --json` must say that everything was new once, that nothing is left, and that nothing was given up."""
    code, told = agent.status()
    if code != OK:
        raise Failed(f"`status --json` ended with {code}: {json.dumps(told)[:500]}")
    destination, source = told["destinations"][0]["counts"], told["sources"][0]
    counts = {"backlog": (told["backlog"], 0), "dead": (told["dead"], 0), "shed": (told["shed"], 0),
              "pending": (destination.get("pending", 0), 0), "claimed": (destination.get("claimed", 0), 0), "new": (source["new"], tickets)}
    wrong = [f"`{name}` is {found}, not {right}" for name, (found, right) in counts.items() if found != right]
    if source["rejected"] or source["trouble"]:
        wrong.append(f"rejected {source['rejected']}, trouble {source['trouble']}")
    if wrong:
        raise Failed(f"status: {'; '.join(wrong)}")


def tail(path, lines=30):
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


class Scratch:
    """A directory that goes away, unless the run failed or KEEP is set. `memory`: not on a disk, where there is such."""

    def __init__(self, name, memory=False):
        place = "/dev/shm" if memory and os.access("/dev/shm", os.W_OK) else None
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=f"otrelay-{name}-", dir=place))

    def __enter__(self):
        return self.path

    def __exit__(self, kind, error, trace):
        if kind is None and not os.environ.get("KEEP"):
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            print(f"kept: {self.path}", file=sys.stderr)
