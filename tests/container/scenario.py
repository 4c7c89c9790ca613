"""What an operator and bad luck do to the installed package, step by step. Each step asserts and is printed with its time.

All of it runs with a drop-in that takes SystemCallErrorNumber= away: a system call outside the filter then kills the
service with SIGSYS instead of failing with EPERM, which nobody might notice. One death by SIGSYS fails the suite.
"""

import json
import pathlib
import time

from machine import Failed
from plant import CA, DROP_INS, PASSWORD

UNIT = "otrelay"
SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "systemd/drop-in"
DEB = "/root/otrelay.deb"

STRICT = "[Service]\nSystemCallErrorNumber=\n"
CREDENTIAL = "[Service]\nLoadCredential=servicenow-password:/etc/otrelay/secrets/password\n"
WATCHDOG = "[Service]\nWatchdogSec=5\n"


def need(condition, text):
    if not condition:
        raise Failed(text)


def same(what, found, right):
    need(found == right, f"{what} is `{found}`, not `{right}`")


class Scenario:
    def __init__(self, plant):
        self.plant, self.machine = plant, plant.machine

    # What is asked again and again

    def prop(self, name):
        return self.machine.show(UNIT, name).get(name, "")

    def active(self):
        return self.machine.ask("systemctl", "is-active", UNIT)

    def start(self):
        code, text = self.machine.do("systemctl", "start", UNIT)
        need(code == 0, f"`systemctl start` ended with {code}: {text} {self.words()}")
        same("the service", self.active(), "active")

    def words(self, lines=15):
        return self.machine.journal("-u", UNIT, "-n", str(lines), "-o", "cat")

    def restarted(self, before, seconds):
        self.machine.wait("a restart by systemd", lambda: int(self.prop("NRestarts")) > before, seconds)
        self.machine.wait("the service active again", lambda: self.active() == "active", 30)

    def drop_in(self, name, text):
        path = f"{DROP_INS}/{name}.conf"
        if text is None:
            self.machine.path(path).unlink()
        else:
            self.machine.write(path, text)
        self.machine.run("systemctl", "daemon-reload")

    def modes(self, wanted):
        for path, right in wanted.items():
            same(path, self.machine.ask("stat", "-c", "%U:%G %a", path), right)

    # Steps

    def install(self):
        """the package installs, makes user and directories, and does not start without a config that is whole"""
        text = self.machine.run("dpkg", "-i", DEB)
        same("the service after the installation", self.active(), "inactive")
        same("the service at boot", self.machine.ask("systemctl", "is-enabled", UNIT), "enabled")
        need("otrelay.toml" in text, f"the installation does not say what to do next: {text}")
        self.modes({"/etc/otrelay": "root:otrelay 750", "/etc/otrelay/otrelay.toml": "root:otrelay 640",
                    "/etc/otrelay/secrets": "root:otrelay 750", "/var/lib/otrelay": "otrelay:otrelay 700"})
        user = self.machine.ask("getent", "passwd", "otrelay").split(":")
        need(user[-1].endswith("nologin"), f"the user has the shell {user[-1]}")

    def configure(self):
        """a config in parts, a password as a credential, the sensor's group by the shipped drop-in: `otrelay check` passes"""
        group = (SHIPPED / "sensor-log-group.conf").read_text()
        self.plant.configure({"credential": CREDENTIAL, "sensor-log-group": group, "strict": STRICT})
        self.machine.run("otrelay", "check")

    def comes_up(self):
        """`systemctl start` returns when the store is open, and STATUS says something"""
        self.start()
        need(self.plant.status()["running"], "`otrelay status` of root does not find the service")
        self.modes({"/run/otrelay": "otrelay:otrelay 710", "/run/otrelay/otrelay.sock": "otrelay:otrelay 600"})
        self.machine.wait("a status text", lambda: self.prop("StatusText") != "", 5)

    def sandbox(self):
        """the running process has no capability, no new privileges, a filter, and nothing listens"""
        pid = self.prop("MainPID")
        facts = dict(line.split(":\t", 1) for line in self.machine.path_of(f"/proc/{pid}/status").splitlines() if ":\t" in line)
        for name, right in (("CapEff", "0" * 16), ("CapBnd", "0" * 16), ("NoNewPrivs", "1"), ("Seccomp", "2")):
            same(name, facts[name].strip(), right)
        # The last of those that lie on one another counts. /run/host is the container's own.
        mounts = {line.split()[4]: line.split()[5].split(",") for line in self.machine.path_of(f"/proc/{pid}/mountinfo").splitlines()}
        own = {"/var/lib/otrelay", "/run/otrelay", "/tmp", "/var/tmp"}
        writable = {at for at, how in mounts.items() if "rw" in how and not at.startswith(("/proc", "/dev/", "/run/host/"))}
        same("where the service may write", sorted(writable), sorted(own))
        # NoExecPaths= came with 248.
        if int(self.machine.ask("systemctl", "--version").split()[1]) >= 248:
            same("what it may execute of that", sorted(at for at in own if "noexec" not in mounts[at]), [])
        tried = " ".join(f"{at}/probe" for at in ("/run", "/run/lock", "/etc", "/usr/bin", "/var/log/suricata", "/dev/shm", "/opt"))
        left = self.machine.ask("nsenter", "-t", pid, "-m", "sh", "-c", f"for f in {tried}; do (: >$f) 2>/dev/null && echo $f; done")
        same("what root could write there", left, "")
        listening = [line.split()[1] for name in ("tcp", "tcp6") for line in self.machine.path_of(f"/proc/{pid}/net/{name}")
                     .splitlines()[1:] if line.split()[3] == "0A"]
        same("who listens", listening, ["0100007F:2198"])

    def first_alerts(self):
        """alerts in a file of root and the sensor's group become incidents by a sync that root asks for"""
        self.plant.alerts(200)
        same("incidents", self.plant.delivered(), 200)
        self.machine.wait("a status text of the sync", lambda: "sync" in self.prop("StatusText").lower(), 10)

    def killed(self):
        """kill -9: systemd starts it again, nothing is lost, nothing is doubled"""
        before = int(self.prop("NRestarts"))
        self.plant.alerts(100)
        self.machine.run("systemctl", "kill", "-s", "KILL", "--kill-who=main", UNIT)
        self.plant.alerts(100)
        self.restarted(before, 20)
        same("incidents", self.plant.delivered(), 400)

    def stray_term(self):
        """a SIGTERM that systemd did not send: started again, too"""
        before = int(self.prop("NRestarts"))
        self.machine.run("systemctl", "kill", "-s", "TERM", "--kill-who=main", UNIT)
        self.restarted(before, 30)

    def good_reload(self):
        """a reload with a changed rule: the same process, and the rule counts for what comes after"""
        pid = self.prop("MainPID")
        self.plant.rule('["DNP3"]')
        self.machine.run("systemctl", "reload", UNIT)
        self.plant.alerts(20, wanted=False)
        self.plant.delivered()
        self.plant.rule('"any"')
        self.machine.run("systemctl", "reload", UNIT)
        self.plant.alerts(20)
        same("incidents", self.plant.delivered(), 420)
        same("the process", self.prop("MainPID"), pid)
        # `otrelay check` runs in the sandbox after a reload, where other users' files look like nobody's.
        need("cannot be read" not in self.words(), f"the check after a reload finds fault: {self.words()}")

    def bad_reload(self):
        """a reload with a bad config: `systemctl reload` fails, the old one goes on, STATUS and the journal say why"""
        pid = self.prop("MainPID")
        # Not a cursor: with a filter beside it, journalctl 252 leaves the first line out.
        began = time.time()
        self.plant.rule('["DNP3", 7]')
        code, text = self.machine.do("systemctl", "reload", UNIT)
        need(code != 0, "`systemctl reload` says that all is well")
        same("the service", self.active(), "active")
        same("the process", self.prop("MainPID"), pid)
        self.machine.wait("a status text that says so", lambda: "reload" in self.prop("StatusText").lower(), 10)
        told = self.machine.journal("-u", UNIT, f"--since=@{began:.3f}", "-p", "warning", "-o", "cat")
        need("reload refused" in told and "20-rules.toml" in told, f"the journal does not warn with the name of the file: {told}")
        self.plant.alerts(20)
        same("incidents", self.plant.delivered(), 440)
        self.plant.rule('"any"')
        self.machine.run("systemctl", "reload", UNIT)
        self.machine.wait("a status text without the refusal", lambda: "refused" not in self.prop("StatusText").lower(), 10)

    def hangs(self):
        """a process that hangs: the watchdog ends it, it is started again, nothing is lost"""
        self.drop_in("watchdog", WATCHDOG)
        self.machine.run("systemctl", "restart", UNIT)
        # Fed: it has to live through several intervals first.
        time.sleep(12)
        before = int(self.prop("NRestarts"))
        need("atchdog" not in self.machine.journal("-u", UNIT, "_PID=1"), "the watchdog bit a service that works")
        self.plant.alerts(50)
        self.machine.run("systemctl", "kill", "-s", "STOP", "--kill-who=main", UNIT)
        self.plant.alerts(50)
        self.restarted(before, 30)
        need("atchdog" in self.machine.journal("-u", UNIT, "_PID=1"), "it was not the watchdog that ended it")
        same("incidents", self.plant.delivered(), 540)
        self.drop_in("watchdog", None)

    def bad_start(self):
        """a restart with a bad config: exit code 78, and no further attempt"""
        self.plant.rule('["DNP3", 7]')
        code, _ = self.machine.do("systemctl", "restart", UNIT)
        # The exit comes before READY, so the restart itself fails.
        need(code != 0, "`systemctl restart` says that all is well")
        time.sleep(7)
        same("the exit code", self.prop("ExecMainStatus"), "78")
        same("the service", self.active(), "failed")
        need("20-rules.toml" in self.words(), f"the journal does not name the file: {self.words()}")
        self.plant.rule('"any"')
        self.start()
        self.plant.alerts(10)
        same("incidents", self.plant.delivered(), 550)

    def stops(self):
        """`systemctl stop` is clean and quick, and stays"""
        began = time.monotonic()
        self.machine.run("systemctl", "stop", UNIT)
        took = time.monotonic() - began
        same("the result", self.prop("Result"), "success")
        same("the exit code", self.prop("ExecMainStatus"), "0")
        # Nothing is in flight: the promise is 5 s.
        need(took < 5, f"the stop took {took:.1f} s")
        time.sleep(6)
        same("the service", self.active(), "inactive")

    def by_hand(self):
        """root works on the stopped service's store: the service can use it afterwards, also one that root began"""
        self.plant.alerts(10)
        self.machine.run("systemctl", "stop", UNIT)
        self.machine.run("rm", "-rf", "/var/lib/otrelay")
        self.machine.run("systemd-tmpfiles", "--create")
        self.machine.run("env", "CREDENTIALS_DIRECTORY=/root/credentials", "sh", "-c",
                         "mkdir -p /root/credentials; cp /etc/otrelay/secrets/password /root/credentials/servicenow-password; "
                         "exec otrelay run --once")
        owners = self.machine.run("find", "/var/lib/otrelay", "!", "-user", "otrelay")
        same("what belongs to somebody else", owners.strip(), "")
        # The alerts that no rule wanted in `good_reload` are wanted now: the store that remembered is gone.
        self.plant.wanted.update(range(self.plant.next))
        same("incidents", self.plant.judge(), self.plant.next)
        self.start()
        self.plant.alerts(10)
        self.plant.delivered()

    def boots(self):
        """the machine loses its power and boots: the service is there by itself, and what was delivered is not sent again"""
        self.plant.alerts(10)
        self.plant.delivered()
        self.plant.alerts(10)
        self.plant.read()
        self.machine.power_cut()
        self.machine.wait("the service after the boot", lambda: self.active() == "active", 30)
        # The simulator keeps everything in memory: what it has now was sent after the boot. It has a new CA, too.
        self.plant.destination.start()
        self.machine.put(self.machine.path("/opt/destination/ca.pem"), CA)
        self.machine.run("systemctl", "reload", UNIT)
        self.plant.wanted = set(range(self.plant.next - 10, self.plant.next))
        same("incidents", self.plant.delivered(), 10)

    def low_port(self):
        """the drop-in for port 514 gives just that; without it the port is refused; the filter kills when it is hit"""
        listen = "[Service]\nType=exec\nRestart=no\nWatchdogSec=0\nExecStart=\nExecStart=/usr/bin/otrelay simulate --listen 127.0.0.1:514\n"
        self.machine.run("systemctl", "stop", UNIT)
        self.drop_in("zz-listen", listen)
        self.machine.do("systemctl", "start", UNIT)
        self.machine.wait("a refusal of port 514", lambda: self.active() == "failed", 10)
        need("ermission denied" in self.words(), f"not refused for its privileges: {self.words()}")
        self.drop_in("port-514", (SHIPPED / "port-514.conf").read_text())
        self.machine.run("systemctl", "restart", UNIT)
        time.sleep(1)
        same("who listens on 514", self.active(), "active")
        self.machine.run("systemctl", "stop", UNIT)
        self.drop_in("port-514", None)
        # The other half of "no denials": a call outside the filter would be seen.
        self.drop_in("zz-listen", listen.replace("/usr/bin/otrelay simulate --listen 127.0.0.1:514", "/bin/mount -t tmpfs none /tmp"))
        self.machine.do("systemctl", "start", UNIT)
        self.machine.wait("a death by SIGSYS", lambda: self.active() == "failed", 10)
        same("how `mount` ended", (self.prop("ExecMainCode"), self.prop("ExecMainStatus")), ("2", "31"))
        self.drop_in("zz-listen", None)
        self.machine.run("systemctl", "reset-failed", UNIT)
        self.start()

    def journal_fields(self):
        """the journal has priorities and fields, and no secret is in it, in the state, or in the process"""
        rows = [json.loads(line) for line in self.machine.journal("-u", UNIT, "-o", "json").splitlines()]
        # What `otrelay check` says after a reload comes by the pipe, like the output of any command.
        own = [row for row in rows if row.get("_COMM") == "otrelay" and row.get("_TRANSPORT") == "journal"]
        need(own and all("PRIORITY" in row for row in own), "nothing came by the journal's own protocol, or without a priority")
        refused = {row["PRIORITY"] for row in own if str(row.get("MESSAGE", "")).startswith("reload refused")}
        same("the priority of a refused reload", refused, {"3"})
        fields = sorted({name for row in own for name in row if name.startswith("OTRELAY_")})
        need({"OTRELAY_SOURCES", "OTRELAY_CAUSE", "OTRELAY_CREATED"} <= set(fields), f"fields are missing; there are {fields}")
        pid = self.prop("MainPID")
        where = ["/var/lib/otrelay", "/run/otrelay", "/var/log/journal", f"/proc/{pid}/environ", f"/proc/{pid}/cmdline"]
        code, text = self.machine.do("grep", "-rlaF", PASSWORD, *where)
        need(code != 0, f"the password is in {text}")
        return " ".join(fields)

    def no_denials(self):
        """no system call of otrelay was outside the filter"""
        rows = [json.loads(line) for line in self.machine.journal("-o", "json", "_PID=1", "-u", UNIT).splitlines()]
        # One was: `mount`, on purpose.
        deaths = [row["MESSAGE"] for row in rows if "SYS" in str(row.get("MESSAGE", "")) and "killed" in str(row.get("MESSAGE", ""))
                  or "status=31/SYS" in str(row.get("MESSAGE", ""))]
        deaths = [m for m in deaths if "status=31/SYS" in m]
        same("deaths by SIGSYS", len(deaths), 1)

    def purge(self):
        """purge leaves no user, no file, no unit"""
        self.machine.run("dpkg", "--purge", "otrelay")
        self.nothing_left()

    def nothing_left(self):
        self.machine.run("systemctl", "daemon-reload")
        left = self.machine.run("find", "/", "-xdev", "-name", "*otrelay*", "-not", "-path", "/proc/*", "-not", "-path",
                                "/opt/destination/*", "-not", "-path", "/root/*", "-not", "-path", "/var/lib/dpkg/*").split()
        same("what is left", left, [])
        need(self.machine.do("getent", "passwd", "otrelay")[0] != 0, "the user is left")
        need(self.machine.do("getent", "group", "otrelay")[0] != 0, "the group is left")
        same("the unit", self.machine.ask("systemctl", "show", UNIT, "-p", "LoadState"), "LoadState=not-found")

    def steps(self):
        return [self.install, self.configure, self.comes_up, self.sandbox, self.first_alerts, self.killed, self.stray_term,
                self.good_reload, self.bad_reload, self.hangs, self.bad_start, self.stops, self.by_hand, self.boots, self.low_port,
                self.journal_fields, self.no_denials, self.purge]


