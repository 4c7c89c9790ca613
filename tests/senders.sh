#!/usr/bin/env bash
# Real senders of syslog against the agent over loopback: util-linux's logger, rsyslog, syslog-ng and openssl s_client, by UDP,
# TCP in both framings, and TLS with a client certificate. Every valid message becomes one alert, every bad one a counted
# reject; curl does the same to the HTTP listener; then 200 000 messages over TCP with kill -9 in the middle. What it does stands
# in senders/senders.py.
#
#   OTRELAY=target/release/otrelay KEEP=1 tests/senders.sh
#
# Figures, not judged: OTRELAY=target/release/otrelay python3 tests/senders/senders.py rate
#
# Needs Python 3; installs the senders from Debian where they are missing. rsyslog and syslog-ng exclude each other there, so
# they come one after the other.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=packaging/common.sh
. packaging/common.sh

run() {
    PYTHONDONTWRITEBYTECODE=1 python3 tests/senders/senders.py "$@"
}

command -v logger >/dev/null || apt bsdutils
command -v openssl >/dev/null || apt openssl
command -v curl >/dev/null || apt curl
run logger openssl curl kill kill-udp

{ command -v rsyslogd && ls /usr/lib/*/rsyslog/lmnsd_ossl.so; } >/dev/null 2>&1 || apt rsyslog rsyslog-openssl
run rsyslog

command -v syslog-ng >/dev/null || apt syslog-ng-core
run syslog-ng
