#!/usr/bin/env bash
# The package tier: builds the packages, compares two builds, and takes a booted system with systemd through the
# life of the .deb: lifecycle.sh. Needs root.
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

# A copy of what the packages are built from.
copy_to() {
    rm -rf "$1"
    mkdir -p "$1"
    tar -c --exclude=./target --exclude=./.git . | tar -x -C "$1"
}

say packaging/build.sh deb
one=$(packaging/build.sh deb)
say packaging/build.sh rpm
rpm=$(packaging/build.sh rpm)
rm -rf "$work/debs"
mkdir -p "$work/debs"
cp "$one" "$work/debs/one.deb"
cp "$rpm" "$work/debs/one.rpm"

say "the same sources elsewhere give the same bytes"
copy_to "$work/elsewhere"
find "$work/elsewhere" -exec touch -h -d 2001-01-01 {} +
again=$("$work/elsewhere/packaging/build.sh" deb)
cmp "$work/debs/one.deb" "$again"
again=$("$work/elsewhere/packaging/build.sh" rpm)
cmp "$work/debs/one.rpm" "$again"

say "the next version, with other BPF objects"
copy_to "$work/next"
"$here/next-version.sh" "$work/next"
cp "$("$work/next/packaging/build.sh" deb)" "$work/debs/two.deb"

"$here/contents.sh" "$work/debs"
tree=$("$here/tree.sh" "$work")
cp "$here/lifecycle.sh" "$here/guest.sh" "$work/debs/"
say tests/package/lifecycle.sh
"$here/boot.sh" "$tree" "$work/debs" bash "$work/debs/lifecycle.sh" "$work/debs"
