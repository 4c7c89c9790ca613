"""A booted container: systemd as process 1 on an overlay above the cached Debian, with a network of its own that has
nothing but loopback. Commands run in it through its namespaces. Whatever happens, `stop` leaves nothing behind.
"""

import os
import pathlib
import pty
import select
import shutil
import signal
import subprocess
import tempfile
import time

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root", "TERM": "dumb",
               "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0", "DEBIAN_FRONTEND": "noninteractive", "NO_COLOR": "1"}


class Failed(Exception):
    """A promise was broken; the text says which."""


class NoMachine(Exception):
    """A container cannot be booted here; the text says why."""


class Machine:
    def __init__(self, rootfs, name):
        self.name = f"otrelay-{name}-{os.getpid()}"
        # Not /tmp: it may be in memory, and an overlay needs a file system that can carry one.
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="otrelay-box-", dir="/var/tmp"))
        self.root = self.base / "root"
        self.console = self.base / "console.log"
        self.nspawn, self.pid, self.mounted = None, None, False
        try:
            self.lay(rootfs)
            self.boot()
        except BaseException:
            self.stop()
            raise

    def lay(self, rootfs):
        for part in ("up", "work", "root"):
            (self.base / part).mkdir()
        options = f"lowerdir={rootfs},upperdir={self.base}/up,workdir={self.base}/work"
        done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, self.root], capture_output=True, check=False)
        self.mounted = done.returncode == 0
        if not self.mounted:
            self.root.rmdir()
            subprocess.run(["cp", "-a", "--reflink=auto", rootfs, self.root], check=True)
        # A first boot asks for nothing and every machine is another one.
        (self.root / "etc/machine-id").write_text("")
        (self.root / "etc/hostname").write_text("plant\n")

    def boot(self):
        command = ["systemd-nspawn", "-D", str(self.root), "--boot", "--register=no", "--keep-unit", "--private-network",
                   "--console=pipe", f"--machine={self.name[:60]}", "--hostname=plant"]
        with open(self.console, "wb") as log:
            self.nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while True:
            if self.nspawn.poll() is not None or time.monotonic() > until:
                raise NoMachine(f"systemd-nspawn does not boot: {self.console.read_text(errors='replace')[-800:]}")
            try:
                children = pathlib.Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
                self.pid = int(children[0])
                if self.ask("systemctl", "is-system-running") in ("running", "degraded"):
                    return
            except (OSError, IndexError, subprocess.TimeoutExpired):
                pass
            time.sleep(0.2)

    def enter(self, *command):
        return ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--", *command]

    def do(self, *command, timeout=120, stdin=None):
        """Runs it; gives exit code and what it wrote."""
        done = subprocess.run(self.enter(*command), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              input=stdin, stdin=None if stdin else subprocess.DEVNULL, text=True, errors="replace",
                              timeout=timeout, check=False)
        return done.returncode, done.stdout

    def run(self, *command, **more):
        """Runs it; it has to succeed."""
        code, text = self.do(*command, **more)
        if code != 0:
            raise Failed(f"`{' '.join(command)}` ended with {code}: {text.strip()[-1500:]}")
        return text

    def converse(self, command, exchange, seconds=60):
        """Runs it at a terminal of its own. `exchange`: what it asks, and what is then typed. It has to succeed."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe("nsenter", self.enter(*command), ENVIRONMENT)
        text, seen, until, left = "", 0, time.monotonic() + seconds, list(exchange)
        try:
            while True:
                if left and left[0][0] in text[seen:]:
                    seen = len(text)
                    os.write(terminal, (left.pop(0)[1] + "\n").encode())
                if not select.select([terminal], [], [], max(0, until - time.monotonic()))[0]:
                    raise Failed(f"`{' '.join(command)}` does not go on; it said: {text}")
                try:
                    more = os.read(terminal, 4096)
                except OSError:
                    more = b""
                if not more:
                    break
                text += more.decode(errors="replace")
        finally:
            os.close(terminal)
            _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != 0 or left:
            raise Failed(f"`{' '.join(command)}` ended with {code}, {len(left)} answers were not asked for: {text}")
        return text

    def ask(self, *command):
        """What it says, whatever its exit code."""
        return self.do(*command)[1].strip()

    def show(self, unit, *names):
        """Properties of a unit, as a dictionary."""
        text = self.run("systemctl", "show", unit, "-p", ",".join(names))
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def path(self, inside):
        return self.root / inside.lstrip("/")

    def path_of(self, inside):
        """A file's text as it is seen inside: /proc is another one there."""
        return self.run("cat", inside)

    def write(self, inside, text, owner="root:root", mode="0644"):
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.run("chown", owner, inside)
        self.run("chmod", mode, inside)

    def put(self, outside, inside):
        self.path(inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(outside, self.path(inside))

    def wait(self, what, condition, seconds):
        """Until the condition holds; says what did not come."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise Failed(f"{what}: not within {seconds} s")
            time.sleep(0.2)

    def journal(self, *arguments):
        return self.ask("journalctl", "--no-pager", "-q", *arguments)

    def power_cut(self):
        """Everything in it ends at once; then it boots again from what is on its disk."""
        self.end()
        self.boot()

    def end(self):
        if self.nspawn and self.nspawn.poll() is None:
            # Its processes go with process 1; nothing in it is worth an orderly shutdown.
            if self.pid:
                try:
                    os.kill(self.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                self.nspawn.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()

    def stop(self):
        self.end()
        if self.mounted:
            for _ in range(50):
                if subprocess.run(["umount", self.root], capture_output=True, check=False).returncode == 0:
                    self.mounted = False
                    break
                time.sleep(0.1)
            else:
                subprocess.run(["umount", "-l", self.root], check=False)
                self.mounted = False
        shutil.rmtree(self.base, ignore_errors=True)
