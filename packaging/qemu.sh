#!/usr/bin/env bash
# packaging/qemu.sh [TARGET…]: do the programs for ARM work? Runs each under qemu's user emulation: `--version`, `check`
# of a config that is right and of one that is wrong, the pages, and the whole `demo`, and compares what is said and the
# exit codes with what the program of this machine does. Speed under an emulator means nothing; memory, bytes and wake-ups:
# tests/footprint_arm.sh.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"

[ $# -gt 0 ] || set -- aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf
native=${OTRELAY:-$DIST/$(uname -m)-unknown-linux-musl/otrelay}
[ -x "$native" ] || fail "no program to compare with at $native: run packaging/build.sh, or set OTRELAY"
command -v qemu-aarch64-static >/dev/null && command -v qemu-arm-static >/dev/null || apt qemu-user-static
command -v strace >/dev/null || apt strace
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/right.toml" <<'END'
[agent]
name = "line4-sensor"
state_dir = "/var/tmp/otrelay-is-not-made-by-check"
[servicenow.prod]
instance = "https://acme.service-now.com"
auth = "client-credentials"
client_id = "0f3c"
client_secret = { env = "OTRELAY_SECRET" }
[[source]]
name = "eve"
kind = "suricata-eve"
path = "/proc/self/eve*.json"
[[rule]]
name = "OT security incidents"
min_severity = "major"
protocols = ["Modbus", "DNP3"]
[[rule.action]]
[rule.action.fields]
short_description = "[{{ severity }}] {{ title }}"
END
sed 's/min_severity = "major"/min_severity = "mayor"/' "$work/right.toml" >"$work/wrong.toml"

# What differs from run to run by right: the simulator's port, and how many answers and requests the timing made.
demo() {
    "$@" demo 2>&1 | sed -E 's/127\.0\.0\.1:[0-9]+/127.0.0.1:PORT/; s/[0-9]+ requests in all/N requests in all/
        s/[0-9]+ answers were lost/N answers were lost/; s/found [0-9]+ of them/found N of them/'
}

# account COMMAND…: all that is compared, as text.
account() {
    local code
    export OTRELAY_SECRET=s3cret
    for arguments in "--version" "--config $work/right.toml check" "--config $work/wrong.toml check" \
        "--config $work/none.toml check" "man $work/pages" "completions bash" "no-such-command"; do
        rm -rf "$work/pages"
        printf '== %s\n' "$arguments"
        code=0
        # shellcheck disable=SC2086
        "$@" $arguments 2>&1 || code=$?
        printf 'exit %s\n' "$code"
        [ ! -d "$work/pages" ] || (cd "$work/pages" && sha256sum -- *)
    done
    code=0
    demo "$@" || code=$?
    printf 'exit %s\n' "$code"
}

began=$SECONDS
account "$native" >"$work/native"
grep -q '^Nothing lost, nothing double' "$work/native" || {
    cat "$work/native"
    fail "the demo of this machine's own program does not end well"
}
grep -A 5 'right.toml check' "$work/native" | grep -q 'config OK' || {
    cat "$work/native"
    fail "the config that is right is refused"
}
say "native: $((SECONDS - began)) s"
failed=
for target; do
    began=$SECONDS
    case $target in
    x86_64-*) emulator=(qemu-x86_64-static) ;;
    aarch64-*) emulator=(qemu-aarch64-static) ;;
    # qemu before 8.1 unmaps the neighbour of a mapping that a 32-bit program shrinks by mremap (target_mremap reserved
    # old_addr + old_size); with a kernel that has no mremap the allocator takes munmap. Only that one call is stopped.
    armv7-*) emulator=(strace -f -qq --seccomp-bpf -e trace=mremap -e inject=mremap:error=ENOSYS -o /dev/null qemu-arm-static) ;;
    *) fail "unknown target $target" ;;
    esac
    program=$DIST/$target/otrelay
    [ -x "$program" ] || fail "no program for $target: run packaging/build.sh $target"
    account "${emulator[@]}" "$program" >"$work/$target"
    if diff -u --label native --label "$target" "$work/native" "$work/$target"; then
        say "$target: $(grep -c '^== ' "$work/$target") commands and the demo as on this machine, $((SECONDS - began)) s"
    else
        say "$target: not as on this machine, see above"
        failed=yes
    fi
done
[ -z "$failed" ]
