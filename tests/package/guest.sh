# What the steps of lifecycle.sh are made of. Sourced in the guest.

# Node a is this system; node b and the endpoints are namespaces.
readonly UNIT=ciliated.service

fail() {
    echo "FAILED: $*"
    return 1
}

# expect WANTED COMMAND…: what it prints
expect() {
    local wanted=$1 found
    shift
    found=$("$@") || true
    [ "$found" = "$wanted" ] || fail "$* says: $found; wanted: $wanted"
}

# wait_for SECONDS COMMAND…
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "still not: $*" || return 1
        sleep 0.1
    done
}

property() {
    systemctl show --property "$1" --value "$UNIT"
}

# in_namespace NAME COMMAND…: with the mounts of this system, unlike `ip netns exec`
in_namespace() {
    nsenter --net="/run/netns/$1" "${@:2}"
}

# A wire to node b, and namespaces for endpoints on both.
make_network() {
    ip link set lo up
    local name
    for name in node-b server; do ip netns add "$name"; done
    ip link add eth0 type veth peer name eth0 netns node-b
    # Somebody else's, for networkd to set up.
    ip link add spare0 type veth peer name spare1
    ip link set spare1 up
    ip addr add 172.18.0.3/24 dev eth0
    ip addr add fd00:18::3/64 dev eth0 nodad
    ip link set eth0 up
    ip -n node-b link set lo up
    ip -n node-b addr add 172.18.0.2/24 dev eth0
    ip -n node-b addr add fd00:18::2/64 dev eth0 nodad
    ip -n node-b link set eth0 up
    ip route add default via 172.18.0.2
}

node_b() {
    in_namespace node-b ciliate --config /root/node-b.toml "$@"
}

# systemd-networkd starts with a file that matches every device, and ends again.
networkd_comes_and_goes() {
    local folder=/etc/systemd/network
    printf '[Match]\nName=eth0\n[Network]\nLinkLocalAddressing=ipv6\nIPv6AcceptRA=no\nKeepConfiguration=yes\n' \
        >$folder/80-eth0.network
    printf '[Match]\nName=*\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n' >$folder/90-all.network
    systemctl start systemd-networkd
    wait_for 30 sh -c 'networkctl --no-legend | grep " configured" | grep -c "eth0\\|spare0" | grep -qx 2'
    networkctl --no-legend >/tmp/networkctl
    systemctl stop systemd-networkd.socket systemd-networkd
    rm $folder/80-eth0.network $folder/90-all.network
}

# typed SECTION PAGE: the commands of a section, as a reader types them, each with the lines it should print
typed() {
    awk -v section="## $1" '
        /^## / { inside = $0 == section; next }
        inside && /^```console/ { shown = 1; next }
        /^```/ { shown = 0 }
        inside && shown' "$2"
}

