#!/usr/bin/env python3
"""The pictures of the README and the book, made by the program itself on a plant that is made up: reserved addresses only.

    pictures.py OTRELAY docs/pictures

A console with devices in three zones, a Suricata that writes for a day in some seconds (libfaketime sets the clock of each
run), a simulated ServiceNow. Chromium takes the status page; `devices graph` is drawn by otrelay; what `top` shows on a
terminal becomes an SVG of text. `tests/pictures.sh` calls it.
"""
import fcntl, glob, html, http.server, json, os, pty, random, re, select, struct, subprocess, sys, tempfile, termios, threading, time, pathlib
import look

FAKETIME = next(iter(glob.glob("/usr/lib*/*/faketime/libfaketime.so.1")), None)
HALF_HOURS = 46
# The day begins with the next midnight, UTC, whenever this is run: what came in today is all of it.
AHEAD = 86400 - int(time.time()) % 86400
# Name, type, vendor, zone, address; a device of another zone talks to the first of a zone.
DEVICES = [
    ("mes-01", "Server", "Example Systems", "Plant", "192.0.2.10"), ("historian-01", "Historian", "Example Systems", "Plant", "192.0.2.11"),
    ("eng-ws-01", "Engineering Station", "Example Systems", "Plant", "192.0.2.20"),
    ("hmi-fill-01", "HMI", "Example Controls", "Filling", "198.51.100.10"), ("plc-fill-01", "PLC", "Example Controls", "Filling", "198.51.100.21"),
    ("plc-fill-02", "PLC", "Example Controls", "Filling", "198.51.100.22"), ("hmi-pack-01", "HMI", "Example Drives", "Packing", "203.0.113.10"),
    ("plc-pack-01", "PLC", "Example Drives", "Packing", "203.0.113.21"), ("scale-pack-01", "Industrial Scale", "Example Scales", "Packing", "203.0.113.31"),
]
TALK = [(2, 3), (2, 4), (0, 1), (1, 3), (1, 6), (3, 4), (3, 5), (6, 7), (7, 8), (2, 7), (5, 4)]
FINDINGS = [
    ("Modbus write from a station that never wrote before", 1, "192.0.2.20", "198.51.100.21", 502, "modbus"),
    ("PLC program download outside of the maintenance window", 1, "192.0.2.20", "203.0.113.21", 102, "s7comm"),
    ("Modbus illegal function code", 2, "198.51.100.10", "198.51.100.22", 502, "modbus"),
    ("PLC was set to STOP", 1, "203.0.113.10", "203.0.113.21", 102, "s7comm"),
    ("Log-in with a default password", 2, "192.0.2.10", "203.0.113.31", 80, "http"),
    ("DNP3 cold restart of an outstation", 2, "192.0.2.11", "198.51.100.22", 20000, "dnp3"),
    ("Scan of a control network", 2, "192.0.2.20", "198.51.100.10", 44818, "enip"),
    ("Clear-text protocol in use", 3, "192.0.2.11", "203.0.113.10", 21, "ftp"),
    ("Old TLS version", 3, "192.0.2.10", "198.51.100.10", 443, "tls"),
    # Only when nothing can be sent.
    ("New device in a control network", 1, "203.0.113.99", "203.0.113.21", 102, "s7comm"),
]


def record(n):
    name, kind, vendor, zone, address = DEVICES[n]
    return {"u_id": n + 1, "u_name": name, "u_vendor": vendor, "u_zone": zone, "u_site": "Plant North", "u_appliance": "console",
            "u_device_type": {"u_name": kind}, "u_ip_address_objects": [{"u_ip_address": address}], "u_firmwares": [],
            "u_mac_address_objects": [{"u_mac_address": f"00:00:5e:00:53:{n + 1:02x}"}],
            "u_protocol_objects": [{"u_protocol": "MODBUS"}], "u_last_activity": "2026-11-27T12:00:00Z"}


