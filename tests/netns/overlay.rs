//! The VXLAN walk-through: what it shows, to the letter, and packets in every direction, IPv4 and IPv6 in
//! IPv4 and in IPv6.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ciliate::bpf_abi::{
    CILIATE_NODE, NODE_FLAG_GENEVE, NODE_FLAG_HOST_ROUTING, NODE_FLAG_TWO_WORLDS, NodeValue,
};
use ciliate::intent::identity_of_labels;
use ciliate::kinds::bpf_map::MapName;
use ciliate::net::Mac;

use crate::capture::Capture;
use crate::fleet::{Fleet, MEMBERS, Plan, counted};
use crate::lab::{DUAL, Families, V4, V6};
use crate::node::Node;
use crate::space::Space;
use crate::traffic::{answers, exchange, ping, tcp};

const VXLAN: &str = "mode = \"tunnel\"\n";
/// Into the tunnel and out of it by the programs.
pub const PAST_HOST: &str = "mode = \"tunnel\"\nhost-routing = \"bpf\"\n";
/// Routing by Geneve.
pub const GENEVE: &str = "tunnel-protocol = \"geneve\"\n";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The lines without the spaces that `ip` leaves at their ends.
fn lines(space: &Space, command: &str) -> Vec<String> {
    space.sh(command).lines().map(|line| line.trim_end().to_string()).collect()
}

/// The words of each line that a command of `ciliate` prints.
fn words(node: &Node, arguments: &[&str]) -> Vec<Vec<String>> {
    let ran = node.ciliate(arguments);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout.lines().map(|line| line.split_whitespace().map(str::to_string).collect()).collect()
}

/// Name and Ethernet address of an endpoint's device on its node.
fn lxc(node: &Node, endpoint: &str) -> (String, String) {
    let text = node.space.sh("ip -o link show type veth");
    let alias = format!("alias ciliate endpoint {endpoint}");
    let line = text.lines().find(|line| line.ends_with(&alias)).expect("a device");
    let name = line.split(": ").nth(1).and_then(|name| name.split('@').next());
    let mac = line.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    (name.expect("a name").to_string(), mac.expect("an Ethernet address").to_string())
}

#[test]
fn the_walk_through() {
    let Some(fleet) = Fleet::new(V4, V4) else { return };
    fleet.apply(4, VXLAN);
    let node = &fleet.lab.a;
    let device = node.space.sh("ip -d -o link show cilium_vxlan");
    assert!(device.contains("<BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500"), "{device}");
    assert!(
        device.contains("state UNKNOWN") && device.contains("alias ciliate tunnel"),
        "{device}"
    );
    for part in ["vxlan external ", "dstport 8472", "nolearning", " udp6zerocsumrx"] {
        assert!(device.contains(part), "no `{part}` in {device}");
    }

    // Nothing is known to an endpoint until it asks, and what it is told is its own device on the host.
    assert_eq!(lines(&fleet.busybox_a, "ip -4 neigh"), [""; 0]);
    assert_eq!(ping(&fleet.busybox_a, "10.42.0.182"), 63, "TTL on one node");
    let (_, mac) = lxc(node, "busybox-a");
    let neighbours = lines(&fleet.busybox_a, "ip -4 neigh");
    let entry = format!("10.42.0.26 dev eth0 lladdr {mac} ");
    assert!(neighbours.len() == 1 && neighbours[0].starts_with(&entry), "{neighbours:?}");
    routes(&fleet);

    let tunnels = words(node, &["bpf", "tunnel", "list"]);
    let expected = [
        ["TUNNEL", "VALUE"],
        ["10.42.1.0", "172.16.16.121:0"],
        ["10.42.2.0", "172.16.16.122:0"],
        ["10.42.3.0", "172.16.16.123:0"],
    ];
    assert_eq!(tunnels, expected);
    endpoint_list(&fleet);
    ipcache(&fleet);
    assert_eq!(ping(&fleet.busybox_a, "10.42.1.64"), 63, "TTL through the tunnel");
    let status = node.ciliate(&["status"]);
    let routing = "Network: Tunnel [vxlan]   Host: Legacy";
    assert!(status.code == 0 && status.stdout.contains(routing), "{status:?}");
    assert!(status.stdout.contains("UDP port 8472, over IPv4"), "{status:?}");
}

