#!/usr/bin/env bash
# The status page as a browser shows it: Debian's Chromium takes pictures of it empty, busy, broken, narrow and dark, and
# axe-core finds nothing serious.
#
#   OTRELAY=target/release/otrelay tests/page.sh [PICTURES]      (default: the debug build, target/page)
#
# Needs Python 3, npm for axe-core, and chromium with its driver, which it installs where they are missing and it may.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/../packaging/common.sh"
otrelay=${OTRELAY:-$PWD/target/debug/otrelay}
pictures=${1:-$PWD/target/page}
AXE=4.14.1
command -v chromedriver >/dev/null || apt chromium chromium-driver
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "axe-core@$AXE" >/dev/null && tar xzf "axe-core-$AXE.tgz")
TMPDIR=$work python3 tests/page/look.py "$otrelay" "$pictures" "$work/package/axe.min.js"
