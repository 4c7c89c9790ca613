#!/usr/bin/env python3
"""packaging/sbom.py IN PROGRAM OUT: an SBOM of cargo-cyclonedx made fit to be given on.

It comes with a random serial number, the time of the day and the place of the tree on the machine that built it. Put in
are: a serial number that follows from the content, SOURCE_DATE_EPOCH, the hash of the program, and what cargo does not
know of: SQLite, the Rust standard library and musl are in the program too.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path

SQLITE = re.compile(r"^#define SQLITE_VERSION\s+\"([0-9.]+)\"", re.MULTILINE)


def sqlite_version():
    """Of the amalgamation that libsqlite3-sys compiles in."""
    data = subprocess.run(["cargo", "metadata", "--locked", "--format-version", "1"], check=True, stdout=subprocess.PIPE)
    (root,) = {p["manifest_path"] for p in json.loads(data.stdout)["packages"] if p["name"] == "libsqlite3-sys"}
    return SQLITE.search((Path(root).parent / "sqlite3" / "sqlite3.h").read_text()).group(1)


def anonymous(value):
    """Without the place of the tree: `path+file:///…#otrelay@0.1.0` names the package alone."""
    if isinstance(value, dict):
        return {key: anonymous(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [anonymous(inner) for inner in value]
    if isinstance(value, str):
        value = re.sub(r"path\+file://[^#]*#", "", value)
        return re.sub(r"\?download_url=file[^#&]*(?:#[^&]*)?", "", value)
    return value


def beside(kind, name, version, licence, purl):
    return {
        "type": kind,
        "bom-ref": purl,
        "name": name,
        "version": version,
        "scope": "required",
        "licenses": [licence],
        "purl": purl,
    }


def main():
    source, program, out = sys.argv[1:]
    bom = anonymous(json.loads(Path(source).read_text()))
    epoch = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), timezone.utc)
    bom["metadata"]["timestamp"] = epoch.strftime("%Y-%m-%dT%H:%M:%SZ")
    root = bom["metadata"]["component"]
    root["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(Path(program).read_bytes()).hexdigest()}]
    sqlite = sqlite_version()
    rust = subprocess.run(["rustc", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[1]
    added = [
        beside("library", "sqlite", sqlite, {"license": {"name": "Public Domain"}}, f"pkg:generic/sqlite@{sqlite}"),
        beside("library", "rust-std", rust, {"expression": "MIT OR Apache-2.0"}, f"pkg:generic/rust-std@{rust}"),
    ]
    bom["components"] = sorted(bom["components"] + added, key=lambda part: part["bom-ref"])
    for dependency in bom["dependencies"]:
        dependency.get("dependsOn", []).sort()
        if dependency["ref"] == root["bom-ref"]:
            dependency.setdefault("dependsOn", []).extend(part["bom-ref"] for part in added)
    bom["dependencies"].extend({"ref": part["bom-ref"]} for part in added)
    bom.pop("serialNumber", None)
    content = json.dumps(bom, sort_keys=True)
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"
    text = json.dumps(bom, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    for place in ("file://", str(Path.cwd()), str(Path.home() / ".cargo")):
        if place in text:
            sys.exit(f"{place} is still in the SBOM: it would tell where it was built")
    Path(out).write_text(text)


if __name__ == "__main__":
    main()
