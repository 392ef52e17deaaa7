//! What can't be done is said with its reason, and everything else is done.

use std::time::Duration;

use ciliate::kinds::link::Peer;
use ciliate::kinds::owner;

use crate::daemon::Daemon;
use crate::lab::{DUAL, Lab, V4, V6};
use crate::node::{Ran, Text, endpoint, peer};
use crate::snapshot::Snapshot;
use crate::space::{Space, sh};
use crate::traffic::{exchange, ping};

/// `apply` where something is in the way: it fails, names the reason, and does the rest.
#[track_caller]
fn apply_blocked(lab: &Lab, reasons: &[&str]) -> Ran {
    let ran = lab.a.ciliate(&["apply"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    for reason in reasons {
        assert!(ran.all().contains(reason), "no `{reason}` in {ran:?}");
    }
    ran
}

#[test]
fn peers_that_are_not_on_link() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, server) = lab.walk_through();
    let mut text = Text::node_a(&lab).endpoint("client", &client, &["10.244.0.49"]);
    text.peers += &peer("far", &["192.0.2.77"], &["10.244.7.0/24"], "");
    lab.a.write(&text.clone().endpoint("client2", &client2, &["10.244.0.50"]));
    lab.b.apply();
    let reason = "192.0.2.77 is not on-link: the kernel reaches it through 172.18.0.1";
    apply_blocked(&lab, &["peer far", reason, "1 blocked"]);
    assert_eq!(lab.a.space.sh("ip route show 10.244.7.0/24"), "");
    exchange(&client, &server, "10.244.1.124");
    let status = lab.a.ciliate(&["status"]);
    assert!(status.code == 3 && status.stdout.contains(reason), "{status:?}");
    let plan = lab.a.ciliate(&["plan"]);
    assert!(plan.stdout.contains("No changes, 1 blocked.") && plan.code == 0, "{plan:?}");

    // It gets there: the route is made.
    lab.a.space.sh("ip route add 192.0.2.77 dev eth0");
    lab.baseline_of_a();
    lab.a.apply();
    let route = lab.a.space.sh("ip route show 10.244.7.0/24");
    assert_eq!(route.trim(), "10.244.7.0/24 via 192.0.2.77 dev eth0 proto 203");
}

#[test]
fn peers_that_are_out_of_reach() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    lab.a.space.sh("ip route del default; ip route add unreachable 203.0.113.0/24");
    lab.baseline();
    let mut text = Text::node_a(&lab).endpoint("client", &client, &["10.244.0.49"]);
    text.peers += &peer("nowhere", &["198.51.100.9"], &["10.244.8.0/24"], "");
    text.peers += &peer("refused", &["203.0.113.9"], &["10.244.9.0/24"], "");
    lab.a.write(&text.endpoint("client2", &client2, &["10.244.0.50"]));
    apply_blocked(
        &lab,
        &["no route to 198.51.100.9", "no route to 203.0.113.9", "peer nowhere", "2 blocked"],
    );
    assert_eq!(ping(&client, "10.244.0.50"), 63);
}

#[test]
fn no_underlay() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2) = (lab.space("client"), lab.space("client2"));
    lab.a.space.sh("ip route del default; ip addr flush dev eth0 scope global");
    lab.baseline();
    let alone = Text {
        node: "cidrs = [\"10.244.0.0/24\"]\n".into(),
        routing: "mode = \"native\"\n".into(),
        ..Text::default()
    };
    let alone =
        alone.endpoint("client", &client, &["10.244.0.49"]).endpoint("client2", &client2, &[]);
    lab.a.write(&alone);
    let reason = "! node: no underlay: no device of a default route has an address";
    apply_blocked(&lab, &[reason, "or set node.addresses or node.devices", "1 blocked"]);
    assert_eq!(ping(&client, "10.244.0.1"), 63);
    let status = lab.a.ciliate(&["status"]);
    assert!(status.code == 3 && status.stdout.contains(reason), "{status:?}");

    // The network comes up after the daemon.
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to miss the underlay", |status| !status.problems.is_empty());
    lab.a.space.sh("ip addr add 172.18.0.3/16 dev eth0; ip route add default via 172.18.0.1");
    let status = daemon.wait("to find the underlay", |status| status.converged);
    assert_eq!(status.summary.devices, ["eth0"], "{status:#?}");
    daemon.stop();
    lab.a.destroy();

    // A node that is told its devices, or that nothing leads out, has all it needs.
    lab.a.space.sh("ip route del default; ip addr flush dev eth0 scope global");
    lab.baseline();
    for (node, other) in [("devices = [\"eth0\"]\n", ""), ("", "[masquerade]\nmode = \"off\"\n")] {
        let mut text = Text { other: other.into(), ..alone.clone() };
        text.node += node;
        lab.a.write(&text);
        lab.a.apply();
        assert_eq!(ping(&client2, "10.244.0.49"), 63);
    }
}

