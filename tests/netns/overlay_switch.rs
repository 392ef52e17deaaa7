//! From one way to the peers to another and back, what is in the way of a tunnel, and its repair.

use serde_json::Value;

use crate::daemon::Daemon;
use crate::fleet::{Fleet, MEMBERS};
use crate::flood::Flood;
use crate::lab::{DUAL, V4};
use crate::node::{Node, Ran, Text, peer};
use crate::space::Space;
use crate::traffic::{answers, exchange, ping};

/// Routing, and what it looks like: the tunnel's device with kind and port, and the route to node b.
struct Way {
    routing: &'static str,
    device: Option<(&'static str, &'static str, u16)>,
    route: &'static str,
}

const NATIVE: Way = Way {
    routing: "mode = \"native\"\nauto-direct-node-routes = true\n",
    device: None,
    route: "10.42.1.0/24 via 172.16.16.121 dev eth0 proto 203",
};
const VXLAN: Way = Way {
    routing: "mode = \"tunnel\"\n",
    device: Some(("cilium_vxlan", "vxlan", 8472)),
    route: "10.42.1.0/24 via 10.42.0.26 dev cilium_host proto 203 src 10.42.0.26 mtu 1450",
};
const OTHER_PORT: Way = Way {
    routing: "mode = \"tunnel\"\ntunnel-port = 8473\n",
    device: Some(("cilium_vxlan", "vxlan", 8473)),
    ..VXLAN
};
const IPV6_UNDERLAY: Way = Way {
    routing: "underlay-protocol = \"ipv6\"\n",
    route: "10.42.1.0/24 via 10.42.0.26 dev cilium_host proto 203 src 10.42.0.26 mtu 1430",
    ..VXLAN
};
const GENEVE: Way = Way {
    routing: "tunnel-protocol = \"geneve\"\n",
    device: Some(("cilium_geneve", "geneve", 6081)),
    ..VXLAN
};
/// On a port that the other protocol's device had.
const GENEVE_ON_8472: Way = Way {
    routing: "tunnel-protocol = \"geneve\"\ntunnel-port = 8472\n",
    device: Some(("cilium_geneve", "geneve", 8472)),
    ..VXLAN
};
const OWN_TABLE: Way = Way {
    routing: "mode = \"tunnel\"\ntable = 300\nrule-priority = 7000\n",
    route: "10.42.1.0/24 via 10.42.0.26 dev cilium_host proto 203 src 10.42.0.26 mtu 1450",
    ..VXLAN
};

/// The objects that ops are about, as `apply` says. Each op was done, at the first attempt.
fn objects(applied: &Value) -> Vec<String> {
    let ops = applied["ops"].as_array().expect("a list").iter();
    let object = |op: &Value| {
        assert_eq!(op["result"]["outcome"], "done", "{op}");
        format!("{} {}", op["op"]["kind"], op["op"]["key"])
    };
    ops.map(object).collect()
}

/// Both nodes change; endpoints keep their devices, and reach each other.
fn switch(fleet: &Fleet, way: &Way) {
    fleet.write(2, way.routing);
    let applied = [&fleet.lab.a, &fleet.lab.b].map(Node::apply);
    for object in objects(&applied[0]) {
        assert!(!object.starts_with("\"link\" \"lxc"), "{} changes {object}", way.routing);
        assert!(!object.starts_with("\"link\" \"cilium_host"), "{} changes {object}", way.routing);
    }
    let node = &fleet.lab.a.space;
    for (device, kind) in [("cilium_vxlan", "vxlan"), ("cilium_geneve", "geneve")] {
        let found = node.try_sh(&format!("ip -d -o link show {device}"));
        match way.device.filter(|(name, ..)| *name == device) {
            None => assert!(found.is_err(), "with {}: {found:?}", way.routing),
            Some((.., port)) => {
                let found = found.expect("the device");
                let has = |part: &str| found.contains(part);
                assert!(
                    has(&format!("{kind} external")) && has(&format!("dstport {port}")),
                    "{found}"
                );
            }
        }
    }
    let route = node.sh("ip route show table all 10.42.1.0/24");
    assert_eq!(route.trim().replace(" table 300", ""), way.route);
    for plan in fleet.plans() {
        exchange(&fleet.busybox_a, &fleet.busybox_b, plan.busybox_b);
        exchange(&fleet.nginx_b, &fleet.lab.a.space, plan.router_a);
        exchange(&fleet.lab.b.space, &fleet.nginx_a, plan.nginx_a);
    }
}

