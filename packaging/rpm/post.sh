# $1: how many versions are installed now: 1 at the first installation, 2 at an upgrade. The service is started or
# restarted only with a config that passes `otrelay check` of the version that is being installed.
say() {
    printf 'otrelay: %s\n' "$@" >&2
}

check() {
    runuser -u otrelay -- /usr/bin/otrelay check
}

for dir in /etc/otrelay /etc/otrelay/conf.d /etc/otrelay/secrets; do
    [ -d "$dir" ] || install -d -m 0750 -o root -g otrelay "$dir"
done
if [ "$1" = 1 ]; then
    # rpm made it with the config in it, open to all.
    chmod 0750 /etc/otrelay
    chgrp otrelay /etc/otrelay
    [ "$(stat -c %G /etc/otrelay/otrelay.toml)" != root ] || chgrp otrelay /etc/otrelay/otrelay.toml
fi
[ -d /var/lib/otrelay ] || install -d -m 0700 -o otrelay -g otrelay /var/lib/otrelay

if [ "$1" = 1 ] && command -v systemctl >/dev/null; then
    systemctl --no-reload preset otrelay.service >/dev/null 2>&1
fi
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload >/dev/null 2>&1

if systemctl is-active --quiet otrelay.service; then
    if check; then
        systemctl restart otrelay.service \
            || say "upgraded, but the new version did not start: systemctl status otrelay, journalctl -u otrelay"
    else
        say "THE OLD VERSION GOES ON RUNNING. The config does not pass the check of the new version (above)." \
            "Nothing is lost meanwhile. Mend the config, then: otrelay check && systemctl restart otrelay"
    fi
elif [ "$1" = 1 ]; then
    # Asked of the program: small images leave out /usr/share/doc.
    if /usr/bin/otrelay config example | cmp -s - /etc/otrelay/otrelay.toml; then
        say "not started: /etc/otrelay/otrelay.toml is still the example. Four steps to the first ticket:" \
            "  otrelay init                      asks, finds the sensor's files, tries the connection, writes config and secrets" \
            "  otrelay check" \
            "  systemctl enable --now otrelay" \
            "  otrelay sync                      what is there goes out now; otrelay tickets shows it" \
            "By hand instead of otrelay init: edit it; secrets into /etc/otrelay/secrets, root:otrelay, mode 0640."
    elif check; then
        systemctl start otrelay.service \
            || say "installed, but it did not start: systemctl status otrelay, journalctl -u otrelay"
    else
        say "not started: the config does not pass its check (above). Mend it, then: systemctl enable --now otrelay"
    fi
fi
exit 0
