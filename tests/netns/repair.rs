//! Repair: every object that a node has is damaged, one after the other, while the daemon runs. Each
//! comes back as it was, and objects of others that lie beside keep every byte.

use ciliate::kernel::{bpf, pins};
use ciliate::kinds::Observed;

use crate::daemon::Daemon;
use crate::foreign::Foreign;
use crate::lab::{DUAL, Lab};
use crate::node::{Node, Text, peer};
use crate::sabotage::{self, Sabotage};
use crate::space::Space;
use crate::traffic::{exchange, ping};

/// How a test lists what to damage.
type List = fn(&Node, &Observed) -> Vec<Sabotage>;

/// Takes a configuration from native routing to another way.
type Way = fn(Text) -> Text;

#[test]
fn namespaces_come_back() {
    repair(sabotage::namespaces, "", 6);
}

#[test]
fn links_come_back() {
    repair(sabotage::links, "", 72);
}

#[test]
fn addresses_and_routes_come_back() {
    repair(sabotage::addresses_and_routes, "", 40);
}

#[test]
fn settings_come_back() {
    repair(sabotage::settings, "", 15);
}

#[test]
fn nftables_comes_back() {
    repair(sabotage::nftables, "", 12);
}

#[test]
fn map_entries_come_back() {
    repair(sabotage::map_entries, "", 40);
}

#[test]
fn bpf_objects_come_back() {
    repair(sabotage::bpf_objects, "", if bpf::has_tcx() { 25 } else { 20 });
}

#[test]
fn filters_come_back() {
    repair(sabotage::filters, "[datapath]\nattach-mode = \"clsact\"\n", 10);
}

/// With a tunnel: the objects that are not there without one.
#[test]
fn a_tunnel_comes_back() {
    let new = |node: &Node, observed: &Observed| {
        let lists: [List; 6] = [
            sabotage::links,
            sabotage::settings,
            sabotage::bpf_objects,
            sabotage::addresses_and_routes,
            sabotage::map_entries,
            sabotage::nftables,
        ];
        let all = lists.iter().flat_map(|list| list(node, observed));
        let of_tunnel = ["cilium_vxlan", "overlay", "10.244.9.", "10.244.1.", ":244:1::", "node"];
        let is_new =
            |sabotage: &Sabotage| of_tunnel.iter().any(|part| sabotage.what.contains(part));
        all.filter(is_new).collect()
    };
    repair_of(new, Text::in_tunnel, "", 40);
}

#[test]
fn filters_of_a_tunnel_come_back() {
    let new = |node: &Node, observed: &Observed| {
        let all = sabotage::filters(node, observed).into_iter();
        all.filter(|sabotage| sabotage.what.contains("cilium_vxlan")).collect()
    };
    repair_of(new, Text::in_tunnel, "[datapath]\nattach-mode = \"clsact\"\n", 4);
}

/// Values that ciliate changes all of: what they were has to be known in the end, even where the records of them
/// were damaged.
const CHANGED: &str = "
for f in ipv4 ipv6; do echo 0 >/proc/sys/net/$f/conf/all/forwarding; done
echo 2 >/proc/sys/net/ipv4/conf/all/rp_filter
echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra
";

fn repair(list: List, section: &str, at_least: usize) {
    repair_of(list, |text| text, section, at_least);
}

fn repair_of(list: List, way: Way, section: &str, at_least: usize) {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, client2) = (lab.space("client"), lab.space("client2"));
    lab.a.space.sh(CHANGED);
    let foreign = Foreign::plant(&lab, &client2);
    lab.baseline_with(&client2);
    lab.a.write(&way(configuration(&lab, &client, &client2, section)));
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged);
    lab.note_bpf();
    let mut golden = lab.a.view().observed;
    let before = foreign.dump();
    let raw = raw(&[&lab.a.space, &client, &client2]);
    let all = list(&lab.a, &golden);
    assert!(all.len() >= at_least, "only {} objects to damage", all.len());
    for sabotage in &all {
        sabotage.act();
        golden = daemon.wait_repaired(&golden, &sabotage.what);
        foreign.assert_same(&before, &sabotage.what);
        // What isn't seen is no difference either: so the tools of others look, too.
        assert_eq!(raw, self::raw(&[&lab.a.space, &client, &client2]), "{}", sabotage.what);
    }
    lab.a.space.sh("ip link show bridge0 >/dev/null 2>&1 && ip link del bridge0 || true");
    client.sh("ip link show bridge0 >/dev/null 2>&1 && ip link del bridge0 || true");
    client2.sh("ip link show bridge0 >/dev/null 2>&1 && ip link del bridge0 || true");
    lab.note_bpf();
    exchange(&client, &client2, "10.244.0.50");
    exchange(&client, &client2, "fd00:10:244::50");
    daemon.stop();
}

/// All routes, rules and addresses that bear our mark, and our table, by line. How long an address is to
/// stay is said, how long a route is to stay is not among what ours have.
fn raw(spaces: &[&Space]) -> Vec<String> {
    let mut lines = Vec::new();
    for space in spaces {
        let text = space.sh(RAW);
        lines.extend(text.lines().map(|line| format!("{}: {}", space.name, line.trim())));
    }
    lines.sort();
    lines
}

