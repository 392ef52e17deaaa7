#!/usr/bin/env bash
# What is in one.deb and one.rpm of a folder: the same files, the right dependencies, pages and scripts that their
# checkers find nothing about.
set -euo pipefail
export LC_ALL=C
cd "$1"
here=$(cd "$(dirname "$0")" && pwd)
rm -rf deb rpm root
mkdir deb rpm root

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

dpkg-deb -x one.deb deb
(cd rpm && rpm2cpio ../one.rpm | cpio -idm --quiet)

echo "  sizes: $(stat -c %s one.deb) bytes of deb, $(stat -c %s one.rpm) of rpm, $(stat -c %s deb/usr/bin/ciliate) of program"
[ "$(stat -c %s one.deb)" -le 10000000 ] || fail "the .deb has more than 10 MB"

# What each format has for itself is left out: licences, changelogs, overrides.
list() {
    (cd "$1" && find . -type f ! -path './usr/share/licenses/*' ! -path './usr/share/lintian/*' \
        ! -path './usr/share/doc/*' | sed 's#zsh/site-functions#zsh/vendor-completions#' | sort)
}
diff <(list deb) <(list rpm) || fail "the .deb and the .rpm differ in their files"
cmp deb/usr/bin/ciliate rpm/usr/bin/ciliate || fail "two programs"

depends=$(dpkg-deb -f one.deb Depends)
for package in libc6 nftables; do
    [[ $depends == *"$package"* ]] || fail "the .deb depends on $depends, not on $package"
done
[ "$(dpkg-deb -f one.deb Architecture)" = "$(dpkg --print-architecture)" ] || fail "architecture"
rpm -qp --requires one.rpm 2>/dev/null | grep -qx nftables || fail "the .rpm does not require nftables"
[ "$(rpm -qp --qf '%{ARCH}' one.rpm 2>/dev/null)" = "$(uname -m)" ] || fail "architecture of the .rpm"

lintian --allow-root --fail-on error,warning,info one.deb || fail lintian

# No path of this machine.
if grep -c "$HOME\|$(realpath "$here/../..")" deb/usr/bin/ciliate >/dev/null; then
    fail "the program has a path of this machine"
fi

for page in deb/usr/share/man/man*/*.gz; do
    found=$(man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
    [ -z "$found" ] || fail "$page: $found"
done
echo "  $(find deb/usr/share/man -name '*.gz' | wc -l) manual pages"

# The scripts of the .rpm, on a root of its own where no systemd runs.
rpm --root "$PWD/root" --initdb
rpm --root "$PWD/root" --install --nodeps --noscripts one.rpm
rpm --root "$PWD/root" --verify --nodeps ciliate || fail "installed files differ from those of the .rpm"
rpm --root "$PWD/root" --erase --nodeps --noscripts ciliate
left=$(find root -type f ! -path 'root/var/lib/rpm/*' ! -path 'root/usr/lib/sysimage/*' ! -path 'root/root/*')
[ -z "$left" ] || fail "erased, and left: $left"
for script in "$here"/../../packaging/rpm/*.sh; do sh -n "$script"; done
rm -rf deb rpm root
