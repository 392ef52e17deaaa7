#!/usr/bin/env bash
# Makes the next version of the sources in a folder: another version number; programs whose every line has another
# number, which makes other BPF objects of the same meaning; maps of another layout: longer values in cilium_lxc,
# other sizes of it, of ciliate_device and of conntrack.
set -euo pipefail
cd "$1"

# replace FILE FROM TO: FROM, a regular expression, has to be there
replace() {
    grep -qE "$2" "$1" || {
        echo "next-version.sh: $1 has no $2" >&2
        exit 1
    }
    sed -i -E "s/$2/$3/" "$1"
}

sed -i '0,/^version = "0.1.0"/s//version = "0.1.1"/' Cargo.toml
sed -i '/^name = "ciliate"$/{n;s/"0.1.0"/"0.1.1"/}' Cargo.lock
sed -i '1s/0.1.0-1/0.1.1-1/' packaging/deb/changelog
for file in bpf/*.c; do sed -i '1i\\' "$file"; done

replace bpf/lib/abi.h '^([[:space:]]__u32 reserved\[2\];)$' '\1\n\t__u64 added;'
replace bpf/lib/abi.h 'sizeof\(struct endpoint_value\) == 48' 'sizeof(struct endpoint_value) == 56'
replace bpf/lib/maps.h 'max_entries, 65535' 'max_entries, 65534'
replace src/bpf_abi.rs '65_535\)' '65_534)'
replace src/bpf_abi/records.rs 'EndpointValue, 48 \{' 'EndpointValue, 56 {'
sed -i '/EndpointValue, 56 {/,/^    }/s/^    }/        added: u64,\n    }/' src/bpf_abi/records.rs
sed -i '/CILIUM_LXC => {/{n;s/48/56/}' src/kinds/bpf_map_entry/text.rs
replace src/intent/limits.rs 'CONNTRACK_TCP_DEFAULT: u32 = 131_072' 'CONNTRACK_TCP_DEFAULT: u32 = 98_304'