# block NUMBER LANGUAGE PAGE
block() {
    awk -v wanted="$1" -v opens="^\`\`\`$2\$" '
        $0 ~ opens { inside = ++count == wanted; next }
        /^```/ { inside = 0 }
        inside' "$3"
}

# run_typed SECTION PAGE [FROM [TO]]: runs them, or some of them by their numbers; where output is shown, it has to
# be that, else the command has to succeed
run_typed() {
    local line command='' wanted='' count=0 from=${3:-1} to=${4:-999}
    while IFS= read -r line; do
        if [[ $line == '# '* ]]; then
            run_one "$command" "$wanted" || return 1
            command= wanted= count=$((count + 1))
            [ "$count" -lt "$from" ] || [ "$count" -gt "$to" ] || command=${line#\# }
        elif [ -n "$command" ]; then
            wanted+=${wanted:+$'\n'}$line
        fi
    done < <(typed "$1" "$2")
    run_one "$command" "$wanted" || return 1
    [ "$count" -ge "$from" ] || fail "no commands below $1 in $2"
}

run_one() {
    local found code=0 begin
    [ -n "$1" ] || return 0
    begin=$(date +%s%N)
    # What would go on until it is stopped.
    [[ $1 != 'ciliate monitor'* ]] || set -- "timeout 1 $1 || [ \$? = 124 ]" "$2"
    found=$(eval "$1" 2>/tmp/typed-errors </dev/null) || code=$?
    echo "    # $1: $((($(date +%s%N) - begin) / 1000000)) ms"
    if [ -n "$2" ]; then
        [ "$found" = "$2" ] || fail "$1 prints: $found; the page says: $2"
    else
        [ "$code" = 0 ] || fail "$1 ends with $code: $found $(cat /tmp/typed-errors)"
    fi
}

# The twelve lines that an operator edits.
write_node_a() {
    block 1 toml "$debs/two-machines.md" >/etc/ciliate/ciliate.toml
}

# Node b is on the same system, so it has places of its own.
write_node_b() {
    block 2 toml "$debs/two-machines.md" |
        sed 's/^cidrs = \["10.244.1/addresses = ["172.18.0.2"]\n&/' >/root/node-b.toml
    cat >>/root/node-b.toml <<'END'
[health]
enabled = false
[paths]
runtime = "/run/node-b"
bpf = "/sys/fs/bpf/node-b"
END
}

# A service with an endpoint, as README.md in systemd/ has it.
write_web() {
    mkdir -p /etc/systemd/system/web.service.d
    printf '[Service]\nExecStart=nc -l -k 8080\n[Install]\nWantedBy=multi-user.target\n' \
        >/etc/systemd/system/web.service
    block 1 ini "$debs/README.systemd.md" >/etc/systemd/system/web.service.d/endpoint.conf
    block 1 text "$debs/README.systemd.md" >/etc/ciliate/conf.d/50-web.toml
    systemctl daemon-reload
}

reaches_server() {
    in_namespace client ping -q -c 1 -W 2 10.244.1.10 >/dev/null &&
        in_namespace client ping -q -c 1 -W 2 fd00:10:244:1::10 >/dev/null
}

# flood: packets to the server, counted, until flood_ends; IPv4, IPv6, and a connection with numbered lines.
flood() {
    local address
    : >/tmp/lines
    nsenter --net=/run/netns/server nc -l -d 10.244.1.10 9000 >/tmp/lines &
    flood_server=$!
    wait_for 10 sh -c 'nsenter --net=/run/netns/server ss -Hltn | grep -q :9000'
    touch /tmp/flooding
    nsenter --net=/run/netns/client bash -c '
        number=0
        while [ -e /tmp/flooding ]; do echo $((++number)); sleep 0.01; done | nc -N 10.244.1.10 9000' &
    flood_client=$!
    flood_pings=()
    for address in 10.244.1.10 fd00:10:244:1::10; do
        nsenter --net=/run/netns/client ping -q -i 0.005 -W 5 "$address" >"/tmp/ping-$address" &
        flood_pings+=($!)
    done
}

# Every packet was answered, every line arrived, in order, on the one connection.
flood_ends() {
    local process address sent answered lines
    # What happened is over: some packets more.
    lines=$(wc -l </tmp/lines)
    wait_for 60 sh -c "[ \$(wc -l </tmp/lines) -ge $((lines + 50)) ]" || return 1
    for process in "${flood_pings[@]}"; do kill -INT "$process"; done
    for process in "${flood_pings[@]}"; do wait "$process" || true; done
    rm /tmp/flooding
    wait "$flood_client" "$flood_server"
    for address in 10.244.1.10 fd00:10:244:1::10; do
        read -r sent answered < <(sed -n 's/^\([0-9]*\) packets transmitted, \([0-9]*\) received.*/\1 \2/p' \
            "/tmp/ping-$address")
        # The one that is on its way when it ends may be one of them.
        [ "$answered" -ge "$((sent - 1))" ] && [ "$sent" -gt 20 ] ||
            fail "$address: $sent sent, $answered answered" || return 1
        echo "    $address: $sent packets sent, $answered answered"
    done
    lines=$(wc -l </tmp/lines)
    [ "$lines" -ge 50 ] && cmp -s /tmp/lines <(seq "$lines") || fail "the connection lost lines"
    echo "    one TCP connection: $lines lines"
}

# Every file that is not a log, a cache, or of dpkg's own.
files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path /dev -o -path /run/job -o -path /var/log \
        -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /root -o -path /run/systemd -o -path /run/log \
        -o -path /run/netns -o -path /var/lib/systemd -o -path /run/sudo \) -prune -o -print | sort
    find /run /var/lib/systemd /sys/fs/bpf \( -path /run/systemd -o -path /run/job -o -path /run/log -o -path /run/netns \
        -o -path '*/node-b' \) -prune -o ! -type s -print | grep -v '/random-seed$\|/timers/' | sort
}

# What the kernel has, without counters.
kernel() {
    ip -d link | sed 's/ promiscuity.*//'
    ip addr show scope global | sed 's/valid_lft.*//'
    ip rule
    ip -6 rule
    ip route show table all | grep -v '^multicast\|^ff00\|^broadcast'
    ip -6 route show table all | grep -v '^multicast\|^ff00'
    nft list ruleset
    tc qdisc show
    sysctl -a --pattern '^net\.' 2>/dev/null | grep -v 'nf_conntrack_count\|random\|neigh\|\.stable_secret'
    find /sys/fs/bpf -not -path '*/node-b*'
    ls /run/netns
}