/// The flood between two endpoints of a node notices nothing of all this.
#[test]
fn every_way_to_every_other() {
    let Some(fleet) = Fleet::new(DUAL, DUAL) else { return };
    fleet.apply(2, NATIVE.routing);
    ping(&fleet.busybox_a, "10.42.0.182");
    let flood = Flood::start((&fleet.busybox_a, "10.42.0.97"), (&fleet.nginx_a, "10.42.0.182"));
    for way in [&VXLAN, &OTHER_PORT, &NATIVE, &OTHER_PORT, &IPV6_UNDERLAY, &VXLAN, &OWN_TABLE] {
        switch(&fleet, way);
    }
    switch(&fleet, &NATIVE);
    flood.finish();
}

/// From VXLAN to Geneve and back, by other ports and by the same one.
pub fn to_geneve_and_back() {
    let Some(fleet) = Fleet::new(DUAL, DUAL) else { return };
    fleet.apply(2, NATIVE.routing);
    for way in [&GENEVE, &VXLAN, &GENEVE_ON_8472, &VXLAN, &GENEVE, &NATIVE, &GENEVE] {
        switch(&fleet, way);
    }
}

/// Another one of ours that has the port, under another name: the plan doesn't wait for its removal.
#[test]
fn a_tunnel_that_somebody_renamed() {
    let Some(fleet) = Fleet::new(V4, V4) else { return };
    fleet.apply(2, VXLAN.routing);
    let node = &fleet.lab.a;
    node.space.sh(
        "ip link set cilium_vxlan down; ip link set cilium_vxlan name stray; ip link set stray up",
    );
    let changed = objects(&node.apply());
    assert!(changed.contains(&"\"link\" \"stray\"".to_string()), "{changed:?}");
    assert!(node.space.try_sh("ip link show stray").is_err());
    exchange(&fleet.busybox_a, &fleet.busybox_b, "10.42.1.64");
}

/// `apply` that can't get all the way: it names the reason, and does the rest.
#[track_caller]
fn apply_blocked(fleet: &Fleet, reason: &str) -> Ran {
    let ran = fleet.lab.a.ciliate(&["apply"]);
    assert!(ran.code == 1 && ran.all().contains(reason), "no `{reason}` in {ran:?}");
    let status = fleet.lab.a.ciliate(&["status"]);
    assert!(status.code == 3, "{status:?}");
    assert_eq!(ping(&fleet.busybox_a, "10.42.0.182"), 63);
    ran
}

/// Everything about a device but its counters.
fn device(space: &Space, name: &str) -> String {
    space
        .sh(&format!("ip -d -o link show {name}; ip -o addr show {name}; tc qdisc show dev {name}"))
}

#[test]
fn a_foreign_tunnel_on_the_port() {
    let Some(fleet) = Fleet::new(V4, V4) else { return };
    let node = &fleet.lab.a.space;
    node.sh("ip link add vxlan7 type vxlan id 7 dstport 8472 local 172.16.16.120 dev eth0\n\
         ip link set vxlan7 addrgenmode none up");
    fleet.lab.baseline();
    let before = device(node, "vxlan7");
    fleet.write(2, VXLAN.routing);
    fleet.lab.b.apply();
    let reason = "UDP port 8472 belongs to device vxlan7, which is not ciliate's";
    let ran = apply_blocked(&fleet, reason);
    assert!(!ran.all().contains("failed"), "{ran:?}");
    assert!(node.try_sh("ip link show cilium_vxlan").is_err());
    assert!(!answers(&fleet.busybox_a, "10.42.1.64"));
    assert_eq!(device(node, "vxlan7"), before);
    // Another port is one line.
    switch(&fleet, &OTHER_PORT);
    assert_eq!(device(node, "vxlan7"), before);
}

