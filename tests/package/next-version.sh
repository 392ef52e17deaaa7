#!/usr/bin/env bash
# Makes the next version of the sources in a folder: another version number, and programs whose every line has
# another number, which makes other BPF objects of the same meaning.
set -euo pipefail
cd "$1"
sed -i '0,/^version = "0.1.0"/s//version = "0.1.1"/' Cargo.toml
sed -i '/^name = "ciliate"$/{n;s/"0.1.0"/"0.1.1"/}' Cargo.lock
sed -i '1s/0.1.0-1/0.1.1-1/' packaging/deb/changelog
for file in bpf/*.c; do sed -i '1i\\' "$file"; done
# Newer than what cargo has built from the files of the same path.
find bpf src build.rs Cargo.toml -exec touch {} +