#[test]
fn missing_namespaces_are_refused_by_commands() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    let ghost = Space { name: format!("{}-ghost", client.name) };
    let text = Text::node_a(&lab).endpoint("client", &client, &["10.244.0.49"]);
    lab.a.write(&text.endpoint("ghost", &ghost, &["10.244.0.66"]));
    let before = Snapshot::of(&lab.a.space);
    let lines = std::fs::read_to_string(&lab.a.config).expect("read the configuration");
    let line = 1 + lines.lines().position(|line| line.contains("ghost\"")).expect("a line");
    let netns_line =
        1 + lines.lines().position(|line| line.contains(&ghost.path())).expect("a line");
    assert!(line <= netns_line);
    for command in ["plan", "apply"] {
        let ran = lab.a.ciliate(&[command]);
        assert_eq!(ran.code, 1, "{ran:?}");
        let place = format!("{}:{netns_line}:", lab.a.config.display());
        for part in ["network namespace of endpoint `ghost`", &place, "^^^", "ip netns add"] {
            assert!(ran.stderr.contains(part), "{command}: no `{part}` in {ran:?}");
        }
    }
    // With mistakes in the files, all are said at once, in the order of the lines.
    let twice = endpoint("client", &format!("netns = {:?}", client.path()), &[]);
    let wrong = format!("{lines}ifname = \"much-too-long-for-a-device\"\n{twice}[nose]\n");
    std::fs::write(&lab.a.config, wrong).expect("write the configuration");
    for command in ["plan", "apply"] {
        let ran = lab.a.ciliate(&[command]);
        let at = |part: &str| ran.stderr.find(part).unwrap_or_else(|| panic!("{part}: {ran:?}"));
        let parts =
            ["endpoint `ghost`: no such file", "much-too-long", "two endpoints", "nose"].map(at);
        assert!(ran.code == 1 && parts.is_sorted(), "{parts:?} {ran:?}");
        assert_eq!(ran.stderr.matches("network namespace of endpoint").count(), 1, "{ran:?}");
    }
    before.assert_same(&Snapshot::of(&lab.a.space), "after a refused apply");
    assert!(!lab.a.bpf.exists());
}

#[test]
fn the_daemon_wires_endpoints_as_their_namespaces_come_and_go() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    let late = lab.space("late");
    lab.remove(&late);
    let text = Text::node_a(&lab).endpoint("client", &client, &["10.244.0.49"]);
    lab.a.write(&text.endpoint("late", &late, &["10.244.0.66"]));
    let daemon = Daemon::start(&lab.a);
    let status = daemon.wait("to miss the namespace", |status| !status.problems.is_empty());
    assert!(!status.converged, "{status:#?}");
    assert_eq!(status.problems[0].object, "endpoint late");
    assert!(status.problems[0].error.contains(&late.path()), "{status:#?}");
    ping(&client, "10.244.0.26");

    for _ in 0..2 {
        let late = lab.space("late");
        daemon.wait("to wire the endpoint", |status| status.converged);
        assert_eq!(ping(&client, "10.244.0.66"), 63);
        exchange(&late, &client, "10.244.0.49");
        lab.remove(&late);
        daemon.wait("to miss the namespace", |status| !status.converged);
    }
    daemon.stop();
}

#[test]
fn a_foreign_link_in_the_way() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.space.sh(
        "ip link add cilium_host type veth peer name elsewhere; ip link set cilium_host mtu 1234",
    );
    lab.baseline();
    let before = lab.a.space.sh("ip -d -o link show cilium_host; ip -o addr show cilium_host");
    apply_blocked(&lab, &["link cilium_host exists and does not belong to ciliate"]);
    let after = lab.a.space.sh("ip -d -o link show cilium_host; ip -o addr show cilium_host");
    assert_eq!(before, after);
    // A second time nothing more happens.
    let ran = apply_blocked(&lab, &["cilium_host"]);
    let again = lab.a.space.sh("ip -d -o link show cilium_host; ip -o addr show cilium_host");
    assert_eq!(before, again, "{ran:?}");
}