/// The tunnel that is there goes on where the one that is asked for can't be had, and not a packet is lost.
fn kept_until(fleet: &Fleet, way: &Way, reasons: &[&str], free: impl FnOnce()) {
    let link = || fleet.lab.a.space.sh("ip -d -o link show cilium_vxlan");
    let (before, at) = (link(), ("10.42.0.97", "10.42.1.64"));
    let flood = Flood::start((&fleet.busybox_a, at.0), (&fleet.busybox_b, at.1));
    fleet.lab.a.write(&fleet.text(0, way.routing));
    // As often as one likes.
    for _ in 0..2 {
        let ran = apply_blocked(fleet, reasons[0]);
        assert!(reasons.iter().all(|reason| ran.all().contains(reason)), "{reasons:?}: {ran:?}");
    }
    flood.finish();
    assert_eq!(link(), before, "with {}", way.routing);
    let status = fleet.lab.a.ciliate(&["status"]).stdout;
    let in_force = ["Network: Tunnel [vxlan] ", "UDP port 8472, over IPv4"];
    assert!(in_force.iter().all(|row| status.contains(row)), "{status}");
    let tunnels = fleet.lab.a.space.sh("ip -o link show type vxlan");
    assert!(!tunnels.contains("cilium_trial"), "{tunnels}");
    exchange(&fleet.nginx_b, &fleet.nginx_a, "10.42.0.182");
    free();
}

/// All that decides how packets get to the peers.
fn ways(fleet: &Fleet) -> String {
    let node = &fleet.lab.a;
    let kernel = node.space.sh(
        "ip route show table all proto 203; ip -6 route show table all proto 203; ip rule; ip -6 rule\n\
         nft list table inet ciliate",
    );
    let ipcache = node.ciliate(&["bpf", "ipcache", "list"]);
    kernel + &ipcache.stdout + &fleet.busybox_a.sh("ip route; ip -6 route show default")
}

/// Native routing is in force where a tunnel can't be made, and not a packet is lost, between endpoints and from
/// the host. Each of the reasons is said in one line.
fn native_until(fleet: &Fleet, way: &Way, reasons: &[&str], free: impl FnOnce()) {
    let before = ways(fleet);
    let of = |from: (&'static str, &'static str), to: (&'static str, &'static str)| {
        let endpoints = Flood::start((&fleet.busybox_a, from.0), (&fleet.busybox_b, to.0));
        (endpoints, Flood::start((&fleet.lab.a.space, from.1), (&fleet.nginx_b, to.1)))
    };
    let floods = [
        of(("10.42.0.97", "172.16.16.120"), ("10.42.1.64", "10.42.1.145")),
        of(("fd00:10:42::97", "fd00:172:16:16::120"), ("fd00:10:42:1::64", "fd00:10:42:1::145")),
    ];
    fleet.lab.a.write(&fleet.text(0, way.routing));
    for _ in 0..2 {
        let ran = apply_blocked(fleet, reasons[0]);
        for reason in reasons {
            let lines = ran.stdout.lines().filter(|line| line.contains(reason)).count();
            assert!(lines == 1, "`{reason}` in {lines} lines of {ran:?}");
        }
    }
    for (endpoints, host) in floods {
        endpoints.finish();
        host.finish();
    }
    assert_eq!(ways(fleet), before, "with {}", way.routing);
    let status = fleet.lab.a.ciliate(&["status"]).stdout;
    assert!(status.contains("Network: Native "), "{status}");
    free();
}

/// From native routing to a tunnel that the kernel refuses: a socket has the port.
#[test]
fn native_routing_stays_while_the_kernel_refuses_a_tunnel() {
    let Some(fleet) = Fleet::new(DUAL, DUAL) else { return };
    fleet.apply(2, NATIVE.routing);
    let node = &fleet.lab.a.space;
    let bind = |port| node.run(|| std::net::UdpSocket::bind(("0.0.0.0", port))).expect("bind");
    for way in [&GENEVE, &VXLAN, &OWN_TABLE] {
        let Some((device, _, port)) = way.device else { unreachable!() };
        let socket = bind(port);
        let waits = "more changes wait for it; until then what is there in their places stays";
        let refused = format!("! + link {device} ");
        native_until(&fleet, way, &[waits, &refused], || drop(socket));
    }
    switch(&fleet, &OWN_TABLE);
}