class Console(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        what = self.path.split("?")[0].split("/")
        page = int((re.search(r"[?&]page=(\d+)", self.path) or [0, 0])[1])
        answer = []
        if "devices" in what and "integration" in what:
            answer = {"u_count": len(DEVICES), "u_devices": [record(n) for n in range(len(DEVICES))] if page == 0 else []}
        elif "connections" in what:
            talk = [{"u_src_device_id": a + 1, "u_dest_device_id": b + 1, "u_dest_device_name": DEVICES[b][0], "u_dest_ip": DEVICES[b][4],
                     "u_connection_type": "One Way"} for a, b in TALK]
            answer = {"u_count": len(TALK), "u_connections": talk if page == 0 else []}
        elif "devicecves" in what:
            answer = {"u_count": 0, "u_device_cves": []}
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def alert(at, n):
    title, severity, source, target, port, protocol = FINDINGS[n]
    return json.dumps({"timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000000+0000", time.gmtime(at)), "flow_id": n, "event_type": "alert",
        "src_ip": source, "src_port": 49152, "dest_ip": target, "dest_port": port, "proto": "TCP", "app_proto": protocol,
        "alert": {"action": "allowed", "gid": 1, "signature_id": 2000000 + n, "rev": 1, "signature": title, "category": "OT", "severity": severity}}) + "\n"


def plant(root):
    """An agent after a day in this plant. Its clock is ahead by that day: nothing of it lies before the program was made."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Console)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log = root / "simulator.log"
    look.start([look.OTRELAY, "simulate", "--listen", "127.0.0.1:0"], log)
    agent = look.Agent(root, "plant", look.until("the simulator runs", look.said(log, r"(http://127\.0\.0\.1:\d+)")))
    (agent.dir / "token").write_text("1234b734a9244d54ab8d40aedddcabcd")
    (agent.dir / "token").chmod(0o600)
    text = agent.config.read_text().replace('name = "line4-sensor"', 'name = "filling-1"').replace('zone = "Line 4"', 'zone = "Filling"')
    agent.config.write_text(text + f'[devices]\nservicenow = "prod"\n[[source]]\nname = "console"\nkind = "defender-console"\n'
        f'url = "http://127.0.0.1:{server.server_port}"\ntoken = {{ file = "{agent.dir}/token" }}\n')
    random.seed(14)
    begin = time.time() + AHEAD
    for half_hour in range(HALF_HOURS):
        at = begin + half_hour * 1800
        busy = 1 + (3 if 12 <= half_hour % 48 < 40 else 0) + (6 if half_hour in (30, 31) else 0)
        lines = [alert(at + n, random.choice([7, 7, 8, 8, 2, 6, 4, 5, 0, 3, 1][: 5 + busy])) for n in range(random.randint(0, 4) * busy)]
        agent.feed("".join(lines))
        run(agent, half_hour, "run", "--once")
    return agent


def start(agent, log):
    log = agent.dir / log
    service = look.start([look.OTRELAY, "--config", str(agent.config), "run"], log, env=environment(HALF_HOURS))
    agent.url = look.until("the page is there", look.said(log, r"(http://127\.0\.0\.1:\d+)/"))
    return service


def environment(half_hour):
    return {**os.environ, "LD_PRELOAD": FAKETIME, "FAKETIME": f"+{AHEAD + half_hour * 1800}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "TERM": "xterm"}


def run(agent, half_hour, *args):
    command = [look.OTRELAY, "--config", str(agent.config), *args]
    return subprocess.run(command, env=environment(half_hour), capture_output=True, text=True).stdout


def watched(agent, columns, rows, *args, seconds=5.0):
    """What a command has on a terminal of this size after some seconds: rows of (letter, style)."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(look.OTRELAY, [look.OTRELAY, "--config", str(agent.config), *args], environment(HALF_HOURS))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    written, end = "", time.time() + seconds
    while time.time() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                written += os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                break
    try:
        os.write(terminal, b"q")
    except OSError:
        pass
    os.waitpid(child, 0)
    return cells(written, columns, rows)