fn routes(fleet: &Fleet) {
    assert_eq!(
        lines(&fleet.busybox_a, "ip route"),
        [
            "default via 10.42.0.26 dev eth0 proto 203 mtu 1450",
            "10.42.0.26 dev eth0 proto 203 scope link",
        ]
    );
    let node_a = [
        "default via 172.16.16.1 dev eth0",
        "10.42.0.0/24 via 10.42.0.26 dev cilium_host proto 203 src 10.42.0.26",
        "10.42.0.26 dev cilium_host proto 203 scope link",
        "10.42.1.0/24 via 10.42.0.26 dev cilium_host proto 203 src 10.42.0.26 mtu 1450",
        "10.42.2.0/24 via 10.42.0.26 dev cilium_host proto 203 src 10.42.0.26 mtu 1450",
        "10.42.3.0/24 via 10.42.0.26 dev cilium_host proto 203 src 10.42.0.26 mtu 1450",
        "172.16.16.0/24 dev eth0 proto kernel scope link src 172.16.16.120",
    ];
    assert_eq!(lines(&fleet.lab.a.space, "ip route"), node_a);
    let node_b = lines(&fleet.lab.b.space, "ip route show proto 203");
    assert_eq!(node_b[0], "10.42.0.0/24 via 10.42.1.217 dev cilium_host src 10.42.1.217 mtu 1450");
    assert_eq!(node_b[1], "10.42.1.0/24 via 10.42.1.217 dev cilium_host src 10.42.1.217");
    for device in ["cilium_host", "cilium_net", "cilium_vxlan", "eth0"] {
        let link = fleet.lab.a.space.sh(&format!("ip -o link show {device}"));
        assert!(link.contains(" mtu 1500 "), "only routes have the smaller MTU: {link}");
    }
}

/// `nodemac` leads to the device of the endpoint, as it does in the walk-through.
fn endpoint_list(fleet: &Fleet) {
    let node = &fleet.lab.a;
    let (name, mac) = lxc(node, "nginx-a");
    let ifindex = node.space.sh(&format!("ip -o link show {name}"));
    let ifindex = ifindex.split(':').next().expect("a number").to_string();
    let own = fleet.nginx_a.sh("ip -o link show eth0");
    let own = own.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    let own = own.expect("an Ethernet address").to_uppercase();
    let listed = words(node, &["bpf", "endpoint", "list"]);
    let line = listed.iter().find(|line| line[0] == "10.42.0.182:0").expect("the endpoint");
    let identity = identity("nginx-a");
    let id = &line[1];
    assert!(id.strip_prefix("id=").is_some_and(|id| id.parse::<u16>().is_ok()), "{line:?}");
    let expected = [
        format!("sec_id={identity}"),
        "flags=0x0000".into(),
        format!("ifindex={ifindex}"),
        format!("mac={own}"),
        format!("nodemac={}", mac.to_uppercase()),
        "parent_ifindex=0".into(),
    ];
    assert_eq!(line[2..], expected);
}

fn ipcache(fleet: &Fleet) {
    let listed = words(&fleet.lab.a, &["bpf", "ipcache", "list"]);
    let listed: BTreeMap<&str, String> =
        listed.iter().skip(1).map(|line| (line[0].as_str(), line[1..].join(" "))).collect();
    let here = |identity: u32| {
        format!("identity={identity} encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>")
    };
    let there = |identity: u32| {
        format!("identity={identity} encryptkey=0 tunnelendpoint=172.16.16.121 flags=hastunnel")
    };
    for (prefix, expected) in [
        ("0.0.0.0/0", here(2)),
        ("172.16.16.120/32", here(1)),
        ("10.42.0.26/32", here(1)),
        ("10.42.0.97/32", here(identity("busybox-a"))),
        ("172.16.16.121/32", here(6)),
        ("10.42.1.217/32", there(6)),
        ("10.42.1.0/24", there(2)),
    ] {
        assert_eq!(listed.get(prefix), Some(&expected), "{prefix}");
    }
}

/// The identity of the endpoint of a name.
fn identity(name: &str) -> u32 {
    identity_of_labels(&BTreeMap::from([("app".to_string(), name.to_string())])).number()
}

#[test]
fn ipv4_in_ipv4() {
    traffic(V4, V4, VXLAN);
}

#[test]
fn both_in_ipv4() {
    traffic(DUAL, V4, VXLAN);
}

