#!/usr/bin/env bash
# The life of the package on one system: the steps at the end, in that order; or those that are named, which need
# what those before them leave. Runs in the guest.
#
#   lifecycle.sh FOLDER [STEP…]     FOLDER has one.deb, two.deb, one.rpm and kubernetes.deb
set -uo pipefail
debs=$1
# shellcheck source=tests/package/guest.sh
. "$debs/guest.sh"
# shellcheck source=tests/package/bad_paths.sh
. "$debs/bad_paths.sh"
# shellcheck source=tests/package/boot_order.sh
. "$debs/boot_order.sh"
# shellcheck source=tests/package/endpoints.sh
. "$debs/endpoints.sh"
# shellcheck source=tests/package/from_keepalived.sh
. "$debs/from_keepalived.sh"
# shellcheck source=tests/package/main_job.sh
. "$debs/main_job.sh"
# shellcheck source=tests/package/kubernetes.sh
. "$debs/kubernetes.sh"

install_does_not_start() {
    files >/tmp/files-before
    make_network
    # It changes settings of its own devices, for good.
    networkd_comes_and_goes
    kernel >/tmp/kernel-before
    (
        mkdir -p /root/downloads
        cp "$debs/one.deb" /root/downloads/ciliate_0.1.0-1_amd64.deb
        cd /root/downloads
        run_typed Install "$debs/two-machines.md"
    )
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
    # Whatever systemd would have tighter has its reason in README.md of systemd/.
    systemd-analyze security --no-pager "$UNIT" | awk '$1 == "-" && $NF ~ /^[0-9.]+$/ { print $2 }' >/tmp/points
    [ "$(wc -l </tmp/points)" -gt 10 ] || fail "no points: $(cat /tmp/points)"
    local point
    while read -r point; do
        grep -qF "\`${point%%|*}" "$debs/README.systemd.md" || fail "no reason for $point"
    done </tmp/points
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
    run_typed Start "$debs/two-machines.md"
    end=$(date +%s%N)
    echo "    started, seen and pinged after $(((end - begin) / 1000000)) ms"
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

# The number of the configuration in force.
generation() {
    ciliate status -o json | sed -n 's/.*"generation": \([0-9]*\).*/\1/p'
}

reload_good() {
    local before
    before=$(generation)
    flood
    printf '[routing]\nmtu = 1450\n' >/etc/ciliate/conf.d/50-mtu.toml
    systemctl reload "$UNIT"
    expect $((before + 1)) generation
    run_typed Change "$debs/two-machines.md"
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

# A private key that systemd has for the service: the service can read it, and the commands beside it find the same.
a_private_key_of_systemd() {
    local wanted
    (umask 077; head -c 32 /dev/urandom | base64 >/root/wireguard.key)
    {
        printf '[node]\ncidrs = ["10.244.0.0/24"]\n[encryption]\nmode = "wireguard"\n'
        printf 'private-key-file = "/root/wireguard.key"\n'
    } >/tmp/key.toml
    wanted=$(ciliate -c /tmp/key.toml wireguard pubkey)
    drop_in 'LoadCredential=wireguard.key:/root/wireguard.key'
    flood
    systemctl restart "$UNIT"
    expect "$wanted" ciliate wireguard pubkey
    # /root is not there for the service.
    nsenter --target "$(property MainPID)" --mount cat "/run/credentials/$UNIT/wireguard.key" |
        cmp - /root/wireguard.key || fail "the service has another key"
    ! ciliate wireguard rotate 2>/tmp/rotated || fail "a credential is replaced"
    grep -q 'credential of systemd' /tmp/rotated || fail "$(cat /tmp/rotated)"
    no_drop_in
    systemctl restart "$UNIT"
    flood_ends
    rm /root/wireguard.key /tmp/key.toml
}

# The watchdog ends a daemon that hangs; here sooner than in the package.
hung_it_is_started_anew() {
    local process
    drop_in 'WatchdogSec=2s'
    systemctl restart "$UNIT"
    process=$(property MainPID)
    flood
    kill -STOP "$process"
    wait_for 30 sh -c "[ \"\$(systemctl show -p MainPID --value ciliated)\" != $process ] && systemctl is-active ciliated"
    journalctl --sync
    journalctl -q -u "$UNIT" -g 'Watchdog timeout' -o cat | grep -q . || fail "not by the watchdog"
    expect 'No changes.' ciliate plan
    flood_ends || return 1
    no_drop_in
    systemctl restart "$UNIT"
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
    run_typed Remove "$debs/two-machines.md" 1 1
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
    run_typed Remove "$debs/two-machines.md" 2
    systemctl stop ciliate-netns@client
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
    rpm --install --nodeps "$debs/one.rpm" 2>/dev/null
    expect inactive systemctl is-active "$UNIT"
    write_node_a
    systemctl start "$UNIT" ciliate-netns@client
    reaches_server || fail "no packets"
    process=$(property MainPID)
    flood
    rpm --upgrade --nodeps --force "$debs/one.rpm" 2>/dev/null
    expect active systemctl is-active "$UNIT"
    [ "$(property MainPID)" != "$process" ] || fail "the old daemon runs"
    flood_ends
    flood
    cp /usr/bin/ciliate /tmp/ciliate
    rpm --erase --nodeps ciliate 2>/dev/null
    expect '' pgrep -f 'ciliate run'
    flood_ends
    /tmp/ciliate destroy >/dev/null
    ip netns delete client
    systemctl stop ciliate-netns@client
    kernel | diff /tmp/kernel-before - || fail "something is left in the kernel"
    # systemd made it for the service, which is gone.
    rmdir /run/ciliate
    rm -r /etc/ciliate /var/lib/ciliate
    # Folders of other packages, which may not be there on a Debian, stay.
    diff <(without_folders_of_others </tmp/files-before-rpm) <(files | without_folders_of_others) ||
        fail "files are left or gone"
}

without_folders_of_others() {
    grep -vx '/usr/share/fish\(/vendor_completions.d\)*\|/usr/share/licenses\|/usr/share/zsh/site-functions\|/usr/lib/NetworkManager\(/conf.d\)*\|.*/networkd.conf.d'
}

steps=(
    install_does_not_start
    units_and_pages_are_sound
    configured_it_starts
    the_main_job
    journal_has_fields
    reload_good
    reload_bad
    killed_it_comes_back
    hung_it_is_started_anew
    a_private_key_of_systemd
    upgrade_and_downgrade_lose_nothing
    restart_changes_nothing
    a_service_with_an_endpoint
    a_container_of_nspawn
    a_container_of_nspawn_by_path
    a_container_of_podman
    networkd_leaves_it_alone
    a_full_disk
    a_var_that_is_read_only
    no_bpf_file_system
    no_capability
    an_old_kernel
    no_nft
    a_setting_that_it_may_not_write
    bad_files_at_a_start
    remove_stops_and_leaves_traffic
    purge_removes_everything_and_nothing_else
    rpm_does_the_same
    from_keepalived_to_services
    prepared_for_a_boot
    boots
    the_node_is_back_before_the_network_is_online
    kubernetes_alone_configures_it
    kubernetes_removed_and_purged
    boots
    kubernetes_alone_configures_it_at_boot
)
[ "$#" = 1 ] || steps=("${@:2}")

# Where a boot goes on.
done_before=/root/steps-done
first=$(cat "$done_before" 2>/dev/null || echo 0)
for ((at = first; at < ${#steps[@]}; at++)); do
    step=${steps[at]}
    if [ "$step" = boots ]; then
        echo $((at + 1)) >"$done_before"
        exit 90
    fi
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
        journalctl --no-pager -n 30 -o short-monotonic -u "$UNIT" -u "$ADAPTER" -u init.scope
        exit 1
    fi
    echo "ok $step ($((SECONDS - begin)) s)"
done
echo "package tier: ${#steps[@]} steps passed"
