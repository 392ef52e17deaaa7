# What becomes of the service where something is missing: it says what, in `systemctl status` and the journal, the
# kernel stays as it was, and packets go on; once that is mended, the daemon comes back by itself. Sourced by
# lifecycle.sh, in the guest.

readonly DROP_INS=/run/systemd/system/$UNIT.d

# drop_in LINE…: lines of [Service] for the tests' time
drop_in() {
    mkdir -p "$DROP_INS"
    { echo '[Service]'; printf '%s\n' "$@"; } >"$DROP_INS/bad-path.conf"
    systemctl daemon-reload
}

no_drop_in() {
    rm -r "$DROP_INS"
    systemctl daemon-reload
}

# without_pins COMMAND: what it prints, but for what is in the BPF file system
without_pins() {
    "$@" | grep -v '^/sys/fs/bpf'
}

journal_says() {
    journalctl --sync
    journalctl -q -u "$UNIT" -g "$1" -o cat >/tmp/said
    [ -s /tmp/said ]
}

# refuses_to_start TEXT [JOURNAL]: says TEXT in `systemctl status`, and it or JOURNAL in the journal, changes nothing,
# and packets go on
refuses_to_start() {
    local journal=${2:-$1}
    without_pins kernel >/tmp/kernel-good
    ! systemctl restart "$UNIT" 2>/tmp/start || fail "it starts"
    systemctl status "$UNIT" --no-pager --lines 40 >/tmp/status || true
    grep -qE "$1" /tmp/status || fail "systemctl status does not say $1: $(cat /tmp/status)" || return 1
    # What a process says just before its end is not always found as the unit's; the next attempt says it again.
    wait_for 20 journal_says "$journal" || return 1
    echo "    $(tail -n 1 /tmp/said)"
    without_pins kernel | diff /tmp/kernel-good - || fail "the kernel changed"
    reaches_server || fail "no packets"
}

# It tries again by itself, and finds everything as it was.
comes_back() {
    wait_for 30 systemctl is-active "$UNIT" || return 1
    expect 'No changes.' ciliate plan
    expect '' systemctl --failed --no-legend || return 1
}

a_full_disk() {
    flood
    # Nothing fits into /var/lib/ciliate any more; the daemon needs no room there.
    mount -t tmpfs -o size=16k,nr_inodes=2 full /var/lib/ciliate
    dd if=/dev/zero of=/var/lib/ciliate/all bs=4k 2>/dev/null || true
    systemctl restart "$UNIT" || fail "it does not start with a full /var"
    expect 'No changes.' ciliate plan
    # What a purge needs doesn't fit either: the package stays installed as a whole, and the daemon runs.
    ! dpkg -r ciliate >/tmp/dpkg.log 2>&1 || fail "removed, and purge has no program"
    grep -q 'has no room for the program, which a purge needs; make some' /tmp/dpkg.log || fail "$(cat /tmp/dpkg.log)"
    expect installed dpkg-query -W -f '${db:Status-Status}' ciliate
    expect active systemctl is-active "$UNIT"
    umount /var/lib/ciliate
    # The lock and the socket are in /run/ciliate.
    systemctl stop "$UNIT"
    mount -t tmpfs -o size=4k,nr_inodes=1 full /run/ciliate
    refuses_to_start '/run/ciliate/[a-z.]*: No space left on device' || return 1
    umount /run/ciliate
    comes_back || return 1
    flood_ends
}

a_var_that_is_read_only() {
    mount --bind /var /var
    mount -o remount,bind,ro /var
    systemctl restart "$UNIT" || fail "it does not start with a read-only /var"
    expect 'No changes.' ciliate plan
    systemctl stop "$UNIT"
    umount /var
    # systemd could not remove its own folder of before.
    rm -rf /var/tmp/systemd-private-*-"$UNIT"-*
    mv /var/lib/ciliate /var/lib/ciliate-kept
    mount --bind /var /var
    mount -o remount,bind,ro /var
    # There is no folder, and systemd can't make it.
    refuses_to_start status=238/STATE_DIRECTORY 'execution directory in /var/lib: Read-only file system' || return 1
    umount /var
    mv /var/lib/ciliate-kept /var/lib/ciliate
    comes_back
}

