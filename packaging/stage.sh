#!/usr/bin/env bash
# packaging/stage.sh: what every package carries beside the program, into target/dist/stage: manual pages and shell
# completions written by the program itself, licences, change logs. OTRELAY names a program that runs here; without it
# the one of this machine's own target is taken.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"

STAGE=$DIST/stage
OTRELAY=${OTRELAY:-$DIST/$(uname -m)-unknown-linux-musl/otrelay}
[ -x "$OTRELAY" ] || fail "no program at $OTRELAY: run packaging/build.sh, or set OTRELAY"
rm -rf "$STAGE"
mkdir -p "$STAGE/man" "$STAGE/man-gz" "$STAGE/completions"

"$OTRELAY" man "$STAGE/man" >/dev/null
"$OTRELAY" completions bash >"$STAGE/completions/otrelay.bash"
"$OTRELAY" completions zsh >"$STAGE/completions/_otrelay"
"$OTRELAY" completions fish >"$STAGE/completions/otrelay.fish"
for page in "$STAGE"/man/*; do
    gzip -9n <"$page" >"$STAGE/man-gz/$(basename "$page").gz"
done

cp packaging/deb/copyright "$STAGE/copyright"
python3 packaging/third_party.py | gzip -9n >"$STAGE/THIRD-PARTY.gz"
gzip -9n <CHANGELOG.md >"$STAGE/changelog.gz"
cat >"$STAGE/changelog.Debian" <<END
otrelay ($VERSION-1) unstable; urgency=medium

  * Version $VERSION; what changed is in changelog.gz.

 -- The otrelay developers <otrelay@localhost>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
# Times of files get into packages, so even what is only copied is packed from here.
cp -r packaging/otrelay.toml README.md LICENSE CHANGELOG.md systemd "$STAGE/"
chmod -R u=rwX,go=rX "$STAGE"
find "$STAGE" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
