"""Real senders of syslog against the agent. Called by tests/senders.sh with the names of the senders.

The agent has a source for each way in, so that what came by it is counted alone. Each sender gets a file of messages, some
of them bad, and hands it over in every way that it knows. A way passes when the agent's counts are those of the file.
"""

import gzip
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOOD, BAD = 200, 7
WAYS = ("udp", "tcp", "tls")
PATIENCE = 60
# The kill: so many messages, and when.
MANY, KILL_AT = 200_000, 60_000
# What may be lost with it, in bytes: the receive buffer of a connection and the sender's (Linux takes twice what is asked
# for), one read, and four batches of at most 512 messages: one filling, one in the lane, two in a commit.
RECEIVE, SEND, READ, BATCHES = 2 * 128 * 1024, 2 * 64 * 1024, 32 * 1024, 4 * 512
# The same by UDP: so slowly that the kernel drops nothing. Its receive buffer, twice the 4 MiB asked for, counts at least 768
# bytes for a datagram.
DATAGRAMS, DATAGRAMS_AT, A_SECOND = 30_000, 28_000, 5_000
UDP_MOST = 2 * (4 << 20) // 768 + BATCHES


class Failed(Exception):
    """A promise was broken; the text says which."""


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def message(number):
    return (
        f"CEF:0|Acme|Watch|3.1|4711|Odd write {number}|8|externalId={number} src=10.0.{number // 250 % 250}.{number % 250} "
        f"dst=10.0.0.2 dpt=502 app=modbus msg=A write that nobody has seen here before"
    )


def messages():
    """Good ones, and some whose header is cut short."""
    lines = [message(number) for number in range(GOOD)]
    for number in range(BAD):
        lines.insert(number * 20 + 3, f"CEF:0|Acme|Watch {number}|cut short")
    return lines


class Scene:
    """A directory with certificates, a config and an agent at work."""

    def __init__(self, more=""):
        """`more`: further tables of the config."""
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="senders-"))
        binary = pathlib.Path(os.environ.get("OTRELAY", ROOT / "target/release/otrelay")).resolve()
        if not os.access(binary, os.X_OK):
            sys.exit(f"{binary} is not there: build it (cargo build --release) or set OTRELAY")
        self.binary = str(binary)
        self.ports = {"udp": free_port(socket.SOCK_DGRAM), "tcp": free_port(), "tls": free_port()}
        self.certificates()
        self.process = None
        tls = ", ".join(
            f'{key} = "{self.dir}/{name}"'
            for key, name in (("cert_file", "listener.pem"), ("key_file", "listener.key"), ("client_ca_file", "ca.pem"))
        )
        text = f'[agent]\nname = "senders"\nid = "senders"\nstate_dir = "{self.dir}/state"\n[sync]\nenabled = false\n'
        for way in WAYS:
            text += f'[[source]]\nname = "{way}"\nkind = "syslog"\nlisten = ["{way}://127.0.0.1:{self.ports[way]}"]\n'
            text += f"tls = {{ {tls} }}\n" if way == "tls" else ""
        self.ports["http"] = free_port()
        text += f'[[source]]\nname = "http"\nkind = "http"\nlisten = "127.0.0.1:{self.ports["http"]}"\ntoken = "senders"\n'
        self.config = self.dir / "otrelay.toml"
        self.config.write_text(text + more)
        self.config.chmod(0o600)
        self.lines = self.dir / "messages"
        self.lines.write_text("\n".join(messages()) + "\n")

    def certificates(self):
        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], cwd=self.dir, check=True, capture_output=True)

        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=senders CA", "-keyout",
                "ca.key", "-out", "ca.pem")
        for name in ("listener", "sender"):
            (self.dir / "extensions").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", f"{name}.key", "-out",
                    f"{name}.csr")
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days",
                    "2", "-extfile", "extensions", "-out", f"{name}.pem")

    def start(self):
        with open(self.dir / "agent.log", "ab") as log:
            command = [self.binary, "--config", str(self.config), "run"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        # All listeners are bound in one go; a look at one of them that asks for no handshake is no record.
        self.until("it listens", self.listens)
        self.until("it answers", self.counts)

    def listens(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.ports["tcp"])) == 0

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def counts(self):
        """By way: alerts, and rejects by reason."""
        said = subprocess.run([self.binary, "--config", str(self.config), "status", "--json"], capture_output=True,
                              check=False)
        if said.returncode != 0:
            return None
        sources = {source["name"]: source for source in json.loads(said.stdout)["sources"]}
        return {way: (sources[way]["alerts"], sources[way]["rejected"]) for way in (*WAYS, "http") if way in sources}

    def until(self, what, look):
        end = time.monotonic() + PATIENCE
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() > end:
                raise Failed(f"waited {PATIENCE} s until {what}; now: {self.counts()}")
            time.sleep(0.1)

    def settled(self, way):
        """How many alerts came by a way, once no more do: what few records a quiet source brings is gathered for a while."""
        def look():
            first = self.counts()[way][0]
            time.sleep(5)
            return first if first == self.counts()[way][0] else None

        return self.until("nothing more comes", look)

    def way(self, name, way, send):
        """Lets a sender hand over the file by a way, and compares counts."""
        before = self.counts().get(way, (0, {}))
        wanted = (before[0] + GOOD, before[1].get("malformed", 0) + BAD)
        send()

        def done():
            alerts, rejected = self.counts().get(way, (0, {}))
            return (alerts, rejected.get("malformed", 0)) == wanted

        self.until(f"{name} has {GOOD} alerts and {BAD} rejects more", done)
        time.sleep(0.5)
        if not done():
            raise Failed(f"{name}: more came than was sent: {self.counts()[way]}")
        print(f"ok  {name}: {GOOD} messages, {GOOD} alerts, {BAD} rejects")

    def end(self):
        self.process.terminate()
        if self.process.wait(timeout=PATIENCE) != 0:
            raise Failed("the agent did not stop as it should")


