# A system that boots with the package: the node is back before network-online.target. Sourced by lifecycle.sh, in
# the guest. The wire and node b are made by a unit, as a real machine's devices are there by themselves.

# What is ordered after the network tries once, and has to get through.
probe_unit() {
    cat <<'END'
[Unit]
Wants=network-online.target
After=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=nsenter --net=/run/netns/client ping -q -c 1 -W 1 10.244.1.10
ExecStart=nsenter --net=/run/netns/client ping -q -c 1 -W 1 fd00:10:244:1::10
[Install]
WantedBy=multi-user.target
END
}

wire_unit() {
    cat <<'END'
[Unit]
Before=network-pre.target ciliated.service
Wants=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=bash -ec '. /root/guest.sh; make_network; node_b apply'
[Install]
WantedBy=multi-user.target
END
}

prepared_for_a_boot() {
    local name
    dpkg -i "$debs/one.deb" >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; return 1; }
    cp "$debs/guest.sh" "$debs/two-machines.md" "$debs/README.systemd.md" /root
    write_node_a
    write_web
    probe_unit >/etc/systemd/system/probe.service
    wire_unit >/etc/systemd/system/wire.service
    systemctl daemon-reload
    run_typed Boot /root/two-machines.md
    for name in probe wire; do systemctl enable --quiet "$name"; done
    systemctl enable --quiet web 2>/dev/null
}

# microseconds UNIT PROPERTY
microseconds() {
    systemctl show --property "$2" --value "$1"
}

the_node_is_back_before_the_network_is_online() {
    expect '' systemctl --failed --no-legend
    expect $'active\nactive' systemctl is-active "$UNIT" probe.service
    local ready online
    ready=$(microseconds "$UNIT" ActiveEnterTimestampMonotonic)
    online=$(microseconds network-online.target ActiveEnterTimestampMonotonic)
    [ "$ready" -gt 0 ] && [ "$ready" -le "$online" ] || fail "ready at $ready, the network online at $online"
    echo "    ciliated started at $(microseconds "$UNIT" InactiveExitTimestampMonotonic), ready at $ready, network-online.target at $online (microseconds)"
    expect 'No changes.' ciliate plan
    # The service that starts at boot has its address from its first moment.
    expect active systemctl is-active web.service
    wait_for 10 in_namespace server nc -z -w 2 10.244.0.80 8080
    dpkg -P ciliate >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; return 1; }
    [ -z "$(ls /sys/fs/bpf | grep -v 'node-b\|\.debug$')" ] || fail "pins are left: $(ls /sys/fs/bpf)"
}