#[test]
fn a_foreign_device_with_the_name_beside_its_own() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    let altname = |name: &str| {
        format!("ip link add odd type bridge; ip link property add dev odd altname {name}")
    };
    lab.a.space.sh(&altname("cilium_host"));
    client.sh(&altname("eth0"));
    let theirs = || lab.a.space.sh("ip -d -o link show odd") + &client.sh("ip -d -o link show odd");
    let before = theirs();
    let in_client = format!("! endpoint client: link eth0 in {} exists", client.path());
    let plan = lab.a.ciliate(&["plan"]);
    for reason in ["! node: link cilium_host exists and does not belong to ciliate", &in_client] {
        assert!(plan.stdout.contains(reason), "no `{reason}` in {plan:?}");
    }
    apply_blocked(&lab, &["cilium_host", &in_client]);
    assert_eq!(before, theirs());

    lab.a.space.sh("ip link del odd");
    client.sh("ip link del odd");
    lab.a.apply();
    assert_eq!(ping(&client2, "10.244.0.49"), 63);
}

#[test]
fn a_foreign_device_with_the_name_of_another_end() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    lab.a.space.sh("ip link add cilium_net type bridge");
    client.sh("ip link add eth0 type bridge");
    lab.baseline_with(&client);
    let theirs = || {
        lab.a.space.sh("ip -d -o link show cilium_net; ip -o addr show cilium_net")
            + &client.sh("ip -d -o link show; ip -o addr; ip route; ip neigh")
    };
    let before = theirs();
    let in_client = format!("! endpoint client: link eth0 in {} exists", client.path());
    let reasons = ["! node: link cilium_net exists and does not belong to ciliate", &in_client];
    let plan = lab.a.ciliate(&["plan"]);
    assert_eq!(plan.code, 2, "{plan:?}");
    for reason in reasons {
        assert!(plan.stdout.contains(reason), "no `{reason}` in {plan:?}");
    }
    let links: Vec<&str> = plan.stdout.lines().filter(|line| line.contains("+ link ")).collect();
    assert!(links.len() == 1 && links[0].contains(&client2.path()), "{links:?}");
    let ran = apply_blocked(&lab, &[reasons[0], reasons[1], "0 removed, 2 blocked."]);
    assert!(!ran.all().contains("another device has the name"), "{ran:?}");
    assert_eq!(before, theirs());
    // A second time nothing is left to do but what is blocked.
    let plan = lab.a.ciliate(&["plan"]);
    assert!(plan.stdout.contains("No changes, 2 blocked."), "{plan:?}");

    lab.a.space.sh("ip link del cilium_net");
    client.sh("ip link del eth0");
    lab.a.destroy();
    lab.baseline_with(&client);
    lab.a.apply();
    assert_eq!(ping(&client2, "10.244.0.49"), 63);
}

#[test]
fn a_false_end_of_a_pair() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    lab.a.apply();
    let observed = lab.a.view().observed;
    let ends = observed.links.iter().filter_map(|(link, seen)| Some((link, seen.peer.as_ref()?)));
    let of_client = |peer: &Peer| peer.netns.path() == Some(&client.path());
    let (link, peer) = ends.into_iter().find(|(_, peer)| of_client(peer)).expect("an end");
    // As ours in everything but its number.
    client.sh(&format!(
        "ip link set eth0 down; ip link set eth0 name old\n\
         ip link add eth0 address {} mtu 1500 type veth peer name other\n\
         ip link set eth0 alias 'ciliate endpoint client' group {} up",
        peer.end.mac,
        owner::LINK_GROUP
    ));
    let devices = || (lab.a.space.sh(&format!("ip -o link show {link}")), client.sh("ip -br link"));
    let before = devices();
    let place = format!("link eth0 in {}", client.path());
    let reason = format!("{place} bears ciliate's mark and is not the other end of {link}");
    let plan = lab.a.ciliate(&["plan"]);
    assert!(plan.stdout.contains(&reason), "no `{reason}` in {plan:?}");
    apply_blocked(&lab, &[&reason, "1 blocked."]);
    assert_eq!(before, devices(), "the pair is not torn down");
    client.sh("ip link del eth0");
    lab.a.apply();
    assert_eq!(ping(&client, "10.244.0.50"), 63);
    assert_eq!(ping(&client2, "10.244.0.49"), 63);
}

