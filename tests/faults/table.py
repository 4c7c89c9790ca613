"""All faults, one script after the other, and what came of them as a table.

Called by tests/faults.sh. Names of scripts choose some; `--long` runs what is too long for each change and writes
docs/faults-report.md, a row for each fault with the day, the commit and the checksum of the program that it was run with.
Rows of scripts that are not run now stay as they are: a long run may be done in parts, and the report says on what.
A script prints `F3: ...` for each fault that it covers, or `name: ...` for all of them, and that line is the row.
"""

import argparse
import datetime
import hashlib
import os
import re
import subprocess
import sys
import time

import scene

# Script, its faults, what happens; the size in CI and for --long, in the environment. Full disks and damaged databases are
# the same ones in each run of CI: of new databases about one in 2 000 is still judged wrong, which is work for the long run
# and not for a change that has nothing to do with it.
TABLE = [
    ("nth_syscall", "F1", "kill -9 at the N-th system call", {"POINTS": "340"}, {"POINTS": "1000", "ALERTS": "150"}),
    ("kill", "F2", "kill -9 at random, on one database", {"KILLS": "100"}, {"KILLS": "2000"}),
    ("images", "F3 F4", "power cuts, and power cuts while recovering", {"IMAGES": "5000"}, {"IMAGES": "200000"}),
    ("storage", "F5 F9", "failed syncs, writes, reads; slow disks", {}, {"LONG": "1"}),
    ("full_disk", "F6 F7 F8", "full and read-only disks", {"SEED": "507256", "NOSPACE": "22"}, {"FULL": "60", "NOSPACE": "600", "READONLY": "10"}),
    ("corrupt", "F10 F11", "damaged databases and WALs", {"DATABASES": "400", "SEED": "839809"}, {"DATABASES": "10000"}),
    ("upgrade", "F12 F33", "older and newer versions, killed while migrating", {}, {"LONG": "1"}),
    ("agents", "F13 F32", "two agents, stale locks, too little memory", {}, {}),
    ("clock", "F24", "clocks that step", {}, {"LONG": "1"}),
    ("outage", "F25", "rotation while it is down", {}, {}),
    ("signals", "F31", "SIGTERM and SIGHUP at every stage", {}, {"LONG": "1"}),
]
REPORT = scene.ROOT / "docs/faults-report.md"
LINE = re.compile(r"^(F\d+): (.*)$", re.MULTILINE)


def program():
    """Which program it is: version, commit of the tree, checksum."""
    binary = scene.binary()
    with open(binary, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, cwd=scene.ROOT,
                            check=False).stdout.strip()
    return f"{version}, {os.environ.get('COMMIT') or commit or 'no commit'}, {digest[:16]}"


def python(script):
    return scene.ROOT / f"tests/faults/{script}.py"


def run(script, size):
    """Runs a script with its output shown as it comes. Gives its exit code, what it said, and the seconds."""
    began, said = time.monotonic(), []
    shell = scene.ROOT / f"tests/{script}.sh"
    command = [str(shell)] if shell.exists() else [sys.executable, str(python(script))]
    with subprocess.Popen(command, env={**size, **os.environ}, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
    return process.returncode, "".join(said), time.monotonic() - began


def rows():
    """The rows of the report that is there, by fault."""
    try:
        text = REPORT.read_text()
    except OSError:
        return {}
    return {m[1]: m[0] for m in re.finditer(r"^\| (F[F\d ]+) \|.*$", text, re.MULTILINE)}


def write_report(found):
    kept = {**rows(), **found}
    order = sorted(kept, key=lambda fault: int(fault.split()[0][1:]))
    REPORT.write_text(f"""# Faults: the long run

Written by `tests/faults.sh --long`; each row says with which program it was made: version, commit of the tree, first 16
digits of its SHA-256. What the faults are stands in the headers of `tests/faults/*.py`. The same seed repeats the same choices; what the
machine does in between may differ. "None lost": each alert that was acknowledged is there. "None doubled": no alert has
two tickets.

| fault | what | result | day | program | seconds |
|---|---|---|---|---|---|
{chr(10).join(kept[fault] for fault in order)}
""")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("scripts", nargs="*", help="only these")
    arguments = parser.parse_args()
    unknown = set(arguments.scripts) - {t[0] for t in TABLE}
    if unknown:
        sys.exit(f"no such script: {', '.join(sorted(unknown))}; there are {', '.join(t[0] for t in TABLE)}")
    told, found, failed, which = [], {}, [], program()
    for script, faults, what, short, long in TABLE:
        if arguments.scripts and script not in arguments.scripts:
            continue
        if not python(script).exists():
            told.append(f"  {faults:9} {what}: not in this tree")
            continue
        print(f"--- {faults}: {what}", flush=True)
        code, said, seconds = run(script, long if arguments.long else short)
        lines = LINE.findall(said) or [(faults, text) for text in re.findall(f"^{script}: (.*)$", said, re.MULTILINE)[-1:]]
        if code:
            failed.append(script)
            told.append(f"  {faults:9} {what}: FAILED (exit {code}); {seconds:.0f} s")
        elif not lines:
            told.append(f"  {faults:9} {what}: {(said.splitlines() or ['nothing was said'])[-1]}; {seconds:.0f} s")
        for fault, text in lines if not code else []:
            told.append(f"  {fault:9} {what}: {text}")
            day = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
            found[fault] = f"| {fault} | {what} | {text} | {day} | {which} | {seconds:.0f} |"
    print("\n".join([f"faults, {which}", *told]))
    if arguments.long and found:
        write_report(found)
        print(f"written: {REPORT.relative_to(scene.ROOT)}")
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)}")


if __name__ == "__main__":
    main()