const RAW: &str = "
ip -4 -o route show table all proto 203; ip -6 -o route show table all proto 203
ip -4 rule | grep 'proto 203' || true; ip -6 rule | grep 'proto 203' || true
ip -o addr show scope global | sed 's/^[0-9]*: //'
nft -s list table inet ciliate 2>/dev/null || true
";

/// One of each kind of object: rules by a table of our own, neighbours by a peer's Ethernet address.
fn configuration(lab: &Lab, client: &Space, client2: &Space, section: &str) -> Text {
    let mut text = Text::node_a(lab)
        .with_health()
        .endpoint("client", client, &["10.244.0.49", "fd00:10:244::49"])
        .endpoint("client2", client2, &["10.244.0.50", "fd00:10:244::50"]);
    text.routing += "table = 300\nrule-priority = 7000\n";
    text.other += section;
    text.peers += &peer(
        "node-c",
        &["172.18.0.9", "fc00:18::9"],
        &["10.244.9.0/24", "fd00:10:244:9::/80"],
        "mac = \"02:00:00:00:00:09\"",
    );
    text
}

/// The end on the host goes to a namespace that the node doesn't know. What can be seen of the pair is the
/// other end, which goes, and both are made anew.
#[test]
fn an_end_in_another_namespace_is_made_anew() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, client2, _) = lab.walk_through_with_health();
    let elsewhere = lab.space("elsewhere");
    lab.a.apply();
    let golden = lab.a.view().observed;
    let ends = golden.links.iter().filter(|(_, seen)| seen.peer.is_some());
    let ends: Vec<_> =
        ends.map(|(name, _)| name.to_string()).filter(|name| name.starts_with("lxc")).collect();
    assert_eq!(ends.len(), 3, "{ends:?}");
    for name in &ends {
        lab.a.space.sh(&format!("ip link set {name} netns {}", elsewhere.name));
        let plan = lab.a.ciliate(&["plan"]);
        assert!(plan.stdout.contains(&format!("-/+ link {name} ")), "{plan:?}");
        assert!(!plan.stdout.contains("blocked"), "{plan:?}");
        lab.a.ciliate(&["apply"]);
        lab.a.assert_no_changes();
        assert!(!elsewhere.sh("ip -br link").contains("lxc"), "the old pair is gone");
        assert_eq!(ping(&client, "10.244.0.50"), 63);
        exchange(&client2, &client, "fd00:10:244::49");
    }
    // With another number there, too.
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged);
    let name = &ends[0];
    lab.a.space.sh(&format!(
        "n=$(cat /sys/class/net/{name}/ifindex 2>/dev/null || ip -o link show {name} | cut -d: -f1)
         ip -n {0} link add stranger index $n type bridge; ip link set {name} netns {0}",
        elsewhere.name
    ));
    daemon.wait_repaired(&golden, "an end with another number elsewhere");
    assert_eq!(ping(&client, "10.244.0.50"), 63);
    assert_eq!(ping(&client2, "10.244.0.49"), 63);
    elsewhere.sh("ip link del stranger");
    daemon.stop();
}

/// A device keeps its program when it is renamed: only the pin moves.
#[test]
fn a_renamed_device_keeps_its_program() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, _, server) = lab.walk_through();
    lab.a.apply();
    lab.b.apply();
    exchange(&client, &server, "10.244.1.124");
    let link = |device: &str| {
        let pin = pins::link(&lab.a.bpf, device, "cil_from_netdev");
        let shown = crate::space::sh(&format!("bpftool -j link show pinned {}", pin.display()));
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let id = shown["id"].as_u64();
        id.unwrap_or_else(|| panic!("no id in {shown}"))
    };
    let before = link("eth0");
    for (old, new) in [("eth0", "wan0.x"), ("wan0.x", "eth0")] {
        lab.a.space.sh(&format!("ip link set {old} name {new}"));
        let plan = lab.a.ciliate(&["plan"]);
        let line = format!("~ bpf-link {new} ingress cil_from_netdev");
        assert!(plan.stdout.contains(&line), "no `{line}` in {plan:?}");
        assert!(plan.stdout.contains(&format!("pinned as {old} -> {new}")), "{plan:?}");
        assert!(!plan.stdout.contains("- bpf-link"), "{plan:?}");
        lab.a.apply();
        assert_eq!(link(new), before, "the attachment is the same one");
        let pins = crate::snapshot::tree(&lab.a.bpf.join("links"));
        let folder = format!("/{}", new.replace('.', "%2e"));
        assert!(pins.iter().any(|pin| pin.contains(&folder)), "{pins:?}");
        let old = format!("/{}", old.replace('.', "%2e"));
        assert!(!pins.iter().any(|pin| pin.contains(&old)), "{pins:?}");
        exchange(&client, &server, "10.244.1.124");
        exchange(&client, &server, "fd00:10:244:1::124");
    }
}