#[test]
fn a_leftover_of_ours_is_not_in_the_way() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2) = (lab.space("client"), lab.space("client2"));
    let base = || Text::node_a(&lab).endpoint("client2", &client2, &[]);
    let with = |path: &str| {
        let mut text = base();
        text.endpoints += &endpoint("client", &format!("netns = {path:?}"), &[]);
        text
    };
    lab.a.write(&with(&client.path()));
    lab.a.apply();
    let address = || client.sh("ip -4 -br addr show dev eth0 scope global");
    let before = address();
    // The same namespace by another path is another pair, and the old one has the name.
    let path = lab.dir.join("client").display().to_string();
    sh(&format!("ln -s {} {path}", client.path()));
    lab.a.write(&with(&path));
    lab.a.apply();
    let words = |text: &str| text.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
    assert_eq!(words(&address()), words(&before));
    assert_eq!(ping(&client2, "10.244.0.1"), 63);
    // So is one whose end on the node was renamed.
    lab.a.space.sh("ip link set cilium_host down; ip link set cilium_host name stray");
    let ran = lab.a.ciliate(&["apply"]);
    assert!(ran.code == 0 && ran.stdout.contains("Converged: "), "{ran:?}");
    lab.a.assert_no_changes();
    assert_eq!(ping(&client2, "10.244.0.1"), 63);
}

#[test]
fn a_foreign_route_in_the_way() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, client2, server) = lab.walk_through();
    lab.a.space.sh("ip route add 10.244.1.0/24 via 172.18.0.1 proto static
         ip -6 route add blackhole fd00:10:244:1::/80 proto static metric 1024");
    // That it leads nowhere doesn't make a route another one.
    client.sh("ip route add unreachable default proto static");
    lab.baseline_with(&client);
    let theirs = || {
        lab.a.space.sh("ip route show proto static; ip -6 route show proto static")
            + &client.sh("ip route show proto static")
    };
    let before = theirs();
    let reasons = [
        "! peer node-b: a route to 10.244.1.0/24 exists that does not belong to ciliate; remove it",
        "! peer node-b: a route to fd00:10:244:1::/80 exists that does not belong to ciliate",
        &format!("! endpoint client: a route to default netns {} exists", client.path()),
    ];
    let plan = lab.a.ciliate(&["plan"]);
    assert_eq!(plan.code, 2, "{plan:?}");
    for reason in reasons {
        assert!(plan.stdout.contains(reason), "no `{reason}` in {plan:?}");
    }
    assert!(!plan.stdout.contains("+ route 10.244.1.0/24"), "{plan:?}");
    let ran = apply_blocked(&lab, &[reasons[0], reasons[1], reasons[2], " 3 blocked."]);
    assert!(!ran.all().contains("File exists"), "{ran:?}");
    assert_eq!(theirs(), before, "{ran:?}");
    assert!(lab.a.ciliate(&["plan"]).stdout.contains("No changes, 3 blocked."));
    let status = lab.a.ciliate(&["status"]);
    assert!(status.code == 3 && status.stdout.contains("10.244.1.0/24 exists"), "{status:?}");
    assert!(lab.a.ciliate(&["get", "routes"]).stdout.contains("blocked"));
    ping(&client2, "172.18.0.3");
    lab.a.space.sh("ip route del 10.244.1.0/24 proto static");
    lab.a.space.sh("ip -6 route del fd00:10:244:1::/80 proto static");
    client.sh("ip route del default proto static");
    lab.a.destroy();
    lab.baseline_with(&client);
    lab.a.apply();
    lab.b.apply();
    exchange(&client, &server, "10.244.1.124");
    exchange(&client, &server, "fd00:10:244:1::124");
    assert_eq!(ping(&client2, "10.244.0.49"), 63);
}

#[test]
fn a_foreign_route_beside_ours_is_not_replaced() {
    let Some(lab) = Lab::new(V6) else { return };
    lab.walk_through();
    lab.a.apply();
    // To the same destination, with the same metric: a replacement would take the first of the two.
    let routes = || lab.a.space.sh("ip -6 route show fd00:10:244:1::/80");
    let ours = routes();
    lab.a.space.sh("ip -6 route prepend fd00:10:244:1::/80 dev eth0 proto 44 metric 1024");
    let both = routes();
    assert!(both.contains(ours.trim()) && both.contains("dev eth0 proto 44"), "{ours}\n{both}");
    let text = std::fs::read_to_string(&lab.a.config).expect("read the configuration");
    let moved = text.replace("\"fc00:18::2\"", "\"fc00:18::22\"");
    assert_ne!(moved, text);
    std::fs::write(&lab.a.config, moved).expect("write the configuration");
    apply_blocked(&lab, &["expected only routes of ours, found one of protocol 44"]);
    assert_eq!(routes(), both);
    lab.a.space.sh("ip -6 route del fd00:10:244:1::/80 proto 44");
    lab.a.apply();
    assert!(routes().contains("via fc00:18::22 "), "{}", routes());
}