def run(*command, **more):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, **more)


def logger(scene):
    for name, way, options in (
        ("UDP, RFC 5424", "udp", ("--udp", "--rfc5424")),
        ("UDP, RFC 3164", "udp", ("--udp", "--rfc3164")),
        ("TCP, lines", "tcp", ("--tcp", "--rfc3164")),
        ("TCP, counted", "tcp", ("--tcp", "--rfc5424", "--octet-count")),
    ):
        command = ("logger", "--server", "127.0.0.1", "--port", scene.ports[way], *options, "-t", "ids", "-p",
                   "local0.warning", "--size", "8192", "-f", scene.lines)
        scene.way(f"logger, {name}", way, lambda command=command: run(*command))


def openssl(scene):
    def client(*certificate):
        command = ("openssl", "s_client", "-quiet", "-no_ign_eof", "-verify_return_error", "-verify_hostname", "localhost",
                   "-CAfile", "ca.pem", "-connect", f"127.0.0.1:{scene.ports['tls']}", *certificate)
        return subprocess.run([str(part) for part in command], cwd=scene.dir, stdin=open(scene.lines, "rb"),
                              capture_output=True, check=False)

    with_certificate = ("-cert", "sender.pem", "-key", "sender.key")
    scene.way("openssl s_client with a certificate", "tls", lambda: client(*with_certificate))
    before = scene.counts()["tls"]
    client()
    refused = before[1].get("foreign sender", 0) + 1
    scene.until("a sender without a certificate is counted",
                lambda: scene.counts()["tls"] == (before[0], {**before[1], "foreign sender": refused}))
    print("ok  openssl s_client without a certificate: refused and counted")


RSYSLOG = """
global(workDirectory="{dir}" maxMessageSize="64k"
  defaultNetstreamDriverCAFile="{dir}/ca.pem" defaultNetstreamDriverCertFile="{dir}/sender.pem"
  defaultNetstreamDriverKeyFile="{dir}/sender.key")
module(load="imfile")
input(type="imfile" file="{dir}/messages" tag="ids:" severity="warning" ruleset="out")
ruleset(name="out") {{ action(type="omfwd" target="127.0.0.1" port="{port}" {how}) }}
"""