/// The same where it is known beforehand: somebody else's device has the port.
#[test]
fn native_routing_stays_while_a_foreign_tunnel_has_the_port() {
    let Some(fleet) = Fleet::new(DUAL, DUAL) else { return };
    fleet.apply(2, NATIVE.routing);
    let node = &fleet.lab.a.space;
    node.sh("ip link add fv0 type vxlan id 9 dstport 8472 local 172.16.16.120 dev eth0\n\
         ip link set fv0 addrgenmode none up");
    let reasons = [
        "UDP port 8472 belongs to device fv0, which is not ciliate's",
        "until then nothing changes in how peers are reached",
    ];
    native_until(&fleet, &VXLAN, &reasons, || drop(node.sh("ip link del fv0")));
    switch(&fleet, &VXLAN);
}

/// What is known beforehand: somebody else's device has the port.
#[test]
fn a_tunnel_stays_while_a_foreign_one_has_the_port() {
    let Some(fleet) = Fleet::new(V4, V4) else { return };
    fleet.apply(2, VXLAN.routing);
    exchange(&fleet.busybox_a, &fleet.busybox_b, "10.42.1.64");
    let node = &fleet.lab.a.space;
    node.sh("ip link add fv0 type vxlan id 9 dstport 8473 local 172.16.16.120 dev eth0\n\
         ip link set fv0 addrgenmode none up");
    let reasons = [
        "UDP port 8473 belongs to device fv0, which is not ciliate's",
        "until then the tunnel stays as it is: device cilium_vxlan with UDP port 8472",
    ];
    kept_until(&fleet, &OTHER_PORT, &reasons, || drop(node.sh("ip link del fv0")));
    switch(&fleet, &OTHER_PORT);
}

/// What only the kernel knows: a socket has the port of the device that is to be made anew, or of one of
/// another protocol, which the kernel may not have at all.
#[test]
fn a_tunnel_stays_while_the_kernel_refuses_another() {
    let Some(fleet) = Fleet::new(V4, V4) else { return };
    fleet.apply(2, VXLAN.routing);
    exchange(&fleet.busybox_a, &fleet.busybox_b, "10.42.1.64");
    let node = &fleet.lab.a.space;
    let bind = |port| node.run(|| std::net::UdpSocket::bind(("0.0.0.0", port))).expect("bind");
    let socket = bind(6081);
    kept_until(&fleet, &GENEVE, &["cilium_geneve", "more changes wait for it"], || drop(socket));
    let socket = bind(8473);
    let reasons = ["UDP port 8473 is in use on this host", "cilium_vxlan"];
    kept_until(&fleet, &OTHER_PORT, &reasons, || drop(socket));
    switch(&fleet, &OTHER_PORT);
}

/// A device that has the name: nothing is sent out by it.
#[test]
fn a_foreign_device_of_the_name() {
    let Some(fleet) = Fleet::new(V4, V4) else { return };
    fleet.write(2, VXLAN.routing);
    fleet.lab.b.apply();
    let node = &fleet.lab.a.space;
    for kind in ["vxlan id 7 dstport 9999 dev eth0", "veth peer name elsewhere"] {
        fleet.lab.a.destroy();
        // Without IPv6, so that the kernel has nothing to say there by itself.
        node.sh(&format!(
            "ip link add cilium_vxlan type {kind}\n\
             echo 1 >/proc/sys/net/ipv6/conf/cilium_vxlan/disable_ipv6; ip link set cilium_vxlan up"
        ));
        fleet.lab.baseline_of_a();
        let before = device(node, "cilium_vxlan");
        apply_blocked(&fleet, "link cilium_vxlan exists and does not belong to ciliate");
        let sent = || node.sh("ip -s -o link show cilium_vxlan");
        let sent_before = sent();
        assert!(!answers(&fleet.busybox_a, "10.42.1.64"));
        assert_eq!(sent(), sent_before);
        assert_eq!(device(node, "cilium_vxlan"), before);
        node.sh("ip link del cilium_vxlan");
        fleet.lab.baseline_of_a();
        fleet.lab.a.apply();
        exchange(&fleet.busybox_a, &fleet.busybox_b, "10.42.1.64");
    }
}

