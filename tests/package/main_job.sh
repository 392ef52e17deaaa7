# What a node is for, under the unit with all its restrictions: endpoints of this node and of the other, both hosts,
# and an outside behind node b, by ping, TCP and UDP, IPv4 and IPv6. Sourced by lifecycle.sh, in the guest.

# in_place PLACE COMMAND…: a namespace, or this host
in_place() {
    if [ "$1" = host ]; then "${@:2}"; else in_namespace "$@"; fi
}

# A network that knows the nodes' addresses and not the endpoints': only what is masqueraded is answered.
make_outside() {
    ip netns add outside
    ip -n node-b link add far type veth peer name eth0 netns outside
    ip -n node-b addr add 198.51.100.1/24 dev far
    ip -n node-b addr add fd00:51::1/64 dev far nodad
    ip -n node-b link set far up
    ip -n outside link set lo up
    ip -n outside addr add 198.51.100.9/24 dev eth0
    ip -n outside addr add fd00:51::9/64 dev eth0 nodad
    ip -n outside link set eth0 up
    ip -n outside route add 172.18.0.0/24 via 198.51.100.1
    ip -n outside route add fd00:18::/64 via fd00:51::1
    in_namespace node-b sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    ip -6 route add default via fd00:18::2
}

no_outside() {
    ip netns delete outside
    ip -6 route del default via fd00:18::2
}

# listen PLACE: TCP and UDP, both families; what comes goes to /tmp/heard-PLACE
listen() {
    local option
    : >"/tmp/heard-$1"
    for option in -4 -6 -4u -6u; do
        in_place "$1" nc -l -k "$option" 7000 >>"/tmp/heard-$1" 2>/dev/null &
        listeners+=($!)
    done
    wait_for 10 listens "$1"
}

# A datagram that comes before somebody listens is lost.
listens() {
    [ "$(in_place "$1" ss -Hltun 'sport = :7000' | wc -l)" = 4 ]
}

heard() {
    grep -qx "$2" "/tmp/heard-$1"
}

# talks FROM TO ADDRESS: all three ways
talks() {
    local said="$1 to $2 at $3"
    in_place "$1" ping -q -c 1 -W 2 "$3" >/dev/null || fail "ping, $said" || return 1
    in_place "$1" nc -N -w 2 "$3" 7000 <<<"TCP $said" || fail "TCP, $said" || return 1
    in_place "$1" nc -u -w 1 "$3" 7000 <<<"UDP $said" || fail "UDP, $said" || return 1
    wait_for 5 heard "$2" "TCP $said" && wait_for 5 heard "$2" "UDP $said" || return 1
    conversations=$((conversations + 3))
}

the_main_job() {
    local from to address ways conversations=0 listeners=()
    local -A addresses=(
        [first]="10.244.0.60 fd00:10:244::60" [other]="10.244.0.61 fd00:10:244::61"
        [server]="10.244.1.10 fd00:10:244:1::10" [host]="172.18.0.3 fd00:18::3"
        [node-b]="172.18.0.2 fd00:18::2" [outside]="198.51.100.9 fd00:51::9"
    )
    make_outside
    systemctl start ciliate-netns@first ciliate-netns@other
    for to in first other; do
        printf '[[endpoint]]\nname = "%s"\nnetns = "/run/netns/%s"\naddresses = ["%s"]\n' "$to" "$to" \
            "${addresses[$to]/ /\", \"}"
    done >/etc/ciliate/conf.d/50-job.toml
    systemctl reload "$UNIT"
    for to in "${!addresses[@]}"; do listen "$to" || return 1; done
    for ways in 'first other server host node-b outside' 'other first server' 'server first other outside' \
        'host first server' 'node-b first server'; do
        from=${ways%% *}
        for to in ${ways#* }; do
            for address in ${addresses[$to]}; do talks "$from" "$to" "$address" || return 1; done
        done
    done
    echo "    $conversations conversations"
    kill "${listeners[@]}"
    rm /etc/ciliate/conf.d/50-job.toml
    systemctl stop ciliate-netns@first ciliate-netns@other
    systemctl reload "$UNIT"
    no_outside
}
