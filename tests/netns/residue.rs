//! Nothing is left after `destroy`, whatever the machine was like before. What is compared, and that it
//! is compared, is the lab's part.

use ciliate::kernel::bpf;
use ciliate::kernel::netlink::{Netlink, Request};
use ciliate::kinds::owner;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use crate::lab::{DUAL, Lab, V4};
use crate::snapshot::Snapshot;
use crate::traffic::{exchange, ping};

#[test]
fn destroy_is_complete_and_repeatable() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let before = Snapshot::of(&lab.a.space);
    lab.walk_through_with_health();
    for round in 0..3 {
        lab.a.apply();
        lab.destroy_and_compare();
        before.assert_same(&Snapshot::of(&lab.a.space), &format!("round {round}"));
    }
    lab.a.destroy();
}

/// systemd makes the folder for a unit, and a unit that is started again may still count on it.
#[test]
fn a_runtime_folder_that_was_there_stays() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let runtime = &lab.a.runtime;
    assert!(!runtime.exists(), "{}", runtime.display());
    lab.a.apply();
    lab.a.destroy();
    assert!(!runtime.exists(), "{}", runtime.display());
    std::fs::create_dir_all(runtime).expect("make a folder");
    lab.a.apply();
    lab.a.destroy();
    let left = std::fs::read_dir(runtime).expect("the folder").count();
    assert_eq!(left, 0, "{}", runtime.display());
    std::fs::remove_dir(runtime).expect("remove the folder");
}

/// Each of these is changed by ciliate, directly or by the kernel's own doing, and put back.
const SETTINGS: &[&str] = &[
    "net/ipv4/conf/all/forwarding=1",
    "net/ipv4/conf/all/rp_filter=1",
    "net/ipv4/conf/all/rp_filter=2",
    "net/ipv4/conf/all/accept_redirects=0",
    "net/ipv4/conf/all/accept_redirects=1",
    "net/ipv4/conf/default/forwarding=1",
    "net/ipv4/conf/eth0/forwarding=1",
    "net/ipv6/conf/all/forwarding=1",
    "net/ipv6/conf/eth0/forwarding=1",
    "net/ipv6/conf/default/forwarding=1",
    "net/ipv6/conf/eth0/accept_ra=0",
    "net/ipv6/conf/eth0/accept_ra=2",
];

#[test]
fn settings_are_put_back() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, client2, _) = lab.walk_through();
    for setting in SETTINGS {
        let (path, value) = setting.split_once('=').expect("a value");
        let path = format!("/proc/sys/{path}");
        let old = lab.a.space.sh(&format!("cat {path}; echo {value} >{path}"));
        lab.baseline();
        lab.a.apply();
        assert_eq!(ping(&client, "10.244.0.50"), 63, "with {setting}");
        lab.a.assert_no_changes();
        lab.destroy_and_compare();
        lab.a.space.sh(&format!("echo {} >{path}", old.trim()));
    }
    // All at once.
    for setting in SETTINGS {
        let (path, value) = setting.split_once('=').expect("a value");
        lab.a.space.sh(&format!("echo {value} >/proc/sys/{path}"));
    }
    lab.baseline();
    lab.a.apply();
    exchange(&client, &client2, "10.244.0.50");
}

/// A device that comes while ciliate is there is not in its records.
#[test]
fn a_device_that_comes_later_and_stays() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    lab.a.space.sh("ip link add late type bridge; ip addr add 198.51.100.1/24 dev late");
    lab.a.apply();
    lab.a.space.sh("ip link del late");
    lab.a.apply();
}

pub fn clsact(lab: &Lab, on: bool) {
    let text = std::fs::read_to_string(&lab.a.config).expect("read the configuration");
    let text = text.replace("\n[datapath]\nattach-mode = \"clsact\"\n", "");
    let section = if on { "\n[datapath]\nattach-mode = \"clsact\"\n" } else { "" };
    std::fs::write(&lab.a.config, text + section).expect("write the configuration");
}

