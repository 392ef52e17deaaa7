#!/usr/bin/env bash
# Runs the benchmark of encryption: here, if this kernel has WireGuard, else in a guest with a kernel that has.
set -euo pipefail
cd "$(dirname "$0")/.."
if unshare --net ip link add type wireguard 2>/dev/null; then
    exec cargo bench --locked --bench wireguard
fi
echo 'this kernel has no WireGuard (CONFIG_WIREGUARD): the benchmark runs on that of a guest'
built=$(cargo bench --no-run --locked --bench wireguard --message-format json)
bench=$(sed -n 's|.*"executable":"\([^"]*/wireguard-[0-9a-f]*\)".*|\1|p' <<<"$built")
VM_PROGRAM=$(sed -n 's|.*"executable":"\([^"]*/ciliate\)".*|\1|p' <<<"$built" | tail -n 1)
export VM_PROGRAM
exec tests/vm/run.sh --kernel 6.12 --icount -- sh -c "modprobe wireguard && exec $bench"
