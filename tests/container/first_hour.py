"""From the package to the first ticket, by nothing but what the README and the package say; then what goes wrong in a first
hour, drawn at random, has to be named to root and to the service's user alike."""

import hashlib
import os
import random
import re
import time

from machine import Failed
from plant import CA, DROP_INS, LOG, PASSWORD, PORT
from scenario import DEB, Scenario, need, same
import package
import scene

CONFIG = "/etc/otrelay/otrelay.toml"
SECRET = "/etc/otrelay/secrets/password"
DROP_IN = f"{DROP_INS}/50-otrelay-init.conf"
README = package.ROOT / "README.md"

BY_HAND = f"""\
[servicenow.prod]
instance = "https://127.0.0.1:{PORT}"
auth = "basic"
username = "{scene.USER}"
password = {{ file = "{SECRET}" }}
tls = {{ ca_file = "{CA}" }}

[sync]
interval = "60m"

[[source]]
name = "eve"
kind = "suricata-eve"
path = "/var/log/suricata/eve*.json"

[[rule]]
name = "all"
min_severity = "minor"

[[rule.action]]
table = "incident"
"""

# What a config has wrong: what is replaced by what, and what is then said.
MISTAKES = {
    "http to the outside": (f"https://127.0.0.1:{PORT}", "http://acme.example", r"alerts must not leave unencrypted"),
    "a key with a slip": ("interval =", "intervall =", r"did you mean `interval`"),
    "one bracket": ("[[rule.action]]", "[rule.action]", r"write \[\[rule\.action\]\] with two brackets"),
    "a foreign word": ('"minor"', '"high"', r"min_severity: unknown severity.*\"critical\""),
    "too short": ('"60m"', '"1s"', r"too short.*at least \"5m\""),
    "the same key twice": ("[sync]\n", '[sync]\ninterval = "5m"\n', r"otrelay\.toml:\d+.*duplicate key"),
    "nothing to read": ("[[source]]\n", "[sauce]\n", r"there is no \[\[source\]\]"),
    "no password": ("password =", "# password =", r"password: missing: auth = \"basic\" needs it"),
    "a relative path": (f'"{SECRET}"', '"password"', r"has to be absolute"),
    "a CA that is none": (f'"{CA}"', '"/etc/passwd"', r"expected a PEM file"),
    "an unknown kind": ("suricata-eve", "suricata", r"did you mean `suricata-eve`"),
    "an unknown destination": ("[[rule.action]]\n", '[[rule.action]]\nservicenow = "dev"\n', r"servicenow: .*dev"),
    "still the example": (f"127.0.0.1:{PORT}", "example.service-now.com", r"still the address of the example"),
    "an open page": ("[sync]\n", '[status]\nlisten = "0.0.0.0:9464"\n[sync]\n', r"address of this machine alone"),
}

# What a machine has wrong: how it is broken, what is then said, how it is mended.
SETUPS = {
    "a secret of root": (f"chown root:root {SECRET}; chmod 0600 {SECRET}", r"password: the service \(user otrelay\) may not read it"),
    "a secret for everybody": (f"chmod 0644 {SECRET}", r"must not be read by everyone.*chmod 0640"),
    "no secret": (f"rm {SECRET}", r"password cannot be read.*create it"),
    "an empty secret": (f": >{SECRET}", r"the secret is empty"),
    "a closed directory": ("chown root:root /etc/otrelay/secrets; chmod 0700 /etc/otrelay/secrets", r"does not get there: /etc/otrelay/secrets is"),
    "a CA of root": (f"chown root:root {CA}; chmod 0600 {CA}", r"plant-ca\.pem: the service \(user otrelay\) may not read it"),
    "a config of root": (f"chown root:root {CONFIG}; chmod 0600 {CONFIG}", r"otrelay\.toml.*(may not read it|cannot be read: Permission denied)"),
    "a part of root": ("install -m 0600 /dev/null /etc/otrelay/conf.d/x.toml", r"x\.toml.*(may not read it|cannot be read: Permission denied)"),
    "a log of another group": (f"chgrp root {LOG}", r"eve\.json cannot be read.*(user otrelay)"),
    "a closed log directory": ("chmod 2700 /var/log/suricata", r"/var/log/suricata.* cannot be read"),
    "a directory for a log": (f"rm {LOG}; mkdir {LOG}", r"it is a directory, not a file"),
    "no log": (f"rm {LOG}", r"no file matches"),
    "no credential": (f"mkdir -p {DROP_INS}; printf '[Service]\\nLoadCredential=x:/etc/otrelay/secrets/none\\n' >{DROP_INS}/x.conf",
                      r"x\.conf: credential x: /etc/otrelay/secrets/none is not there"),
    "no such group": (f"mkdir -p {DROP_INS}; printf '[Service]\\nSupplementaryGroups=nosuch\\n' >{DROP_INS}/x.conf",
                      r"x\.conf: there is no group nosuch"),
    "a masked unit": ("ln -sf /dev/null /etc/systemd/system/otrelay.service", r"is masked.*systemctl unmask"),
    "a state directory that the unit closes": (f"printf '[agent]\\nstate_dir = \"/srv/otrelay\"\\n' >>{CONFIG}",
                                               r"the service cannot write there.*ReadWritePaths=/srv/otrelay"),
    "a credential that the unit does not give": (f"sed -i 's#^password = .*#password = {{ credential = \"pw\" }}#' {CONFIG}",
                                                 r"gives the service no credential pw.*LoadCredential=pw:"),
    "a log below /home": (f"sed -i 's#^path = .*#path = \"/home/x/eve.json\"#' {CONFIG}; mkdir -p /home/x; cp {LOG} /home/x/",
                          r"does not see it: the unit hides this place \(ProtectHome=\)"),
}
DRAWN = 5


