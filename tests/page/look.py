#!/usr/bin/env python3
"""Looks at the status page with Chromium: takes pictures of it empty, busy and broken, narrow and dark, and lets axe-core
look for what keeps people out. Speaks the WebDriver protocol itself; listens on loopback only.

    look.py OTRELAY PICTURES [AXE]     PICTURES: a directory; AXE: axe.min.js of axe-core
"""
import json, os, pathlib, re, signal, subprocess, sys, tempfile, time, urllib.request, zlib, base64

OTRELAY, PICTURES = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2])
AXE = pathlib.Path(sys.argv[3]).read_text() if len(sys.argv) > 3 else None
FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "eve"
PAGES = {"now": "/", "alerts": "/alerts", "tickets": "/tickets", "devices": "/devices", "queue": "/queue", "health": "/issues"}
EVIL = "\"'><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
processes, browsers = [], []


def start(args, log, **more):
    out = open(log, "w")
    process = subprocess.Popen(args, stdout=out, stderr=subprocess.STDOUT, **more)
    processes.append(process)
    return process


def until(what, look, seconds=120):
    end = time.time() + seconds
    while time.time() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    sys.exit(f"in vain: {what}")


def said(log, pattern):
    return lambda: (m := re.search(pattern, pathlib.Path(log).read_text())) and m.group(1)


class Agent:
    def __init__(self, root, name, url, password="admin", source="eve.json"):
        self.dir = root / name
        (self.dir / "log").mkdir(parents=True)
        for secret, text in (("client-secret", "otrelay"), ("password", password)):
            (self.dir / secret).write_text(text)
            (self.dir / secret).chmod(0o600)
        self.config = self.dir / "otrelay.toml"
        self.config.write_text(f'''[agent]
name = "line4-sensor"
id = "{name}"
site = "Plant North"
zone = "Line 4"
state_dir = "{self.dir}/state"
[sync]
backfill = "all"
interval = "5m"
[servicenow.prod]
instance = "{url}"
auth = "password"
client_id = "otrelay"
client_secret = {{ file = "{self.dir}/client-secret" }}
username = "admin"
password = {{ file = "{self.dir}/password" }}
[[source]]
name = "eve"
kind = "suricata-eve"
path = "{self.dir}/log/{source}"
[[rule]]
name = "Major and worse"
min_severity = "major"
[[rule.action]]
servicenow = "prod"
[status]
listen = "127.0.0.1:0"
''')
        self.config.chmod(0o600)

    def feed(self, text):
        with open(self.dir / "log" / "eve.json", "a") as file:
            file.write(text)

    def start(self):
        log = self.dir / "service.log"
        start([OTRELAY, "--config", str(self.config), "run"], log)
        self.url = until("the page is there", said(log, r"(http://127\.0\.0\.1:\d+)/"))

    def status(self):
        done = subprocess.run([OTRELAY, "--config", str(self.config), "status", "--json"], capture_output=True)
        return json.loads(done.stdout or "{}")


