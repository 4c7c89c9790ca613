#!/usr/bin/env bash
# The agent behind real proxies: Debian's squid as one that wants a login, one that offers no login we have, and one that
# opens TLS with a CA of its own. The other side is the simulator under a name that only squid can resolve.
#
#   OTRELAY=target/release/otrelay tests/proxies.sh      (default: the debug build)
#
# Needs squid with OpenSSL (Debian: squid-openssl), openssl and, where squid is missing, the right to install it. Listens on
# loopback only; everything it makes is in a directory that it removes. KEEP=1 keeps it.
set -euo pipefail
# shellcheck source=tests/scratch.sh
. "$(dirname "$0")/scratch.sh"
otrelay=${OTRELAY:-$PWD/target/debug/otrelay}
export PATH=$PATH:/usr/sbin
helpers=/usr/lib/squid
if ! command -v squid >/dev/null || ! [ -x "$helpers/security_file_certgen" ]; then
    apt squid-openssl openssl
fi

# Squid gives up root and then has to read and write here.
chmod 0755 "$work"

# ca NAME CN: NAME.pem and NAME.key, able to sign.
ca() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$2" -keyout "$work/$1.key" -out "$work/$1.pem" 2>/dev/null
}


listens() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# squid_with NAME PORT: the lines of its config come from standard input.
squid_with() {
    local dir=$work/$1
    mkdir -p "$dir"
    chmod 0777 "$dir"
    {
        printf '%s\n' "pid_filename none" "cache_log $dir/cache.log" "access_log stdio:$dir/access.log" \
            "coredump_dir $dir" "cache deny all" "shutdown_lifetime 0 seconds" "hosts_file $work/hosts" \
            "visible_hostname $1.example" "pinger_enable off" "max_filedescriptors 1024" "netdb_filename none"
        cat
    } >"$dir/squid.conf"
    squid -N -f "$dir/squid.conf" >"$dir/out" 2>&1 &
    pids+=($!)
    until_true "squid $1 listens" listens "$2"
}

"$otrelay" simulate --tls --tls-name instance.example --ca-out "$work/instance.pem" --listen 127.0.0.1:0 >"$work/simulator" &
pids+=($!)
until_true "the simulator listens" grep -q '^instance' "$work/simulator"
port=$(sed -n 's/^instance .*:\([0-9]*\)$/\1/p' "$work/simulator")
printf '127.0.0.1 localhost\n127.0.0.1 instance.example\n' >"$work/hosts"

ca inspection "Plant Inspection CA"
printf 'relay:%s\n' "$(openssl passwd -apr1 right-password)" >"$work/passwords"
chmod 0644 "$work/passwords" "$work/instance.pem" "$work/hosts"
login=$(free_port) negotiate=$(free_port) inspect=$(free_port)

squid_with login "$login" <<CONF
http_port 127.0.0.1:$login
auth_param basic program $helpers/basic_ncsa_auth $work/passwords
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
CONF

squid_with negotiate "$negotiate" <<CONF
http_port 127.0.0.1:$negotiate
auth_param negotiate program /bin/cat
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
CONF

"$helpers/security_file_certgen" -c -s "$work/certificates" -M 4MB >/dev/null
chmod -R a+rwX "$work/certificates"
cat "$work/inspection.key" "$work/inspection.pem" >"$work/inspection-both.pem"
chmod 0644 "$work/inspection-both.pem"
squid_with inspect "$inspect" <<CONF
http_port 127.0.0.1:$inspect ssl-bump tls-cert=$work/inspection-both.pem generate-host-certificates=on dynamic_cert_mem_cache_size=4MB
sslcrtd_program $helpers/security_file_certgen -s $work/certificates -M 4MB
acl step1 at_step SslBump1
ssl_bump peek step1
ssl_bump bump all
tls_outgoing_options cafile=$work/instance.pem
http_access allow all
CONF

