#!/bin/sh
# Installs otrelay from this directory; run it again to upgrade. Needs root, nothing else, and no network.
#
#   ./install.sh [--prefix DIR] [--root DIR] [--uninstall [--purge]]
#
# --prefix     where the program and its pages go (default /usr/local); config, state and unit have their fixed places
# --root       installs below DIR, for images and for tests; no user is made in the running system, nothing is started
# --uninstall  removes what was installed; config, state and user stay, unless --purge is given
#
# A config that is there is never overwritten. The service is started by nobody here; a running one is restarted after
# an upgrade if its config passes the check of the new version, otherwise the old one goes on.
set -eu

prefix=/usr/local root= uninstall= purge=
here=$(cd "$(dirname "$0")" && pwd)

say() {
    printf 'otrelay: %s\n' "$@" >&2
}

fail() {
    say "$@"
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --prefix) prefix=${2:?--prefix needs a directory} && shift ;;
    --root) root=${2:?--root needs a directory} && shift ;;
    --uninstall) uninstall=yes ;;
    --purge) purge=yes ;;
    -h | --help)
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        say "unknown argument $1; see $0 --help"
        exit 2
        ;;
    esac
    shift
done
case $prefix in /*) ;; *) fail "--prefix $prefix: not an absolute path" ;; esac
case $prefix in *[!A-Za-z0-9/._-]*) fail "--prefix $prefix: letters, digits and /._- only" ;; esac
case $root in "" | /*) ;; *) fail "--root $root: not an absolute path" ;; esac
[ -z "$purge" ] || [ -n "$uninstall" ] || fail "--purge goes with --uninstall"
[ "$(id -u)" = 0 ] || fail "this has to be run as root"

bin=$root$prefix/bin
man=$root$prefix/share/man
doc=$root$prefix/share/doc/otrelay
etc=$root/etc/otrelay
unit=$root/etc/systemd/system/otrelay.service
sysusers=$root/etc/sysusers.d/otrelay.conf
tmpfiles=$root/etc/tmpfiles.d/otrelay.conf
bash_completion=$root$prefix/share/bash-completion/completions/otrelay
zsh_completion=$root$prefix/share/zsh/site-functions/_otrelay
fish_completion=$root$prefix/share/fish/vendor_completions.d/otrelay.fish

# The service manager of the running system, if that is what is installed into.
live() {
    [ -z "$root" ] && [ -d /run/systemd/system ]
}

# There at once or not at all: a power cut leaves the old file or the new one.
put() {
    mode=$1 from=$2 to=$3
    mkdir -p "$(dirname "$to")"
    cp "$from" "$to.new"
    chmod "$mode" "$to.new"
    sync "$to.new" 2>/dev/null || sync
    mv -f "$to.new" "$to"
}

make_user() {
    if [ -n "$root" ]; then
        if command -v systemd-sysusers >/dev/null; then
            systemd-sysusers --root="$root" "$sysusers" || say "no user made below $root; systemd-sysusers does it there"
        fi
        return 0
    fi
    if ! getent group otrelay >/dev/null; then
        groupadd --system otrelay 2>/dev/null || addgroup -S otrelay
    fi
    if ! getent passwd otrelay >/dev/null; then
        useradd --system --gid otrelay --home-dir /var/lib/otrelay --no-create-home --shell /usr/sbin/nologin \
            --comment "otrelay agent" otrelay 2>/dev/null \
            || adduser -S -D -H -h /var/lib/otrelay -s /sbin/nologin -G otrelay otrelay
    fi
}

# The number of the user, or of the group, as the system that is installed into knows it.
number() {
    if [ -f "$root/etc/$1" ]; then
        sed -n 's/^otrelay:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/$1"
    fi
}

directory() {
    mode=$1 owner=$2 group=$3 dir=$4
    if [ ! -d "$dir" ]; then
        mkdir -p "$dir"
        chmod "$mode" "$dir"
        chown "$owner:$group" "$dir"
    fi
}

install_all() {
    [ -x "$here/otrelay" ] || fail "no program beside this script: run it from the unpacked archive"
    # A program for another machine would be found out by systemd only.
    "$here/otrelay" --version >/dev/null 2>&1 || [ -n "$root" ] \
        || fail "the program does not run here; this machine is $(uname -m): is it the right archive?"
    put 644 "$here/systemd/otrelay.sysusers" "$sysusers"
    put 644 "$here/systemd/otrelay.tmpfiles" "$tmpfiles"
    make_user
    user=$(number passwd) group=$(number group)
    directory 750 0 "${group:-0}" "$etc"
    directory 750 0 "${group:-0}" "$etc/conf.d"
    directory 750 0 "${group:-0}" "$etc/secrets"
    directory 700 "${user:-0}" "${group:-0}" "$root/var/lib/otrelay"
    put 755 "$here/otrelay" "$bin/otrelay"
    for page in "$here"/man/*; do
        put 644 "$page" "$man/man${page##*.}/${page##*/}"
    done
    put 644 "$here/completions/otrelay.bash" "$bash_completion"
    put 644 "$here/completions/_otrelay" "$zsh_completion"
    put 644 "$here/completions/otrelay.fish" "$fish_completion"
    for file in README.md CHANGELOG.md LICENSE THIRD-PARTY.gz; do
        put 644 "$here/$file" "$doc/$file"
    done
    for file in "$here"/systemd/drop-in/*; do
        put 644 "$file" "$doc/drop-in/${file##*/}"
    done
    put 644 "$here/otrelay.toml" "$doc/otrelay.toml.example"
    sed "s|/usr/bin/otrelay|$prefix/bin/otrelay|g; s|/usr/share/doc/otrelay|$prefix/share/doc/otrelay|g" \
        "$here/systemd/otrelay.service" >"$doc/.otrelay.service"
    put 644 "$doc/.otrelay.service" "$unit"
    rm -f "$doc/.otrelay.service"
    fresh=
    if [ ! -e "$etc/otrelay.toml" ]; then
        fresh=yes
        put 640 "$here/otrelay.toml" "$etc/otrelay.toml"
        chown "0:${group:-0}" "$etc/otrelay.toml"
    fi
}

