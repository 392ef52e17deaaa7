#!/usr/bin/env bash
# Installs what is missing for building (build), for the demo (demo), for packages (deb, rpm) or for the tests
# (test).
# Prints what it installs first. Installs nothing, and needs no network, when everything is there.
set -euo pipefail

what=${1:?usage: install-tools.sh build|demo|deb|rpm|test}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

if ! command -v cargo >/dev/null; then
    fail "cargo is not in PATH: install Rust with rustup; if another user has it, run with: sudo env PATH=\"\$PATH\" make …"
fi

packages=()

# need_command COMMAND PACKAGE
need_command() {
    command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] || packages+=("$2")
}

# need_file FILE PACKAGE
need_file() {
    [ -e "$1" ] || packages+=("$2")
}

newest_clang_installed() {
    local version
    for version in $(seq 22 -1 14); do
        command -v "clang-$version" >/dev/null && return 0
    done
    return 1
}

# available PACKAGE
available() {
    local candidate
    candidate=$(apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ { print $2 }')
    [[ $candidate == [0-9]* ]]
}

newest_clang_available() {
    local version
    for version in $(seq 22 -1 14); do
        if available "clang-$version"; then
            echo "clang-$version"
            return 0
        fi
    done
    fail "no package clang-14 to clang-22 is available from this machine's package sources"
}

need_command cc gcc
need_file /usr/include/stdlib.h libc6-dev
need_file /usr/include/linux/bpf.h linux-libc-dev
need_file /usr/include/bpf/bpf_helpers.h libbpf-dev
newest_clang_installed || packages+=(clang)
if [ "$what" = demo ] || [ "$what" = test ]; then
    need_command ip iproute2
    need_command nft nftables
    need_command ping iputils-ping
    need_command socat socat
fi
if [ "$what" = deb ] || [ "$what" = test ]; then
    need_command dpkg-shlibdeps dpkg-dev
fi
if [ "$what" = test ]; then
    need_command tcpdump tcpdump
    # `sysctl`, and `kill` as a program.
    need_command sysctl procps
    # For the package tier.
    need_command man man-db
    need_command lintian lintian
    need_command rpmlint rpmlint
    need_command rpm rpm
    need_command mmdebstrap mmdebstrap
    need_command systemd-nspawn systemd-container
    need_command strace strace
    need_command wg wireguard-tools
    # What the benchmarks compare with.
    need_command iptables-restore iptables
    # Ubuntu's is a script that looks for the one of the running kernel.
    PATH=$PATH:/usr/sbin bpftool version >/dev/null 2>&1 || packages+=(bpftool)
fi

# The vm tier is for x86_64, and says so elsewhere.
if [ "$what" = test ] && [ "$(uname -m)" = x86_64 ]; then
    need_command qemu-system-x86_64 qemu-system-x86
    need_command modprobe kmod
    need_command cpio cpio
    need_command xz xz-utils
    need_command zstd zstd
fi

if [ "${#packages[@]}" -gt 0 ]; then
    [ "$(id -u)" = 0 ] || fail "missing: ${packages[*]}; run as root to have them installed"
    command -v apt-get >/dev/null ||
        fail "missing: ${packages[*]} (Debian's names); this machine has no apt-get, install them by hand"
    export DEBIAN_FRONTEND=noninteractive
    echo "missing: ${packages[*]}"
    echo "running: apt-get update"
    apt-get update -qq
    for at in "${!packages[@]}"; do
        case ${packages[$at]} in
            clang) packages[$at]=$(newest_clang_available) ;;
            # Ubuntu has bpftool in the tools of each kernel.
            bpftool)
                if ! available bpftool; then
                    packages[$at]=linux-tools-common
                    ! available "linux-tools-$(uname -r)" || packages+=("linux-tools-$(uname -r)")
                fi
                ;;
        esac
    done
    echo "running: apt-get install ${packages[*]}"
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

if [ "$what" = test ]; then
    components=()
    cargo fmt --version >/dev/null 2>&1 || components+=(rustfmt)
    cargo clippy --version >/dev/null 2>&1 || components+=(clippy)
    if [ "${#components[@]}" -gt 0 ]; then
        command -v rustup >/dev/null || fail "cargo has no ${components[*]}, and there is no rustup to add them"
        echo "running: rustup component add ${components[*]}"
        rustup component add "${components[@]}"
    fi
fi

# need_cargo COMMAND: from the registry that cargo is set up for
need_cargo() {
    command -v "$1" >/dev/null && return 0
    echo "running: cargo install --locked $1"
    # Not where the project's own builds are.
    local folder
    folder=$(mktemp -d)
    CARGO_TARGET_DIR=$folder cargo install --locked --quiet "$1"
    rm -rf "$folder"
}

case $what in
    deb) need_cargo cargo-deb ;;
    rpm) need_cargo cargo-generate-rpm ;;
    test)
        need_cargo cargo-deb
        need_cargo cargo-generate-rpm
        ;;
esac