#[test]
fn by_clsact() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, _, server) = lab.walk_through();
    clsact(&lab, true);
    lab.a.apply();
    lab.b.apply();
    exchange(&client, &server, "10.244.1.124");
    exchange(&client, &server, "fd00:10:244:1::124");
    assert_eq!(ping(&client, "10.244.0.50"), 63);
    let filters = lab.a.space.sh("tc filter show dev eth0 ingress");
    assert!(filters.contains("cil_from_netdev"), "{filters}");
    let links = crate::snapshot::tree(&lab.a.bpf.join("links"));
    assert!(links.is_empty(), "{links:?}");
}

#[test]
fn attach_mode_switched_both_ways() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    for on in [false, true, false, true] {
        clsact(&lab, on);
        lab.a.apply();
        assert_eq!(ping(&client, "10.244.0.50"), 63);
        assert_eq!(crate::snapshot::tree(&lab.a.bpf.join("links")).is_empty(), on);
    }
    lab.destroy_and_compare();
    // A qdisc that was there before is not ours to remove.
    lab.a.space.sh("tc qdisc add dev eth0 clsact");
    lab.baseline();
    for on in [true, false, true] {
        clsact(&lab, on);
        lab.a.apply();
    }
}

/// What a run that was killed leaves between two steps: pins that were not yet renamed into their place,
/// folders without a pin.
#[test]
fn half_made_pins_go() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    let pins = crate::snapshot::tree(&lab.a.bpf);
    for pin in pins.iter().filter(|path| !std::path::Path::new(path).is_dir()) {
        let object = bpf::obj_get(std::path::Path::new(pin)).expect("open a pin");
        let beside = format!("{pin}-new");
        bpf::obj_pin(object, std::path::Path::new(&beside)).expect("pin it twice");
    }
    for folder in ["links/gone0", "programs/0123456789abcdef"] {
        std::fs::create_dir(lab.a.bpf.join(folder)).expect("create a folder");
    }
    lab.note_bpf();
    let ran = lab.a.ciliate(&["apply"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    lab.a.assert_no_changes();
}

/// Puts a link into a group that `ip` has no number for.
fn put_into_group(ifname: &str, group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes =
        vec![LinkAttribute::IfName(ifname.to_string()), LinkAttribute::Group(group)];
    (RouteNetlinkMessage::SetLink(message), 0)
}

/// Links of others: one in each group that removal would choose, the rest in the first of them.
const STRANGERS: usize = 40;

#[test]
fn links_of_others_in_our_groups_stay() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    let observed = lab.a.view().observed;
    let groups: Vec<u32> =
        observed.links.values().map(|link| owner::LINK_GROUP_DOOMED | link.ifindex).collect();
    assert_eq!(groups.len(), 3);
    let mut lines = format!("link add name bridge group {} type bridge\n", owner::LINK_GROUP);
    let mut requests = Vec::new();
    for (number, group) in (0..STRANGERS).zip(groups.iter().chain(std::iter::repeat(&groups[0]))) {
        lines += &format!("link add name stranger{number} type bridge\n");
        requests.push(put_into_group(&format!("stranger{number}"), *group));
    }
    let batch = lab.dir.join("strangers");
    std::fs::write(&batch, lines).expect("write a batch");
    lab.a.space.sh(&format!("ip -batch {}", batch.display()));
    let done = lab.a.space.run(|| Netlink::open().expect("a socket").change(requests));
    assert!(done.expect("answers").iter().all(Result::is_ok));
    lab.a.assert_no_changes();

    let destroyed = lab.a.ciliate(&["destroy", "-o", "json"]);
    assert_eq!(destroyed.code, 0, "{destroyed:?}");
    let writes = &destroyed.json()["writes"];
    assert!(writes.as_u64().expect("a number") < 90, "{writes}");
    let left = lab.a.space.sh("ip -br link");
    // With `lo`, `eth0` and the bridge.
    assert_eq!(left.lines().count(), STRANGERS + 3, "{left}");
    assert!(left.contains("bridge") && !left.contains("cilium"), "{left}");
    lab.baseline();
}