#[test]
fn both_in_ipv6() {
    traffic(DUAL, V6, VXLAN);
}

#[test]
fn ipv6_in_ipv6_by_clsact() {
    traffic(V6, V6, "underlay-protocol = \"ipv6\"\n\n[datapath]\nattach-mode = \"clsact\"\n");
}

#[test]
fn both_in_ipv4_past_the_hosts() {
    traffic(DUAL, V4, PAST_HOST);
}

#[test]
fn both_in_ipv6_past_the_hosts() {
    traffic(DUAL, V6, PAST_HOST);
}

/// Every sort of traffic by a tunnel.
pub fn traffic(inside: Families, underlay: Families, routing: &str) {
    let Some(fleet) = Fleet::new(inside, underlay) else { return };
    fleet.apply(2, routing);
    let overhead = if underlay.v4 { 50 } else { 70 };
    let geneve = routing.contains("geneve");
    for plan in fleet.plans() {
        between_endpoints(&fleet, &plan);
        with_hosts(&fleet, &plan);
        segment_size(&fleet, &plan, overhead);
        fragmentation_needed(&fleet, &plan, overhead);
        fragmentation_needed_by_another_route(&fleet, &plan, overhead);
        unknown_destinations(&fleet, &plan);
        if if plan.v6 { underlay.v6 } else { underlay.v4 } {
            masquerade(&fleet, &plan);
            fragmentation_needed_from_outside(&fleet, &plan, overhead);
        }
    }
    let flags = [
        (inside == DUAL, NODE_FLAG_TWO_WORLDS),
        (geneve, NODE_FLAG_GENEVE),
        (routing.contains("host-routing"), NODE_FLAG_HOST_ROUTING),
    ];
    let flags = flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag).sum();
    what_the_programs_know(&fleet, flags);
    let port = if geneve { 6081 } else { 8472 };
    identities_on_the_wire(&fleet, port);
}

fn between_endpoints(fleet: &Fleet, plan: &Plan) {
    let Fleet { busybox_a, nginx_a, busybox_b, nginx_b, .. } = fleet;
    assert_eq!(exchange(busybox_a, nginx_a, plan.nginx_a), ip(plan.busybox_a));
    assert_eq!(exchange(busybox_a, busybox_b, plan.busybox_b), ip(plan.busybox_a));
    assert_eq!(exchange(nginx_b, busybox_a, plan.busybox_a), ip(plan.nginx_b));
    assert_eq!(exchange(nginx_a, nginx_b, plan.nginx_b), ip(plan.nginx_a));
    assert_eq!(ping(busybox_a, plan.nginx_a), 63, "TTL on one node");
    assert_eq!(ping(busybox_a, plan.busybox_b), 63, "TTL through the tunnel: one hop, at delivery");
    assert_eq!(ping(nginx_b, plan.busybox_a), 63, "TTL through the tunnel: one hop, at delivery");
}

/// Hosts speak as routers, and answer as such.
fn with_hosts(fleet: &Fleet, plan: &Plan) {
    let (a, b) = (&fleet.lab.a.space, &fleet.lab.b.space);
    assert_eq!(exchange(a, &fleet.busybox_b, plan.busybox_b), ip(plan.router_a));
    assert_eq!(exchange(b, &fleet.nginx_a, plan.nginx_a), ip(plan.router_b));
    assert_eq!(exchange(a, b, plan.router_b), ip(plan.router_a));
    assert_eq!(exchange(&fleet.busybox_a, b, plan.router_b), ip(plan.busybox_a));
    assert_eq!(exchange(&fleet.busybox_a, a, plan.router_a), ip(plan.busybox_a));
    assert_eq!(ping(a, plan.busybox_b), 63, "TTL through the tunnel: one hop, at delivery");
    assert_eq!(ping(a, plan.router_b), 63, "TTL through the tunnel: one hop, at delivery");
    // Bound to another address, the host still speaks as the router: that is where answers come back.
    let (underlay_a, v6) = (MEMBERS[0].underlay[usize::from(plan.v6)], plan.v6);
    if (v6 && fleet.lab.families.v6) || (!v6 && fleet.lab.families.v4) {
        let from_router = format!("src host {}", plan.router_a);
        let capture = Capture::start(&fleet.busybox_b, "eth0", 1, &from_router);
        a.sh(&format!("ping -n -c 1 -W 5 -I {underlay_a} {}", plan.busybox_b));
        assert_eq!(capture.lines().len(), 1, "a packet {from_router}");
    }
}

