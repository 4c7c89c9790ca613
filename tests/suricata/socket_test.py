"""Suricata writes to the agent's socket. Called by tests/suricata.sh as root.

The agent and Suricata run as two users without a name. Suricata replays a capture that is made here, a packet for each
alert, into `filetype: unix_stream`.
"""

import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
AGENT, SENSOR = 64_010, 64_011
PACKETS = 300
PATIENCE = 60
TITLE = "TEST a datagram that nobody expects"


class Failed(Exception):
    """A promise was broken; the text says which."""


def packet(number):
    """A datagram to port 9999 in Ethernet; checksums are left out, Suricata is told not to look at them."""
    payload = b"otrelay" + struct.pack(">I", number)
    udp = struct.pack(">HHHH", 40_000 + number, 9999, 8 + len(payload), 0) + payload
    addresses = bytes([10, 20, number >> 8, number & 255]) + bytes([10, 40, 1, 11])
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), number, 0, 64, 17, 0) + addresses
    return bytes.fromhex("021b1baabb01021b1baabb020800") + ip + udp


def capture():
    """A pcap in microseconds, link type Ethernet."""
    text = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)
    for number in range(PACKETS):
        data = packet(number)
        text += struct.pack("<IIII", 1_779_000_000 + number, 0, len(data), len(data)) + data
    return text


class Scene:
    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="suricata-"))
        self.dir.chmod(0o755)
        binary = pathlib.Path(os.environ.get("OTRELAY", ROOT / "target/release/otrelay")).resolve()
        if not os.access(binary, os.X_OK):
            sys.exit(f"{binary} is not there: build it (cargo build --release) or set OTRELAY")
        # The tree may lie where other users cannot look.
        self.binary = self.dir / "otrelay"
        shutil.copy(binary, self.binary)
        self.binary.chmod(0o755)
        self.socket = self.dir / "run/eve.sock"
        self.config = self.dir / "otrelay.toml"
        self.config.write_text(
            f'[agent]\nname = "suricata"\nid = "suricata"\nstate_dir = "{self.dir}/state"\n[sync]\nenabled = false\n'
            f'[[source]]\nname = "eve"\nkind = "suricata-eve"\nlisten = "unix_stream://{self.socket}"\n'
        )
        # As the packages make /run/otrelay.
        for name, mode in (("state", 0o700), ("run", 0o710)):
            (self.dir / name).mkdir()
            (self.dir / name).chmod(mode)
        for path in (self.config, self.dir / "state", self.dir / "run"):
            os.chown(path, AGENT, AGENT)
        self.config.chmod(0o600)
        (self.dir / "log").mkdir()
        os.chown(self.dir / "log", SENSOR, SENSOR)
        (self.dir / "x.pcap").write_bytes(capture())
        (self.dir / "x.rules").write_text(
            f'alert udp any any -> any 9999 (msg:"{TITLE}"; content:"otrelay"; classtype:misc-attack; sid:2000001; rev:1;)\n'
        )
        (self.dir / "suricata.yaml").write_text(
            "%YAML 1.1\n---\nrunmode: single\noutputs:\n  - eve-log:\n      enabled: yes\n      filetype: unix_stream\n"
            f"      filename: {self.socket}\n      types:\n        - alert\n"
            "logging:\n  default-log-level: notice\n  outputs:\n    - console:\n        enabled: yes\n"
        )
        self.process = None

    def start(self):
        with open(self.dir / "agent.log", "ab") as log:
            command = [str(self.binary), "--config", str(self.config), "run"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, user=AGENT, group=AGENT,
                                            extra_groups=[], umask=0o077)
        self.until("the socket is there", self.socket.exists)
        self.until("it answers", lambda: self.counted() is not None)

    def counted(self):
        """Alerts and findings."""
        command = [str(self.binary), "--config", str(self.config), "status", "--json"]
        said = subprocess.run(command, capture_output=True, check=False, user=AGENT, group=AGENT, extra_groups=[])
        if said.returncode != 0:
            return None
        sources = json.loads(said.stdout)["sources"]
        return (sources[0]["alerts"], sum(sources[0]["rejected"].values())) if sources else (0, 0)

    def until(self, what, look):
        end = time.monotonic() + PATIENCE
        while not look():
            if time.monotonic() > end:
                raise Failed(f"waited {PATIENCE} s until {what}; now: {self.counted()}")
            time.sleep(0.1)

    def replay(self, groups):
        command = ["suricata", "-c", "suricata.yaml", "-S", "x.rules", "-r", "x.pcap", "-l", "log", "-k", "none"]
        said = subprocess.run(command, cwd=self.dir, capture_output=True, text=True, check=False, timeout=PATIENCE, user=SENSOR,
                              group=SENSOR, extra_groups=groups)
        return said.stdout + said.stderr

    def end(self):
        self.process.terminate()
        if self.process.wait(timeout=PATIENCE) != 0:
            raise Failed("the agent did not stop as it should")


def main():
    scene = Scene()
    try:
        scene.start()
        said = scene.replay(groups=[])
        time.sleep(1)
        if scene.counted() != (0, 0):
            raise Failed(f"a user without the group could write: {scene.counted()}")
        if "Permission denied" not in said:
            raise Failed(f"Suricata without the group was not refused: {said}")
        print("ok  without the group of the directory Suricata cannot connect")
        said = scene.replay(groups=[AGENT])
        scene.until(f"{PACKETS} alerts are there; Suricata said: {said}", lambda: scene.counted() == (PACKETS, 0))
        print(f"ok  with it, 0710 and 0660 let it in: {PACKETS} packets, {PACKETS} alerts, no reject")
        scene.end()
        if scene.socket.exists():
            raise Failed("the socket is left behind")
        scene.start()
        scene.replay(groups=[AGENT])
        scene.until("the second replay is there", lambda: scene.counted() == (2 * PACKETS, 0))
        print(f"ok  after a restart Suricata finds the new socket: {PACKETS} more")
        scene.end()
    except Failed as failure:
        print(f"FAILED: {failure}\n{(scene.dir / 'agent.log').read_text()[-2000:]}\nin {scene.dir}")
        sys.exit(1)
    finally:
        if scene.process and scene.process.poll() is None:
            scene.process.kill()
        if not os.environ.get("KEEP"):
            shutil.rmtree(scene.dir, ignore_errors=True)


main()
