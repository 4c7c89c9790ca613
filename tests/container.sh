#!/bin/sh
# The package in a real systemd: a fresh Debian in a container, the .deb installed, configured against the simulator,
# killed, reloaded, hung, upgraded with a backlog, purged; then the tarball. The steps stand in container/scenario.py.
#
#   OTRELAY_DEB=…  OTRELAY_TARBALL=…  OTRELAY_SUITE=bookworm  STRICT=1  KEEP_GOING=1  tests/container.sh
#
# Needs root, Python 3 and Debian's systemd-container and debootstrap, which it installs where it may. Without root, or
# where no container can be booted, it says NOT RUN and ends with 0 (with STRICT=1: 1). The Debian is made once and kept
# in ${XDG_CACHE_HOME:-/var/cache}/otrelay-rootfs. Without OTRELAY_DEB the newest of target/dist is taken.
set -eu
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/container/suite.py"
