# The way from keepalived and IPVS to services, as docs/from-keepalived.md has it: what is typed there is typed here, and
# its configurations are those that are used. The director is this system; servers, router and client are namespaces
# on one wire. This kernel may have no IPVS: nftables stands in for it, which comes after ciliate's programs as IPVS does.
# Sourced by lifecycle.sh, in the guest.

readonly PAGE=$debs/from-keepalived.md
readonly FAMILIES=(192.0.2.11 2001:db8:2::11)

# plug NAME NUMBER: a namespace on the wire, with the addresses of that number
plug() {
    ip netns add "$1"
    ip -n wire link add "to-$1" master bridge type veth peer name eth0 netns "$1"
    ip -n wire link set "to-$1" up
    ip -n "$1" link set lo up
    ip -n "$1" addr add "172.18.0.$2/24" dev eth0
    ip -n "$1" addr add "fd00:18::$2/64" dev eth0 nodad
    ip -n "$1" link set eth0 up
    [ "$1" = router ] || ip -n "$1" route add default via 172.18.0.1
    [ "$1" = router ] || ip -n "$1" route add default via fd00:18::1
}

# serve SERVER PORT: its name, a sign of life, and who asks
serve() {
    nsenter --net="/run/netns/$1" busybox httpd -f -p "$2" -h "/root/$1" >/dev/null 2>&1 &
    servers[$1:$2]=$!
    wait_for 10 in_namespace "$1" nc -z 127.0.0.1 "$2"
}

make_wire() {
    local name
    # Node b goes; its end of the wire would only go some time after its namespace.
    ip link delete eth0
    ip netns delete node-b
    ip netns delete server
    ip netns add wire
    ip -n wire link add bridge type bridge
    ip -n wire link set bridge up
    ip link add eth0 type veth peer name to-director netns wire
    ip -n wire link set to-director master bridge up
    ip addr add 172.18.0.3/24 dev eth0
    ip addr add fd00:18::3/64 dev eth0 nodad
    ip link set eth0 up
    plug router 1
    ip route add default via 172.18.0.1
    ip -6 route add default via fd00:18::1
    ip netns add client
    ip -n router link add far type veth peer name eth0 netns client
    ip -n router addr add 198.51.100.1/24 dev far
    ip -n router addr add 2001:db8:51::1/64 dev far nodad
    ip -n router link set far up
    in_namespace router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    ip -n router route add 192.0.2.0/24 via 172.18.0.3
    ip -n router route add 2001:db8:2::/64 via fd00:18::3
    ip -n client addr add 198.51.100.9/24 dev eth0
    ip -n client addr add 2001:db8:51::9/64 dev eth0 nodad
    ip -n client link set eth0 up
    ip -n client link set lo up
    ip -n client route add default via 198.51.100.1
    ip -n client route add default via 2001:db8:51::1
    plug web1 21
    plug web2 22
    plug sorry 23
    for name in web1 web2 sorry; do
        mkdir -p "/root/$name/cgi-bin"
        touch "/root/$name/alive"
        echo "$name" >"/root/$name/name"
        cat >"/root/$name/cgi-bin/who" <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
echo "$REMOTE_ADDR" | sed 's/[][]//g; s/^::ffff://'
END
        chmod 755 "/root/$name/cgi-bin/who"
        serve "$name" 80 && serve "$name" 8443 || return 1
    done
}

# asked TIMES ADDRESS FILE [PORT]: what the client is told, how often
asked() {
    local _ answer
    for _ in $(seq "$1"); do
        answer=$(printf 'GET /%s HTTP/1.0\r\n\r\n' "$3" | in_namespace client nc -w 3 "$2" "${4:-80}" | tail -n 1)
        echo "${answer:-nothing}"
    done | sort | uniq -c | sed 's/^ *//'
}

# told WANTED ADDRESS FILE: ten times the same
told() {
    expect "10 $1" asked 10 "$2" "$3"
}

# shares ADDRESS: how many of sixty are at web1, and at web2, both of which get some
shares() {
    local said one other
    said=$(asked 60 "$1" name)
    one=$(sed -n 's/ web1$//p' <<<"$said") other=$(sed -n 's/ web2$//p' <<<"$said")
    [ "$((one + other))" = 60 ] && [ "$one" -gt 0 ] && [ "$other" -gt 0 ] || fail "$1: $said" || return 1
    echo "    $1: $one at web1, $other at web2"
    at_web1=$((at_web1 + one)) of_all=$((of_all + 60))
}

# Three for web1 where web2 has one; five standard deviations are let off.
as_weighted() {
    awk -v one="$at_web1" -v all="$of_all" 'BEGIN { exit !(one >= 0.75 * all - 5 * sqrt(0.1875 * all)) }' ||
        fail "web1 has $at_web1 of $of_all"
}

# dead COUNT: so many backends, in two families
dead() {
    [ "$(ciliate get services | grep -c quarantined)" = "$1" ]
}

