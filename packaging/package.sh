#!/usr/bin/env bash
# packaging/package.sh [TARGET…]: packages of what packaging/build.sh has built, into target/dist: a .deb, an .rpm and a
# tarball for each target, the SBOM, and SHA256SUMS over all of it. Each is one file that installs without a network.
# The same tree and the same programs make the same packages, byte for byte.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"

CARGO_DEB=3.8.0 CARGO_GENERATE_RPM=0.21.1 CARGO_CYCLONEDX=0.5.9

deb() {
    # cargo-deb runs no strip: the program has no symbols, and the machine's strip knows no ARM.
    cargo deb --quiet --no-build --no-strip --locked --target "$1" --output "$DIST/"
}

deb_arch() {
    case $1 in
    x86_64-*) echo amd64 ;;
    aarch64-*) echo arm64 ;;
    armv7-*) echo armhf ;;
    esac
}

rpm_arch() {
    case $1 in
    armv7-*) echo armv7hl ;;
    *) echo "${1%%-*}" ;;
    esac
}

rpm() {
    local arch
    arch=$(rpm_arch "$1")
    cargo generate-rpm --arch "$arch" --target "$1" --source-date "$SOURCE_DATE_EPOCH" \
        --payload-compress xz --output "$DIST/otrelay-$VERSION-1.$arch.rpm"
}

tarball() {
    local name=otrelay-$VERSION-$1 root
    root=$DIST/stage/tar/$name
    rm -rf "$DIST/stage/tar"
    mkdir -p "$root"/{systemd,man,completions}
    install -m 755 "$DIST/stage/otrelay" packaging/archive/install.sh "$root/"
    (cd "$DIST/stage" && install -m 644 otrelay.toml README.md CHANGELOG.md LICENSE THIRD-PARTY.gz "$root/")
    cp -r "$DIST"/stage/systemd/* "$root/systemd/"
    cp "$DIST"/stage/man/* "$root/man/"
    cp "$DIST"/stage/completions/* "$root/completions/"
    chmod -R u=rwX,go=rX "$root"
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
        -C "$DIST/stage/tar" -c "$name" | gzip -9n >"$DIST/$name.tar.gz"
}

sbom() {
    cargo_tool cargo-cyclonedx "$CARGO_CYCLONEDX"
    local target out
    for target; do
        out=otrelay-$VERSION-$target.cdx
        cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$target" --override-filename "$out"
        # It puts in a random serial number, and the place of the tree.
        python3 packaging/sbom.py "$out.json" "$DIST/$target/otrelay" "$DIST/$out.json"
        rm "$out.json"
    done
}

[ $# -gt 0 ] || set -- "${TARGETS[@]}"
for target; do
    [ -x "$DIST/$target/otrelay" ] || fail "no program for $target: run packaging/build.sh $target"
done
cargo_tool cargo-deb "$CARGO_DEB"
cargo_tool cargo-generate-rpm "$CARGO_GENERATE_RPM"
packaging/stage.sh
# What is made anew goes first, and what is of another version; the packages of other targets stay.
find "$DIST" -maxdepth 1 -type f \( -name '*.deb' -o -name '*.rpm' -o -name '*.tar.gz' -o -name '*.cdx.json' \) \
    ! -name "otrelay_$VERSION-1_*" ! -name "otrelay-$VERSION-*" -delete
for target; do
    rm -f "$DIST/otrelay_$VERSION-1_$(deb_arch "$target").deb" "$DIST/otrelay-$VERSION-1.$(rpm_arch "$target").rpm" \
        "$DIST/otrelay-$VERSION-$target.tar.gz" "$DIST/otrelay-$VERSION-$target.cdx.json"
done
rm -f "$DIST/SHA256SUMS"
for target; do
    install -m 755 "$DIST/$target/otrelay" "$DIST/stage/otrelay"
    touch -d "@$SOURCE_DATE_EPOCH" "$DIST/stage/otrelay"
    deb "$target"
    rpm "$target"
    tarball "$target"
done
rm -rf "$DIST/stage/tar"
sbom "$@"
(cd "$DIST" && sha256sum -- *.deb *.rpm *.tar.gz *.cdx.json >SHA256SUMS && cat SHA256SUMS)
