#!/usr/bin/env bash
# packaging/build.sh [TARGET…]: the static programs, target/dist/TARGET/otrelay. Without arguments all three targets.
#
# Four ways, the first that this machine allows; OTRELAY_BUILD=cross|std|zig|debian chooses one:
#   std     rustup's toolchain, its component rust-src, and zig as C compiler and linker: the standard library is
#           compiled with the program, for size
#   debian  the same with Debian's packages rustc-web, cargo-web and rust-web-src
#   zig     rustup's toolchain with the ready-made standard library of the target
#   cross   `cross` with a container engine; only when it is asked for, as its result is not compared with the others
# Needed in any case: a C compiler for the build scripts. Zig comes from PyPI into target/tools.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"

# 0.16 and later put an allocator of their own in place of musl's: the peak then grows with every alert of a burst
# (docs/figures.md).
ZIG=0.15.2 ZIGBUILD=0.24.0

venv() {
    local have
    have=$("$TOOLS/venv/bin/python" -m pip list --format=freeze 2>/dev/null || true)
    grep -qx "ziglang==$ZIG" <<<"$have" && grep -qx "cargo-zigbuild==$ZIGBUILD" <<<"$have" && return
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt python3-venv
    say "installing zig $ZIG and cargo-zigbuild $ZIGBUILD into target/tools"
    python3 -m venv "$TOOLS/venv"
    retry "$TOOLS/venv/bin/python" -m pip install -q --disable-pip-version-check "ziglang==$ZIG" "cargo-zigbuild==$ZIGBUILD"
}

rustup_has_source() {
    command -v rustup >/dev/null || return
    [ -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ] \
        || rustup -q component add rust-src 2>/dev/null
}

choose() {
    local way=${OTRELAY_BUILD:-}
    if [ -z "$way" ]; then
        if rustup_has_source; then
            way=std
        elif [ -e /usr/lib/rustlib/src/rust/library ] || [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            way=debian
        elif command -v rustup >/dev/null; then
            way=zig
        else
            fail "no way to build: install rustup, or on Debian the packages rustc-web cargo-web rust-web-src"
        fi
    fi
    case $way in
    std) rustup_has_source || fail "rustup component add rust-src does not work here" ;;
    debian)
        [ -e /usr/lib/rustlib/src/rust/library ] && [ -x /usr/bin/cargo ] \
            || apt rustc-web cargo-web rust-web-src
        # The venv stays first: cargo-zigbuild asks its python for zig.
        export PATH="$TOOLS/bin:$TOOLS/venv/bin:/usr/bin:$PATH"
        ;;
    zig | cross) ;;
    *) fail "OTRELAY_BUILD=$way: std, debian, zig or cross" ;;
    esac
    [ "$way" = cross ] || venv
    WAY=$way
}

# What differs from machine to machine and would get into the program: where the tree, the libraries and the standard
# library are.
remap() {
    local sysroot
    sysroot=$(rustc --print sysroot)
    printf ' --remap-path-prefix=%s=%s' \
        "$PWD" /otrelay "${CARGO_HOME:-$HOME/.cargo}" /cargo "$sysroot/lib/rustlib/src/rust" /rust
}

build() {
    local target=$1 dir=$PWD/target/cross/zig-$ZIG/$1 command=(cargo-zigbuild zigbuild)
    local rustflags maps
    # A panic ends the process at once, so nobody walks the stack: half a megabyte of tables for it is left out.
    rustflags="-Cforce-unwind-tables=no -Clink-arg=-Wl,--build-id=none$(remap)"
    maps="-fno-asynchronous-unwind-tables -fno-unwind-tables -ffile-prefix-map=$PWD=/otrelay -ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    case $WAY in
    std | debian)
        # rustc asks for a crt1.o that only a ready-made target brings; zig has its own.
        rustflags="-Clink-self-contained=no $rustflags"
        command+=(-Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size)
        export RUSTC_BOOTSTRAP=1
        ;;
    zig) rustup -q target add "$target" || fail "rustup has no $target here; try OTRELAY_BUILD=debian" ;;
    cross)
        rustflags=
        command=(cross build)
        export CROSS_CONFIG=$PWD/cross.toml
        ;;
    esac
    CARGO_TARGET_DIR=$dir RUSTFLAGS=$rustflags TARGET_CFLAGS=$maps CARGO_INCREMENTAL=0 \
        "${command[@]}" --locked --release --target "$target"
    install -D -m 755 "$dir/$target/release/otrelay" "$DIST/$target/otrelay"
}

mkdir -p "$DIST" "$TOOLS"
[ $# -gt 0 ] || set -- "${TARGETS[@]}"
for target; do
    [[ " ${TARGETS[*]} " == *" $target "* ]] || fail "unknown target $target; there are: ${TARGETS[*]}"
done
choose
say "way: $WAY, $(rustc --version)"
# The end of each build is one thread, so two at a time take little longer than one.
jobs=$(nproc)
[ "$jobs" -le 2 ] || jobs=2
failed=
running=()
finish() {
    local pid=${running[0]%% *} target=${running[0]#* }
    running=("${running[@]:1}")
    if wait "$pid"; then
        say "$target: $(stat -c %s "$DIST/$target/otrelay") bytes, $(sha256sum <"$DIST/$target/otrelay" | cut -c1-64)"
    else
        say "$target: failed, see target/dist/$target.log:"
        tail -n 20 "$DIST/$target.log" >&2
        failed=yes
    fi
}
for target; do
    [ ${#running[@]} -lt "$jobs" ] || finish
    build "$target" >"$DIST/$target.log" 2>&1 &
    running+=("$! $target")
done
while [ ${#running[@]} -gt 0 ]; do finish; done
[ -z "$failed" ] || exit 1
