"""Hostile input of every kind at once against one service. Called by tests/hostile.sh.

From beside the sensor: a sparse file of terabytes, thousands of decoys, lines of 16 MiB that are no text, a packed file of a
gibibyte, links to a secret, a pipe, names with escapes. From the network: slow and endless senders on each listener, packed
bombs, datagrams. From an instance: answers of two MiB that would take two hundred as a tree. Beside all that the sensor
rotates its file and writes one alert that another instance has to get.
"""

import gzip
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 128 << 20
# Neither has to have a name.
SERVICE, OTHER = 54321, 54322
SECONDS = int(os.environ.get("SECONDS", "15"))
PATIENCE = 60
SECRETS = {"password": "pw-canary-1", "secret": "cs-canary-2", "token": "tk-canary-3"}


class Failed(Exception):
    """A promise was broken; the text says which."""


class NotRun(Exception):
    """Something is missing here."""


class Group:
    """A control group of LIMIT without swap, of either version."""

    def __init__(self):
        v1, v2 = pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")
        try:
            if (v1 / "memory.limit_in_bytes").exists():
                self.at, self.v2 = v1 / f"otrelay-hostile-{os.getpid()}", False
                self.at.mkdir()
                self.write("memory.limit_in_bytes", LIMIT)
                swap = self.at / "memory.memsw.limit_in_bytes"
                self.write(swap.name if swap.exists() else "memory.swappiness", LIMIT if swap.exists() else 0)
            elif "memory" in (v2 / "cgroup.controllers").read_text().split():
                (v2 / "cgroup.subtree_control").write_text("+memory")
                self.at, self.v2 = v2 / f"otrelay-hostile-{os.getpid()}", True
                self.at.mkdir()
                self.write("memory.max", LIMIT)
                self.write("memory.swap.max", 0)
            else:
                raise NotRun("no control group of memory is here")
        except OSError as error:
            raise NotRun(f"no control group of memory can be made: {error}") from error

    def write(self, name, value):
        (self.at / name).write_text(str(value))

    def peak(self):
        name = "memory.peak" if self.v2 else "memory.max_usage_in_bytes"
        return int((self.at / name).read_text()) if (self.at / name).exists() else 0

    def kills(self):
        text = (self.at / ("memory.events" if self.v2 else "memory.oom_control")).read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.split()[0] == "oom_kill")

    def remove(self):
        for _ in range(50):
            try:
                return self.at.rmdir()
            except OSError:
                time.sleep(0.1)


