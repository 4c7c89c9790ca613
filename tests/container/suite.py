"""Runs the scenarios and prints each step with its time. Ends with 0 when all hold, 1 when one does not; where no container
can be had it says so in one line that begins with NOT RUN, and ends with 0 (STRICT=1: with 1)."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import package  # noqa: E402
import rootfs  # noqa: E402
from first_hour import FirstHour  # noqa: E402
from machine import Failed, Machine, NoMachine  # noqa: E402
from plant import Plant  # noqa: E402
from scenario import DEB, Scenario, Upgrade  # noqa: E402
from tarball import Tarball  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))
import scene  # noqa: E402

BEGAN = time.monotonic()


def say(word, began, text):
    print(f"{word:<6}{time.monotonic() - began:6.1f} s  {text}", flush=True)


def perform(title, machine, scenario):
    print(f"\n{title}", flush=True)
    fine = True
    for step in scenario.steps():
        began = time.monotonic()
        try:
            more = step()
        except (Failed, scene.Failed, subprocess.TimeoutExpired) as e:
            say("FAILED", began, f"{step.__name__}: {step.__doc__}")
            print(f"\n{e}\n\n--- the service\n{machine.ask('systemctl', 'status', '--no-pager', '-n', '0', 'otrelay')}"
                  f"\n--- its journal\n{machine.journal('-u', 'otrelay', '-n', '60')}", flush=True)
            fine = False
            if not os.environ.get("KEEP_GOING"):
                break
            continue
        say("ok", began, f"{step.__doc__}{': ' + more if isinstance(more, str) else ''}")
    return fine


def debian(image, directory):
    deb = package.today()
    tree = package.unpacked(deb, directory / "today")
    machine = Machine(image, "deb")
    try:
        machine.put(deb, DEB)
        plant = Plant(machine, tree / "usr/bin/otrelay")
        if not perform(f"{deb.name}: a service's life", machine, Scenario(plant)):
            return False
        machine.put(package.previous(deb, directory), "/root/previous.deb")
        plant.destination.ask("/simulator/reset", "POST")
        plant.wanted.clear()
        return perform(f"{deb.name}: upgrade from a lower version", machine, Upgrade(plant))
    finally:
        machine.stop()


def first_hour(image, directory):
    deb = package.today()
    tree = package.unpacked(deb, directory / "today")
    machine = Machine(image, "hour")
    try:
        machine.put(deb, DEB)
        return perform(f"{deb.name}: the first hour", machine, FirstHour(Plant(machine, tree / "usr/bin/otrelay")))
    finally:
        machine.stop()


def archive(image):
    path = package.tarball()
    if not path:
        print("\nNOT RUN: the tarball: it is not built (packaging/build.sh, or OTRELAY_TARBALL)")
        return True
    machine = Machine(image, "tar")
    try:
        scenario = Tarball(machine, path)
        return perform(f"{path.name}: install.sh", machine, scenario)
    finally:
        machine.stop()


def main():
    if os.geteuid() != 0:
        raise rootfs.Unavailable("a container needs root")
    rootfs.tools()
    image, made = rootfs.ready()
    print(f"{rootfs.SUITE} {'made' if made else 'was there'} ({time.monotonic() - BEGAN:.0f} s)")
    with tempfile.TemporaryDirectory(prefix="otrelay-box-", dir="/var/tmp") as scratch:
        scratch = pathlib.Path(scratch)
        if sys.argv[1:] == ["install"]:
            fine = first_hour(image, scratch)
        else:
            fine = debian(image, scratch) and archive(image)
    print(f"\n{'all steps hold' if fine else 'a step FAILED'}, {time.monotonic() - BEGAN:.0f} s")
    return 0 if fine else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (rootfs.Unavailable, NoMachine) as reason:
        print(f"NOT RUN: the container suite: {reason}")
        sys.exit(1 if os.environ.get("STRICT") else 0)
    except package.Missing as reason:
        sys.exit(f"{reason}")
