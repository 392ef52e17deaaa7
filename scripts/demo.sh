#!/usr/bin/env bash
# Two nodes, three endpoints and an outside host on this machine, brought up from two TOML files.
#
# Everything happens in a mount namespace and network namespaces of its own, with a /run and a BPF
# file system of its own: nothing on the machine is touched, and whatever ends this script, all of it
# goes with its last process.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || {
    echo 'error: the demo makes network namespaces and loads BPF programs: run it as root' >&2
    exit 1
}
if [ "${1:-}" != inside ]; then
    exec unshare --mount --net --pid --fork --kill-child --propagation private "$0" inside
fi

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
target=${CARGO_TARGET_DIR:-target}
ciliate=$(realpath "$target/release/ciliate")
configs=config/examples/two-nodes
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1;36m' plain=$'\e[0m'; else bold='' plain=''; fi

exec 3>&1
step_number=0
step() {
    step_number=$((step_number + 1))
    printf '\n%s%s. %s%s\n' "$bold" "$step_number" "$*" "$plain"
}
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
trap 'code=$?; [ $code = 0 ] || printf "\nThe demo failed in step %s (exit %s).\n" "$step_number" "$code" >&2' EXIT

# Runs a command in a network namespace, and shows it.
on() {
    local netns=$1
    shift
    printf '%s$ %s\n' "$netns" "$(sed "s|$ciliate|ciliate|" <<<"$*")" >&3
    quiet_on "$netns" "$@"
}
quiet_on() {
    nsenter --net="/run/netns/$1" "${@:2}"
}
shorten() {
    awk -v first="$1" -v last="$2" '{ line[NR] = $0 } END {
        for (i = 1; i <= NR; i++) {
            if (i <= first || i > NR - last) print line[i]
            else if (i == first + 1) printf "  … %d more lines …\n", NR - first - last
        }
    }'
}
# Waits up to 10 s until a command succeeds.
wait_for() {
    local tries
    for tries in $(seq 200); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.05
    done
    fail "this did not happen within 10 seconds: $*"
}

private_file_systems() {
    mount -t proc proc /proc
    mount -t tmpfs tmpfs /run
    mount -t bpf bpf /sys/fs/bpf
    mkdir -p /run/netns
}

# A wire (a bridge) with the two nodes and the outside host on it; three empty namespaces.
wire() {
    local name
    for name in wire node-a node-b outside client client2 server; do
        ip netns add "$name"
        ip -n "$name" link set lo up
    done
    ip -n wire link add br0 type bridge
    ip -n wire link set br0 up
    for name in node-a node-b outside; do
        ip -n "$name" link add eth0 type veth peer name "$name" netns wire
        ip -n wire link set "$name" master br0 up
        ip -n "$name" link set eth0 up
    done
    local host
    for host in node-a/3 node-b/2 outside/1; do
        ip -n "${host%/*}" address add "172.18.0.${host#*/}/16" dev eth0
        ip -n "${host%/*}" address add "fd00:172:18::${host#*/}/64" dev eth0 nodad
    done
    for name in node-a node-b; do
        ip -n "$name" route add default via 172.18.0.1
        ip -n "$name" -6 route add default via fd00:172:18::1
    done
    ip -n outside address add 192.0.2.10/32 dev lo
    ip -n outside address add 2001:db8::10/128 dev lo nodad
    for name in node-a node-b; do wait_for no_tentative "$name"; done
}
no_tentative() {
    [ -z "$(ip -n "$1" -o address show tentative)" ]
}

# What a node has that ciliate could leave behind.
snapshot() {
    local netns=$1
    ip -n "$netns" -o link
    ip -n "$netns" -o address | sed 's/ valid_lft.*//'
    ip -n "$netns" -4 route show table all
    ip -n "$netns" -6 route show table all
    ip -n "$netns" -4 rule
    ip -n "$netns" -6 rule
    quiet_on "$netns" nft list ruleset
    quiet_on "$netns" sh -c 'cd /proc/sys/net && grep -r . ipv4/conf ipv6/conf 2>/dev/null | sort'
    find /sys/fs/bpf /run -path /run/netns -prune -o -path /run/demo -prune -o -print | sort
}

# A server that answers each connection, of both families, with the address it came from.
listen() {
    quiet_on "$1" socat "TCP4-LISTEN:$2,fork,reuseaddr" SYSTEM:'echo "you are $SOCAT_PEERADDR"' &
    quiet_on "$1" socat "TCP6-LISTEN:$2,fork,reuseaddr,ipv6only=1" SYSTEM:'echo "you are $SOCAT_PEERADDR"' &
    wait_for listening "$1"
}
listening() {
    [ "$(quiet_on "$1" ss -Hltn | wc -l)" = 2 ]
}
# Asks from a namespace and checks who the server saw.
ask_from() {
    local netns=$1 family=$2 target=$3 expected=$4 answer
    answer=$(quiet_on "$netns" socat -T 3 - "$family:$target,connect-timeout=3" </dev/null)
    printf '%s → %s: the answer is "%s"\n' "$netns" "$target" "$answer"
    [ "$answer" = "you are $expected" ] || fail "expected: you are $expected"
}