# agent NAME LINES: an agent of its own with one alert, whose destination has these lines.
count=0
agent() {
    count=$((count + 1))
    local dir=$work/agent-$1
    mkdir -p "$dir/log"
    (umask 077 && printf 'otrelay\n' >"$dir/client" && printf 'admin\n' >"$dir/password" \
        && printf 'right-password\n' >"$dir/right" && printf 'canary-wrong\n' >"$dir/wrong")
    cat >"$dir/otrelay.toml" <<TOML
[agent]
name = "proxies"
state_dir = "$dir/state"
[sync]
backfill = "all"
[servicenow.prod]
instance = "https://instance.example:$port"
auth = "password"
client_id = "otrelay"
client_secret = { file = "$dir/client" }
username = "admin"
password = { file = "$dir/password" }
${2//DIR/$dir}
[[source]]
name = "eve"
kind = "suricata-eve"
path = "$dir/log/eve.json"
[[rule]]
name = "all"
[[rule.action]]
servicenow = "prod"
TOML
    printf '{"timestamp":"2026-05-18T06:00:00.000000+0000","event_type":"alert","src_ip":"10.0.0.%d","src_port":5000,"dest_ip":"10.1.0.1","dest_port":502,"proto":"TCP","alert":{"signature_id":1,"rev":1,"gid":1,"signature":"valve opened","category":"x","severity":1}}\n' \
        "$count" >"$dir/log/eve.json"
}

# expect NAME CODE WORDS [VARIABLE=VALUE…]: `run --once` ends so, and it or `status` says the words.
expect() {
    local name=$1 code=0 wanted=$2 words=$3
    shift 3
    # It would wait for what may pass; asked to stop, it ends with what still waits.
    env -i PATH="$PATH" "$@" timeout --preserve-status -k 30 8 \
        "$otrelay" --config "$work/agent-$name/otrelay.toml" run --once >"$work/said" 2>&1 || code=$?
    env -i PATH="$PATH" "$@" "$otrelay" --config "$work/agent-$name/otrelay.toml" status >>"$work/said" 2>&1 || true
    if [ "$code" != "$wanted" ] || ! grep -qF -- "$words" "$work/said" || grep -q canary "$work/said"; then
        cat "$work/said" >&2
        fail "$name: exit $code, wanted $wanted and: $words"
    fi
    printf 'ok  %-34s %s\n' "$name" "$words"
}

trust="tls = { ca_file = \"$work/instance.pem\", system_roots = false }"
inspected="tls = { ca_file = \"$work/inspection.pem\" }"
via() {
    printf 'proxy = { url = "http://127.0.0.1:%s"%s }\n' "$1" "${2:-}"
}

agent login-right "$(via "$login" ', username = "relay", password = { file = "DIR/right" }')
$trust"
expect login-right 0 "1 ticket created"
agent login-wrong "$(via "$login" ', username = "relay", password = { file = "DIR/wrong" }')
$trust"
expect login-wrong 75 "the proxy 127.0.0.1:$login gave no connection to instance.example:$port: it asks for a login, or refuses ours (407)"
agent login-none "$(via "$login")
$trust"
expect login-none 75 "check \`proxy.username\` and \`proxy.password\`"
agent login-of-environment "$trust"
expect login-of-environment 0 "1 ticket created" "HTTPS_PROXY=http://relay:right-password@127.0.0.1:$login"
agent exempt "$trust"
expect exempt 75 "could not connect to instance.example:$port" "HTTPS_PROXY=http://127.0.0.1:$login" "NO_PROXY=.example"
agent negotiate-only "$(via "$negotiate" ', username = "relay", password = { file = "DIR/right" }')
$trust"
expect negotiate-only 75 "it offers only Negotiate; otrelay logs in with Basic"
agent inspected "$(via "$inspect")
$inspected"
expect inspected 0 "1 ticket created"
agent inspected-not-trusted "$(via "$inspect")
$trust"
expect inspected-not-trusted 75 "not trusted here (\`Plant Inspection CA\`)"
agent closed "$(via "$(free_port)")
$trust"
expect closed 75 "connection refused"
