#!/usr/bin/env bash
# The package tier: builds the packages, compares two builds, and takes a booted system with systemd through the
# life of the .deb: lifecycle.sh. Needs root. With SUITE=trixie the system is that one instead of bookworm.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
here=$PWD/tests/package
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR=$target
work=$target/package-tier
mkdir -p "$work"

say() {
    echo "+ $*"
}

# copy_to FOLDER: the sources, and what cargo has built of the crates they need, for build_there. A copy has a target
# folder of its own: in a shared one cargo takes what it has built of the one for what it would build of the other.
copy_to() {
    rm -rf "$1" "$1-target"
    mkdir -p "$1" "$1-target"
    tar -c --exclude=./target --exclude=./.git . | tar -x -C "$1"
    cp -al "$target/packaged" "$1-target/packaged"
    find "$1-target/packaged" -maxdepth 2 \( -name 'ciliate*' -o -name 'libciliate*' \) -exec rm -rf {} +
}

# build_there FOLDER deb|rpm
build_there() {
    CARGO_TARGET_DIR=$1-target "$1/packaging/build.sh" "$2"
}

say packaging/build.sh deb
one=$(packaging/build.sh deb)
say packaging/build.sh rpm
rpm=$(packaging/build.sh rpm)
rm -rf "$work/debs"
mkdir -p "$work/debs"
cp "$one" "$work/debs/one.deb"
cp "$rpm" "$work/debs/one.rpm"
say packaging/build.sh kubernetes-deb
cp "$(packaging/build.sh kubernetes-deb)" "$work/debs/kubernetes.deb"
say packaging/build.sh kubernetes-rpm
cp "$(packaging/build.sh kubernetes-rpm)" "$work/debs/kubernetes.rpm"

say "the next version, with other BPF objects"
copy_to "$work/next"
"$here/next-version.sh" "$work/next"
cp "$(build_there "$work/next" deb)" "$work/debs/two.deb"

say "the same sources elsewhere give the same bytes"
copy_to "$work/elsewhere"
# With other times.
find "$work/elsewhere" -exec touch -h -d 2001-01-01 {} +
cmp "$work/debs/one.deb" "$(build_there "$work/elsewhere" deb)"
cmp "$work/debs/one.rpm" "$(build_there "$work/elsewhere" rpm)"
cmp "$work/debs/kubernetes.deb" "$(build_there "$work/elsewhere" kubernetes-deb)"
cmp "$work/debs/kubernetes.rpm" "$(build_there "$work/elsewhere" kubernetes-rpm)"
rm -rf "$work"/{next,elsewhere}{,-target}

"$here/contents.sh" "$work/debs" one ciliate libc6 nftables
"$here/contents.sh" "$work/debs" kubernetes ciliate-kubernetes libc6 ciliate
tree=$("$here/tree.sh" "$work" "${SUITE:-bookworm}")
"$here/arm64.sh" "$work" "$target/packaged" "$tree/../sources"
cp "$here"/{lifecycle,guest,endpoints,bad_paths,boot_order,main_job,kubernetes,from_keepalived}.sh \
    docs/{two-machines,from-keepalived}.md "$work/debs/"
cp systemd/README.md "$work/debs/README.systemd.md"
say tests/package/lifecycle.sh
"$here/boot.sh" "$tree" "$work/debs" bash "$work/debs/lifecycle.sh" "$work/debs"
