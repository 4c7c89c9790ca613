#!/bin/sh
# The first hour: what the README and the package say is done literally in a fresh Debian, from `dpkg -i` to a ticket in
# the simulator: by `otrelay init` at a terminal, by its arguments with encrypted credentials, and by hand. Then five config
# mistakes and five broken set-ups, drawn at random (SEED=…), have to be named by `otrelay check` to root and to the service's
# user alike. The steps stand in container/first_hour.py; the rest is as with container.sh.
#
#   OTRELAY_DEB=…  OTRELAY_SUITE=bookworm  STRICT=1  KEEP_GOING=1  SEED=…  DRAWN=5  tests/install.sh
set -eu
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/container/suite.py" install
