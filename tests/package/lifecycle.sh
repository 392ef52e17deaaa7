#!/usr/bin/env bash
# The life of the package on one system: the steps at the end, in that order. Runs in the guest; $1 is the folder
# with one.deb and two.deb.
set -uo pipefail
debs=$1
# shellcheck source=tests/package/guest.sh
. "$debs/guest.sh"

install_does_not_start() {
    files >/tmp/files-before
    make_network
    # It changes settings of its own devices, for good.
    networkd_comes_and_goes
    kernel >/tmp/kernel-before
    dpkg -i "$debs/one.deb" >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; return 1; }
    expect enabled systemctl is-enabled "$UNIT"
    expect inactive systemctl is-active "$UNIT"
    expect success property Result
    systemctl start "$UNIT"
    expect inactive systemctl is-active "$UNIT"
    expect no property ConditionResult
    expect '' systemctl --failed --no-legend
}

units_and_pages_are_sound() {
    expect '' systemd-analyze verify --man=yes /usr/lib/systemd/system/ciliated.service \
        /usr/lib/systemd/system/ciliate-netns@.service 2>&1
    local exposure
    exposure=$(systemd-analyze security --no-pager "$UNIT" | sed -n 's/.*exposure level.*: \([0-9.]*\).*/\1/p')
    echo "    exposure $exposure"
    awk -v is="$exposure" 'BEGIN { exit !(is != "" && is <= 3.5) }' || fail "exposure $exposure, at most 3.5"
    man -w ciliate >/dev/null && man -w ciliate-run >/dev/null && man -w ciliate.toml >/dev/null
    [ -d /etc/ciliate/conf.d ] || fail "no folder for the configuration"
}

configured_it_starts() {
    write_node_b
    node_b apply >/dev/null
    write_node_a
    ciliate check >/dev/null
    local begin end
    begin=$(date +%s%N)
    systemctl start "$UNIT"
    end=$(date +%s%N)
    echo "    start to READY: $(((end - begin) / 1000000)) ms with everything to make"
    expect active systemctl is-active "$UNIT"
    reaches_server || fail "no packets"
    ciliate status >/dev/null || fail "not converged: $(ciliate status)"
    property StatusText | grep -q '^converged: generation 1, ' || fail "status text: $(property StatusText)"
    # The health endpoint's namespace, made by a service with mounts of its own, is seen here.
    expect 'No changes.' ciliate plan
    echo "    resident: $(($(ps -o rss= -p "$(property MainPID)"))) kB"
}

journal_has_fields() {
    local one
    one=$(journalctl -u "$UNIT" -o json CILIATE_OBJECT='link cilium_host' | head -n 1)
    local field
    for field in '"CILIATE_GENERATION":"1"' '"CILIATE_OPERATION":"+"' '"CILIATE_DRIFT":"missing"' \
        '"CILIATE_ORIGIN":"node"' '"MESSAGE_ID":"fa669637e31f4825887a5689c4c026ec"'; do
        [[ $one == *"$field"* ]] || fail "no $field in $one" || return 1
    done
    journalctl -u "$UNIT" -x MESSAGE_ID=d1086ca4128548978ce9f9fdda182af1 |
        grep -q 'Subject: ciliate has started' || fail "not in the catalog"
    ip link del cilium_host
    wait_for 20 sh -c 'journalctl --sync; journalctl -q -o cat CILIATE_OBJECT="link cilium_host" \
        CILIATE_OPERATION=+ MESSAGE_ID=fa669637e31f4825887a5689c4c026ec | wc -l | grep -qx 2'
    wait_for 20 reaches_server
}

reload_good() {
    local generation
    flood
    printf '[routing]\nmtu = 1450\n' >/etc/ciliate/conf.d/50-mtu.toml
    systemctl reload "$UNIT"
    generation=$(ciliate status -o json | sed -n 's/.*"generation": \([0-9]*\).*/\1/p')
    [ "$generation" = 2 ] || fail "generation $generation"
    in_namespace client ip route | grep -q 'mtu 1400' || fail "$(in_namespace client ip route)"
    expect active systemctl is-active "$UNIT"
    rm /etc/ciliate/conf.d/50-mtu.toml
    systemctl reload "$UNIT"
    flood_ends
}