start_daemon() {
    nsenter --net=/run/netns/node-a "$ciliate" -c "$configs/node-a.toml" run 2>/run/demo/log &
    daemon=$!
    wait_for daemon_has_converged
}
daemon_has_converged() {
    quiet_on node-a "$ciliate" -c "$configs/node-a.toml" status | grep -q "pid $daemon,.*[1-9][0-9]* rounds"
}

private_file_systems
mkdir /run/demo
wire
for node in node-a node-b; do snapshot "$node" >"/run/demo/$node.before"; done

step 'Two hosts on one wire. Node A is all of this file, node B its mirror image.'
grep -v '^#' "$configs/node-a.toml" | cat -s
printf '(%s is like it)\n' "$configs/node-b.toml"

step 'plan: every kernel object and map entry that apply would touch. It changes nothing.'
code=0
on node-a "$ciliate" -c "$configs/node-a.toml" plan >/run/demo/plan || code=$?
[ "$code" = 2 ] || fail "plan exits with 2 when there are changes, not $code"
shorten 6 8 </run/demo/plan
echo '(exit code 2: there are changes)'

step 'apply: converges the kernel, then looks again to verify.'
on node-a "$ciliate" -c "$configs/node-a.toml" apply | tail -n 1
on node-b "$ciliate" -c "$configs/node-b.toml" apply | tail -n 1

step 'plan again: nothing left to do.'
on node-a "$ciliate" -c "$configs/node-a.toml" plan

step 'Ping from endpoint to endpoint, across the wire, IPv4 and IPv6.'
on client ping -c 2 -i 0.2 -W 2 10.244.1.124
on client ping -c 2 -i 0.2 -W 2 fd00:10:244:1::124 | tail -n 3

step 'TCP across the wire: the server sees the endpoint itself, no translation.'
listen server 9494
listen outside 80
ask_from client TCP4 10.244.1.124:9494 10.244.0.49
ask_from client TCP6 '[fd00:10:244:1::124]:9494' '[fd00:0010:0244:0000:0000:0000:0000:0049]'

step 'TCP to the outside: it sees the node, because it has no route to the endpoints (masquerade).'
ask_from client TCP4 192.0.2.10:80 172.18.0.3
ask_from client TCP6 '[2001:db8::10]:80' '[fd00:0172:0018:0000:0000:0000:0000:0003]'
ask_from server TCP4 192.0.2.10:80 172.18.0.2

step 'status, and the endpoints. client2 was given the next free addresses.'
on node-a "$ciliate" -c "$configs/node-a.toml" status
on node-a "$ciliate" -c "$configs/node-a.toml" get endpoints

step 'The counters of the BPF programs.'
on node-a "$ciliate" -c "$configs/node-a.toml" bpf metrics list

step 'run: the daemon repairs what is changed behind its back.'
start_daemon
on node-a ip route del 10.244.1.0/24
on node-a nft delete table inet ciliate
route_is_back() { ip -n node-a route show 10.244.1.0/24 | grep -q via; }
table_is_back() { quiet_on node-a nft list table inet ciliate; }
wait_for route_is_back
wait_for table_is_back
on node-a ip route show 10.244.1.0/24
logged() { [ "$(wc -l </run/demo/log)" -ge 2 ]; }
wait_for logged
echo 'its log:'
sed 's/^[^ ]* *//' /run/demo/log

step 'The daemon is killed (SIGKILL). Traffic goes on: the datapath is in the kernel, not in the daemon.'
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
on client ping -c 2 -i 0.2 -W 2 10.244.1.124 | tail -n 2
# Node B's first: who is asked is there.
nsenter --net=/run/netns/node-b "$ciliate" -c "$configs/node-b.toml" run 2>/run/demo/log-b &
daemon_b=$!
b_is_healthy() { quiet_on node-b "$ciliate" -c "$configs/node-b.toml" status -v | grep -Eq 'localhost.* reachable +reachable'; }
wait_for b_is_healthy
start_daemon
quiet_on node-a "$ciliate" -c "$configs/node-a.toml" status | head -n 2

step 'Daemons on both nodes: they probe each other, and an endpoint that each has for that.'
health() { quiet_on node-a "$ciliate" -c "$configs/node-a.toml" status --verbose | sed -n '/^Cluster health/,/^Endpoints/p'; }
both_reachable() { health | grep -q '2/2 reachable'; }
wait_for both_reachable
health | shorten 5 4
kill "$daemon_b" "$daemon"
wait "$daemon_b"
wait "$daemon"
if grep -q 'object=' /run/demo/log; then fail 'the new daemon found something to change'; fi

step 'destroy: removes what ciliate made, puts back what it changed, and nothing else.'
on node-a "$ciliate" -c "$configs/node-a.toml" destroy | tail -n 1
on node-b "$ciliate" -c "$configs/node-b.toml" destroy | tail -n 1
for node in node-a node-b; do
    snapshot "$node" >"/run/demo/$node.after"
    diff "/run/demo/$node.before" "/run/demo/$node.after" || fail "$node is not as it was before"
    printf '%s is as it was before: links, addresses, routes, rules, nftables, settings, pins and files (%s lines compared)\n' \
        "$node" "$(wc -l <"/run/demo/$node.after")"
done

printf '\n%sDone in %s seconds.%s\n' "$bold" "$SECONDS" "$plain"
