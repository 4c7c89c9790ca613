#!/usr/bin/env bash
# packaging/build.sh [TARGET…]: the static programs, target/dist/TARGET/otrelay. Without arguments all three targets.
#
# The compiler is the one that rustup or Debian installed, zig is the C compiler and linker (from PyPI into target/tools,
# pinned by hash in packaging/tools.txt). For each target the first way that this machine allows; OTRELAY_BUILD=ready|source|cross
# chooses one:
#   ready   rustup's ready-made standard library of the target
#   source  for a target that rustup's server does not have here: the standard library is built once from the source that
#           belongs to the compiler (rustup's rust-src, or Debian's rustc-web cargo-web rust-web-src), into target/tools
#   cross   `cross` with a container engine; only when it is asked for, as its result is not compared with the others
# The program is compiled with stable features in each of them. Needed in any case: a C compiler for the build scripts.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"

venv() {
    local pins
    pins=$(sha256sum <packaging/tools.txt)
    grep -qsxF -- "$pins" "$TOOLS/venv/pins" && return
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt python3-venv
    say "installing zig and cargo-zigbuild of packaging/tools.txt into target/tools"
    rm -rf "$TOOLS/venv"
    python3 -m venv "$TOOLS/venv"
    retry "$TOOLS/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: \
        --require-hashes -r packaging/tools.txt
    printf '%s\n' "$pins" >"$TOOLS/venv/pins"
}

# Has the compiler the standard library of target $1, or can rustup fetch it?
ready() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ] && return
    command -v rustup >/dev/null && rustup -q target add "$1" 2>/dev/null
}

has_source() {
    [ -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ] && return
    command -v rustup >/dev/null && rustup -q component add rust-src 2>/dev/null
}

debian() {
    if [ ! -x /usr/bin/cargo ] || [ ! -e /usr/lib/rustlib/src/rust/library/Cargo.lock ]; then
        apt rustc-web cargo-web rust-web-src
    fi
    # The venv stays first: cargo-zigbuild asks its python for zig.
    PATH="$TOOLS/bin:$TOOLS/venv/bin:/usr/bin:$PATH"
}

# way TARGET: sets WAY, and PATH where another compiler has to be taken.
way() {
    WAY=${OTRELAY_BUILD:-}
    command -v rustc >/dev/null || debian
    if [ -z "$WAY" ]; then
        WAY=source
        if ready "$1"; then WAY=ready; fi
    fi
    case $WAY in
    ready) ready "$1" || fail "rustup has no $1 here; try OTRELAY_BUILD=source" ;;
    source) has_source || debian ;;
    cross) ;;
    *) fail "OTRELAY_BUILD=$WAY: ready, source or cross" ;;
    esac
}

# standard_library TARGET: builds it as the Rust project does for the targets it has ready, prints where it is. This is
# the one step that uses what is not stable in cargo (-Zbuild-std), and it sees nothing of otrelay: a compiler's own
# standard library cannot be built by its stable part.
standard_library() {
    local version root work deps
    version=$(rustc --version | tr -c 'a-z0-9.\n' -)
    root=$TOOLS/std/$version-$1
    if [ ! -e "$root/complete" ]; then
        work=$TOOLS/std/build-$1
        rm -rf "$root" "$work"
        mkdir -p "$work/src" "$root/lib/rustlib/$1/lib"
        printf '%s\n' '[package]' 'name = "none"' 'edition = "2024"' '[workspace]' \
            >"$work/Cargo.toml"
        printf '#![no_std]\n' >"$work/src/lib.rs"
        (cd "$work" && RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Cembed-bitcode=yes $(remap)" CARGO_TARGET_DIR=$work/target \
            cargo build --quiet --release -Zbuild-std=std,panic_unwind --target "$1") >&2
        deps=$work/target/$1/release/deps
        rm -f "$deps"/libnone-*
        cp "$deps"/lib*.rlib "$deps"/lib*.rmeta "$root/lib/rustlib/$1/lib/"
        rm -rf "$work"
        touch "$root/complete"
    fi
    printf '%s' "$root"
}

# What differs from machine to machine and would get into the program: where the tree, the libraries and the source of the
# standard library are. The last one gets the name that it has where the source is not installed.
remap() {
    printf -- '--remap-path-prefix=%s=%s ' "$PWD" /otrelay "${CARGO_HOME:-$HOME/.cargo}" /cargo \
        "$(rustc --print sysroot)/lib/rustlib/src/rust" "/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')"
}

build() {
    local target=$1 dir=$PWD/target/cross/$1 command=(cargo-zigbuild zigbuild) rustflags maps
    rustflags="-Clink-arg=-Wl,--build-id=none $(remap)"
    maps="-ffile-prefix-map=$PWD=/otrelay -ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    case $WAY in
    source)
        # rustc asks for a crt1.o that only a ready-made target brings; zig has its own.
        rustflags="-Clink-self-contained=no --sysroot=$(standard_library "$target") $rustflags"
        ;;
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
[ "${OTRELAY_BUILD:-}" = cross ] || venv
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
path=$PATH
for target; do
    [ ${#running[@]} -lt "$jobs" ] || finish
    PATH=$path
    way "$target"
    say "$target: way: $WAY, $(rustc --version)"
    build "$target" >"$DIST/$target.log" 2>&1 &
    running+=("$! $target")
done
while [ ${#running[@]} -gt 0 ]; do finish; done
[ -z "$failed" ] || exit 1