/// What an endpoint sends to nodes' own addresses and to the outside goes by the underlay, which knows
/// nothing of endpoints: it comes from the node.
fn masquerade(fleet: &Fleet, plan: &Plan) {
    let v6 = usize::from(plan.v6);
    let (node_a, node_b) = (MEMBERS[0].underlay[v6], MEMBERS[1].underlay[v6]);
    let outside = if plan.v6 { "2001:db8::1" } else { "192.0.2.1" };
    assert_eq!(exchange(&fleet.busybox_a, &fleet.lab.b.space, node_b), ip(node_a));
    assert_eq!(exchange(&fleet.busybox_a, &fleet.lab.outside, outside), ip(node_a));
    // Its own node is no way off.
    assert_eq!(exchange(&fleet.busybox_a, &fleet.lab.a.space, node_a), ip(plan.busybox_a));
}

/// The route's MTU is what is announced: 1410 with IPv4 in IPv4.
fn segment_size(fleet: &Fleet, plan: &Plan, overhead: u16) {
    let headers = if plan.v6 { 40 + 20 } else { 20 + 20 };
    let (family, syn) = if plan.v6 { ("ip6", "ip6[53] = 2") } else { ("ip", "tcp[13] = 2") };
    let capture = Capture::start(&fleet.busybox_b, "eth0", 1, &format!("{family} and {syn}"));
    tcp(&fleet.busybox_a, &fleet.busybox_b, plan.busybox_b);
    let lines = capture.lines();
    let expected = format!("mss {},", 1500 - overhead - headers);
    assert!(lines.len() == 1 && lines[0].contains(&expected), "SYN: {lines:?}, not {expected}");
}

/// A ping in one piece; `size` is that of the whole packet.
fn sized(size: u16, plan: &Plan) -> String {
    let headers = if plan.v6 { 40 + 8 } else { 20 + 8 };
    format!("ping -n -c 1 -W 5 -M do -s {} {}", size - headers, plan.busybox_b)
}

/// A packet that must not be cut passes if it is as long as what the tunnel leaves; one byte more does not.
fn fragmentation_needed(fleet: &Fleet, plan: &Plan, overhead: u16) {
    let mtu = 1500 - overhead;
    for space in [&fleet.busybox_a, &fleet.lab.a.space] {
        space.sh(&sized(mtu, plan));
        let refused = space.try_sh(&sized(mtu + 1, plan)).expect_err("a packet that is too long");
        // It knows the MTU of its route, and doesn't even send it.
        let told = [format!("mtu: {mtu}"), format!("mtu={mtu}")];
        assert!(told.iter().any(|told| refused.contains(told)), "{refused}");
    }
}

/// An endpoint that goes by another route is told by ICMP, and the tunnel's packets stay in one piece.
fn fragmentation_needed_by_another_route(fleet: &Fleet, plan: &Plan, overhead: u16) {
    let mtu = 1500 - overhead;
    let ends = [
        (&fleet.busybox_a, plan.busybox_b, plan.router_a),
        (&fleet.busybox_b, plan.busybox_a, plan.router_b),
    ];
    for (space, to, router) in ends {
        space.sh(&format!("ip route add {to} via {router} dev eth0"));
    }
    let pieces = || fleet.lab.nodes().take(2).map(outer_pieces).sum::<u64>();
    let before = pieces();
    // Segments of 1500 bytes are what both ends agree on, until they are told otherwise.
    tcp(&fleet.busybox_a, &fleet.busybox_b, plan.busybox_b);
    fleet.busybox_a.sh("ip route flush cache; ip -6 route flush cache");
    fleet.busybox_a.sh(&sized(mtu, plan));
    for size in [mtu + 1, 1500] {
        let refused = fleet.busybox_a.try_sh(&sized(size, plan)).expect_err("too long a packet");
        let (v4, v6) = (format!("(mtu = {mtu})"), format!("Packet too big: mtu={mtu}"));
        let told = if plan.v6 { v6 } else { format!("Frag needed and DF set {v4}") };
        let from = format!("From {} icmp_seq=1", plan.router_a);
        assert!(refused.contains(&told) && refused.contains(&from), "{size}: {refused}");
        fleet.busybox_a.sh("ip route flush cache; ip -6 route flush cache");
    }
    assert_eq!(pieces(), before, "packets between the nodes were cut");
    for (space, to, router) in ends {
        space.sh(&format!("ip route del {to} via {router} dev eth0"));
    }
}