def daemon(scene, name, way, command):
    """Runs a daemon until its way has the counts."""
    process = None

    def start():
        nonlocal process
        with open(scene.dir / f"{command[0]}.log", "ab") as log:
            process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)

    try:
        scene.way(name, way, start)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def rsyslog(scene):
    for name, way, how in (
        ("UDP", "udp", 'protocol="udp"'),
        ("TCP, lines", "tcp", 'protocol="tcp" tcp_framing="traditional"'),
        ("TCP, counted", "tcp", 'protocol="tcp" tcp_framing="octet-counted" template="RSYSLOG_SyslogProtocol23Format"'),
        ("TLS with a certificate", "tls",
         'protocol="tcp" tcp_framing="octet-counted" streamDriver="ossl" streamDriverMode="1"'
         ' streamDriverAuthMode="x509/name" streamDriverPermittedPeers="localhost"'),
    ):
        for old in scene.dir.glob("imfile-state*"):
            old.unlink()
        config = scene.dir / "rsyslog.conf"
        config.write_text(RSYSLOG.format(dir=scene.dir, port=scene.ports[way], how=how))
        daemon(scene, f"rsyslog, {name}", way, ("rsyslogd", "-n", "-f", config, "-i", scene.dir / "rsyslog.pid"))


SYSLOG_NG = """@version: 3.38
options {{ log-msg-size(65536); keep-hostname(yes); use-dns(no); }};
source s {{ file("{dir}/messages" flags(no-parse) program-override("ids") follow-freq(1)); }};
destination d {{ {how} }};
log {{ source(s); destination(d); }};
"""


def syslog_ng(scene):
    tls = f'tls(ca-file("{scene.dir}/ca.pem") key-file("{scene.dir}/sender.key") cert-file("{scene.dir}/sender.pem"))'
    for name, way, how in (
        ("UDP", "udp", 'network("127.0.0.1" port({port}) transport("udp"));'),
        ("TCP, lines", "tcp", 'network("127.0.0.1" port({port}) transport("tcp"));'),
        ("TCP, counted", "tcp", 'syslog("127.0.0.1" port({port}) transport("tcp"));'),
        ("TLS with a certificate", "tls", f'syslog("localhost" ip-protocol(4) port({{port}}) transport("tls") {tls});'),
    ):
        config, persist = scene.dir / "syslog-ng.conf", scene.dir / "persist"
        persist.unlink(missing_ok=True)
        config.write_text(SYSLOG_NG.format(dir=scene.dir, how=how.format(port=scene.ports[way])))
        daemon(scene, f"syslog-ng, {name}", way,
               ("syslog-ng", "-F", "--no-caps", "-f", config, "-R", persist, "-p", scene.dir / "ng.pid", "-c",
                scene.dir / "ng.ctl"))


def kill(scene):
    """Very many messages, kill -9 in the middle, and on from where the kernel refused to take more."""
    def connect():
        stream = socket.socket()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND // 2)
        stream.connect(("127.0.0.1", scene.ports["tcp"]))
        return stream

    before = scene.counts()["tcp"][0]
    stream, sent, killed, began = connect(), 0, False, time.monotonic()
    size = len(message(MANY).encode()) + 1
    while sent < MANY:
        try:
            stream.sendall(b"".join(message(n).encode() + b"\n" for n in range(sent, sent + 100)))
            sent += 100
        except OSError:
            scene.start()
            stream = connect()
            # What was begun of the hundred is not known to be taken: it is sent again, as a sender would.
            continue
        if not killed and sent >= KILL_AT:
            killed = True
            scene.kill()
    stream.close()

    arrived = scene.settled("tcp") - before
    lost, most = MANY - arrived, (RECEIVE + SEND + READ) // size + BATCHES
    if not killed or lost > most or arrived > MANY + 100:
        raise Failed(f"{arrived} of {MANY} messages arrived; at most {most} may be lost")
    seconds = time.monotonic() - began
    print(f"ok  {MANY} messages over TCP, kill -9 after {KILL_AT}: {lost} lost of at most {most}, {seconds:.0f} s")


def kill_udp(scene):
    """Datagrams, kill -9 when most were sent: what is lost of those before it was in the buffer or in batches."""
    before, began, sent = scene.counts()["udp"][0], time.monotonic(), 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        while sent < DATAGRAMS_AT:
            for number in range(sent, sent + 100):
                out.sendto(message(number).encode(), ("127.0.0.1", scene.ports["udp"]))
            sent += 100
            time.sleep(max(0, began + sent / A_SECOND - time.monotonic()))
        scene.kill()
        scene.start()
        for number in range(sent, DATAGRAMS):
            out.sendto(message(number).encode(), ("127.0.0.1", scene.ports["udp"]))
            time.sleep(1 / A_SECOND)

    arrived = scene.settled("udp") - before
    lost = DATAGRAMS - arrived
    if not 0 <= lost <= UDP_MOST:
        raise Failed(f"{arrived} of {DATAGRAMS} datagrams arrived; at most {UDP_MOST} may be lost")
    print(f"ok  {DATAGRAMS} datagrams, kill -9 after {DATAGRAMS_AT}: {lost} lost of at most {UDP_MOST}")


