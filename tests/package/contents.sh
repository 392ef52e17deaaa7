#!/usr/bin/env bash
# What is in a .deb and an .rpm of a folder: the same files, the right dependencies, pages and scripts that their
# checkers find nothing about.
#
#   contents.sh FOLDER FILE PACKAGE DEPENDENCY…     FILE without .deb and .rpm
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
file=$2 package=$3
shift 3
rm -rf deb rpm
mkdir deb rpm

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

dpkg-deb -x "$file.deb" deb
# Onto a root of its own, where no systemd runs. The scripts are tried in the guest.
rpm --root "$PWD/rpm" --initdb
rpm --root "$PWD/rpm" --install --nodeps --noscripts "$file.rpm" 2>rpm.log || fail "$(cat rpm.log)"
rpm --root "$PWD/rpm" --verify --nodeps "$package" || fail "installed files differ from those of the .rpm"

echo "  sizes: $(stat -c %s "$file.deb") bytes of deb, $(stat -c %s "$file.rpm") of rpm, $(stat -c %s "deb/usr/bin/$package") of program"
[ "$(stat -c %s "$file.deb")" -le 10000000 ] || fail "the .deb has more than 10 MB"

# What each format has for itself is left out: licences, changelogs, overrides.
list() {
    (cd "$1" && find . -type f ! -path './usr/share/licenses/*' ! -path './usr/share/lintian/*' \
        ! -path './usr/share/doc/*' ! -path './var/lib/rpm/*' ! -path './usr/lib/sysimage/*' ! -path './root/*' |
        sed 's#zsh/site-functions#zsh/vendor-completions#' | sort)
}
diff <(list deb) <(list rpm) || fail "the .deb and the .rpm differ in their files"
cmp "deb/usr/bin/$package" "rpm/usr/bin/$package" || fail "two programs"

depends=$(dpkg-deb -f "$file.deb" Depends)
for name in "$@"; do
    [[ ", $depends," =~ ", $name"( |,) ]] || fail "the .deb depends on $depends, not on $name"
done
[ "$(dpkg-deb -f "$file.deb" Architecture)" = "$(dpkg --print-architecture)" ] || fail "architecture"
rpm -qp --requires "$file.rpm" 2>/dev/null | grep -qx "${!#}" || fail "the .rpm does not require ${!#}"
[ "$(rpm -qp --qf '%{ARCH}' "$file.rpm" 2>/dev/null)" = "$(uname -m)" ] || fail "architecture of the .rpm"

lintian --allow-root --fail-on error,warning,info "$file.deb" || fail lintian
# Under its name, which is checked too.
mkdir -p named
rpm_name=$(rpm -qp --qf '%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm' "$file.rpm" 2>/dev/null)
cp "$file.rpm" "named/$rpm_name"
rpmlint --config "$here/../../packaging/rpm/rpmlint.toml" "named/$rpm_name" >rpmlint.log || fail "$(cat rpmlint.log)"
grep -q ' 0 errors, 0 warnings' rpmlint.log || fail "$(cat rpmlint.log)"

# No path of this machine.
if grep -c "$HOME\|$(realpath "$here/../..")" "deb/usr/bin/$package" >/dev/null; then
    fail "the program has a path of this machine"
fi

for page in deb/usr/share/man/man*/*.gz; do
    found=$(man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
    [ -z "$found" ] || fail "$page: $found"
done
echo "  $(find deb/usr/share/man -name '*.gz' | wc -l) manual pages"

rpm --root "$PWD/rpm" --erase --nodeps --noscripts "$package"
left=$(list rpm)
[ -z "$left" ] || fail "erased, and left: $left"
for script in "$here"/../../packaging/{rpm,kubernetes/rpm}/*.sh; do sh -n "$script"; done
rm -rf deb rpm named rpm.log rpmlint.log
