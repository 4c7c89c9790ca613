#!/usr/bin/env bash
# packaging/verify.sh [TARGET…]: are the packages in target/dist as they should be? Looks at what is in them and how it is
# allowed, asks lintian, mandoc and rpm, installs the .rpm and the tarball below an empty root, and packs a second time:
# the same programs have to give the same packages. What needs a running systemd is in tests/container.sh.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"

# Gates, so that they do not grow unseen: what is reached now and a tenth. The goals, 10 MB and 4.5 MB, are missed
# (docs/figures.md).
PROGRAM_MAX=$((15 * 1000 * 1000)) DEB_MAX=$((6 * 1000 * 1000))

[ $# -gt 0 ] || set -- "${TARGETS[@]}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wrong=0

# expect WHAT COMMAND…: counts and names what is not so, and goes on.
expect() {
    local what=$1
    shift
    if "$@" >"$work/said" 2>&1; then
        return
    fi
    say "WRONG: $what"
    cut -c 1-300 "$work/said" | sed 's/^/    /' >&2
    wrong=$((wrong + 1))
}

missing=()
for tool in lintian rpm mandoc; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} = 0 ] || apt "${missing[@]}"

at_most() {
    printf '%s bytes, at most %s\n' "$1" "$2"
    [ "$1" -le "$2" ]
}

same() {
    printf 'expected:\n%s\nfound:\n%s\n' "$2" "$1"
    [ "$1" = "$2" ]
}

has() {
    if ! grep -qE -- "$1" "$2"; then
        printf 'no `%s` in\n' "$1"
        cat "$2"
        return 1
    fi
}

lacks() {
    ! grep -nE -m 5 -- "$1" "$2"
}

is() {
    same "$(stat -c '%a %U:%G' "$1")" "$2"
}

program() {
    local file=$DIST/$1/otrelay
    expect "$1: the program has grown" at_most "$(stat -c %s "$file")" "$PROGRAM_MAX"
    file "$file" >"$work/file"
    expect "$1: static, without symbols" has 'statically linked.*stripped' "$work/file"
    expect "$1: it names a place of the machine that built it" lacks "$PWD|$HOME/\\.|/rustlib/src/" <(strings -n 6 "$file")
}

deb() {
    local arch
    case $1 in x86_64-*) arch=amd64 ;; aarch64-*) arch=arm64 ;; armv7-*) arch=armhf ;; esac
    local deb=$DIST/otrelay_$VERSION-1_$arch.deb
    expect "$arch: the .deb has grown" at_most "$(stat -c %s "$deb")" "$DEB_MAX"
    dpkg-deb -I "$deb" >"$work/info"
    dpkg-deb -c "$deb" >"$work/list"
    expect "$arch: architecture" has "^ Architecture: $arch\$" "$work/info"
    expect "$arch: no dependency but the two that make users" has '^ Depends: adduser \| systemd$' "$work/info"
    expect "$arch: the config is root's and closed" has '^-rw-r----- 0/0 .* \./etc/otrelay/otrelay\.toml$' "$work/list"
    for path in usr/bin/otrelay usr/lib/systemd/system/otrelay.service usr/share/man/man1/otrelay.1.gz \
        usr/share/man/man5/otrelay.toml.5.gz usr/share/man/man8/otrelay.8.gz usr/share/doc/otrelay/copyright \
        usr/share/doc/otrelay/THIRD-PARTY.gz usr/share/doc/otrelay/otrelay.toml.example \
        usr/share/bash-completion/completions/otrelay usr/share/zsh/vendor-completions/_otrelay; do
        expect "$arch: $path is in it" has " \\./$path\$" "$work/list"
    done
    expect "$arch: files are root's, and no other may write to them" lacks '^-.{4}w|^.{8}w|^[^ ]+ ([^0]|0/[^0])' "$work/list"
    rm -rf "$work/control"
    dpkg-deb -e "$deb" "$work/control"
    expect "$arch: conffiles" same "$(cat "$work/control/conffiles")" /etc/otrelay/otrelay.toml
    for script in postinst prerm postrm; do
        expect "$arch: $script is a shell script" sh -n "$work/control/$script"
    done
    expect "$arch: lintian" lintian --allow-root --fail-on error,warning "$deb"
}

rpm_package() {
    local arch
    case $1 in x86_64-*) arch=x86_64 ;; aarch64-*) arch=aarch64 ;; armv7-*) arch=armv7hl ;; esac
    local package=$DIST/otrelay-$VERSION-1.$arch.rpm root=$work/rpm-$arch
    rpm -qp --nosignature --qf '%{ARCH} %{LICENSE}\n[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS:fflags} %{FILENAMES}\n]' \
        "$package" >"$work/list" 2>/dev/null
    expect "$arch: rpm's architecture and licence" has "^$arch Apache-2.0\$" "$work/list"
    expect "$arch: rpm's config" has '^-rw-r----- root:otrelay [a-z]*c[a-z]*n[a-z]* /etc/otrelay/otrelay\.toml$' "$work/list"
    expect "$arch: rpm needs a shell and nothing else" \
        same "$(rpm -qpR --nosignature "$package" 2>/dev/null | grep -vE '^(rpmlib|config)\(' | sort -u)" /bin/sh
    # %pre, %post, %preun, %postun: each has to be a script that a shell can read.
    rpm -qp --nosignature --scripts "$package" 2>/dev/null >"$work/scripts"
    expect "$arch: four scripts" \
        same "$(grep -cE '^(pre|post)(un)?install scriptlet' "$work/scripts")" 4
    expect "$arch: they are shell scripts" sh -n <(sed -E 's/^(pre|post)(un)?install scriptlet.*//' "$work/scripts")
    mkdir -p "$root"
    expect "$arch: rpm unpacks it below an empty root" \
        rpm --root "$root" -i --nodeps --noscripts --ignorearch --nosignature "$package"
    expect "$arch: the installed program is the one that was built" cmp "$root/usr/bin/otrelay" "$DIST/$1/otrelay"
}

