#!/usr/bin/env bash
# Boots a kernel in QEMU and runs a command there. The guest sees this machine's files, at their places;
# what it writes stays in its memory and ends with it. It has no network.
#
# Prints what the command prints, and exits as it does: 124 if the time was over, 125 if the guest ended without
# a result; both with the last lines of its console. VM_PROGRAM in the environment is a program to keep in memory.
set -euo pipefail

usage='usage: boot.sh KERNEL-FOLDER kvm|tcg|icount MEMORY SECONDS COMMAND [ARGUMENT…]'
kernel=${1:?$usage} accelerator=${2:?$usage} memory=${3:?$usage} seconds=${4:?$usage}
shift 4
[ $# -gt 0 ] || { echo "$usage" >&2; exit 125; }

here=$(cd "$(dirname "$0")" && pwd)
kernel=$(realpath "$kernel")
release=$(cat "$kernel/release")
dir=$(mktemp -d "${TMPDIR:-/tmp}/ciliate-vm.XXXXXX")
guest='' reader=''
# shellcheck disable=SC2317 # the trap calls it
clean_up() {
    local process
    for process in $guest $reader; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# add FOLDER PROGRAM…: programs of this machine with their libraries, at their places below a folder.
add() {
    local root=$1 program file
    shift
    for program in "$@"; do
        program=$(PATH=$PATH:/usr/sbin:/sbin type -P "$program") || continue
        for file in "$program" $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*'); do
            # Below the folder that it is really in: /lib may be a link.
            file=$(realpath "${file%/*}")/${file##*/}
            [ ! -e "$root$file" ] || continue
            mkdir -p "$root${file%/*}"
            cp -L "$file" "$root$file"
        done
    done
}

# The first root: what is needed to mount the second, which is this machine's.
first=$dir/first
mkdir -p "$first"/{modules,proc,sys,dev,run,lower,upper,root,usr/{bin,sbin,lib,lib64}}
for link in bin sbin lib lib64; do
    ln -s "usr/$link" "$first/$link"
done
add "$first" sh mount mkdir cp insmod switch_root
# Programs that tests start often. Each file that a program opens is a dozen messages between the kernels, an
# emulated one spends most of its time on them; so these are in the guest's memory.
programs=(sh bash ip tc nft ping bpftool nsenter unshare sysctl sleep timeout cat grep sed awk head tail wc tr true sort
    ls rm mkdir mount umount kill socat tcpdump strace)
add "$first/files" "${programs[@]}"
mkdir -p "$first/files/etc"
cp /etc/ld.so.cache "$first/files/etc/"
if [ -n "${VM_PROGRAM:-}" ]; then
    mkdir -p "$first/files${VM_PROGRAM%/*}"
    strip -o "$first/files$VM_PROGRAM" "$VM_PROGRAM"
fi
at=100
for module in virtio_pci virtio_console virtio_rng overlay 9pnet_virtio 9p; do
    while read -r word file _; do
        [ "$word" = insmod ] || continue
        compgen -G "$first/modules/*-${file##*/}" >/dev/null && continue
        cp "$file" "$first/modules/$at-${file##*/}"
        at=$((at + 1))
    done < <(modprobe -d "$kernel" -S "$release" --show-depends "$module")
done
cp "$here/init.sh" "$first/init"
{
    printf 'modules=%q\n' "$kernel/lib/modules"
    printf 'next=%q\n' "$here/guest.sh"
    printf 'dir=%q\n' "$dir"
} >"$first/settings"
(cd "$first" && find . | cpio -o -H newc --quiet) >"$dir/initrd"
printf '%q ' "$@" >"$dir/command"

case $accelerator in
    kvm) speed=(-accel kvm -cpu host) clock= ;;
    # Emulated time stamps are of no use as a clock: they are measured against a machine that has other work.
    tcg) speed=(-accel "tcg,thread=single" -cpu max) clock='tsc=unstable clocksource=hpet no_timer_check' ;;
    # The guest's clock counts its instructions, one a nanosecond: what takes long to emulate does not look slow to
    # tests with time limits, however busy this machine is. It costs twice the time.
    icount) speed=(-accel tcg -icount "shift=0" -cpu max) clock='tsc=reliable no_timer_check' ;;
    *) echo "$usage" >&2 && exit 125 ;;
esac
# norandmaps: code at an address that was seen before need not be translated again.
append="console=ttyS0 quiet panic=-1 oops=panic reboot=t nokaslr norandmaps mitigations=off"
append+=" cryptomgr.notests random.trust_cpu=on $clock"
# shellcheck disable=SC2054 # the commas are QEMU's
machine=(
    qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -M q35 "${speed[@]}"
    -m "$memory" -smp 1 -kernel "$kernel/vmlinux" -initrd "$dir/initrd" -append "$append"
    -device virtio-rng-pci -device virtio-serial-pci
    -chardev "file,id=output,path=$dir/output" -device virtserialport,name=output,chardev=output
    -chardev "file,id=result,path=$dir/result" -device virtserialport,name=result,chardev=result
    -chardev "file,id=console,path=$dir/console" -serial chardev:console
    -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap
    -device virtio-9p-pci,fsdev=host,mount_tag=host
)
# A guest's writes to QEMU's own standard output never end (QEMU 7.2).
mkfifo "$dir/output"
cat "$dir/output" &
reader=$!
timeout -k 10 "$seconds" "${machine[@]}" </dev/null 2>"$dir/errors" &
guest=$!
ended=0
wait "$guest" || ended=$?
guest=''

result=$(tr -dc 0-9 2>/dev/null <"$dir/result" || true)
if [ -n "$result" ]; then
    # All that the guest wrote has to be out first; it ends with QEMU, which had it open.
    wait "$reader"
    reader=''
    exit "$result"
fi
{
    echo
    if [ "$ended" = 124 ] || [ "$ended" = 137 ]; then
        echo "error: the guest was ended after $seconds seconds. The last lines of its console:"
    else
        echo "error: the guest ended without a result ($ended). The last lines of its console:"
    fi
    tail -n 20 "$dir/errors"
    tail -n 40 "$dir/console" 2>/dev/null || echo 'it has none'
} >&2
[ "$ended" != 124 ] && [ "$ended" != 137 ] || exit 124
exit 125
