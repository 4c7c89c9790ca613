# The user has to be there before files are given to its group; the sysusers file comes with the package, too late.
getent group otrelay >/dev/null || groupadd --system otrelay
getent passwd otrelay >/dev/null || useradd --system --gid otrelay --home-dir /var/lib/otrelay --no-create-home \
    --shell /usr/sbin/nologin --comment "otrelay agent" otrelay
exit 0
