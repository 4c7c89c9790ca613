#!/bin/sh
# The unit as a text: systemd reads it without a complaint, alone and with each drop-in, and `systemd-analyze security`
# finds it no more exposed than SECURITY.md says. Needs no root and starts nothing; whether the service lives in that
# sandbox is the matter of container.sh.
#
# Without systemd-analyze it says NOT RUN and ends with 0.
set -eu
cd "$(dirname "$0")/../systemd"

# Tenths.
LIMIT=15

command -v systemd-analyze >/dev/null || {
    echo "NOT RUN: the checks of the unit: there is no systemd-analyze here"
    exit 0
}
version=$(systemd-analyze --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')
[ "$version" -ge 250 ] || {
    echo "NOT RUN: the checks of the unit: systemd $version has no --offline"
    exit 0
}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# A copy beside which a drop-in can lie. The program need not be installed for its unit to be read.
lay() {
    rm -rf "${dir:?}"/*
    mkdir "$dir/otrelay.service.d"
    sed 's#/usr/bin/otrelay.*#/bin/true#' otrelay.service >"$dir/otrelay.service"
    [ -z "$1" ] || cp "$1" "$dir/otrelay.service.d/"
}

# verify complains on stderr and does not always fail.
verify() {
    said=$(systemd-analyze verify --man=no "$dir/otrelay.service" 2>&1) || true
    [ -z "$said" ] || {
        printf 'FAILED: %s: %s\n' "$1" "$said" >&2
        exit 1
    }
}

score() {
    said=$(systemd-analyze security --no-pager --offline=true --threshold="$2" "$dir/otrelay.service" 2>&1) || {
        printf 'FAILED: %s is more exposed than %s tenths\n%s\n' "$1" "$2" "$(echo "$said" | grep -v '✓')" >&2
        exit 1
    }
    printf 'ok  %-28s %s\n' "$1" "$(echo "$said" | sed -n 's/.*exposure level[^:]*: \([0-9.]*\).*/\1/p')"
}

lay ""
verify otrelay.service
score otrelay.service $LIMIT
for drop_in in drop-in/*.conf; do
    lay "$drop_in"
    name=$(basename "$drop_in")
    # Its keys are newer than some systemd that is asked here.
    [ "$name" = restart-backoff.conf ] && [ "$version" -lt 254 ] || verify "$name"
    score "$name" $LIMIT
done

# What systemd itself cannot know to be missing.
for line in Type=notify RestartPreventExitStatus=78 StateDirectoryMode=0700 WatchdogSec=60 User=otrelay; do
    grep -qx "$line" otrelay.service || {
        printf 'FAILED: the unit has no %s\n' "$line" >&2
        exit 1
    }
done
