#!/usr/bin/env python3
"""The licences of everything that is linked into the program, as one text on stdout.

Asks `cargo metadata` what is linked (libraries that only build scripts or macros use are not), and reads the licence
files out of each library's source. A library without a licence file gets the plain text of a licence that it names and
that another one brought; when there is none either, this fails: what is not listed may not be given on.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

TARGETS = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl", "armv7-unknown-linux-musleabihf"]
NAMES = re.compile(r"^(licen[cs]e|copying|notice|unlicense)([-_.].*)?$", re.IGNORECASE)
# What cargo does not know of.
BESIDE = """\
SQLite (in libsqlite3-sys)
    The authors disclaim copyright: SQLite is in the public domain, https://www.sqlite.org/copyright.html

The Rust standard library
    MIT OR Apache-2.0, Copyright (c) The Rust Project Contributors

musl, the C library
    MIT, Copyright (c) 2005-2020 Rich Felker, et al.
"""


def metadata(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def linked(data):
    """The packages that end up in the program: normal dependencies, not through a macro."""
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    macros = {name for name, package in packages.items() if any("proc-macro" in t["kind"] for t in package["targets"])}
    seen, todo = set(), [data["resolve"]["root"]]
    while todo:
        name = todo.pop()
        if name in seen or name in macros:
            continue
        seen.add(name)
        for dep in nodes[name]["deps"]:
            if any(kind["kind"] is None for kind in dep["dep_kinds"]):
                todo.append(dep["pkg"])
    seen.discard(data["resolve"]["root"])
    return [packages[name] for name in seen]


def files(package):
    root = Path(package["manifest_path"]).parent
    found = [path for path in sorted(root.iterdir()) if path.is_file() and NAMES.match(path.name)]
    return [(path.name, path.read_text(encoding="utf-8", errors="replace").strip()) for path in found]


def main():
    packages = {}
    for target in TARGETS:
        for package in linked(metadata(target)):
            packages[(package["name"], package["version"])] = package
    texts, named, bare = {}, [], []
    for (name, version), package in sorted(packages.items()):
        numbers = []
        for _, text in files(package):
            key = " ".join(text.split())
            texts.setdefault(key, (len(texts) + 1, text))
            numbers.append(texts[key][0])
        if not package["license"]:
            sys.exit(f"{name} {version} names no licence")
        if not numbers:
            bare.append(f"{name} {version}")
        where = ", ".join(f"text {number}" for number in numbers) or "the standard text of its licence"
        authors = ", ".join(package["authors"])
        named.append(f"{name} {version}\n    {package['license']}; {where}" + (f"\n    {authors}" if authors else ""))
    known = " ".join(texts)
    for phrase in ("Permission is hereby granted, free of charge", "Apache License"):
        if phrase not in known:
            sys.exit(f"no library brought the text with `{phrase}`, which {', '.join(bare)} may need")
    print("otrelay is under the Apache License 2.0. What is linked into it:\n")
    print("\n".join(named) + "\n\n" + BESIDE)
    for number, text in texts.values():
        print(f"{'=' * 78}\ntext {number}\n{'=' * 78}\n\n{text}\n")


if __name__ == "__main__":
    main()