start_or_say() {
    if live; then
        systemctl daemon-reload
        if systemctl is-active --quiet otrelay.service; then
            if runuser -u otrelay -- "$bin/otrelay" check; then
                systemctl restart otrelay.service \
                    || say "upgraded, but the new version did not start: journalctl -u otrelay"
            else
                say "THE OLD VERSION GOES ON RUNNING. The config does not pass the check of the new version (above)." \
                    "Nothing is lost meanwhile. Mend the config, then: otrelay check && systemctl restart otrelay"
            fi
            return 0
        fi
    fi
    if [ -n "$fresh" ]; then
        say "installed, not started. Four steps to the first ticket:" \
            "  otrelay init                      asks, finds the sensor's files, tries the connection, writes config and secrets" \
            "  otrelay check" \
            "  systemctl enable --now otrelay" \
            "  otrelay sync                      what is there goes out now; otrelay tickets shows it" \
            "By hand instead of otrelay init: edit /etc/otrelay/otrelay.toml; secrets into /etc/otrelay/secrets, root:otrelay," \
            "mode 0640."
    else
        say "installed; the config that was there is kept. Not running; next: otrelay check && systemctl enable --now otrelay"
    fi
}

uninstall_all() {
    if live; then
        systemctl disable --now otrelay.service 2>/dev/null || true
    fi
    rm -f "$bin/otrelay" "$unit" "$sysusers" "$tmpfiles" "$bash_completion" "$zsh_completion" "$fish_completion"
    rm -f "$man"/man[158]/otrelay.[158] "$man"/man1/otrelay-*.1 "$man"/man5/otrelay.toml.5
    rm -rf "$doc"
    if [ -n "$purge" ]; then
        rm -rf "$etc" "$root/var/lib/otrelay" "$root/run/otrelay" "$unit.d"
        if [ -z "$root" ]; then
            { userdel otrelay || deluser otrelay; } 2>/dev/null || true
            { groupdel otrelay || delgroup otrelay; } 2>/dev/null || true
        fi
    fi
    if live; then
        systemctl daemon-reload
    fi
    if [ -n "$purge" ]; then
        say "removed, with config, state and user"
    else
        say "removed; /etc/otrelay, /var/lib/otrelay and the user otrelay stay (--purge removes them)"
    fi
}

if [ -n "$uninstall" ]; then
    uninstall_all
else
    install_all
    start_or_say
fi
