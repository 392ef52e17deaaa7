#!/usr/bin/env bash
# Builds what is packaged (files), the .deb (deb) or the .rpm (rpm), and prints where it is; the Kubernetes
# adapter's with kubernetes- before. Equal sources, on equal versions of the tools, give equal bytes wherever they
# are: the clock is the changelog's, and no path of this machine gets into the program.
set -euo pipefail
what=${1:?usage: packaging/build.sh [kubernetes-]files|deb|rpm}
cd "$(dirname "$0")/.."
export LC_ALL=C TZ=UTC
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR=$target
date=$(sed -n 's/^ -- .*>  //p' packaging/deb/changelog | head -n 1)
SOURCE_DATE_EPOCH=$(date -d "$date" +%s)
export SOURCE_DATE_EPOCH

# Paths of crates get into messages of panics, and the registry's folder is named after where it was downloaded
# from. The project's own are relative.
cargo fetch --locked --quiet
flags=
for folder in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
    flags+=${flags:+$'\x1f'}"--remap-path-prefix=${folder%/}=/crates"
done
package=ciliate folder=files
case $what in kubernetes-*) package=ciliate-kubernetes folder=kubernetes-files ;; esac
CARGO_ENCODED_RUSTFLAGS=$flags cargo build --locked --profile packaged --package $package --bin $package

program=$target/packaged/$package
files=$target/packaged/$folder
rm -rf "$files"

# place SOURCE TARGET [MODE]
place() {
    install -D -m "${3:-644}" "$1" "$files/$2"
}

# squeeze FILE: without name and time, which would differ
squeeze() {
    gzip -9 -n "$1"
}

place_ciliate() {
    place "$program" usr/bin/ciliate 755
    place systemd/ciliated.service usr/lib/systemd/system/ciliated.service
    place systemd/ciliate-netns@.service usr/lib/systemd/system/ciliate-netns@.service
    place systemd/ciliate.catalog usr/lib/systemd/catalog/ciliate.catalog
    place systemd/ciliate.tmpfiles usr/lib/tmpfiles.d/ciliate.conf
    place systemd/networkd.conf usr/lib/systemd/networkd.conf.d/ciliate.conf
    place systemd/ciliate.network usr/lib/systemd/network/10-ciliate.network
    place systemd/NetworkManager.conf usr/lib/NetworkManager/conf.d/ciliate.conf
    place packaging/conf.d/10-package.toml usr/lib/ciliate/conf.d/10-package.toml
    place config/ciliate.toml usr/share/doc/ciliate/examples/ciliate.toml
    place systemd/README.md usr/share/doc/ciliate/README.systemd.md
    # For the .rpm alone: the .deb has them in a form of its own.
    place LICENSE rpm/LICENSE
    place bpf/LICENSE-BSD-2-Clause rpm/LICENSE-BSD-2-Clause
    place CHANGELOG.md rpm/CHANGELOG.md
    "$program" manual "$files/usr/share/man" >/dev/null
    "$program" schema >"$files/schema"
    place "$files/schema" usr/share/ciliate/ciliate.schema.json
    for shell in bash:bash-completion/completions/ciliate zsh:zsh/vendor-completions/_ciliate \
        fish:fish/vendor_completions.d/ciliate.fish; do
        "$program" completion "${shell%%:*}" >"$files/completion"
        place "$files/completion" "usr/share/${shell#*:}"
    done
    rm "$files/schema" "$files/completion"
}

place_ciliate_kubernetes() {
    local from=packaging/kubernetes kind
    place "$program" usr/bin/ciliate-kubernetes 755
    for kind in service path target; do
        place $from/ciliate-kubernetes.$kind usr/lib/systemd/system/ciliate-kubernetes.$kind
    done
    place $from/rbac.yaml usr/share/ciliate-kubernetes/rbac.yaml
    place $from/rbac-wireguard.yaml usr/share/ciliate-kubernetes/rbac-wireguard.yaml
    place $from/README.md usr/share/doc/ciliate-kubernetes/README.md
    place $from/ciliate-kubernetes.8 usr/share/man/man8/ciliate-kubernetes.8
    place LICENSE rpm/LICENSE
}

"place_${package//-/_}"
find "$files/usr/share/man" -type f -print0 | while IFS= read -r -d '' page; do squeeze "$page"; done
# The .rpm takes over the time of a file that is older than the changelog.
find "$files" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

case ${what#kubernetes-} in
    files) echo "$files" ;;
    deb) cargo deb --locked --package $package --no-build --no-strip --no-dbgsym --profile packaged --quiet ;;
    rpm)
        # It says nowhere what it has made.
        rm -f "$target/generate-rpm/$package"-[0-9]*.rpm
        metadata=(--profile packaged --target-dir "$target" --source-date "$SOURCE_DATE_EPOCH")
        [ $package = ciliate ] || metadata+=(--package src/kubernetes)
        cargo generate-rpm "${metadata[@]}"
        echo "$target/generate-rpm/$package"-[0-9]*.rpm
        ;;
    *)
        echo "packaging/build.sh: [kubernetes-]files, deb or rpm" >&2
        exit 64
        ;;
esac