def cells(written, columns, rows):
    screen, x, y, style, last = [[(" ", "")] * columns for _ in range(rows)], 0, 0, "", None
    for place, command, text in re.findall(r"\x1b\[([?\d;]*)([A-Za-z])|([^\x1b])", written):
        letter = command or text
        if text:
            if letter == "\r":
                x = 0
            elif letter == "\n":
                y += 1
            elif y < rows and x < columns:
                screen[y][x] = (letter, style)
                x += 1
        elif letter == "H":
            y, x = (int(n) - 1 for n in (place or "1;1").split(";"))
        elif letter == "J":
            screen = [[(" ", "")] * columns for _ in range(rows)]
        elif letter == "m":
            codes = place.split(";")
            style = " ".join(name for code, name in (("1", "b"), ("2", "d"), ("31", "r"), ("32", "g"), ("33", "y")) if code in codes)
        elif letter == "l" and place == "?1049":
            # It gives the terminal back: what was there before that counts.
            return last or screen
        last = screen
    return screen


def terminal_picture(screen, name):
    """Rows of a terminal as an SVG of text."""
    while screen and all(letter == " " for letter, _ in screen[-1]):
        screen.pop()
    wide, high = len(screen[0]) * 8 + 24, len(screen) * 18 + 24
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" role="img">',
           "<style>text{font:13.3px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#dfe6ea;white-space:pre}"
           ".b{font-weight:700}.d{fill:#93a3ad}.r{fill:#ff9b8f}.g{fill:#8fd694}.y{fill:#f0c674}</style>",
           f'<rect width="{wide}" height="{high}" rx="6" fill="#16211f"/>']
    for y, row in enumerate(screen):
        x = 0
        while x < len(row):
            end = x
            while end < len(row) and row[end][1] == row[x][1]:
                end += 1
            text = "".join(letter for letter, _ in row[x:end])
            if text.strip():
                style = f' class="{row[x][1]}"' if row[x][1] else ""
                text, gap = text.rstrip(), len(text) - len(text.lstrip())
                text = text.lstrip()
                out.append(f'<text x="{12 + (x + gap) * 8}" y="{y * 18 + 26}" textLength="{len(text) * 8}" xml:space="preserve"{style}>{html.escape(text)}</text>')
            x = end
    (look.PICTURES / f"{name}.svg").write_text("\n".join(out) + "\n</svg>\n")


def refused(agent, service):
    """The service with secrets that are refused, until it says so."""
    service.terminate()
    service.wait(30)
    agent.feed(alert(time.time() + AHEAD + HALF_HOURS * 1800, 9))
    start(agent, "refused.log")
    time.sleep(3)
    run(agent, HALF_HOURS, "sync")
    look.until("it is held", lambda: json.loads(run(agent, HALF_HOURS, "status", "--json") or "{}").get("health"))


def main():
    look.PICTURES.mkdir(parents=True, exist_ok=True)
    root = pathlib.Path(tempfile.mkdtemp(prefix="pictures-"))
    agent = plant(root)
    # What waits and needs a person is to be seen as well.
    agent.feed(alert(time.time() + AHEAD + HALF_HOURS * 1800, 3))
    service = start(agent, "service.log")
    time.sleep(4)
    (look.PICTURES / "zones.svg").write_text(run(agent, HALF_HOURS, "devices", "graph"))
    terminal_picture(watched(agent, 100, 30, "top"), "top")
    browser = look.Browser(root)
    browser.be(1120, False)
    browser.go(agent.url + "/")
    time.sleep(0.5)
    browser.picture("page")
    # Somebody changed the password there: what needs a person comes first.
    for name in ("client-secret", "password"):
        (agent.dir / name).write_text("wrong")
    refused(agent, service)
    browser.go(agent.url + "/")
    time.sleep(0.5)
    browser.picture("held", most=420)
    return 0


if __name__ == "__main__":
    if not FAKETIME:
        sys.exit("libfaketime is missing (Debian: faketime)")
    sys.exit(look.ended(main))