def curl(scene):
    """The same alerts as JSON, a line each, plain and packed."""
    lines = [json.dumps({"title": f"Odd write {number}", "severity": "major"}) for number in range(GOOD)]
    for number in range(BAD):
        lines.insert(number * 20 + 3, '{"title": "cut short')
    plain, packed = scene.dir / "alerts.jsonl", scene.dir / "alerts.jsonl.gz"
    plain.write_text("\n".join(lines) + "\n")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    command = ("curl", "--silent", "--show-error", "--fail", "-H", "Authorization: Bearer senders",
               f"http://127.0.0.1:{scene.ports['http']}/alerts", "--data-binary")
    answers = []
    for name, more in (("plain", (f"@{plain}",)), ("gzip", (f"@{packed}", "-H", "Content-Encoding: gzip"))):
        scene.way(f"curl, {name}", "http", lambda more=more: answers.append(json.loads(run(*command, *more).stdout)))
        if (answers[-1]["accepted"], len(answers[-1]["rejected"])) != (GOOD, BAD):
            raise Failed(f"curl was answered {answers[-1]}")
    refused = subprocess.run([*command[:4], "-H", "Authorization: Bearer other", *command[6:], "{}"], capture_output=True,
                             check=False)
    if refused.returncode != 22:
        raise Failed(f"curl with another token: {refused}")
    print("ok  curl with another token: refused")


# Everything is kept, nobody is told: what is measured is the way into the database.
KEPT = """[servicenow.none]
instance = "http://127.0.0.1:9"
auth = "basic"
username = "nobody"
password = "nobody"
[[rule]]
name = "everything"
[[rule.action]]
"""


def rate(scene):
    """How many messages become durable alerts: by second, and by second of the agent's CPU. Judges nothing but the counts."""
    def cpu():
        fields = pathlib.Path(f"/proc/{scene.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    for way in ("tcp", "udp"):
        kind = socket.SOCK_STREAM if way == "tcp" else socket.SOCK_DGRAM
        data = [message(number).encode() for number in range(MANY)]
        before, spent, began = scene.counts()[way][0], cpu(), time.monotonic()
        with socket.socket(socket.AF_INET, kind) as sender:
            sender.connect(("127.0.0.1", scene.ports[way]))
            if way == "tcp":
                sender.sendall(b"\n".join(data) + b"\n")
            else:
                for one in data:
                    sender.send(one)
            sent = time.monotonic() - began
        now, came = before, time.monotonic()
        # What does not come any more was dropped on its way.
        while now - before < MANY and time.monotonic() - came < 5:
            time.sleep(0.1)
            last, now = now, scene.counts()[way][0]
            came = came if now == last else time.monotonic()
        took, spent, taken = came - began, cpu() - spent, now - before
        if way == "tcp" and taken != MANY:
            raise Failed(f"{taken} of {MANY} came by TCP")
        print(f"{way}: {taken} of {MANY} CEF messages, sent in {sent:.1f} s, durable after {took:.1f} s: {taken / took:.0f}/s, "
              f"{taken / spent:.0f} in a second of CPU")


SENDERS = {"curl": curl, "logger": logger, "openssl": openssl, "rsyslog": rsyslog, "syslog-ng": syslog_ng, "kill": kill, "kill-udp": kill_udp, "rate": rate}


def main():
    scene = Scene(KEPT if "rate" in sys.argv else "")
    try:
        scene.start()
        for name in sys.argv[1:]:
            SENDERS[name](scene)
        scene.end()
    except (Failed, subprocess.SubprocessError, OSError) as failure:
        said = getattr(failure, "stderr", None) or b""
        print(f"FAILED: {failure} {said.decode(errors='replace')}\n  kept: {scene.dir}", file=sys.stderr)
        if scene.process and scene.process.poll() is None:
            scene.kill()
        return 1
    if os.environ.get("KEEP"):
        print(f"kept: {scene.dir}")
    else:
        shutil.rmtree(scene.dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
