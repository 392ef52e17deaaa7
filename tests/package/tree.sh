#!/usr/bin/env bash
# Makes the tree of files of a Debian with systemd, from this machine's own package sources, and prints where it is. It
# is made once: when this file changes, again.
#
#   tree.sh FOLDER [SUITE]     bookworm, or another one that the same sources have
set -euo pipefail
folder=$1 suite=${2:-bookworm}
tree=$folder/tree-$suite-$(sha256sum "$0" | cut -c 1-12)
if [ ! -e "$tree/done" ]; then
    rm -rf "$folder/tree-$suite"-*
    mkdir -p "$tree/sources"
    # Of all files of sources those that have the release itself; others' names only begin as it does.
    mapfile -t sources < <(grep -lsE '(^|[[:space:]])bookworm([[:space:]]|$)' \
        /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} | xargs -r grep -lw main || true)
    [ "${#sources[@]}" -gt 0 ] || {
        echo "error: no package sources of Debian 12 (bookworm) below /etc/apt" >&2
        exit 1
    }
    for at in "${!sources[@]}"; do
        sed "s/bookworm/$suite/g" "${sources[at]}" >"$tree/sources/$(basename "${sources[at]}")"
        sources[at]=$tree/sources/$(basename "${sources[at]}")
    done
    mmdebstrap --quiet --variant=minbase --mode=root --format=directory \
        --include=systemd,systemd-sysv,dbus,iproute2,nftables,iputils-ping,netcat-openbsd,procps,man-db,rpm,systemd-container,podman,busybox-static \
        --aptopt='APT::Sandbox::User "root"' --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io \
        "$suite" "$tree/root" "${sources[@]}" >"$tree/log" 2>&1 || {
        tail -n 20 "$tree/log" >&2
        exit 1
    }
    # apt's questions are answered.
    echo 'APT::Get::Assume-Yes "true";' >"$tree/root/etc/apt/apt.conf.d/90-yes"
    echo 0123456789abcdef0123456789abcdef >"$tree/root/etc/machine-id"
    echo node-a >"$tree/root/etc/hostname"
    # Nobody logs in, and nothing is updated.
    for unit in console-getty.service getty.target apt-daily.timer apt-daily-upgrade.timer \
        dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer \
        systemd-timesyncd.service systemd-logind.service systemd-modules-load.service; do
        ln -sf /dev/null "$tree/root/etc/systemd/system/$unit"
    done
    touch "$tree/done"
fi
echo "$tree/root"
