"""The tarball's install.sh on a machine that has no package manager for it: install, start, install again, uninstall."""

import subprocess

from plant import CA, DROP_INS, Plant
from scenario import CREDENTIAL, SHIPPED, STRICT, UNIT, Scenario, need, same


class Tarball(Scenario):
    def __init__(self, machine, path):
        self.tree = "/root/otrelay"
        machine.path(self.tree).mkdir(parents=True)
        subprocess.run(["tar", "-xzf", str(path), "-C", str(machine.path(self.tree)), "--strip-components=1"], check=True)
        binary = next(p for p in (machine.path(self.tree) / "otrelay", machine.path(self.tree) / "bin/otrelay") if p.exists())
        super().__init__(Plant(machine, binary))

    def script(self, *arguments):
        return self.machine.run("sh", f"{self.tree}/install.sh", *arguments)

    def lays_out(self):
        """install.sh makes user, directories and unit, and does not start"""
        self.script()
        need(self.active() != "active", "it was started")
        self.modes({"/etc/otrelay": "root:otrelay 750", "/etc/otrelay/otrelay.toml": "root:otrelay 640",
                    "/var/lib/otrelay": "otrelay:otrelay 700"})

    def works(self):
        """configured and started, alerts become incidents"""
        group = (SHIPPED / "sensor-log-group.conf").read_text()
        self.plant.configure({"credential": CREDENTIAL, "sensor-log-group": group, "strict": STRICT})
        self.start()
        self.plant.alerts(50)
        same("incidents", self.plant.delivered(), 50)

    def again(self):
        """a second install.sh keeps config and state"""
        kept = self.machine.run("sh", "-c", "cat /etc/otrelay/otrelay.toml /etc/otrelay/conf.d/* | sha256sum")
        self.script()
        same("the config", self.machine.run("sh", "-c", "cat /etc/otrelay/otrelay.toml /etc/otrelay/conf.d/* | sha256sum"), kept)
        self.machine.run("systemctl", "restart", UNIT)
        self.plant.alerts(10)
        same("incidents", self.plant.delivered(), 60)

    def goes(self):
        """install.sh --uninstall takes program and unit away and leaves config and state; with --purge nothing is left"""
        self.machine.run("rm", "-rf", DROP_INS, CA)
        self.script("--uninstall")
        self.machine.run("systemctl", "daemon-reload")
        same("the unit", self.machine.ask("systemctl", "show", UNIT, "-p", "LoadState"), "LoadState=not-found")
        need(not self.machine.path("/usr/local/bin/otrelay").exists(), "the program is left")
        need(self.machine.path("/var/lib/otrelay/queue.db").exists(), "the state is gone")
        self.script("--uninstall", "--purge")
        self.nothing_left()

    def steps(self):
        return [self.lays_out, self.works, self.again, self.goes]
