#!/usr/bin/env bash
# Makes the pictures of the README and the book anew: docs/pictures. To be looked at before they are committed.
#
#   OTRELAY=target/release/otrelay tests/pictures.sh [PICTURES]      (default: the debug build, docs/pictures)
#
# Needs Python 3, chromium with its driver, libfaketime and pngquant, which it installs where they are missing and it may. The
# program has to be one that loads libraries (not the static one): libfaketime sets its clock.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/../packaging/common.sh"
otrelay=${OTRELAY:-$PWD/target/debug/otrelay}
pictures=${1:-$PWD/docs/pictures}
command -v chromedriver >/dev/null && command -v pngquant >/dev/null && compgen -G '/usr/lib*/*/faketime/libfaketime.so.1' >/dev/null \
    || apt chromium chromium-driver faketime pngquant
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
TMPDIR=$work python3 tests/page/pictures.py "$otrelay" "$pictures"
pngquant --force --strip --ext .png 64 "$pictures"/*.png
ls -l "$pictures"