def readme_steps():
    """The commands of the README's section on installing, without their comments."""
    block = README.read_text().split("## Install", 1)[1].split("```\n", 2)[1]
    steps = [re.split(r"\s{2,}#", line)[0].strip() for line in block.splitlines()]
    return [step for step in steps if step]


class FirstHour(Scenario):
    def installs(self):
        """the README's checksums and `dpkg -i`; what the package then says is what the README says"""
        self.steps_left = readme_steps()
        check, install = self.steps_left[:2]
        self.steps_left = self.steps_left[2:]
        name = re.search(r"otrelay_VERSION-1_\w+\.deb", install)[0]
        bytes_ = self.machine.path(DEB).read_bytes()
        self.machine.path(f"/root/{name}").write_bytes(bytes_)
        self.machine.path("/root/SHA256SUMS").write_text(f"{hashlib.sha256(bytes_).hexdigest()}  {name}\n")
        self.machine.run("sh", "-c", f"cd /root && {check}")
        said = self.machine.run("sh", "-c", f"cd /root && {install}")
        for step in self.steps_left:
            need(step in said, f"the package does not say `{step}`: {said}")
        same("what is left to do", len(self.steps_left), 4)
        code, text = self.machine.do("otrelay", "check")
        need(code == 78 and "otrelay init" in text, f"the example passes its check, or no way out is named: {code} {text}")

    def by_asking(self):
        """`otrelay init` at a terminal finds the sensor, tries the connection, and shows no secret"""
        self.plant.alerts(20)
        self.machine.put(self.machine.path("/opt/destination/ca.pem"), CA)
        text = self.machine.converse(self.steps_left[0].split(), [
            ("Instance", f"https://127.0.0.1:{PORT}"), ("Log-in", ""), ("Client ID", "otrelay"), ("Client secret", "otrelay"),
            ("User", scene.USER), ("Password", PASSWORD), ("Proxy", ""), ("CA of your own", CA),
            ("[/var/log/suricata/eve*.json, as", ""), ("Zeek", ""), ("Defender", ""), ("Least severity", ""), ("not older", "")])
        for words in ("lets otrelay log in and read the table incident", "next: systemctl enable --now otrelay"):
            need(words in text, f"`{words}` is not said: {text}")
        need(PASSWORD not in text, "the password is shown")
        self.modes({CONFIG: "root:otrelay 640", "/etc/otrelay/secrets/servicenow-password": "root:root 600",
                    DROP_IN: "root:root 644"})
        need("SupplementaryGroups=suricata" in self.machine.path_of(DROP_IN), "the sensor's group is not in the drop-in")

    def goes_on(self):
        """the README's other steps, literally: each alert has one ticket"""
        for step in self.steps_left[1:]:
            self.machine.run("sh", "-c", step)
        return f"{self.tickets()} incidents"

    def tickets(self):
        """All that was written has one ticket each."""
        self.plant.read()
        code, text = self.machine.do("otrelay", "sync")
        need(code == 0, f"`otrelay sync` ended with {code}: {text}")
        texts = sorted(row["short_description"] for row in self.plant.destination.records())
        wanted = [scene.title(number) for number in sorted(self.plant.wanted)]
        missing = [title for title in wanted if sum(title in text for text in texts) != 1]
        need(not missing, f"without a ticket, or with several: {missing[:3]}; there are {len(texts)}: {texts[:3]}")
        return len(texts)

    def removed_and_back(self):
        """`dpkg -r`, then `-i`: it runs again; an upgrade of a stopped one says so; a masked one, too"""
        self.machine.run("dpkg", "-r", "otrelay")
        need(self.active() != "active", "it runs after its removal")
        said = self.machine.run("dpkg", "-i", DEB)
        same("the service", self.active(), "active")
        need("started with the config that was there" in said, f"it does not say so: {said}")
        self.plant.alerts(5)
        self.tickets()
        self.machine.run("systemctl", "stop", "otrelay")
        said = self.machine.run("dpkg", "-i", DEB)
        need(self.active() != "active" and "was not running" in said, f"a stopped one: {said}")
        self.machine.run("systemctl", "mask", "otrelay")
        said = self.machine.run("dpkg", "-i", DEB)
        need("systemctl unmask" in said, f"a masked one: {said}")
        self.machine.run("systemctl", "unmask", "otrelay")

    def root_beside(self):
        """root works beside the stopped service with the unit's credentials, and the service goes on from there"""
        self.plant.alerts(5)
        self.machine.run("otrelay", "run", "--once")
        same("what belongs to somebody else", self.machine.run("find", "/var/lib/otrelay", "!", "-user", "otrelay").strip(), "")
        self.start()
        self.tickets()

    def start_waits(self):
        """a start while a `sync` works on the store by itself waits for it"""
        self.machine.run("systemctl", "stop", "otrelay")
        self.plant.destination.ask("/simulator/faults", "POST", "delay=6000:path=/api")
        self.plant.alerts(1)
        self.machine.run("systemd-run", "-q", "--unit=by-hand", "--property=RemainAfterExit=yes", "otrelay", "run", "--once")
        self.machine.wait("the command at work", lambda: self.machine.do("flock", "-n", "/var/lib/otrelay/lock", "true")[0] != 0, 20)
        self.machine.run("systemctl", "start", "--no-block", "otrelay")
        self.machine.wait("the start waiting", lambda: "waits until that command has ended" in self.words(), 20)
        same("the service", self.active(), "activating")
        self.plant.destination.up()
        self.machine.wait("the service after the command", lambda: self.active() == "active", 60)
        self.machine.run("systemctl", "stop", "by-hand")
        self.tickets()

    def fresh(self):
        self.machine.run("dpkg", "--purge", "otrelay")
        self.machine.run("rm", "-rf", DROP_INS)
        self.machine.run("dpkg", "-i", DEB)
        self.plant.destination.ask("/simulator/reset", "POST")
        self.plant.wanted.clear()
        self.plant.fresh_log()
        self.machine.put(self.machine.path("/opt/destination/ca.pem"), CA)
        self.plant.alerts(10)

    def by_arguments(self):
        """`otrelay init` by its arguments, as Ansible has it; then its secrets encrypted by systemd-creds"""
        self.fresh()
        self.machine.write("/root/cs", "otrelay\n", mode="0600")
        init = ["otrelay", "init", "--yes", "--instance", f"https://127.0.0.1:{PORT}", "--client-id", "otrelay", "--client-secret-file",
                "/root/cs", "--username", scene.USER, "--password-fd", "0", "--ca-file", CA]
        said = self.machine.run(*init, stdin=PASSWORD + "\n")
        need(PASSWORD not in said, "the password is shown")
        # A second time changes nothing; other answers are refused, and with --force the old ones stay beside.
        before = self.machine.ask("sh", "-c", f"cat {CONFIG} {DROP_IN} /etc/otrelay/secrets/*")
        self.machine.run(*init, stdin=PASSWORD + "\n")
        same("what is written the second time", self.machine.ask("sh", "-c", f"cat {CONFIG} {DROP_IN} /etc/otrelay/secrets/*"), before)
        code, said = self.machine.do(*init, "--min-severity", "minor", stdin=PASSWORD + "\n")
        need(code == 1 and "is there already; --force" in said, f"other answers: {code} {said}")
        # As files of the service's user, and back.
        self.machine.run(*init, "--secrets", "file", "--force", stdin=PASSWORD + "\n")
        self.modes({"/etc/otrelay/secrets/servicenow-password": "otrelay:otrelay 600"})
        same("what `check` says", self.both("otrelay check"), (0, []))
        self.machine.run(*init, "--min-severity", "minor", "--force", stdin=PASSWORD + "\n")
        seal = ("set -e; cd /etc/otrelay/secrets; for n in servicenow-client-secret servicenow-password; do "
                "systemd-creds encrypt --with-key=host --name=$n $n $n.cred; rm $n; done; "
                f"sed -i 's/^LoadCredential=\\(.*\\)/LoadCredentialEncrypted=\\1.cred/' {DROP_IN}; systemctl daemon-reload")
        code, text = self.machine.do("sh", "-c", seal)
        sealed = code == 0
        if not sealed:
            self.machine.do("systemctl", "daemon-reload")
            need(int(self.machine.ask("systemctl", "--version").split()[1]) < 250, f"systemd-creds: {text}")
        else:
            code, text = self.machine.do("otrelay", "run", "--once")
            need(code == 78 and "only systemd can open credential" in text, f"root beside encrypted ones: {code} {text}")
        self.machine.run("otrelay", "check")
        self.machine.run("systemctl", "enable", "--now", "otrelay")
        return f"{self.tickets()} incidents, {'encrypted' if sealed else 'NOT encrypted: this systemd cannot'}"

    def by_hand(self):
        """by an editor: secrets root:otrelay 0640, the sensor's group by `usermod`"""
        self.fresh()
        self.lay()
        self.machine.run("usermod", "-aG", "suricata", "otrelay")
        same("what `check` says", self.both("otrelay check"), (0, []))
        self.machine.run("systemctl", "enable", "--now", "otrelay")
        return f"{self.tickets()} incidents"

    def lay(self):
        """Config, secret, CA and log as they have to be."""
        self.machine.run("rm", "-rf", DROP_INS, "/etc/systemd/system/otrelay.service", "/home/x", LOG, "/etc/otrelay/conf.d/x.toml")
        self.machine.run("sh", "-c", "chown root:otrelay /etc/otrelay/secrets; chmod 0750 /etc/otrelay/secrets; chmod 2750 /var/log/suricata")
        self.machine.write(CONFIG, BY_HAND, "root:otrelay", "0640")
        self.machine.write(SECRET, PASSWORD + "\n", "root:otrelay", "0640")
        self.machine.run("chown", "root:otrelay", CA)
        self.machine.run("chmod", "0640", CA)
        self.plant.fresh_log()
        self.plant.wanted.clear()
        self.plant.alerts(10)

    def both(self, command):
        """Exit code and warnings or errors of a check by root and by the service's user, who have to hear the same code."""
        said = []
        for who in ([], ["runuser", "-u", "otrelay", "--"]):
            code, text = self.machine.do(*who, "sh", "-c", command)
            said.append((code, text))
        same(f"the exit code for the service's user\n{said[1][1]}\n--- root\n{said[0][1]}\n", said[1][0], said[0][0])
        lines = [line for _, text in said for line in text.splitlines() if not line.startswith("config OK")]
        self.said = [text for _, text in said]
        return said[0][0], lines

    def unnamed(self, what, pattern):
        """What is wrong with what `check` says to either, as a list."""
        try:
            self.both("otrelay check")
        except Failed as e:
            return [f"{what}: {e}"]
        heard = list(zip(("root", "the service's user"), self.said))
        silent = [f"{what}: `otrelay check` does not say `{pattern}` to {who}: {text}" for who, text in heard if not re.search(pattern, text)]
        return silent + [f"{what}: the password is shown to {who}" for who, text in heard if PASSWORD in text]

    def troubles(self):
        """five mistakes and five broken set-ups, drawn at random, are named to root and to the service's user alike"""
        self.machine.run("systemctl", "stop", "otrelay")
        seed = int(os.environ.get("SEED") or time.time_ns() % 1_000_000)
        draw = random.Random(seed)
        count = int(os.environ.get("DRAWN") or DRAWN)
        mistakes = draw.sample(sorted(MISTAKES), min(count, len(MISTAKES)))
        setups = draw.sample(sorted(SETUPS), min(count, len(SETUPS)))
        print(f"      SEED={seed}: {', '.join(mistakes + setups)}", flush=True)
        wrong = []
        for what in mistakes:
            old, new, pattern = MISTAKES[what]
            need(old in BY_HAND, f"{what}: `{old}` is not in the config")
            self.lay()
            self.machine.write(CONFIG, BY_HAND.replace(old, new, 1), "root:otrelay", "0640")
            wrong += self.unnamed(what, pattern)
        for what in setups:
            broken, pattern = SETUPS[what]
            self.lay()
            self.machine.run("sh", "-c", broken)
            wrong += self.unnamed(what, pattern)
        need(not wrong, "\n".join(wrong))
        self.lay()
        same("what `check` says when all is mended", self.both("otrelay check"), (0, []))

    def steps(self):
        return [self.installs, self.by_asking, self.goes_on, self.removed_and_back, self.root_beside, self.start_waits,
                self.by_arguments, self.by_hand, self.troubles, self.purge]
