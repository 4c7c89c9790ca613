# $1: how many versions will be left: 0 at a removal, 1 at an upgrade; an upgrade is restarted by the new version.
if [ "$1" = 0 ] && command -v systemctl >/dev/null; then
    systemctl --no-reload disable otrelay.service >/dev/null 2>&1
    if [ -d /run/systemd/system ]; then
        systemctl stop otrelay.service >/dev/null 2>&1
    fi
fi
exit 0
