# shellcheck shell=bash
# What tests/footprint.sh reads from /proc, where the service runs under qemu's user emulation; sourced by it when
# EMULATED names this file, which tests/footprint_arm.sh does. What the emulator itself takes is left out:
#
#   memory     the guest's address space is one range of the process, [GUEST_FROM, GUEST_TO); what is resident of the
#              mappings in it is the guest's, the emulator's own heap, code cache and program are elsewhere. Without a
#              range (both 0) it is what is not the emulator's program, heap, stack, code cache; some 0.1 MiB of its
#              variables and its threads' stacks are then counted, too
#   peak       the kernel keeps one for the whole process only, so the guest's memory is read ten times a second and the
#              largest value counts; a peak that is shorter can be missed
#   threads    without the emulator's own one, which is the first that it starts; it does nothing but free memory
#   wake-ups   of those threads
#   bytes      of the process: the emulator writes nothing itself
#   times      not shown, they would be the emulator's

RANGE_FROM=$((GUEST_FROM)) RANGE_TO=$((GUEST_TO))

# smaps PID KEY: KiB of the guest's mappings. A range is compared in hexadecimal digits of one length, as awk's numbers
# may be doubles.
smaps() {
    awk -v key="$2:" -v from="$(printf %016x $RANGE_FROM)" -v to="$(printf %016x $RANGE_TO)" \
        -v rest=$((RANGE_TO == 0)) '
        $1 ~ /^[0-9a-f]+-[0-9a-f]+$/ {
            split($1, ends, "-")
            start = substr("0000000000000000" ends[1], length(ends[1]) + 1)
            # Letters before the digits make a comparison of strings of it.
            inside = ("x" start) >= ("x" from) && ("x" start) < ("x" to)
            if (rest) inside = $2 != "rwxp" && $6 !~ /^\[|\/qemu-[^\/]*$/
        }
        inside && $1 == key { n += $2 }
        END { print n + 0 }' "/proc/$1/smaps" 2>/dev/null
}

# The emulator's thread: the first after the main one, so it still has the name of the program.
emulators_thread() {
    local first
    first=$(find "/proc/$1/task" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -n | sed -n 2p)
    case $(cat "/proc/$1/task/$first/comm") in
    qemu-*) echo "$first" ;;
    *)
        echo "thread $first of $1 is not the emulator's" >&2
        return 1
        ;;
    esac
}

status() {
    case $2 in
    VmRSS) smaps "$1" Rss ;;
    RssAnon) smaps "$1" Anonymous ;;
    VmHWM) cat "$WORK/peak.$1" ;;
    Threads) find "/proc/$1/task" -mindepth 1 -maxdepth 1 | wc -l | awk '{ print $1 - 1 }' ;;
    *)
        echo "$2 of an emulated program is not known" >&2
        return 1
        ;;
    esac
}

wakes() {
    local own
    own=$(emulators_thread "$1")
    find "/proc/$1/task" -mindepth 1 -maxdepth 1 ! -name "$own" -exec cat '{}/status' ';' \
        | awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n + 0 }'
}

# watch_peak PID: as long as it lives.
watch_peak() {
    local peak=0 now
    while [ -e "/proc/$1/smaps" ]; do
        now=$(smaps "$1" Rss) || return 0
        if [ "${now:-0}" -gt "$peak" ]; then
            peak=$now
            echo "$peak" >"$WORK/peak.$1.new" && mv "$WORK/peak.$1.new" "$WORK/peak.$1" || return 0
        fi
        sleep 0.1
    done
}

eval "plain_$(declare -f run)"
run() {
    plain_run "$1"
    echo 0 >"$WORK/peak.$PID"
    watch_peak "$PID" 2>/dev/null &
}

eval "plain_$(declare -f row)"
row() {
    case "$3 $1" in
    ms* | %*) ;;
    *) plain_row "$@" ;;
    esac
}