reload_bad() {
    local process generation
    process=$(property MainPID)
    flood
    printf '[[endpoint]]\nname = "x"\nnetns = "/run/netns/x"\naddresses = ["10.99.0.1"]\n' >/etc/ciliate/conf.d/60-bad.toml
    ! systemctl reload "$UNIT" 2>/tmp/reload || fail "a broken file is loaded"
    grep -q 'failed' /tmp/reload || fail "$(cat /tmp/reload)"
    expect active systemctl is-active "$UNIT"
    [ "$(property MainPID)" = "$process" ] || fail "another process"
    systemctl status "$UNIT" --no-pager --lines 40 >/tmp/status
    for text in 'ExecReload=/usr/bin/ciliate reload (code=exited, status=1/FAILURE)' \
        'configuration on disk refused' '10.99.0.1 of endpoint' '60-bad.toml:4:14' '\^\^\^'; do
        grep -q "$text" /tmp/status || fail "no $text in $(cat /tmp/status)" || return 1
    done
    [ "$(journalctl -u "$UNIT" -o json MESSAGE_ID=102300bf8d55448ba6f40e712a74dbcd |
        grep -c '"CILIATE_LINE":"4"')" -ge 1 ] || fail "no line in the journal"
    reaches_server || fail "no packets"
    rm /etc/ciliate/conf.d/60-bad.toml
    systemctl reload "$UNIT" || fail "the good files are refused"
    flood_ends
}

killed_it_comes_back() {
    local process
    process=$(property MainPID)
    flood
    kill -9 "$process"
    wait_for 30 sh -c "[ \"\$(systemctl show -p MainPID --value ciliated)\" != $process ] && systemctl is-active ciliated"
    expect 'No changes.' ciliate plan
    flood_ends
}

# Twice: to the next version and back.
upgrade_and_downgrade_lose_nothing() {
    local deb before after pids
    for deb in two one; do
        before=$(ciliate version)
        pids=$(property MainPID)
        flood
        dpkg -i "$debs/$deb.deb" >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; return 1; }
        after=$(ciliate version)
        [ "$(grep bpf_lxc <<<"$before")" != "$(grep bpf_lxc <<<"$after")" ] || fail "the same programs: $after"
        expect active systemctl is-active "$UNIT"
        [ "$(property MainPID)" != "$pids" ] || fail "the old daemon runs"
        expect 'No changes.' ciliate plan
        flood_ends || return 1
    done
}

restart_changes_nothing() {
    local begin end
    flood
    kernel >/tmp/kernel-restart
    begin=$(date +%s%N)
    systemctl restart "$UNIT"
    end=$(date +%s%N)
    echo "    restart to READY: $(((end - begin) / 1000000)) ms with everything right"
    kernel | diff /tmp/kernel-restart - || fail "the kernel changed"
    systemctl stop "$UNIT"
    kernel | diff /tmp/kernel-restart - || fail "the kernel changed"
    flood_ends
    systemctl start "$UNIT"
}

# What README.md in systemd/ shows.
a_service_with_an_endpoint() {
    cat >/etc/systemd/system/web.service <<'END'
[Unit]
BindsTo=ciliate-netns@web.service
After=ciliate-netns@web.service ciliated.service
[Service]
NetworkNamespacePath=/run/netns/web
ExecStart=nc -l -k 8080
END
    printf '[[endpoint]]\nname = "web"\nnetns = "/run/netns/web"\naddresses = ["10.244.0.80", "fd00:10:244::80"]\n' \
        >/etc/ciliate/conf.d/50-web.toml
    systemctl daemon-reload
    systemctl start web.service
    in_namespace web ip addr | grep -q 10.244.0.80 || fail "started without its address"
    in_namespace server ping -q -c 1 -W 2 fd00:10:244::80 >/dev/null || fail "no packets"
    wait_for 10 in_namespace server nc -z -w 2 10.244.0.80 8080
    systemctl stop web.service ciliate-netns@web.service
    [ ! -e /run/netns/web ] || fail "the namespace is left"
    rm /etc/ciliate/conf.d/50-web.toml /etc/systemd/system/web.service
    systemctl daemon-reload
    systemctl reload "$UNIT"
}