class Browser:
    def __init__(self, root):
        log = root / "chromedriver.log"
        start(["chromedriver", "--port=0"], log)
        port = until("chromedriver runs", said(log, r"started successfully on port (\d+)"))
        self.base = f"http://127.0.0.1:{port}"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", "--force-device-scale-factor=1",
                 # It asks nobody but the page.
                 "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
        made = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": flags}, "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.base += f"/session/{made['sessionId']}"
        browsers.append(self)

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def cdp(self, command, **params):
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def run(self, script, *args):
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(args)})

    def be(self, width, dark):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def go(self, url):
        self.ask("POST", "/url", {"url": url})

    def picture(self, name, most=4000):
        size = self.cdp("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], most), "scale": 1}
        shot = self.cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        (PICTURES / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def faults(self):
        """What is wrong with the page in front of us."""
        wrong = [f"console: {entry['message']}" for entry in self.ask("POST", "/se/log", {"type": "browser"})
                 if entry["level"] in ("SEVERE", "WARNING")]
        if self.run("return document.title.includes('owned')"):
            wrong.append("a title of a sensor was run")
        if self.run("return document.documentElement.scrollWidth > window.innerWidth + 1"):
            wrong.append("the page is wider than the window")
        if self.run("return Math.min(...['header', 'main'].map(name => { const at = document.querySelector(name), style = getComputedStyle(at);"
                    " return at.getBoundingClientRect().left + parseFloat(style.paddingLeft) }))") < 10:
            wrong.append("the text touches the edge of the window")
        if AXE:
            self.run(AXE)
            found = self.ask("POST", "/execute/async", {"args": [], "script":
                "const done = arguments[arguments.length - 1]; axe.run().then(r => done(r.violations.map(v =>"
                " [v.impact, v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 150))])), e => done([['critical', String(e), []]]))"})
            wrong += [f"axe {impact}: {rule} {nodes}" for impact, rule, nodes in found if impact in ("serious", "critical")]
            for impact, rule, nodes in found:
                if impact not in ("serious", "critical"):
                    print(f"  axe {impact}: {rule} {nodes[:1]}")
        return wrong


def line(number, title, severity):
    return json.dumps({"timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000000+0000", time.gmtime()), "flow_id": number,
        "event_type": "alert", "src_ip": f"10.40.2.{number % 250}", "src_port": 49152, "dest_ip": "10.40.1.13", "dest_port": 102,
        "proto": "TCP", "app_proto": "modbus", "alert": {"action": "allowed", "gid": 1, "signature_id": 2000001, "rev": 1,
        "signature": title, "category": "Misc Attack", "severity": severity}}) + "\n"


def states(root):
    log = root / "simulator.log"
    start([OTRELAY, "simulate", "--listen", "127.0.0.1:0"], log)
    simulator = until("the simulator runs", said(log, r"(http://127\.0\.0\.1:\d+)"))
    recorded = zlib.decompress((FIXTURES / "plant.json.zlib").read_bytes()).decode()

    empty = Agent(root, "empty", simulator)
    (empty.dir / "log" / "eve.json").touch()
    busy = Agent(root, "busy", simulator)
    busy.feed(recorded)
    # Refused log-in, a long name, text that wants to be run, and nothing to say it to.
    broken = Agent(root, "broken", simulator, password="wrong")
    broken.feed(recorded + "no record at all\n" + "".join(line(n, f"{EVIL} {n}", 1) for n in range(30)))
    for agent in (empty, busy, broken):
        agent.start()
    until("busy has sent all", lambda: (s := busy.status()).get("last_sync") and s["backlog"] == 0)
    until("broken is held", lambda: broken.status().get("health"))
    return {"empty": empty, "busy": busy, "broken": broken}


def main():
    PICTURES.mkdir(parents=True, exist_ok=True)
    root = pathlib.Path(tempfile.mkdtemp(prefix="page-"))
    agents, browser, wrong = states(root), Browser(root), []
    for state, agent in agents.items():
        for page, path in PAGES.items():
            for kind, width, dark in (("wide", 1280, False), ("dark", 1280, True), ("narrow", 320, False)):
                if kind != "wide" and state == "empty":
                    continue
                browser.be(width, dark)
                browser.go(agent.url + path)
                time.sleep(0.3)
                name = f"{state}-{page}-{kind}"
                browser.picture(name)
                wrong += [f"{name}: {fault}" for fault in browser.faults()]
    # A new alert comes without anybody asking for it.
    browser.be(1280, False)
    browser.go(agents["busy"].url + "/alerts")
    agents["busy"].feed(line(1, "LIVE valve opened by stranger", 1))
    until("the page updates by itself", lambda: "LIVE valve" in browser.run("return document.body.innerText"), 60)
    print("\n".join(wrong) or f"nothing is wrong; pictures in {PICTURES}")
    return 1 if wrong else 0


def ended(work):
    """Does it, and leaves nothing running."""
    try:
        return work()
    finally:
        # Its driver would leave the browser running.
        for browser in browsers:
            browser.ask("DELETE", "")
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(30)


if __name__ == "__main__":
    sys.exit(ended(main))