class Bomb(http.server.BaseHTTPRequestHandler):
    """An instance whose answers take a hundred times their size as a tree of values."""

    protocol_version = "HTTP/1.1"
    answers = 0

    def log_message(self, *_):
        pass

    def out(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/oauth_token.do":
            return self.out(200, b'{"access_token":"tok","expires_in":1799}')
        return self.do_GET()

    def do_GET(self):
        Bomb.answers += 1
        self.out(200, b'{"result":[' + b'{"":0},' * ((2 * 1024 * 1024 - 60) // 7) + b"{}]}")


class Threaded(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def alert(sid, source):
    return json.dumps({
        "timestamp": "2026-11-27T08:00:00.000000+0000", "event_type": "alert", "src_ip": source, "dest_ip": "198.51.100.1",
        "proto": "TCP", "alert": {"signature_id": sid, "gid": 1, "rev": 1, "signature": f"sig {sid}", "severity": 1},
    }) + "\n"


class Scene:
    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="hostile-"))
        binary = pathlib.Path(os.environ.get("OTRELAY", ROOT / "target/release/otrelay")).resolve()
        self.otrelay = str(binary)
        self.dir.chmod(0o755)
        self.log, self.state, self.etc = self.dir / "log", self.dir / "state", self.dir / "etc"
        for path in (self.log, self.state, self.etc):
            path.mkdir()
        self.log.chmod(0o1777)
        os.chown(self.state, SERVICE, SERVICE)
        self.state.chmod(0o700)
        for name, text in SECRETS.items():
            path = self.etc / name
            path.write_text(text + "\n")
            os.chown(path, 0, SERVICE)
            path.chmod(0o640)
        self.stop = threading.Event()
        self.started = []
        self.page, self.push, self.tcp = free_port(), free_port(), free_port()
        self.udp = free_port(socket.SOCK_DGRAM)
        self.bomb = Threaded(("127.0.0.1", 0), Bomb)
        threading.Thread(target=self.bomb.serve_forever, daemon=True).start()

    def begin(self, command, env=None, **more):
        process = subprocess.Popen(command, env={**os.environ, **(env or {})}, **more)
        self.started.append(process)
        return process

    def simulator(self):
        out = open(self.dir / "simulator", "w+", encoding="utf-8")
        self.begin([self.otrelay, "simulate", "--listen", "127.0.0.1:0", "--client", "otrelay:" + SECRETS["secret"]],
                   {"OTRELAY_SIM_USER": "admin", "OTRELAY_SIM_PASS": SECRETS["password"]}, stdout=out, stderr=out)
        for _ in range(200):
            words = (self.dir / "simulator").read_text().split()
            found = [word for word in words if word.startswith("http://127.0.0.1:")]
            if found:
                return found[0].rstrip(".,;/")
            time.sleep(0.05)
        raise Failed("the simulator does not start")

    def configure(self, simulator):
        sources = "".join(
            f'[[source]]\nname = "long{n}"\nkind = "suricata-eve"\npath = "{self.log}/long{n}*.json"\n' for n in range(3))
        destinations = "".join(f"""
[servicenow.{name}]
instance = "{url}"
auth = "password"
client_id = "otrelay"
client_secret = {{ file = "{self.etc}/secret" }}
username = "admin"
password = {{ file = "{self.etc}/password" }}
""" for name, url in (("sim", simulator), ("bomb", f"http://127.0.0.1:{self.bomb.server_port}")))
        self.config = self.etc / "otrelay.toml"
        self.config.write_text(f"""
[agent]
name = "lab"
state_dir = "{self.state}"
[sync]
backfill = "all"
[buffer]
max_size = "64MiB"
[status]
listen = "127.0.0.1:{self.page}"
{destinations}
[[source]]
name = "eve"
kind = "suricata-eve"
path = "{self.log}/eve*.json"
{sources}
[[source]]
name = "push"
kind = "http"
listen = "127.0.0.1:{self.push}"
token = {{ file = "{self.etc}/token" }}
[[source]]
name = "syslog"
kind = "syslog"
listen = ["udp://127.0.0.1:{self.udp}", "tcp://127.0.0.1:{self.tcp}"]
allow = ["127.0.0.0/8"]
[[rule]]
name = "all"
[[rule.action]]
servicenow = "sim"
[[rule.action]]
servicenow = "bomb"
""")

    def as_service(self, *command, timeout=PATIENCE):
        return subprocess.run(
            ["setpriv", "--reuid", str(SERVICE), "--regid", str(SERVICE), "--clear-groups", self.otrelay, "--config",
             str(self.config), *command], capture_output=True, text=True, timeout=timeout, check=False)

    def service(self, group):
        errors = open(self.dir / "service.err", "w", encoding="utf-8")
        script = f'echo $$ >"{group.at}/cgroup.procs"; exec setpriv --reuid {SERVICE} --regid {SERVICE} --clear-groups "$0" run'
        return self.begin(["sh", "-c", script, self.otrelay], {"OTRELAY_CONFIG": str(self.config)}, stderr=errors)

    def status(self):
        said = self.as_service("status", "--json")
        return json.loads(said.stdout) if said.returncode == 0 else {"sources": [], "failed": said.stderr}

    # From beside the sensor.

    def by_other(self, work):
        """As another user, in a process of its own."""
        child = os.fork()
        if child == 0:
            os.setresgid(OTHER, OTHER, OTHER)
            os.setresuid(OTHER, OTHER, OTHER)
            try:
                work()
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    def files(self):
        def work():
            sparse = self.log / "eve-0.json"
            for size in (15 << 40, 1 << 40):
                try:
                    sparse.touch()
                    os.truncate(sparse, size)
                    break
                except OSError:
                    continue
            os.symlink(self.etc / "password", self.log / "eve-a.json")
            os.mkfifo(self.log / "eve-\x1b]0;title\x07\nbacklog      0 waiting, FORGED.json")
            (self.log / "eve-dir.json").mkdir()
            for n in range(4200):
                (self.log / f"eve-{n}.x.json").write_text("x\n")

        self.by_other(work)
        try:
            os.link(self.etc / "secret", self.log / "eve-b.json")
        except OSError as error:
            print(f"   no hard link to a secret: {error}")

    def long_lines(self):
        begin = b'{"event_type":"alert","src_ip":"192.0.2.1","alert":{"signature_id":1,"signature":"'
        for n in range(3):
            with open(self.log / f"long{n}.json", "wb") as out:
                for _ in range(2):
                    out.write(begin + b"\xff" * (16 << 20) + b'"}}\n')

    def packed(self):
        # A gibibyte, packed: a rotation left it before the agent first came.
        pack = zlib.compressobj(1, zlib.DEFLATED, 31)
        with open(self.log / "eve.json.2.gz", "wb") as out:
            for _ in range(1024):
                out.write(pack.compress(b"\0" * (1 << 20)))
            out.write(pack.flush())

    # From the network.

    def loop(self, work, *args):
        """Again and again, whatever the other side does to it."""
        def again():
            while not self.stop.is_set():
                try:
                    work(*args)
                except OSError:
                    time.sleep(0.05)
        threading.Thread(target=again, daemon=True).start()

    def slow(self, port):
        """One byte of a header each half second."""
        with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            s.sendall(b"POST /alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
            while not self.stop.wait(0.5):
                s.sendall(b"x")

    def request(self, port, head, body):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            s.sendall(head.encode() + body)
            s.recv(1000)

    def bodies(self, body, encoding):
        head = (f"POST /alerts HTTP/1.1\r\nHost: 127.0.0.1:{self.push}\r\nAuthorization: Bearer {SECRETS['token']}\r\n"
                f"Content-Type: application/json\r\n{encoding}Content-Length: {len(body)}\r\n\r\n")
        self.request(self.push, head, body)

    def headers(self, port):
        self.request(port, "GET / HTTP/1.1\r\n" + "".join(f"X-{n}: {'y' * 900}\r\n" for n in range(60)), b"\r\n")

    def endless(self):
        with socket.create_connection(("127.0.0.1", self.tcp), timeout=5) as s:
            s.sendall(b"<14>CEF:0|Acme|Watch|1|1|")
            for _ in range(400):
                if self.stop.is_set():
                    return
                s.sendall(b"\xff" * 65536)

    def datagrams(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            for n in range(2000):
                s.sendto(b"<14>" + b"\x1b[2J" * 10000, ("127.0.0.1", self.udp))
                if n % 100 == 0 and self.stop.wait(0.05):
                    return

    def network(self):
        zeros = gzip.compress(b"\0" * (200 << 20), 9)
        deep = b"[" * (1 << 20)
        many = b"[" + b'{"":0},' * ((1 << 20) // 7 - 10) + b"{}]"
        for _ in range(20):
            self.loop(self.slow, self.push)
            self.loop(self.slow, self.page)
            self.loop(self.endless)
        for body, encoding in ((zeros, "Content-Encoding: gzip\r\n"), (deep, ""), (many, ""),
                               (gzip.compress(many * 15), "Content-Encoding: gzip\r\n")):
            for _ in range(2):
                self.loop(self.bodies, body, encoding)
        for port in (self.push, self.page):
            self.loop(self.headers, port)
        self.loop(self.datagrams)

    def close(self):
        self.stop.set()
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.bomb.shutdown()
        if not os.environ.get("KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)
        else:
            print(f"kept: {self.dir}")


def need(condition, words):
    if not condition:
        raise Failed(words)


def clean(text, where):
    """No control character but the ends of lines, and no secret."""
    odd = sorted({hex(ord(c)) for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160})
    need(not odd, f"{where} has control characters: {odd}")
    need("FORGED" not in [line.split()[-1] for line in text.splitlines() if line.startswith("backlog")], f"{where} has a forged line")
    for secret in SECRETS.values():
        need(secret not in text, f"{where} has the secret {secret}")


def judge(scene, group, service):
    deadline = time.monotonic() + PATIENCE
    tickets = []
    while time.monotonic() < deadline:
        need(service.poll() is None, f"the service ended with {service.returncode}; {group.kills()} killed for memory")
        scene.as_service("sync")
        said = scene.as_service("tickets", "--json", "-n", "0")
        tickets = [t for t in json.loads(said.stdout or "[]") if t.get("number") and t["title"] == "sig 2"]
        if tickets:
            break
        time.sleep(1)
    need(tickets, f"the alert in the midst of it made no ticket within {PATIENCE} s: {scene.status()}")
    need(Bomb.answers > 0, "the hostile instance was never asked")
    for command in (("status",), ("check",), ("alerts", "--rejected", "-n", "0")):
        said = scene.as_service(*command)
        clean(said.stdout + said.stderr, " ".join(command))
    clean((scene.dir / "service.err").read_text(errors="replace"), "the log")
    for path in scene.state.iterdir():
        if path.is_file():
            content = path.read_bytes()
            for secret in SECRETS.values():
                need(secret.encode() not in content, f"{path.name} holds the secret {secret}")
    need(service.poll() is None and group.kills() == 0, "the service did not live")
    peak = group.peak()
    print(f"ok  it lives, with {peak >> 10} KiB at most of {LIMIT >> 10} (what the kernel keeps for it counts); "
          f"{Bomb.answers} answers of the hostile instance")


def main():
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        raise NotRun("that needs root and setpriv")
    group = Group()
    scene = Scene()
    try:
        scene.configure(scene.simulator())
        (scene.log / "eve.json").write_text(alert(1, "192.0.2.1"))
        scene.packed()
        scene.long_lines()
        service = scene.service(group)
        deadline = time.monotonic() + PATIENCE
        while not any(s["name"] == "eve" and s.get("alerts") for s in scene.status()["sources"]):
            need(service.poll() is None, f"the service ended with {service.returncode}; {group.kills()} killed for memory: "
                 + (scene.dir / "service.err").read_text())
            need(time.monotonic() < deadline, f"the first alert is not read: {scene.status()}")
            time.sleep(0.5)
        scene.network()
        scene.files()
        time.sleep(SECONDS)
        (scene.log / "eve.json").rename(scene.log / "eve.json.1")
        (scene.log / "eve.json").write_text(alert(2, "192.0.2.2"))
        judge(scene, group, service)
        scene.stop.set()
        service.send_signal(signal.SIGTERM)
        need(service.wait(30) == 0, f"the stop ended with {service.returncode}")
    finally:
        scene.close()
        group.remove()


try:
    main()
except NotRun as reason:
    print(f"NOT RUN: hostile input in 128 MiB: {reason}")
except Failed as error:
    print(f"FAILED: {error}", file=sys.stderr)
    sys.exit(1)