# Without the files of the package it would remove routes and rules, and set up devices.
networkd_leaves_it_alone() {
    printf '[routing]\ntable = 300\nrule-priority = 110\n' >/etc/ciliate/conf.d/50-table.toml
    systemctl reload "$UNIT"
    ip rule show priority 110 | grep -q 300 || fail "no rule"
    flood
    ip route show table all proto 203 >/tmp/routes
    ip -6 route show table all proto 203 >>/tmp/routes
    ip rule show >>/tmp/routes
    systemctl stop "$UNIT"
    networkd_comes_and_goes
    { ip route show table all proto 203; ip -6 route show table all proto 203; ip rule show; } |
        diff /tmp/routes - || fail "routes are gone"
    ! grep -E ' (cilium_|lxc)' /tmp/networkctl | grep -v unmanaged || fail "networkd manages what is ours"
    flood_ends
    expect 'No changes.' ciliate plan
    systemctl start "$UNIT"
    rm /etc/ciliate/conf.d/50-table.toml
    systemctl reload "$UNIT"
}

remove_stops_and_leaves_traffic() {
    flood
    dpkg -r ciliate >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; return 1; }
    [ ! -e /usr/bin/ciliate ] || fail "files are left"
    expect '' pgrep -f 'ciliate run'
    flood_ends || return 1
    reaches_server || fail "no packets"
    [ -e /etc/ciliate/ciliate.toml ] || fail "the configuration is gone"
}

# Node b is another instance's, in the same places but for its own folders.
purge_removes_everything_and_nothing_else() {
    find /sys/fs/bpf/node-b >/tmp/node-b
    echo mine >/etc/ciliate/notes
    dpkg -P ciliate >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; return 1; }
    find /sys/fs/bpf/node-b | diff /tmp/node-b - || fail "node b's pins are gone"
    expect mine cat /etc/ciliate/notes
    rm -r /etc/ciliate
    kernel | diff /tmp/kernel-before - || fail "something is left or gone in the kernel"
    files | diff /tmp/files-before - || fail "files are left or gone"
}

# The .rpm on the same system, whose dependencies rpm doesn't know: installed, started, upgraded, erased.
rpm_does_the_same() {
    local process
    rpm --initdb
    rpm -qa >/dev/null
    files >/tmp/files-before-rpm
    rpm --install --nodeps "$debs/one.rpm"
    expect inactive systemctl is-active "$UNIT"
    write_node_a
    systemctl start "$UNIT"
    reaches_server || fail "no packets"
    process=$(property MainPID)
    flood
    rpm --upgrade --nodeps --force "$debs/one.rpm"
    expect active systemctl is-active "$UNIT"
    [ "$(property MainPID)" != "$process" ] || fail "the old daemon runs"
    flood_ends
    flood
    cp /usr/bin/ciliate /tmp/ciliate
    rpm --erase --nodeps ciliate
    expect '' pgrep -f 'ciliate run'
    flood_ends
    /tmp/ciliate destroy >/dev/null
    kernel | diff /tmp/kernel-before - || fail "something is left in the kernel"
    rm -r /etc/ciliate /var/lib/ciliate
    # Folders of other packages, which are not there on a Debian, stay.
    files | grep -vx '/usr/share/fish\(/vendor_completions.d\)*\|/usr/share/licenses\|/usr/share/zsh/site-functions\|/usr/lib/NetworkManager\(/conf.d\)*\|.*/networkd.conf.d' | diff /tmp/files-before-rpm - ||
        fail "files are left or gone"
}

steps=(
    install_does_not_start
    units_and_pages_are_sound
    configured_it_starts
    journal_has_fields
    reload_good
    reload_bad
    killed_it_comes_back
    upgrade_and_downgrade_lose_nothing
    restart_changes_nothing
    a_service_with_an_endpoint
    networkd_leaves_it_alone
    remove_stops_and_leaves_traffic
    purge_removes_everything_and_nothing_else
    rpm_does_the_same
)
for step in "${steps[@]}"; do
    begin=$SECONDS
    # In a shell of its own, which ends at the first command that fails.
    (set -e; "$step") >/tmp/output 2>&1 &
    timer=$!
    (sleep 120; kill -KILL "$timer") 2>/dev/null &
    limit=$!
    wait "$timer"
    code=$?
    kill "$limit" 2>/dev/null
    cat /tmp/output
    if [ "$code" != 0 ] || grep -q '^FAILED' /tmp/output; then
        echo "not ok $step"
        journalctl --no-pager -n 30 -o short-monotonic -u "$UNIT" -u init.scope
        exit 1
    fi
    echo "ok $step ($((SECONDS - begin)) s)"
done
echo "package tier: ${#steps[@]} steps passed"
