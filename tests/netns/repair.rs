//! Repair: every object that a node has is damaged, one after the other, while the daemon runs. Each
//! comes back as it was, and objects of others that lie beside keep every byte.

use ciliate::kinds::Observed;

use crate::daemon::Daemon;
use crate::foreign::Foreign;
use crate::lab::{DUAL, Lab};
use crate::node::{Node, Text, peer};
use crate::sabotage::{self, Sabotage};
use crate::space::Space;
use crate::traffic::exchange;

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
    repair(sabotage::bpf_objects, "", 25);
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
    let all = list(&lab.a, &golden);
    assert!(all.len() >= at_least, "only {} objects to damage", all.len());
    for sabotage in &all {
        sabotage.act();
        golden = daemon.wait_repaired(&golden, &sabotage.what);
        foreign.assert_same(&before, &sabotage.what);
    }
    lab.note_bpf();
    exchange(&client, &client2, "10.244.0.50");
    exchange(&client, &client2, "fd00:10:244::50");
    daemon.stop();
}

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
