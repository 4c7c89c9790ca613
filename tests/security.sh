#!/usr/bin/env bash
# What a taken service user can make of a command that root runs: links under every name of otrelay's own in the state
# directory, each of which leads to a file of root. Whatever the command does, root's files stay as they are, and nothing
# of root's is left in the state directory; and root's own work is done: secrets that only root can read, a backup into a
# directory of root's, a restore from there.
#
# Needs root and setpriv, and uses loopback only. Elsewhere it says NOT RUN and ends with 0. OTRELAY=program.
set -euo pipefail
cd "$(dirname "$0")/.."
otrelay=${OTRELAY:-target/debug/otrelay}
[ "$(id -u)" = 0 ] && command -v setpriv >/dev/null || {
    echo "NOT RUN: what root does in the state directory of the service: that needs root and setpriv"
    exit 0
}
otrelay=$(realpath "$otrelay")
# Neither has to have a name.
SERVICE=54321
dir=$(mktemp -d)
simulator=
trap '[ -z "$simulator" ] || kill "$simulator"; rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
svc() { setpriv --reuid $SERVICE --regid $SERVICE --clear-groups "$@"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

mkdir etc log state private
chmod 700 etc private
chown $SERVICE:$SERVICE state
chmod 700 state
printf 'pw-canary-1\n' >etc/password
printf 'cs-canary-2\n' >etc/secret
chmod 600 etc/*
alert() { # SID
    printf '{"timestamp":"2026-11-27T08:00:00.000000+0000","event_type":"alert","src_ip":"192.0.2.%s","dest_ip":"198.51.100.1","proto":"TCP","alert":{"signature_id":%s,"gid":1,"rev":1,"signature":"sig %s","severity":1}}\n' "$1" "$1" "$1"
}
OTRELAY_SIM_USER=admin OTRELAY_SIM_PASS=pw-canary-1 "$otrelay" simulate --listen 127.0.0.1:0 --client otrelay:cs-canary-2 >simulator 2>&1 &
simulator=$!
for _ in $(seq 100); do
    url=$(grep -o 'http://127.0.0.1:[0-9]*' simulator | head -n 1) && break
    sleep 0.1
done
[ -n "$url" ] || fail "the simulator does not start: $(cat simulator)"
cat >etc/otrelay.toml <<T
[agent]
name = "lab"
state_dir = "$dir/state"
[sync]
backfill = "all"
[servicenow.sim]
instance = "$url"
auth = "password"
client_id = "otrelay"
client_secret = { file = "$dir/etc/secret" }
username = "admin"
password = { file = "$dir/etc/password" }
[[source]]
name = "eve"
kind = "suricata-eve"
path = "$dir/log/eve*.json"
[[rule]]
name = "all"
[[rule.action]]
T
chmod 600 etc/otrelay.toml
export OTRELAY_CONFIG=$dir/etc/otrelay.toml
ours() { find state ! -user $SERVICE -printf '%p is of user %U; '; }

# Root's own work is done.
alert 1 >log/eve.json
"$otrelay" run --once 2>said || fail "run --once of root: $(cat said)"
[ -z "$(ours)" ] || fail "run --once left in the state directory: $(ours)"
"$otrelay" backup private/copy.db >said 2>&1 || fail "backup of root into its own directory: $(cat said)"
[ "$(stat -c '%u %a' private/copy.db)" = "0 600" ] || fail "the backup is $(stat -c '%u %a' private/copy.db)"
"$otrelay" restore private/copy.db >said 2>&1 || fail "restore of root from its own directory: $(cat said)"
"$otrelay" status >said 2>&1 || fail "status of root: $(cat said)"
[ -z "$(ours)" ] || fail "backup, restore and status left in the state directory: $(ours)"
"$otrelay" diag -o private/diag.txt.gz >said 2>&1 || fail "diag of root into its own directory: $(cat said)"
[ "$(stat -c '%u %a' private/diag.txt.gz)" = "0 600" ] || fail "the archive is $(stat -c '%u %a' private/diag.txt.gz)"
printf '{"timestamp":"2026-11-27T08:00:00.000000+0000","event_type":"dnp3","src_ip":"192.0.2.77","dest_ip":"198.51.100.7","proto":"TCP","dnp3":{"type":"request"}}\n' >>log/eve.json
"$otrelay" run --once 2>said || fail "run --once of root: $(cat said)"
# There is no [devices] here: that it says so means that it has read the secrets, which are root's.
"$otrelay" devices show 192.0.2.77 --query >said 2>&1 || true
grep -q "devices go nowhere" said || fail "devices show --query of root: $(cat said)"
# Into a directory of the service it is written as the service, who may put any link there.
"$otrelay" backup state/kept.db >said 2>&1 || fail "backup of root into the state directory: $(cat said)"
[ -z "$(ours)" ] || fail "a backup into the state directory left there: $(ours)"
rm state/kept.db
svc "$otrelay" --config /dev/null status >/dev/null 2>&1 || true
echo "ok  root works in the state directory of the service as its owner"

# No link is followed.
printf "root's own file\n" >victim
chmod 644 victim
before=$(stat -c '%u %g %a %s %Y %Z' victim)
rm -rf state.whole
cp -a state state.whole
names="lock queue.db queue.db-wal queue.db-shm queue.db-journal queue.db.swap queue.db.swap.tmp queue.db.new ballast probe otrelay.sock login-sim.json queue.db.corrupt-x"
for name in $names; do
    for lead in "$dir/victim" "$dir/made"; do
        for command in "run --once" "restore $dir/private/copy.db" status sync "backup --force $dir/private/again.db"; do
            # Only what writes makes what is not there.
            case "$lead $command" in "$dir/made "[sb]*) continue ;; esac
            rm -rf state
            cp -a state.whole state
            svc sh -c "cd state; rm -f '$name'; ln -s '$lead' '$name'
                case $name in
                lock) ;;
                queue.db.new) printf 'restore\nqueue.db.before-restore-x\n\n' >queue.db.swap ;;
                queue.db.swap) ;;
                *) rm -f lock; printf '9\ndamaged: by hand\n' >lock ;;
                esac"
            # What it says may be a failure; what it does counts.
            # shellcheck disable=SC2086
            timeout 60 "$otrelay" $command >said 2>&1 || [ $? != 124 ] || fail "$command waits for $name"
            [ "$before" = "$(stat -c '%u %g %a %s %Y %Z' victim)" ] || fail "$command followed $name: $(stat victim)"
            [ ! -e made ] || fail "$command followed $name and made a file"
            [ -z "$(ours)" ] || fail "$command with $name left in the state directory: $(ours)"
        done
    done
done
echo "ok  no link in it is followed"

# Nobody works in a directory that a third one prepared.
mkdir squatted
chown 65534 squatted
chmod 777 squatted
sed "s#^state_dir.*#state_dir = \"$dir/squatted\"#" etc/otrelay.toml >squatted.toml
chmod 644 squatted.toml
chown $SERVICE etc etc/*
if svc "$otrelay" --config "$dir/squatted.toml" run --once >said 2>&1; then
    fail "the service works in a directory that somebody else owns"
fi
grep -q "belongs to user 65534" said || fail "it does not say why: $(cat said)"
echo "ok  a squatted state directory is refused"
