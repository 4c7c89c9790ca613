#!/usr/bin/env bash
# Suricata itself, writing to the agent's socket (`filetype: unix_stream`) from a user of its own: every alert arrives, with
# the group as well as the mode of the directory that the packages make (0710); without the group none can. What it does
# stands in suricata/socket_test.py.
#
#   OTRELAY=target/release/otrelay KEEP=1 tests/suricata.sh
#
# Needs root (for two users that need not exist) and Python 3; installs Suricata from Debian where it is missing. In Debian 12
# it is among the backports; where the machine's mirror has none, it is said and left out.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=packaging/common.sh
. packaging/common.sh

if [ "$(id -u)" != 0 ]; then
    echo "LEFT OUT: Suricata writing to the socket. Two users are needed for it, so root has to run it"
    exit
fi
if ! command -v suricata >/dev/null; then
    list=/etc/apt/sources.list.d/otrelay-backports.list
    if ! apt-cache policy suricata 2>/dev/null | grep -q 'Candidate: [0-9]' && [ ! -e "$list" ]; then
        # From the mirror that this machine already uses.
        mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
            awk '$2 == "bookworm" { print $1; exit }')
        [ -z "$mirror" ] || echo "deb $mirror bookworm-backports main" >"$list"
        apt-get update -qq >/dev/null || true
    fi
    from=
    [ ! -e "$list" ] || from="-t bookworm-backports"
    # shellcheck disable=SC2086 # two words or none
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $from suricata >/dev/null </dev/null; then
        echo "LEFT OUT: Suricata writing to the socket. It cannot be installed here"
        exit
    fi
fi
PYTHONDONTWRITEBYTECODE=1 python3 tests/suricata/socket_test.py
