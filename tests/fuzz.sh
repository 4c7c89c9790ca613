#!/usr/bin/env bash
# tests/fuzz.sh [TARGET…]: libFuzzer on each decoder of bytes from outside, SECONDS each (30), from the seeds in the tree and
# what earlier runs here found. Ends with 1 at the first input that panics, overflows, takes over 10 s or 512 MiB, and says
# where that input is kept. With flags that the stable compiler has: coverage by LLVM's pass, checks of arithmetic on; no
# sanitizer, as there is no unsafe code of ours to look into. `just fuzz` does the same with nightly and cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=packaging/common.sh
. packaging/common.sh

SECONDS_EACH=${SECONDS_EACH:-30}
command -v c++ >/dev/null || apt g++
if [ $# -eq 0 ]; then
    mapfile -t targets < <(find fuzz/fuzz_targets -maxdepth 1 -name '*.rs' -printf '%f\n' | sed 's/\.rs$//' | sort)
else
    targets=("$@")
fi
host=$(rustc -vV | sed -n 's/^host: //p')
out=$PWD/target/fuzz
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
# A target of its own name, so that what runs while building is not instrumented.
CARGO_TARGET_DIR=$out CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true \
    RUSTFLAGS="--cfg fuzzing $coverage" \
    cargo build --quiet --release --target "$host" --manifest-path fuzz/Cargo.toml "${targets[@]/#/--bin=}"

# one TARGET: a run in its own log; what it finds stays in target/fuzz/found.
one() {
    local target=$1
    mkdir -p "$out/corpus/$target" "$out/found" "fuzz/seeds/$target"
    "$out/$host/release/$target" "$out/corpus/$target" "fuzz/seeds/$target" -max_total_time="$SECONDS_EACH" -max_len=8192 \
        -timeout=10 -rss_limit_mb=512 -artifact_prefix="$out/found/$target-" >"$out/$target.log" 2>&1
}

failed=
for ((i = 0; i < ${#targets[@]}; i += 2)); do
    pids=()
    for target in "${targets[@]:i:2}"; do
        one "$target" &
        pids+=("$! $target")
    done
    for running in "${pids[@]}"; do
        target=${running#* }
        if wait "${running%% *}"; then
            runs=$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$out/$target.log")
            say "$target: ${runs:?it made no run, see $out/$target.log} inputs, nothing found"
        else
            tail -n 30 "$out/$target.log" >&2
            say "$target: failed; the input is in target/fuzz/found"
            failed=yes
        fi
    done
done
[ -z "$failed" ]