/// At its place, or beside it where the kernel takes no other filter.
#[test]
fn a_foreign_filter_in_the_way() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    let text = std::fs::read_to_string(&lab.a.config).expect("read the configuration");
    std::fs::write(&lab.a.config, text + "[datapath]\nattach-mode = \"clsact\"\n").expect("write");
    for (side, protocol, handle) in [("eth0 ingress", "all", 1), ("cilium_host egress", "ip", 7)] {
        let device = side.split(' ').next().expect("a device");
        let filter = format!("pref 1 handle {handle} protocol {protocol}");
        lab.a.space.sh(&format!(
            "tc qdisc add dev {device} clsact 2>/dev/null || true
             tc filter add dev {side} {filter} bpf bytecode '1,6 0 0 4294967295,'"
        ));
        if device == "eth0" {
            lab.baseline_of_a();
        }
        let theirs = || lab.a.space.sh(&format!("tc -s filter show dev {side}"));
        let before = theirs();
        let reason = format!(
            "! node: a filter that does not belong to ciliate has preference 1 on {side}, where"
        );
        let plan = lab.a.ciliate(&["plan"]);
        assert!(plan.stdout.contains(&reason), "no `{reason}` in {plan:?}");
        apply_blocked(&lab, &[&reason, "give it another preference", " 1 blocked."]);
        assert!(lab.a.ciliate(&["plan"]).stdout.contains("No changes, 1 blocked."));
        assert_eq!(theirs(), before);
        assert_eq!(ping(&client, "10.244.0.50"), 63);
        lab.a.space.sh(&format!("tc filter del dev {side} pref 1"));
        if device == "eth0" {
            lab.baseline_of_a();
        }
        lab.a.apply();
        // To make room on the device that is ours.
        lab.a.space.sh("tc filter del dev cilium_host egress pref 1");
    }
    lab.a.apply();
    assert!(lab.a.space.sh("tc filter show dev eth0 ingress").contains("cil_from_netdev"));
}

/// What `tc qdisc add … ingress` makes. A device has that or a clsact qdisc.
#[test]
fn a_foreign_ingress_qdisc() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, _, server) = lab.walk_through();
    let theirs = "tc qdisc add dev eth0 ingress
         tc filter add dev eth0 ingress pref 50 bpf bytecode '1,6 0 0 4294967295,'";
    lab.a.space.sh(theirs);
    lab.baseline();
    super::residue::clsact(&lab, true);
    let ours = || lab.a.space.sh("tc filter show dev eth0 ingress").contains("cil_from_netdev");
    for filter_lost in [false, true] {
        lab.a.apply();
        lab.b.apply();
        exchange(&client, &server, "10.244.1.124");
        exchange(&client, &server, "fd00:10:244:1::124");
        assert!(ours());
        if filter_lost {
            lab.a.space.sh("tc filter del dev eth0 ingress pref 1");
            lab.a.apply();
            assert!(ours());
        }
        lab.destroy_and_compare();
    }
    // Ours is taken away for theirs: so is the record of it.
    lab.a.space.sh("tc qdisc del dev eth0 ingress");
    lab.a.apply();
    lab.a.space.sh(&format!("tc qdisc del dev eth0 clsact; {theirs}"));
    let ran = lab.a.ciliate(&["apply"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    lab.a.assert_no_changes();
    assert!(ours());
    lab.note_bpf();
}

/// A qdisc `ingress` would run on ingress what is attached to egress.
#[test]
fn a_foreign_ingress_qdisc_where_egress_is_needed() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    super::residue::clsact(&lab, true);
    lab.a.apply();
    lab.a.space.sh("tc qdisc del dev cilium_host clsact; tc qdisc add dev cilium_host ingress");
    let reason = "! node: cilium_host has a qdisc `ingress`, which keeps out the clsact qdisc";
    apply_blocked(&lab, &[reason, "`tc qdisc del dev cilium_host ingress`", " 1 blocked."]);
    let filters = lab.a.space.sh("tc filter show dev cilium_host ingress");
    assert!(filters.contains("cil_to_host") && !filters.contains("cil_from_host"), "{filters}");
    assert_eq!(ping(&client, "10.244.0.50"), 63);
    lab.a.space.sh("tc qdisc del dev cilium_host ingress");
    lab.a.apply();
    assert!(lab.a.space.sh("tc filter show dev cilium_host egress").contains("cil_from_host"));
}