/// How many pieces a node cut its packets into.
fn outer_pieces(node: &Node) -> u64 {
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let v4 = node.space.sh("grep ^Ip: /proc/net/snmp");
    let (names, numbers) = v4.split_once('\n').expect("two lines");
    let at = names.split_whitespace().position(|name| name == "FragCreates").expect("a column");
    let v4 = number(numbers.split_whitespace().nth(at).expect("a number"));
    let v6 = node.space.sh("grep ^Ip6FragCreates /proc/net/snmp6");
    v4 + number(v6.split_whitespace().nth(1).expect("a number"))
}

/// Who doesn't know the route's MTU is told by ICMP.
fn fragmentation_needed_from_outside(fleet: &Fleet, plan: &Plan, overhead: u16) {
    let (mtu, v6) = (1500 - overhead, usize::from(plan.v6));
    let (node, cidr) = (MEMBERS[0].underlay[v6], MEMBERS[1].cidrs[v6]);
    let outside = &fleet.lab.outside;
    outside.sh(&format!("ip route add {cidr} via {node}"));
    outside.sh(&sized(mtu, plan));
    let refused = outside.try_sh(&sized(mtu + 1, plan)).expect_err("a packet that is too long");
    let told = match plan.v6 {
        true => format!("Packet too big: mtu={mtu}"),
        false => format!("Frag needed and DF set (mtu = {mtu})"),
    };
    assert!(refused.contains(&told), "{refused}");
    // And comes out of the tunnel as the router: the answers' way leads back through it.
    assert_eq!(tcp(outside, &fleet.busybox_b, plan.busybox_b), ip(plan.router_a));
    outside.sh(&format!("ip route del {cidr}"));
}

/// The node's entry for the programs: the tunnel's device, what it is, and flags.
fn what_the_programs_know(fleet: &Fleet, flags: u32) {
    let observed = fleet.lab.a.view().observed;
    let entries = observed.bpf_map_entries.iter();
    let node = entries.into_iter().find(|(key, _)| key.map == MapName::of_abi(CILIATE_NODE));
    let value = node.expect("the entry").1.value.as_slice().try_into().expect("a node");
    let value = NodeValue::from_bytes(value);
    let device = if flags & NODE_FLAG_GENEVE != 0 { "cilium_geneve" } else { "cilium_vxlan" };
    let link = &observed.links[&device.parse().expect("a name")];
    assert_eq!((value.tunnel_ifindex, Mac(value.tunnel_mac)), (link.ifindex, link.end.mac));
    assert_eq!(value.flags, flags);
}

/// An address nobody has is dropped where that is known: on its own node.
fn unknown_destinations(fleet: &Fleet, plan: &Plan) {
    let reason = "Stale or unroutable IP";
    for (node, router) in [(&fleet.lab.a, plan.router_a), (&fleet.lab.b, plan.router_b)] {
        let nobody = router.replace("26", "250").replace("217", "250");
        let before = counted(node, reason);
        assert!(!answers(&fleet.busybox_a, &nobody));
        assert!(counted(node, reason) > before, "{nobody} on node {}", node.name);
    }
}

/// The virtual network is the sender's identity; a host is to others a remote node.
fn identities_on_the_wire(fleet: &Fleet, port: u16) {
    let plan = fleet.plans().next().expect("a family");
    for (from, expected) in [
        (&fleet.busybox_a, identity("busybox-a")),
        (&fleet.nginx_a, identity("nginx-a")),
        (&fleet.lab.a.space, 6),
    ] {
        let capture = Capture::start_tunnel(&fleet.lab.b.space, "eth0", 2, port);
        ping(from, plan.busybox_b);
        let lines = capture.lines().join("\n");
        let numbers: Vec<&str> = (lines.split("vni ").skip(1))
            .filter_map(|rest| rest.split([',', ':', '\n', ' ']).next())
            .collect();
        let shown = |vni: u32| if port == 6081 { format!("{vni:#x}") } else { vni.to_string() };
        assert_eq!(numbers, [shown(expected), shown(identity("busybox-b"))], "{lines}");
    }
}