class Upgrade(Scenario):
    """From a package of a lower version, with a backlog, to today's."""

    def old(self):
        """the lower version runs, and its destination goes away"""
        self.machine.run("dpkg", "-i", "/root/previous.deb")
        group = (SHIPPED / "sensor-log-group.conf").read_text()
        self.plant.fresh_log()
        self.plant.configure({"credential": CREDENTIAL, "sensor-log-group": group, "strict": STRICT})
        self.start()
        self.plant.alerts(60)
        time.sleep(2)
        self.machine.run("otrelay", "sync")
        self.plant.judge()
        self.plant.destination.down()

    def backlog(self):
        """a backlog grows"""
        self.plant.alerts(300)
        self.machine.wait("the backlog", lambda: self.plant.status()["backlog"] == 300, 20)
        code, _ = self.machine.do("otrelay", "sync")
        same("the exit code of a sync that cannot", code, 75)

    def new(self):
        """today's package over it: the config stays, the service goes on with the new program, the backlog is whole"""
        kept = self.machine.run("sh", "-c", "cat /etc/otrelay/otrelay.toml /etc/otrelay/conf.d/* | sha256sum")
        pid = self.prop("MainPID")
        self.machine.run("dpkg", "-i", DEB)
        same("the config", self.machine.run("sh", "-c", "cat /etc/otrelay/otrelay.toml /etc/otrelay/conf.d/* | sha256sum"), kept)
        self.machine.wait("the service active", lambda: self.active() == "active", 30)
        need(self.prop("MainPID") != pid, "the old process still runs")
        self.plant.alerts(40)
        self.machine.wait("the backlog", lambda: self.plant.status()["backlog"] == 340, 20)

    def delivered(self):
        """the destination is back: everything is there once"""
        self.plant.destination.up()
        # What failed while it was away waits for its own time; `sync` tries at once.
        def through():
            self.machine.do("otrelay", "sync")
            return self.plant.status()["backlog"] == 0
        self.machine.wait("an empty backlog", through, 90)
        self.machine.run("systemctl", "stop", UNIT)
        return f"{self.plant.judge()} incidents"

    def steps(self):
        return [self.old, self.backlog, self.new, self.delivered, self.no_denials, self.purge]

    def no_denials(self):
        """no system call of either version was outside the filter"""
        same("deaths by SIGSYS", self.machine.journal("-u", UNIT, "_PID=1").count("status=31/SYS"), self.deaths)

    # Those of the scenario before, in the same journal.
    deaths = 1