/// A socket can't be seen beforehand: the kernel refuses, and what that means is said.
#[test]
fn a_socket_on_the_port() {
    let Some(fleet) = Fleet::new(V4, V4) else { return };
    fleet.write(2, VXLAN.routing);
    fleet.lab.b.apply();
    let node = &fleet.lab.a.space;
    let socket = node.run(|| std::net::UdpSocket::bind("0.0.0.0:8472")).expect("bind");
    apply_blocked(&fleet, "UDP port 8472 is in use on this host");
    drop(socket);
    fleet.lab.a.apply();
    exchange(&fleet.busybox_a, &fleet.busybox_b, "10.42.1.64");
}

/// What only the machine can tell: which addresses the node has, and whose the peer's are.
#[test]
fn peers_that_no_tunnel_leads_to() {
    let Some(fleet) = Fleet::new(V4, V4) else { return };
    let mut text = fleet.text(0, VXLAN.routing);
    text.node = text.node.replace("addresses = [\"172.16.16.120\"]\n", "");
    let more: String = [
        peer("node-6", &["fd00::6"], &["10.42.6.0/24"], ""),
        peer("node-7", &["172.16.16.120"], &["10.42.7.0/24"], ""),
    ]
    .concat();
    fleet.lab.a.write(&Text { peers: text.peers.clone() + &more, ..text });
    fleet.lab.b.write(&fleet.text(1, VXLAN.routing));
    fleet.lab.b.apply();
    let ran = apply_blocked(&fleet, "tunnels lead to IPv4 addresses here, and the peer has none");
    let local = "peer node-7: 172.16.16.120 is an address of this host";
    assert!(ran.all().contains(local), "{ran:?}");
    for cidr in ["10.42.6.0/24", "10.42.7.0/24"] {
        assert_eq!(fleet.lab.a.space.sh(&format!("ip route show {cidr}")), "");
    }
    exchange(&fleet.busybox_a, &fleet.busybox_b, "10.42.1.64");
    let listed = fleet.lab.a.ciliate(&["get", "peers", "-o", "json"]).json();
    let peers = listed["peers"].as_array().expect("a list");
    let tunnel = |name: &str| {
        let peer = peers.iter().find(|peer| peer["name"] == name).expect("a peer");
        peer["tunnel"].clone()
    };
    assert_eq!(tunnel("node-b"), MEMBERS[1].underlay[0]);
    assert_eq!((tunnel("node-6"), tunnel("node-7")), (Value::Null, Value::Null));
}

#[test]
fn an_underlay_too_small_for_ipv6() {
    let Some(fleet) = Fleet::new(DUAL, V4) else { return };
    fleet.lab.a.space.sh("ip link set eth0 mtu 1300");
    fleet.lab.baseline();
    fleet.write(1, VXLAN.routing);
    apply_blocked(
        &fleet,
        "the underlay's MTU of 1300 leaves 1250 in the tunnel, and IPv6 needs 1280",
    );
    fleet.lab.a.space.sh("ip link set eth0 mtu 1330");
    fleet.lab.baseline_of_a();
    fleet.lab.a.apply();
    let route = fleet.busybox_a.sh("ip -6 route show default");
    assert!(route.contains("mtu 1280"), "{route}");
}

/// One line in the file of a running daemon is all it takes.
#[test]
fn the_daemon_changes_the_port() {
    let Some(fleet) = Fleet::new(V4, V4) else { return };
    fleet.write(2, VXLAN.routing);
    let daemons = [Daemon::start(&fleet.lab.a), Daemon::start(&fleet.lab.b)];
    for daemon in &daemons {
        daemon.wait("to converge", |status| status.converged);
    }
    exchange(&fleet.busybox_a, &fleet.busybox_b, "10.42.1.64");
    fleet.write(2, OTHER_PORT.routing);
    for daemon in &daemons {
        daemon.wait("the other port", |status| status.converged && status.generation > 1);
    }
    exchange(&fleet.busybox_a, &fleet.busybox_b, "10.42.1.64");
    let device = fleet.lab.a.space.sh("ip -d -o link show cilium_vxlan");
    assert!(device.contains("dstport 8473"), "{device}");
    daemons.into_iter().for_each(Daemon::stop);
}
