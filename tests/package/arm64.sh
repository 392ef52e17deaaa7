#!/usr/bin/env bash
# The packages for arm64, as far as that goes without a machine of that kind: architecture and dependencies, by the
# tools that make the packages and from the same metadata, and whether Debian has what they depend on. A program of
# Debian's for arm64 stands in for ours; libraries and lists of packages are Debian's for arm64, fetched once.
#
#   arm64.sh FOLDER PACKAGED SOURCES     FOLDER is for files that stay; PACKAGED has what packaging/build.sh has put
#                                        together; SOURCES is a folder of apt's
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
folder=$(realpath "$1") packaged=$(realpath "$2") sources=$(realpath "$3")
readonly TRIPLE=aarch64-unknown-linux-gnu
debian=$folder/arm64-$(cat "$0" "$sources"/* | sha256sum | cut -c 1-12)

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# Who owns which library, as dpkg has it of packages that are installed.
note_package() {
    local file=$1 name=$2 kind
    dpkg-deb -x "$file" "$debian/root"
    dpkg-deb -e "$file" "$debian/control"
    sed '/^Package:/a Status: install ok installed' "$debian/control/control" >>"$debian/dpkg/status"
    echo >>"$debian/dpkg/status"
    for kind in symbols shlibs; do
        [ ! -e "$debian/control/$kind" ] || cp "$debian/control/$kind" "$debian/dpkg/info/$name:arm64.$kind"
    done
    dpkg-deb --fsys-tarfile "$file" | tar -t | sed "s#^\./#$debian/root/#; s#/\$##" >"$debian/dpkg/info/$name:arm64.list"
    rm -r "$debian/control"
}

fetch_debian() {
    local name
    rm -rf "$folder"/arm64-*
    mkdir -p "$debian"/{lists,cache/archives,sources,root,dpkg/info}
    cp "$sources"/* "$debian/sources"
    cat >"$debian/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::State::Lists "$debian/lists";
Dir::State::status "/dev/null";
Dir::Cache "$debian/cache";
Dir::Etc::SourceParts "$debian/sources";
Dir::Etc::SourceList "/dev/null";
END
    apt-get -qq update
    echo 1 >"$debian/dpkg/info/format"
    printf 'amd64\narm64\n' >"$debian/dpkg/arch"
    cd "$debian"
    for name in libc6 libgcc-s1 gzip; do
        apt-get -qq download "$name"
        note_package "$(echo "$name"_*_arm64.deb)" "$name"
    done
    touch "$debian/done"
}

export APT_CONFIG=$debian/apt.conf
[ -e "$debian/done" ] || fetch_debian

# make_packages PACKAGE FILES [OPTION…]: into target, as packaging/build.sh makes them
make_packages() {
    local package=$1 files=$2
    shift 2
    cp -r "$packaged/$files" "$target/$TRIPLE/packaged/$files"
    cp "$debian/root/bin/gzip" "$target/$TRIPLE/packaged/$package"
    cp "$debian/root/bin/gzip" "$target/$TRIPLE/packaged/$files/usr/bin/$package"
    # dpkg-shlibdeps finds libraries by the one variable, and whose they are by the other.
    DPKG_ADMINDIR=$debian/dpkg LD_LIBRARY_PATH=$debian/root/lib/aarch64-linux-gnu CARGO_TARGET_DIR=$target \
        cargo deb --locked --package "$package" --target "$TRIPLE" --no-build --no-strip --no-dbgsym \
        --profile packaged --quiet >/dev/null 2>"$target/log" || fail "$(cat "$target/log")"
    CARGO_TARGET_DIR=$target cargo generate-rpm --profile packaged --target-dir "$target" --target "$TRIPLE" "$@"
}

# says PATTERN TEXT
says() {
    grep -qxE "$1" <<<"$2" || fail "no $1 in: $2"
}

cd "$here/../.."
target=$folder/arm64-target
rm -rf "$target"
mkdir -p "$target/$TRIPLE/packaged"
make_packages ciliate files
make_packages ciliate-kubernetes kubernetes-files --package src/kubernetes
debs=() depends=(nftables ciliate)
for package in ciliate ciliate-kubernetes; do
    deb=$(echo "$target/$TRIPLE/debian/$package"_*_arm64.deb)
    rpm=$(echo "$target/$TRIPLE/generate-rpm/$package"-[0-9]*.aarch64.rpm)
    needed=${depends[${#debs[@]}]}
    debs+=("$deb")
    [ "$(dpkg-deb -f "$deb" Architecture)" = arm64 ] || fail "$deb is for $(dpkg-deb -f "$deb" Architecture)"
    on=$(dpkg-deb -f "$deb" Depends | sed 's/, /\n/g')
    says 'libc6 \(>= [0-9.]*\)' "$on"
    says "$needed" "$on"
    [ "$(rpm -qp --qf '%{ARCH}' "$rpm" 2>/dev/null)" = aarch64 ] || fail "architecture of $rpm"
    on=$(rpm -qp --requires "$rpm" 2>/dev/null)
    says "$needed" "$on"
    says 'systemd >= 252' "$on"
    says 'libc\.so\.6.*\(64bit\)' "$on"
    # Nothing is of another architecture.
    ! rpm -qp --xml "$rpm" 2>/dev/null | grep -i 'x86\|amd64' || fail "$rpm"
    ! dpkg-deb -I "$deb" control | grep -i 'x86\|amd64' || fail "$deb"
done
# An arm64 machine with nothing on it can have them.
apt-get --simulate --no-install-recommends install "${debs[@]}" >"$target/log" 2>&1 || fail "$(cat "$target/log")"
grep -q '^Inst nftables .*\[arm64\]' "$target/log" || fail "$(cat "$target/log")"
echo "  arm64: $(dpkg-deb -f "${debs[0]}" Depends); $(grep -c '^Inst' "$target/log") packages of Debian's for arm64 have all of it"
rm -rf "$target"
