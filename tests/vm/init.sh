#!/bin/sh
# PID 1 of a guest, in its first root: mounts this machine's files below a file system in memory, and goes on
# there with guest.sh. It stays PID 1: the kernel looks for modprobe in the root that PID 1 has.
# shellcheck disable=SC2154 # modules, next and dir are settings
export PATH=/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/console 2>&1
# shellcheck source=/dev/null
. /settings

fail() {
    echo "init: $*"
    echo b >/proc/sysrq-trigger
}

for module in /modules/*.ko; do
    insmod "$module" || fail "cannot load $module"
done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /lower || fail 'cannot mount the files'
mount -t tmpfs -o mode=755,size=80% upper /upper
mkdir /upper/work
cp -a /files /upper/files
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /root || fail 'cannot mount a root'
mkdir -p /root/usr/lib/modules
mount --bind "/lower$modules" /root/usr/lib/modules || fail 'cannot mount the modules'
exec switch_root /root /bin/bash "$next" "$dir"
