#!/usr/bin/env bash
# Every check that has to pass: formatting, lints, documentation, and all tiers of tests.
# The last line is the test runner's.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

[ "$(id -u)" = 0 ] || {
    echo 'error: the tests load BPF programs and make network namespaces: run them as root' >&2
    exit 1
}

step() {
    echo "+ $*"
    "$@"
}

step cargo fmt --all --check
step cargo clippy --locked --all-targets -- -D warnings
step cargo clippy --locked --all-targets --package ciliate-kubernetes -- -D warnings
RUSTDOCFLAGS='-D warnings' step cargo doc --locked --no-deps --document-private-items
step cargo test --locked --doc --quiet
step tests/package/run.sh
# The kernels of the guests are for this kind of machine.
if [ "$(uname -m)" = x86_64 ]; then
    step tests/vm/run.sh --short
elif [ "${CI:-}" = true ]; then
    echo "error: 1 tier skipped: the vm tier needs x86_64, this machine is $(uname -m)" >&2
    exit 1
else
    echo "1 tier skipped: the vm tier needs x86_64, this machine is $(uname -m)"
fi
if cargo nextest --version >/dev/null 2>&1; then
    step cargo nextest run --locked --package ciliate-kubernetes --no-fail-fast
    step cargo nextest run --locked --lib --bins --tests --no-fail-fast
else
    step cargo test --locked --package ciliate-kubernetes --lib --bins --tests --no-fail-fast
    step cargo test --locked --lib --bins --no-fail-fast
    step cargo test --locked --test '*' --no-fail-fast -- --skip geneve:: --skip wireguard::
fi
