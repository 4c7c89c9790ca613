# rpm has no purge: config that was changed (.rpmsave), state and user stay after a removal, as files may be theirs.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1
fi
if [ "$1" = 0 ]; then
    echo "otrelay: removed; /etc/otrelay, /var/lib/otrelay and the user otrelay stay. To remove them as well:" \
        "rm -r /etc/otrelay /var/lib/otrelay && userdel otrelay" >&2
fi
exit 0