# The daemon runs, and waits for one.
no_bpf_file_system() {
    local text='is not on a BPF file system; run .mount -t bpf bpf /sys/fs/bpf'
    flood
    without_pins kernel >/tmp/kernel-good
    mount -t tmpfs none /sys/fs/bpf
    systemctl restart "$UNIT" || fail "it does not start"
    systemctl status "$UNIT" --no-pager --lines 40 >/tmp/status || true
    grep -q "Status: .*not converged\|Status: .*$text" /tmp/status || fail "no status: $(cat /tmp/status)"
    ! ciliate status >/tmp/status || fail "converged"
    grep -q "$text" /tmp/status || fail "ciliate status: $(cat /tmp/status)" || return 1
    journalctl --sync
    journalctl -q -u "$UNIT" -g "$text" -o cat | tail -n 1 | grep . || fail "not in the journal"
    without_pins kernel | diff /tmp/kernel-good - || fail "the kernel changed"
    umount /sys/fs/bpf
    wait_for 60 ciliate status || return 1
    comes_back || return 1
    flood_ends
}

no_capability() {
    drop_in 'CapabilityBoundingSet=' 'CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF CAP_PERFMON'
    refuses_to_start 'this process lacks CAP_SYS_ADMIN: run ciliate as root; in a service' || return 1
    drop_in 'CapabilityBoundingSet=' 'CapabilityBoundingSet=CAP_SYS_ADMIN CAP_NET_RAW'
    refuses_to_start 'this process lacks CAP_NET_ADMIN: run' || return 1
    no_drop_in
    comes_back
}

an_old_kernel() {
    drop_in 'ExecStart=' 'ExecStart=setarch --uname-2.6 /usr/bin/ciliate run' 'LockPersonality=no'
    refuses_to_start 'this is Linux 2\.6\.[0-9]+.*, and ciliate needs 6\.1 or later' || return 1
    no_drop_in
    comes_back
}

# What needs no nft is done; what does waits for it.
no_nft() {
    local path
    path=$(command -v nft)
    flood
    mv "$path" "$path.away"
    systemctl restart "$UNIT" || fail "it does not start without nft"
    ! ciliate status >/tmp/status || fail "converged without nft"
    grep -q 'is not found.*install the package .nftables.' /tmp/status || fail "$(cat /tmp/status)" || return 1
    journalctl --sync
    journalctl -q -u "$UNIT" -g 'install the package .nftables.' -o cat | tail -n 1 | sed 's/^/    /'
    ip netns add late
    printf '[[endpoint]]\nname = "late"\nnetns = "/run/netns/late"\n' >/etc/ciliate/conf.d/50-late.toml
    systemctl reload "$UNIT" || true
    wait_for 10 in_namespace late ping -q -c 1 -W 2 10.244.1.10
    mv "$path.away" "$path"
    wait_for 60 ciliate status
    rm /etc/ciliate/conf.d/50-late.toml
    systemctl reload "$UNIT" || fail "not converged"
    ip netns del late
    flood_ends
}

# The kernel refuses one object: the rest is done, and the journal says which and has the number.
a_setting_that_it_may_not_write() {
    local setting=net.ipv4.conf.cilium_host.rp_filter before
    flood
    before=$(sysctl -n $setting)
    systemctl stop "$UNIT"
    sysctl -q -w $setting=$((1 - before))
    drop_in 'ReadOnlyPaths=/proc/sys/net'
    systemctl start "$UNIT" || fail "it does not start"
    ! ciliate status >/tmp/status || fail "converged"
    journalctl --sync
    # 30 is EROFS.
    journalctl -q -u "$UNIT" -o json CILIATE_ERRNO=30 MESSAGE_ID=0d7c5520d6c546a1bb1aace528dafc31 >/tmp/said
    grep -q "\"CILIATE_OBJECT\":\"[^\"]*$setting" /tmp/said || fail "no object and number: $(cat /tmp/said)"
    journalctl -q -u "$UNIT" -o cat CILIATE_ERRNO=30 | tail -n 1 | sed 's/^/    /'
    no_drop_in
    systemctl restart "$UNIT"
    comes_back || return 1
    expect "$before" sysctl -n $setting
    flood_ends
}

# It is refused as a whole at a start too, and what is in force stays.
bad_files_at_a_start() {
    echo 'node = 1' >/etc/ciliate/conf.d/60-bad.toml
    refuses_to_start '60-bad.toml:1:' || return 1
    rm /etc/ciliate/conf.d/60-bad.toml
    comes_back
}
