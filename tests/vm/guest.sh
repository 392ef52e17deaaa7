#!/usr/bin/env bash
# PID 1 of a guest, in this machine's files: mounts what a running system has, runs the command, hands back its
# output and exit code by virtio-serial, and ends the guest.

dir=$1

# port NAME: the device of a virtio-serial port.
port() {
    local candidate name
    for candidate in /sys/class/virtio-ports/*; do
        read -r name <"$candidate/name" && [ "$name" = "$1" ] && echo "/dev/${candidate##*/}"
    done
}

mount -t tmpfs -o mode=755 run /run
mkdir -p /dev/pts /dev/shm /run/lock /run/netns
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
ln -s /proc/self/fd /dev/fd
# nft reads what it is told to do from this one.
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
# The folders of the programs that are started often come first.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin
ip link set lo up
echo guest >/proc/sys/kernel/hostname

output=$(port output) result=$(port result)
env -i HOME=/root USER=root LOGNAME=root TERM=dumb PATH="$PATH" \
    bash -c "$(<"$dir/command")" </dev/null >"$output" 2>&1
echo $? >"$result"
echo b >/proc/sysrq-trigger