/// One that comes between the look and the change.
#[test]
fn a_foreign_ingress_qdisc_that_comes_meanwhile() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    super::residue::clsact(&lab, true);
    lab.a.apply();
    lab.a.space.sh("tc qdisc del dev cilium_host clsact");
    let plan = lab.a.view().plan;
    lab.a.space.sh("tc qdisc add dev cilium_host ingress");
    let report = lab.a.try_ops(&plan);
    let outcomes: Vec<String> = report.outcomes.iter().map(ToString::to_string).collect();
    let refused = outcomes.iter().filter(|text| text.contains("qdisc `ingress`")).count();
    assert_eq!((refused, report.succeeded()), (1, false), "{outcomes:?}");
    let filters = lab.a.space.sh("tc filter show dev cilium_host ingress");
    assert!(filters.contains("cil_to_host") && !filters.contains("cil_from_host"), "{filters}");
    lab.a.space.sh("tc qdisc del dev cilium_host ingress");
    lab.a.apply();
}

#[test]
fn another_writer() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let before = Snapshot::of(&lab.a.space);
    let scope = ciliate::engine::lock(&lab.a.runtime, Duration::ZERO).expect("the lock");
    // Both wait for a while, side by side.
    let node = &lab.a;
    let refused = |command: &'static str| move || node.ciliate(&[command]);
    let both = std::thread::scope(|scope| {
        ["apply", "destroy"]
            .map(|command| scope.spawn(refused(command)))
            .map(std::thread::ScopedJoinHandle::join)
    });
    for ran in both {
        let ran = ran.expect("a command");
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains("another ciliate is changing this node"), "{ran:?}");
    }
    before.assert_same(&Snapshot::of(&lab.a.space), "with another writer");
    // A daemon waits for its turn.
    let daemon = Daemon::start(&lab.a);
    let status = daemon.status().expect("a status");
    assert!(!status.converged, "{status:#?}");
    let lock = lab.a.runtime.join("lock").display().to_string();
    assert!(status.problems[0].error.contains(&lock), "{status:#?}");
    before.assert_same(&Snapshot::of(&lab.a.space), "with a waiting daemon");
    drop(scope);
    daemon.wait("to have its turn", |status| status.converged);
    daemon.stop();
}

#[test]
fn pins_that_are_not_on_a_bpf_file_system() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let text = std::fs::read_to_string(&lab.a.config).expect("read the configuration");
    let elsewhere = lab.dir.join("elsewhere").display().to_string();
    let text = text.replace(&lab.a.bpf.display().to_string(), &elsewhere);
    std::fs::write(&lab.a.config, text).expect("write the configuration");
    let before = Snapshot::of(&lab.a.space);
    for command in ["plan", "apply", "status"] {
        let ran = lab.a.ciliate(&[command]);
        assert_eq!(ran.code, 1, "{ran:?}");
        // Said once, and nothing else is tried.
        let said = ran.all().matches("is not on a BPF file system; run `mount -t bpf").count();
        assert_eq!((said, ran.all().lines().count()), (1, 1), "{ran:?}");
    }
    before.assert_same(&Snapshot::of(&lab.a.space), "without a BPF file system");
    // A daemon lives on; what it could not look at it doesn't claim to know.
    let daemon = Daemon::start(&lab.a);
    let status = lab.a.ciliate(&["status"]);
    for name in ["Node:", "Devices:", "Routing:", "Attach Mode:"] {
        let row = status.stdout.lines().find(|line| line.starts_with(name)).expect("a row");
        assert_eq!(row.split_whitespace().last(), Some("unknown"), "{status:?}");
    }
    assert_eq!(status.code, 3, "{status:?}");
    daemon.stop();
    let destroyed = lab.a.ciliate(&["destroy"]);
    assert_eq!(destroyed.code, 0, "{destroyed:?}");
}