# The old address, balanced by something else, and a connection through it with numbered lines.
old_balancer() {
    sysctl -qw net.ipv4.ip_forward=1
    ip addr add 192.0.2.10/32 dev eth0
    nft -f - <<'END'
table ip stands-in {
    chain in {
        type nat hook prerouting priority dstnat;
        ip daddr 192.0.2.10 tcp dport 80 dnat to 172.18.0.21:9000
    }
    chain out {
        type nat hook postrouting priority srcnat;
        ip daddr 172.18.0.21 tcp dport 9000 masquerade
    }
}
END
    nsenter --net=/run/netns/web1 nc -l -d 9000 >/tmp/old-lines &
    old_server=$!
    wait_for 10 sh -c 'nsenter --net=/run/netns/web1 ss -Hltn | grep -q :9000'
    touch /tmp/old
    nsenter --net=/run/netns/client bash -c '
        number=0
        while [ -e /tmp/old ]; do echo $((++number)); sleep 0.01; done | nc -N 192.0.2.10 80' &
    old_client=$!
    wait_for 10 [ -s /tmp/old-lines ]
}

# It has lost nothing until now.
old_goes_on() {
    local lines
    lines=$(wc -l </tmp/old-lines)
    wait_for 10 sh -c "[ \$(wc -l </tmp/old-lines) -ge $((lines + 50)) ]"
}

old_ends() {
    local lines
    old_goes_on || return 1
    rm /tmp/old
    wait "$old_client" "$old_server"
    lines=$(wc -l </tmp/old-lines)
    cmp -s /tmp/old-lines <(seq "$lines") || fail "the old connection lost lines" || return 1
    echo "    the old address, all the while: one TCP connection, $lines lines"
    nft delete table ip stands-in
}

# Health: who is dead gets nothing new, and the server of last resort is for when all are.
servers_die_and_come_back() {
    local address
    kill "${servers[web2:80]}"
    wait_for 30 dead 2 || return 1
    for address in "${FAMILIES[@]}"; do wait_for 30 told web1 "$address" name || return 1; done
    kill "${servers[web1:80]}"
    wait_for 30 dead 4 || return 1
    for address in "${FAMILIES[@]}"; do wait_for 30 told sorry "$address" name || return 1; done
    serve web1 80 && serve web2 80 || return 1
    wait_for 30 dead 0 || return 1
}

# web NUMBER: the server's configuration; its places are its own, since it is on the same system
web() {
    block 2 toml "$PAGE" | sed "s/web1/web$1/; s/\\(172\\.18\\.0\\.2\\|:18::2\\|244\\.2\\|244:2\\)1/\\1$1/g" >"/root/web$1.toml"
    cat >>"/root/web$1.toml" <<END
[health]
enabled = false
[paths]
runtime = "/run/web$1"
state = "/var/lib/web$1"
bpf = "/sys/fs/bpf/web$1"
END
    in_namespace "web$1" ciliate --config "/root/web$1.toml" apply >/dev/null
}

from_keepalived_to_services() {
    local address old_server old_client at_web1=0 of_all=0
    local -A servers=()
    make_wire
    old_balancer
    mkdir -p /root/downloads
    cp "$debs/one.deb" /root/downloads/ciliate_0.1.0-1_amd64.deb
    (cd /root/downloads && run_typed Install "$PAGE") || return 1
    block 1 toml "$PAGE" >/etc/ciliate/ciliate.toml
    run_typed Try "$PAGE" || return 1
    for address in "${FAMILIES[@]}"; do
        shares "$address" || return 1
        asked 10 "$address" name 8443 >/tmp/asked
        grep -qx '10 web[12]' /tmp/asked || fail "no affinity: $(cat /tmp/asked)"
    done
    # They see the director.
    told 172.18.0.3 192.0.2.11 cgi-bin/who
    told fd00:18::3 2001:db8:2::11 cgi-bin/who
    servers_die_and_come_back || return 1
    old_ends || return 1
    sed -i "0,/^external-ips.*/s//$(block 2 text "$PAGE")/" /etc/ciliate/ciliate.toml
    run_typed Move "$PAGE" || return 1
    shares 192.0.2.10 || return 1
    direct_return || return 1
    as_weighted || return 1
    run_typed Remove "$PAGE" || return 1
    kill "${servers[@]}"
    [ ! -e /etc/ciliate ] || fail "files are left"
}

# Servers see the client.
direct_return() {
    web 1
    web 2
    block 3 text "$PAGE" >/etc/ciliate/conf.d/50-direct.toml
    run_typed 'Direct return' "$PAGE" || return 1
    told 198.51.100.9 192.0.2.11 cgi-bin/who || return 1
    told 2001:db8:51::9 2001:db8:2::11 cgi-bin/who || return 1
    for address in "${FAMILIES[@]}"; do shares "$address" || return 1; done
    in_namespace web1 ciliate --config /root/web1.toml destroy >/dev/null
    in_namespace web2 ciliate --config /root/web2.toml destroy >/dev/null
}
