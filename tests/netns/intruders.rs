//! What neither endpoints nor other nodes get through: VLANs, packets for the tunnel's own port, identities and
//! fragments that can't be. Each is dropped, counted, and shown by `ciliate monitor`.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use crate::capture::Capture;
use crate::fleet::{Fleet, MEMBERS, Plan, await_counted, counted};
use crate::frames::{self, BROADCAST, TYPE_IPV4, TYPE_IPV6, UDP};
use crate::lab::{DUAL, V4};
use crate::overlay_wire::{ByHand, MAC, PORT, SOURCE_PORT, VXLAN, datagram};
use crate::points::{Names, shown};
use crate::reader::Reader;
use crate::wire::Wire;

const TUNNEL: &str = "mode = \"tunnel\"\n";
const DROPS: [&str; 2] = ["--type", "drop"];

const UNSUPPORTED: &str = "Unsupported L3 protocol";
const VLAN: &str = "VLAN traffic disallowed by VLAN filter";
const PROHIBITED: &str = "Encapsulation traffic is prohibited";

/// Of a VLAN, by customer and provider; a priority without a VLAN.
const TAGS: [[u8; 4]; 2] = [[0x81, 0, 0, 7], [0x88, 0xa8, 0, 7]];
const PRIORITY: [u8; 4] = [0x81, 0, 0xe0, 0];

/// A frame with a tag.
fn tagged(tag: [u8; 4], frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &tag, &frame[12..]].concat()
}

/// An address of an endpoint of node c, which there is none of.
fn endpoint_c(plan: &Plan) -> &'static str {
    if plan.v6 { "fd00:10:42:2::9" } else { "10.42.2.9" }
}

