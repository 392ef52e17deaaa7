#!/usr/bin/env bash
# Boots a throw-away Debian 12 with systemd as process 1, on this machine's kernel (systemd-nspawn), in network,
# cgroup and BPF file systems of its own; runs one command in it; ends with its exit code. Nothing that happens
# inside is kept. When the command ends with 90, the system is shut down and boots again, with the files it has and
# nothing else, and the command is run again.
#
#   boot.sh TREE SHARED COMMAND…     SHARED is seen, read-only, at the same path
set -euo pipefail
tree=$1 shared=$2
shift 2
limit=900
boots_max=5
work=$(mktemp -d "${TMPDIR:-/tmp}/ciliate-boot.XXXXXX")
cgroups=() guest= reader=

cleanup() {
    [ -z "$guest" ] || kill "$guest" 2>/dev/null || true
    [ -z "$guest" ] || wait "$guest" 2>/dev/null || true
    [ -z "$reader" ] || kill "$reader" 2>/dev/null || true
    local cgroup
    for cgroup in "${cgroups[@]}"; do
        # Whatever is in there was started in here.
        [ ! -e "$cgroup/cgroup.kill" ] || echo 1 >"$cgroup/cgroup.kill" || true
        for _ in $(seq 50); do
            [ -d "$cgroup" ] || break
            find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && break
            sleep 0.1
        done
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir -p "$work/job" "$work/bpf" "$work/over"
printf '#!/bin/bash\ncd /root\nexport LC_ALL=C HOME=/root SYSTEMD_PAGER=cat SYSTEMD_COLORS=0\n' >"$work/job/run"
printf '%q ' "$@" >>"$work/job/run"
cat >"$work/job/start" <<'END'
#!/bin/bash
systemctl is-system-running --wait >/run/job/state
bash /run/job/run </dev/null >/run/job/out 2>&1
echo $? >/run/job/code
systemctl --no-block exit 0
END
cat >"$work/job/job.service" <<'END'
[Unit]
Description=what the tests run
[Service]
ExecStart=/bin/bash /run/job/start
KillMode=process
END
mkfifo "$work/job/out"
cat "$work/job/out" &
reader=$!
# It reads on from one boot to the next.
exec 9>"$work/job/out"

# nspawn puts its cgroup below the caller's, and runs may be concurrent.
while read -r _ mount kind options _; do
    if [ "$kind" = cgroup2 ] || [[ $options == *name=systemd* ]]; then
        cgroups+=("$mount/ciliate-boot.$$")
    fi
done </proc/self/mounts
for cgroup in "${cgroups[@]}"; do mkdir -p "$cgroup"; done

masked=()
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-kernel.socket \
    systemd-udevd-control.socket; do
    masked+=("systemd.mask=$unit")
done
options=(
    --quiet --directory="$work/over/root" --machine="ciliate$$"
    --register=no --keep-unit --console=pipe --private-network --resolv-conf=off --timezone=off
    --capability=all "--system-call-filter=bpf perf_event_open add_key request_key keyctl"
    --bind="$work/job:/run/job" --bind="$work/bpf:/sys/fs/bpf" --bind-ro="$shared"
    --bind-ro="$work/job/job.service:/run/systemd/system/job.service"
)
(
    exec 9>&-
    for cgroup in "${cgroups[@]}"; do echo "$BASHPID" >"$cgroup/cgroup.procs"; done
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
    # shellcheck disable=SC2016
    exec timeout -s TERM -k 10 "$limit" unshare --mount --propagation slave sh -ec '
        work=$1 tree=$2 boots=$3
        shift 3
        mkdir -p /run/systemd/nspawn
        mount -t tmpfs tmpfs /run/systemd/nspawn
        mount -t tmpfs tmpfs "$work/over"
        mkdir "$work/over/upper" "$work/over/work" "$work/over/root"
        mount -t overlay -o "lowerdir=$tree,upperdir=$work/over/upper,workdir=$work/over/work" \
            overlay "$work/over/root"
        for boot in $(seq "$boots"); do
            mount -t bpf bpf "$work/bpf"
            rm -f "$work/job/code"
            "$@" || code=$?
            umount "$work/bpf"
            [ "$(cat "$work/job/code" 2>/dev/null)" = 90 ] || exit "${code:-0}"
        done
        echo "boot.sh: $boots boots are enough"
        exit 1' sh "$work" "$tree" "$boots_max" systemd-nspawn "${options[@]}" \
        --boot systemd.unit=multi-user.target systemd.wants=job.service systemd.show_status=0 "${masked[@]}"
) </dev/null >"$work/console" 2>&1 &
guest=$!
code=0
wait "$guest" || code=$?
guest=
exec 9>&-
if [ ! -s "$work/job/code" ] || [ "$(cat "$work/job/code")" = 90 ]; then
    echo "boot.sh: the guest ended with $code before the command did:" >&2
    tail -n 40 "$work/console" >&2
    exit 125
fi
wait "$reader" || true
reader=
exit "$(cat "$work/job/code")"
