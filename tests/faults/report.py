"""The books of a long run: docs/faults-report.md, a row for each part that has ended, and the sums above them.

The file is the only memory of a long run. Each part is added when it ends, under a lock and by renaming a new file over
the old one, so several runs may write and a stop costs no more than the parts that were not at their end. A row belongs to
a program, named by its checksum: the first part that ends with another program takes the place of that script's rows.
"""

import contextlib
import datetime
import fcntl
import hashlib
import os
import re
import subprocess
import typing

import scene

PATH = scene.ROOT / "docs/faults-report.md"
# What is not part of a long run, and where it is tested.
OTHER_SIDE = scene.ROOT / "tests/faults/other_side.md"
# Locks, and what each script said.
PLACE = scene.ROOT / "target/faults"


class Row(typing.NamedTuple):
    script: str
    part: int
    parts: int
    fault: str
    result: str
    ended: str
    seconds: int
    program: str

    @property
    def failed(self):
        return self.result.startswith("FAILED")

    @property
    def tried(self):
        """The number that the result begins with."""
        found = re.match(r"\d+", self.result)
        return int(found[0]) if found else 0

    def __str__(self):
        result = self.result.replace("|", "/")
        return (f"| {self.script} {self.part}/{self.parts} | {self.fault} | {result} | {self.ended} | {self.seconds} | "
                f"{self.program} |")


ROW = re.compile(r"^\| (\w+) (\d+)/(\d+) \| (F[F\d ]*) \| (.*) \| (.*) \| (\d+) \| (.*) \|$", re.MULTILINE)


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")


def program():
    """Which program it is: version, commit of the tree, checksum."""
    binary = scene.binary()
    with open(binary, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return f"{version}, {os.environ.get('COMMIT') or commit() or 'no commit'}, {digest[:16]}"


def commit():
    """Of the tree; `+` when something is changed in it that the report does not say."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=scene.ROOT, check=False).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/faults-report.md")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def same_program(one, other):
    """A commit of the report alone does not make another program."""
    return one.rpartition(", ")[2] == other.rpartition(", ")[2]


def rows():
    try:
        text = PATH.read_text(encoding="utf-8")
    except OSError:
        return []
    return [Row(m[1], int(m[2]), int(m[3]), m[4], m[5], m[6], int(m[7]), m[8]) for m in ROW.finditer(text)]


def done(script, parts, which):
    """The parts of a script that have ended with this program, well or not."""
    return {r.part for r in rows() if (r.script, r.parts) == (script, parts) and same_program(r.program, which)}


@contextlib.contextmanager
def alone():
    with open(PLACE / "report.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def add(new, what):
    """Writes rows of one part. What other parts of the script with another program or another division said goes."""
    first = new[0]
    with alone():
        kept = [r for r in rows() if r.script != first.script or (
            r.part != first.part and r.parts == first.parts and same_program(r.program, first.program))]
        write([*kept, *new], what)


def forget(scripts, what):
    with alone():
        kept = [r for r in rows() if r.script not in scripts]
        if PATH.exists():
            write(kept, what)


def summary(scripts, which):
    """How far it is, in a line."""
    ended = [r for r in rows() if same_program(r.program, which)]
    parts = {(r.script, r.part) for r in ended if r.script in {s.name for s in scripts}}
    failed = {(r.script, r.part) for r in ended if r.failed}
    return f"{len(parts)} of {sum(s.parts for s in scripts)} parts have ended" + (f", {len(failed)} FAILED" if failed else "")


def sums(all_rows, what):
    """A line for each fault of each script: all its parts together. `what`: by script."""
    # A part that failed stands for all faults of its script.
    faults = {(fault, r.script) for r in all_rows for fault in r.fault.split()}
    lines = []
    for fault, script in sorted(faults, key=lambda f: (int(f[0][1:]), f[1])):
        these = [r for r in all_rows if fault in r.fault.split() and r.script == script]
        well = [r for r in these if not r.failed]
        failed = len(these) - len(well)
        parts = f"{len({r.part for r in these})} of {these[0].parts}"
        text = what.get(script, script)
        verdict = f"{failed} FAILED" if failed else "as it must be" if all(r.tried for r in well) else "see below"
        lines.append(f"| {fault} | {text} | {sum(r.tried for r in well)} | {parts} | {verdict} |")
    return lines


def write(all_rows, what):
    ordered = sorted(all_rows, key=lambda r: (int(r.fault.split()[0][1:]), r.part))
    programs = sorted({r.program for r in all_rows})
    text = f"""# Faults: the long run

Written by `tests/faults.sh --long`, part by part as they end; each row says with which program: version, commit of the
tree, first 16 digits of its SHA-256. What the faults are stands in the headers of `tests/faults/*.py`. The same seed
repeats the same choices; what the machine does in between may differ. "None lost": each alert that was acknowledged is
there. "None doubled": no alert has two tickets.

F10:502 of seed 703292 (0.2.0: two pages exchanged under a WAL; the index `delivery_tried` kept one entry too many) does not
come again by its seed, as the schema is another one; its kind did, in 2 of 150 such exchanges. SQLite neither counts the
entries of an index of some rows nor looks into one that no row has to be in; the start does both now.

Ended between {min((r.ended for r in all_rows), default='-')} and {max((r.ended for r in all_rows), default='-')} (UTC), \
{len(programs)} program{'' if len(programs) == 1 else 's'}.

| fault | what | tried | parts | verdict |
|---|---|---|---|---|
{chr(10).join(sums(ordered, what))}

| part | fault | result | ended | seconds | program |
|---|---|---|---|---|---|
{chr(10).join(map(str, ordered))}

{OTHER_SIDE.read_text(encoding="utf-8")}"""
    part = PATH.with_name(f".{PATH.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(PATH)