/// Address and port as they are shown.
fn end(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// A line of a drop, as [`Names::plain`] leaves it.
fn line(reason: &str, file: &str, who: &str, packet: &str) -> String {
    format!(
        "xx drop ({reason}) flow # to endpoint 0, ifindex #, file {file}, , identity \
         {who}->unknown: {packet}"
    )
}

fn between(from: &str, to: &str) -> String {
    format!("{} -> {} udp", end(from, SOURCE_PORT), end(to, PORT))
}

#[test]
fn frames_of_a_vlan_from_an_endpoint() {
    let Some(fleet) = Fleet::new(DUAL, V4) else { return };
    fleet.apply(2, TUNNEL);
    let (node, names) = (&fleet.lab.a, Names::of(&fleet.lab.a));
    for plan in fleet.plans() {
        for (to, address) in [(&fleet.nginx_a, plan.nginx_a), (&fleet.busybox_b, plan.busybox_b)] {
            let frame = datagram(plan.busybox_a, address, 64);
            let reader = Reader::start(node, &DROPS);
            let capture = Capture::start(to, "eth0", 1, "udp or vlan");
            let before = counted(node, UNSUPPORTED);
            let send = |frame: &[u8]| fleet.busybox_a.run(|| Wire::open("eth0").send(frame));
            TAGS.iter().for_each(|tag| send(&tagged(*tag, &frame)));
            await_counted(node, UNSUPPORTED, before + 2);
            // The first one that comes is the last one sent: it has a priority, and is of no VLAN.
            send(&tagged(PRIORITY, &frame));
            let seen = capture.lines();
            assert!(seen.len() == 1 && !seen[0].contains("vlan"), "{address}: {seen:?}");
            let packet = between(plan.busybox_a, address);
            let expected = line(UNSUPPORTED, "bpf_lxc.c", "busybox-a", &packet);
            assert_eq!(shown(reader, &names, UNSUPPORTED), [expected.clone(), expected]);
        }
    }
}

#[test]
fn frames_of_a_vlan_in_the_tunnel() {
    let Some(fleet) = Fleet::new(DUAL, V4) else { return };
    fleet.apply(1, TUNNEL);
    let (node, names) = (&fleet.lab.a, Names::of(&fleet.lab.a));
    let node_c = ByHand::new(&fleet, VXLAN);
    for plan in fleet.plans() {
        let frame = datagram(endpoint_c(&plan), plan.busybox_a, 64);
        let reader = Reader::start(node, &DROPS);
        let capture = Capture::start(&fleet.busybox_a, "eth0", 1, "udp or vlan");
        let before = counted(node, VLAN);
        TAGS.iter().for_each(|tag| node_c.send(300, &tagged(*tag, &frame)));
        await_counted(node, VLAN, before + 2);
        node_c.send(300, &tagged(PRIORITY, &frame));
        let seen = capture.lines();
        assert!(seen.len() == 1 && !seen[0].contains("vlan"), "{seen:?}");
        let packet = between(endpoint_c(&plan), plan.busybox_a);
        let expected = line(VLAN, "bpf_overlay.c", "unknown", &packet);
        assert_eq!(shown(reader, &names, VLAN), [expected.clone(), expected]);
    }
}

#[test]
fn packets_for_the_tunnels_port() {
    let Some(fleet) = Fleet::new(DUAL, DUAL) else { return };
    fleet.apply(2, TUNNEL);
    let (node, names) = (&fleet.lab.a, Names::of(&fleet.lab.a));
    for plan in fleet.plans() {
        let v6 = usize::from(plan.v6);
        let [node_a, node_b] = [0, 1].map(|number| MEMBERS[number].underlay[v6]);
        let outside = if plan.v6 { "2001:db8::1" } else { "192.0.2.1" };
        let own: IpAddr = plan.busybox_a.parse().expect("an address");
        let socket = fleet.busybox_a.run(|| UdpSocket::bind((own, 0))).expect("bind");
        let port = socket.local_addr().expect("an address").port();
        let reader = Reader::start(node, &DROPS);
        // As if node c had sent it, from an endpoint of its own with an identity that it chose.
        let inside = datagram(endpoint_c(&plan), plan.busybox_b, 64);
        let forged = VXLAN.around(4, &inside);
        let ends = [node_b, node_a, outside, plan.busybox_b, plan.nginx_a];
        let mut expected = Vec::new();
        for to in ends {
            let before = counted(node, PROHIBITED);
            socket.send_to(&forged, (to, VXLAN.port)).expect("send");
            await_counted(node, PROHIBITED, before + 1);
            let packet = format!("{} -> {} udp", end(plan.busybox_a, port), end(to, VXLAN.port));
            expected.push(line(PROHIBITED, "bpf_lxc.c", "busybox-a", &packet));
        }
        assert_eq!(shown(reader, &names, PROHIBITED), expected);
        // In three pieces, the last two of which have no ports.
        let before = counted(node, PROHIBITED);
        socket.send_to(&[&forged[..], &[0; 3500]].concat(), (node_b, VXLAN.port)).expect("send");
        await_counted(node, PROHIBITED, before + 3);
        // Other ports are nobody's business.
        let b: IpAddr = node_b.parse().expect("an address");
        let receive = || UdpSocket::bind((b, VXLAN.port + 1));
        let receiver = fleet.lab.b.space.run(receive).expect("bind");
        receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("set a timeout");
        socket.send_to(b"else", (node_b, VXLAN.port + 1)).expect("send");
        assert_eq!(receiver.recv(&mut [0; 16]).expect("a datagram"), 4);
        assert_eq!(counted(node, PROHIBITED), before + 3);
    }
}

/// A second tunnel inside, to the node itself: its stack would take that for what another node sent, with any
/// identity.
#[test]
fn a_tunnel_in_the_tunnel() {
    let Some(fleet) = Fleet::new(DUAL, DUAL) else { return };
    fleet.apply(1, TUNNEL);
    let (node, names) = (&fleet.lab.a, Names::of(&fleet.lab.a));
    let node_c = ByHand::new(&fleet, VXLAN);
    for plan in fleet.plans() {
        let from = endpoint_c(&plan);
        let reader = Reader::start(node, &DROPS);
        let inmost = VXLAN.around(4, &datagram(from, plan.busybox_a, 64));
        let mut expected = Vec::new();
        for to in [plan.router_a, MEMBERS[0].underlay[usize::from(plan.v6)]] {
            let before = counted(node, PROHIBITED);
            node_c.send(300, &carrying(from, to, &inmost));
            await_counted(node, PROHIBITED, before + 1);
            let packet = format!("{} -> {} udp", end(from, SOURCE_PORT), end(to, VXLAN.port));
            expected.push(line(PROHIBITED, "bpf_overlay.c", "300", &packet));
        }
        assert_eq!(shown(reader, &names, PROHIBITED), expected);
    }
}

/// A frame with a datagram to the tunnel's port.
fn carrying(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let udp = frames::udp_between(SOURCE_PORT, VXLAN.port, payload);
    match (from.parse(), to.parse()) {
        (Ok(IpAddr::V4(from)), Ok(IpAddr::V4(to))) => {
            frames::ethernet(BROADCAST, MAC, TYPE_IPV4, &frames::ipv4_of(UDP, from, to, 64, &udp))
        }
        (Ok(IpAddr::V6(from)), Ok(IpAddr::V6(to))) => {
            let packet = frames::ipv6_with(from, to, 64, UDP, &udp);
            frames::ethernet(BROADCAST, MAC, TYPE_IPV6, &packet)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn wrong_identities_and_fragments_out_of_the_tunnel() {
    let Some(fleet) = Fleet::new(DUAL, V4) else { return };
    fleet.apply(1, TUNNEL);
    let (node, names) = (&fleet.lab.a, Names::of(&fleet.lab.a));
    let node_c = ByHand::new(&fleet, VXLAN);
    let (invalid, no_first) = ("Invalid identity", "First logical datagram fragment not found");
    for plan in fleet.plans() {
        let from = endpoint_c(&plan);
        let reader = Reader::start(node, &DROPS);
        let before = (counted(node, invalid), counted(node, no_first));
        node_c.send(1, &datagram(from, plan.busybox_a, 64));
        await_counted(node, invalid, before.0 + 1);
        node_c.send(300, &later_piece(from, plan.busybox_a));
        await_counted(node, no_first, before.1 + 1);
        let piece = format!("{from} -> {} udp fragment at 80", plan.busybox_a);
        let expected = [
            line(invalid, "bpf_overlay.c", "unknown", &between(from, plan.busybox_a)),
            line(no_first, "bpf_overlay.c", "300", &piece),
        ];
        let mut lines = shown(reader, &names, "xx drop");
        // Endpoints may still be asking whether they are alone with their addresses.
        lines.retain(|line| line.contains("bpf_overlay.c"));
        assert_eq!(lines, expected);
    }
}

/// A frame with the end of a datagram, 80 bytes of which were in other fragments.
fn later_piece(from: &str, to: &str) -> Vec<u8> {
    match (from.parse(), to.parse()) {
        (Ok(IpAddr::V4(from)), Ok(IpAddr::V4(to))) => {
            let mut packet = frames::ipv4_of(UDP, from, to, 64, b"the end");
            packet[6..8].copy_from_slice(&[0, 10]);
            packet[10..12].copy_from_slice(&[0, 0]);
            let sum = frames::checksum(&[&packet[..20]]).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
            frames::ethernet(BROADCAST, MAC, TYPE_IPV4, &packet)
        }
        (Ok(IpAddr::V6(from)), Ok(IpAddr::V6(to))) => {
            let piece = [&[UDP, 0, 0, 80, 0, 0, 0, 9][..], b"the end"].concat();
            let packet = frames::ipv6_with(from, to, 64, 44, &piece);
            frames::ethernet(BROADCAST, MAC, TYPE_IPV6, &packet)
        }
        other => panic!("{other:?}"),
    }
}
