#!/usr/bin/env bash
# How large the packages are, and the program in them.
set -euo pipefail
cd "$(dirname "$0")/.."
deb=$(packaging/build.sh deb)
rpm=$(packaging/build.sh rpm)
program=$(dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/bin/ciliate | wc -c)
awk -v deb="$(stat -c %s "$deb")" -v rpm="$(stat -c %s "$rpm")" -v program="$program" 'BEGIN {
    printf "package: .deb %.1f MB, .rpm %.1f MB, the program in it %.1f MB\n", deb / 1e6, rpm / 1e6, program / 1e6
}'
