#!/usr/bin/env bash
# Fetches the newest Debian kernel package whose name matches a regular expression, and unpacks of it what a
# guest needs: the kernel as an ELF file, and its modules. Prints the folder. Fetches nothing when it is there.
#
# The ELF file is what QEMU starts without the kernel's own decompressor, which takes seconds to emulate. For
# the same reason modules are stored uncompressed and without signatures.
set -euo pipefail

pattern=${1:?usage: unpack.sh PATTERN CACHE-FOLDER} cache=${2:?}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# newest_package: the newest one that apt knows.
newest_package() {
    apt-cache search --names-only "^$pattern\$" 2>/dev/null | awk '{ print $1 }' | sort -V | tail -n 1
}

# version_of PACKAGE
version_of() {
    apt-cache policy "$1" | awk '/Candidate:/ { print $2 }'
}

# number BYTES OFFSET FILE: an unsigned little-endian number.
number() {
    od -An -v -t "u$1" -j "$2" -N "$1" "$3" | tr -d ' '
}

# elf_of BZIMAGE: what is packed in it, by the fields of the kernel's x86 boot protocol.
elf_of() {
    local sectors start length magic
    sectors=$(number 1 $((0x1f1)) "$1")
    start=$(((sectors + 1) * 512 + $(number 4 $((0x248)) "$1")))
    # The last four bytes are the unpacked length.
    length=$(($(number 4 $((0x24c)) "$1") - 4))
    magic=$(od -An -v -t x1 -j "$start" -N 4 "$1" | tr -d ' ')
    case $magic in
        fd377a58) unpack='xz -dc' ;;
        28b52ffd) unpack='zstd -dcq' ;;
        *) fail "$1 is packed in a way that this script does not know ($magic)" ;;
    esac
    # head ends before tail has written all.
    { tail -c "+$((start + 1))" "$1" || true; } 2>/dev/null | head -c "$length" | $unpack
}

# unpack DEB FOLDER
unpack() {
    local release
    mkdir -p "$2"
    # Of the drivers only those that a guest without hardware can use.
    dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --wildcards \
        --exclude='*/kernel/sound' --exclude='*/kernel/drivers/[!cnv]*' --exclude='*/drivers/nv*' \
        --exclude='*/drivers/net/wireless' --exclude='*/drivers/net/ethernet' --exclude='*/share' \
        --exclude='*/System.map*'
    [ -d "$2/lib" ] || ln -s usr/lib "$2/lib"
    release=$(ls "$2/lib/modules")
    find "$2/lib/modules/" -name '*.ko.xz' -print0 | xargs -0r xz -d
    # A signature stands behind the ELF file, and strip leaves it out.
    find "$2/lib/modules/" -name '*.ko' -print0 | xargs -0r strip --strip-debug
    # Symbols of modules that were left out are unknown to it, and it says so of each.
    depmod -b "$2" "$release" 2>/dev/null
    elf_of "$2/boot/vmlinuz-$release" >"$2/vmlinux"
    rm -r "${2:?}/boot"
    echo "$release" >"$2/release"
}

mkdir -p "$cache"
exec 9>"$cache/lock"
flock -w 600 9 || fail "$cache/lock is held by another run for ten minutes"

package=$(newest_package)
if [ -z "$package" ]; then
    echo 'running: apt-get update' >&2
    apt-get update -qq >&2 || true
    package=$(newest_package)
fi
[ -n "$package" ] || fail "no package $pattern is known to apt-get: the kernels of the vm tier are those of Debian 12" \
    "(bookworm and bookworm-security), see tests/vm/kernels"
version=$(version_of "$package")
folder=$cache/$package-${version//[^A-Za-z0-9.+~-]/_}
if [ ! -e "$folder/release" ]; then
    new=$(mktemp -d "$cache/new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    echo "running: apt-get download $package=$version" >&2
    (cd "$new" && apt-get -qq -o APT::Sandbox::User=root download "$package=$version" >&2) ||
        fail "apt-get download $package=$version failed"
    unpack "$new/"*.deb "$new/unpacked"
    # Those of before.
    find "$cache" -mindepth 1 -maxdepth 1 -type d -regextype posix-extended \
        -regex "$cache/$pattern-[^/]*" -exec rm -rf {} +
    mv "$new/unpacked" "$folder"
fi
echo "$folder"