# The whole life of the tarball below a root that knows the user, as an image does.
tarball() {
    local name=otrelay-$VERSION-$1 root=$work/root-$1
    tar -xzf "$DIST/$name.tar.gz" -C "$work"
    local install=$work/$name/install.sh
    expect "tarball: owners and times" \
        same "$(tar --numeric-owner --full-time -tvzf "$DIST/$name.tar.gz" | awk '{ print $2, $4, $5 }' | sort -u)" \
        "0/0 $(date -u -d "@$SOURCE_DATE_EPOCH" '+%Y-%m-%d %H:%M:%S')"
    expect "install.sh: an unknown argument is refused" sh -c "! '$install' --unknown"
    expect "install.sh: no relative root" sh -c "! '$install' --root some/where"
    if [ "$(id -u)" != 0 ]; then
        say "not root: install.sh is not tried"
        return
    fi
    mkdir -p "$root/etc"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'otrelay:x:4711:4712::/var/lib/otrelay:/usr/sbin/nologin' >>"$root/etc/passwd"
    printf 'root:x:0:\notrelay:x:4712:\n' >"$root/etc/group"
    (cd "$root" && find . -type f | sort) >"$work/before"
    expect "install.sh: installs" "$install" --root "$root" --prefix /opt/otrelay
    expect "install.sh: the program" cmp "$root/opt/otrelay/bin/otrelay" "$DIST/$1/otrelay"
    expect "install.sh: config is closed" same "$(stat -c '%a %u:%g' "$root/etc/otrelay/otrelay.toml")" "640 0:4712"
    expect "install.sh: secrets are closed" same "$(stat -c '%a %u:%g' "$root/etc/otrelay/secrets")" "750 0:4712"
    expect "install.sh: state is the service's" same "$(stat -c '%a %u:%g' "$root/var/lib/otrelay")" "700 4711:4712"
    expect "install.sh: the unit starts the program where it is" \
        has '^ExecStart=/opt/otrelay/bin/otrelay run$' "$root/etc/systemd/system/otrelay.service"
    echo '# mine' >>"$root/etc/otrelay/otrelay.toml"
    (cd "$root" && find . -type f -exec sha256sum {} + | sort) >"$work/first"
    expect "install.sh: a second time" "$install" --root "$root" --prefix /opt/otrelay
    (cd "$root" && find . -type f -exec sha256sum {} + | sort) >"$work/second"
    expect "install.sh: a second time changes nothing, the config least of all" cmp "$work/first" "$work/second"
    expect "install.sh: uninstalls" "$install" --root "$root" --prefix /opt/otrelay --uninstall
    expect "install.sh: config stays" has '^# mine$' "$root/etc/otrelay/otrelay.toml"
    expect "install.sh: purges" "$install" --root "$root" --prefix /opt/otrelay --uninstall --purge
    # systemd-sysusers leaves its lock.
    (cd "$root" && find . -type f ! -path ./etc/.pwd.lock | sort) >"$work/after"
    expect "install.sh: a purge leaves nothing" diff "$work/before" "$work/after"
}

pages() {
    for page in "$DIST"/stage/man/*; do
        expect "$(basename "$page"): mandoc" mandoc -T lint -W warning "$page"
    done
    expect "bash completions" bash -n "$DIST/stage/completions/otrelay.bash"
}

sbom() {
    python3 - "$DIST/otrelay-$VERSION-$1.cdx.json" "$(sha256sum <"$DIST/$1/otrelay" | cut -c1-64)" <<'END'
import json, sys
bom = json.load(open(sys.argv[1]))
assert bom["bomFormat"] == "CycloneDX" and bom["specVersion"] == "1.5", bom["specVersion"]
assert bom["metadata"]["component"]["hashes"][0]["content"] == sys.argv[2], "hash of another program"
names = {part["name"] for part in bom["components"]}
for name in ("sqlite", "rust-std", "ring", "rustls", "rusqlite", "tokio"):
    assert name in names, name
refs = {part["bom-ref"] for part in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
for dependency in bom["dependencies"]:
    for ref in [dependency["ref"], *dependency.get("dependsOn", [])]:
        assert ref in refs, f"{ref} is named and not there"
END
}

for target; do
    program "$target"
    deb "$target"
    rpm_package "$target"
    tarball "$target"
    expect "$target: SBOM" sbom "$target"
done
pages
expect "checksums" sh -c "cd '$DIST' && sha256sum -c --quiet SHA256SUMS"
cp "$DIST/SHA256SUMS" "$work/sums"
# One by one: what is packed for one target leaves the packages of the others.
for target; do
    packaging/package.sh "$target" >/dev/null
done
expect "packed a second time, something else came out" diff "$work/sums" "$DIST/SHA256SUMS"
[ "$wrong" = 0 ] || fail "$wrong wrong"
for target; do
    say "$target: program $(stat -c %s "$DIST/$target/otrelay") bytes"
done
(cd "$DIST" && stat -c '%s bytes %n' -- *.deb *.rpm *.tar.gz) >&2
say "all as it should be"
