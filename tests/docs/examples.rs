//! `config/examples/`: each configuration is read, applied to a machine made for it, found converged,
//! and removed again. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ciliate::config::Search;
use ciliate::engine;

use crate::text::path;

const CILIATE: &str = env!("CARGO_BIN_EXE_ciliate");

/// Runs in namespaces of its own, so that nothing is left whatever happens. `$1` is the program, `$2`
/// the configuration, `$3` its endpoints' namespaces, `$4` the node's addresses.
const SCRIPT: &str = r#"
set -eu
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mkdir /run/netns /run/work /run/cgroup
# A control group without processes stands for the machine's: their sockets are none of the test's.
mount -t cgroup2 cgroup2 /run/cgroup
group=$(mktemp -d /run/cgroup/ciliate-docs-XXXXXX)
trap 'rmdir "$group"' EXIT
mount --bind "$group" /sys/fs/cgroup
ip link set lo up
ip link add eth0 type veth peer name wire
ip link set wire up
ip link set eth0 up
for address in ${4:-172.18.0.3}; do
    case $address in
        *:*) ip address add "$address/64" dev eth0 nodad ;;
        *) ip address add "$address/16" dev eth0 ;;
    esac
done
ip route add default via 172.18.0.1 dev eth0 onlink
for netns in $3; do ip netns add "$netns"; done
if [ -d "$2" ]; then cp "$2"/* /run/work/; else cp "$2" /run/work/; fi
unshare --net sleep 1000 &
sed -i "s/^pid *=.*/pid = $!/" /run/work/*
while ip address show tentative | grep -q inet6; do sleep 0.05; done
seen() { ip -o link; ip -o address | sed 's/valid_lft.*//'; ip route; ip -6 route; ip rule; nft list ruleset; }
seen >/run/before
code=0; "$1" -c /run/work plan >/run/plan || code=$?
[ $code = 2 ] || { echo "plan: exit $code"; exit 1; }
"$1" -c /run/work check >&2
say() { echo "=== $*"; "$program" -c /run/work "$@" -o json; }
program=$1
say apply
"$1" -c /run/work plan >&2
for what in endpoints peers identities services routes links; do say get $what; done
# A packet, so that there is something to count.
ping -c 1 -W 0.2 10.244.0.253 >&2 || true
# And a flow, to list: TCP 10.244.0.49:80 -> 10.244.1.124:80, a non-SYN packet seen, over for long.
zeros() { yes 00 | head -n "$1"; }
bpftool map update pinned /sys/fs/bpf/*/maps/cilium_ct4_global \
    key hex 0a f4 00 31 0a f4 01 7c 00 50 00 50 06 00 \
    value hex $(zeros 32) 01 00 00 00 10 00 $(zeros 18)
# A client that is kept at a backend, to list: 10.244.0.49 of service 1 at backend 1.
bpftool map update pinned /sys/fs/bpf/*/maps/cilium_lb4_affinity \
    key hex 0a f4 00 31 00 00 00 00 01 00 00 00 00 00 00 00 \
    value hex 01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00
# A flow of a client outside, to list: 192.0.2.7:51000 -> 10.244.1.124:8080, from this node.
bpftool map update pinned /sys/fs/bpf/*/maps/cilium_snat_v4_external \
    key hex 0a f4 01 7c c0 00 02 07 1f 90 c7 38 06 00 \
    value hex $(zeros 8) 01 $(zeros 23) ac 12 00 03 c7 38 00 00
for map in endpoint ipcache tunnel ct lb nat metrics; do say bpf $map list; done
for what in revnat affinity maglev source-ranges; do say bpf lb list --$what; done
# The daemon answers: with what it found at this node's own address at least.
"$program" -c /run/work run 2>/run/log &
daemon=$!
probed() {
    "$program" -c /run/work status -o json | grep -A 40 -m 1 '"paths"' | grep -m 1 '"probed"'
}
tries=0
until probed | grep -q '"20'; do
    tries=$((tries + 1)); [ $tries -lt 300 ] || { cat /run/log; exit 1; }
    sleep 0.1
done
say status
kill $daemon
wait $daemon
"$1" -c /run/work destroy >&2
seen >/run/after
diff /run/before /run/after
"#;

/// The configurations: folders, and files where a folder has one for each node.
fn configurations() -> Vec<PathBuf> {
    let list = |folder: &Path| {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    };
    let folders = list(&path("config/examples")).into_iter();
    folders
        .flat_map(|folder| if folder.ends_with("two-nodes") { list(&folder) } else { vec![folder] })
        .collect()
}

#[test]
fn are_valid() {
    assert!(configurations().len() >= 6);
    for configuration in configurations() {
        let loaded = engine::load(&Search::path(configuration.clone()));
        assert!(loaded.is_ok(), "{}", configuration.display());
    }
}

#[test]
fn converge() {
    for configuration in configurations() {
        converge_on_a_machine(&configuration);
    }
}

/// Applies a configuration in namespaces made for it, and returns what commands print as JSON, each
/// after a line `=== command`; `None` where that can't be done.
pub fn converge_on_a_machine(configuration: &Path) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
        return None;
    }
    let loaded = engine::load(&Search::path(configuration.to_path_buf())).expect("valid");
    let namespaces: Vec<String> = (loaded.intent.endpoints.values())
        .filter_map(|endpoint| endpoint.netns.path())
        .filter_map(|path| path.strip_prefix("/run/netns/").map(str::to_owned))
        .collect();
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private", "sh", "-c", SCRIPT, "sh", CILIATE])
        .arg(configuration)
        .arg(namespaces.join(" "))
        .arg(
            loaded
                .intent
                .node
                .addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        )
        .output()
        .expect("run unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    let shown = configuration.display();
    assert!(output.status.success(), "{shown}:\n{said}{complained}");
    Some(said.into_owned())
}
