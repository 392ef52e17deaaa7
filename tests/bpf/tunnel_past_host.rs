//! Into the tunnel and out of it without its device: the same bytes on the wire as the device makes, and which packets
//! are left to the device and the stack.

use std::net::{Ipv4Addr, Ipv6Addr};

use aya::programs::TcAttachType;
use ciliate::bpf_abi::*;

use crate::frames::*;
use crate::host_routing::add_routes;
use crate::lab::{
    self, CONTEXT_IFINDEX, Lab, TUNNEL_MTU, TUNNEL_PORT, context_of_segments, test_run,
};
use crate::model::{Action, Count};
use crate::sandbox::ip;
use crate::wire::Wire;
use crate::wire_format::{UNDERLAY_MAC, from_peer, set_up, udp_at};
use crate::world::*;

const IPV4_ROOM: usize = 50;
const IPV6_ROOM: usize = 70;

/// Whose route lookups have a source address, and who takes off a header of another family than what is inside.
const PUTS_IN: (u32, u32) = (6, 7);
const TAKES_OUT_ANY: (u32, u32) = (6, 3);

/// The kernel's version. An older one may leave this to the tunnel's device, unless it was given what newer ones have.
fn linux() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_str().expect("text");
    let mut numbers = release.split('.').map(|number| number.parse().expect("a number"));
    (numbers.next().expect("a number"), numbers.next().expect("another one"))
}

fn count(reason: u8, direction: u8, bytes: usize) -> Count {
    Count { reason, direction, packets: 1, bytes: bytes as u64 }
}

/// The mark of a packet into the tunnel.
fn overlay_mark(identity: u32) -> u32 {
    identity_mark(identity) & !0xf00 | 0x400
}

/// A packet of A's with congestion in its type of service, which the outer one is to have too.
fn a_to4(destination: Ipv4Addr, ecn: u8) -> Vec<u8> {
    let mut packet = ipv4(A4, destination, 64);
    packet[1] = 0xb8 | ecn;
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum = checksum(&[&packet[..20]]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &packet)
}

fn a_to6(destination: Ipv6Addr, ecn: u8) -> Vec<u8> {
    let mut packet = ipv6(A6, destination, 64);
    packet[1] = ecn << 4 | 7;
    ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &packet)
}

/// Each family in each, with each sort of congestion.
fn all_that_a_sends() -> Vec<Vec<u8>> {
    let of = |ecn| {
        [
            a_to4(REMOTE4, ecn),
            a_to6(REMOTE6, ecn),
            a_to4(OTHER_FAMILY4, ecn),
            a_to6(OTHER_FAMILY6, ecn),
        ]
    };
    (0..4).flat_map(of).collect()
}

/// What two packets of one flow have the same: without the outer IPv4 header's number, and with its checksum seen
/// to be right.
fn without_number(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == TYPE_IPV4.to_be_bytes() {
        assert_eq!(checksum(&[&frame[ETH_LEN..ETH_LEN + 20]]), 0, "{frame:02x?}");
        frame[ETH_LEN + 4..ETH_LEN + 6].fill(0);
        frame[ETH_LEN + 10..ETH_LEN + 12].fill(0);
    }
    frame
}

#[test]
fn the_wire_has_the_same_bytes() {
    lab::run(|lab| {
        let far = set_up(lab);
        let endpoint = Wire::tap_in("a", "eth0");
        let sent = || -> Vec<Vec<u8>> {
            let outer = |frame: Vec<u8>| {
                endpoint.send(&frame);
                without_number(far.receive(|frame| udp_at(frame).is_some()))
            };
            all_that_a_sends().into_iter().map(outer).collect()
        };
        let by_device = sent();
        lab.route_past_host();
        // What the device were to send would come to nothing.
        if linux() >= PUTS_IN {
            ip("link set cilium_vxlan down");
        }
        let by_program = sent();
        for (program, device) in by_program.iter().zip(&by_device) {
            assert_eq!(program, device);
        }
    });
}

#[test]
fn what_a_peer_sends_needs_no_device() {
    lab::run(|lab| {
        let far = set_up(lab);
        lab.route_past_host();
        lab.attach("cil_from_netdev", "underlay", TcAttachType::Ingress);
        if linux() >= TAKES_OUT_ANY {
            ip("link set cilium_vxlan down");
        }
        let endpoint = Wire::tap_in("b", "eth0");
        let elsewhere = |ethertype, packet: &[u8]| ethernet([2; 6], [4; 6], ethertype, packet);
        for outer_ipv6 in [false, true] {
            far.send(&from_peer(outer_ipv6, 40_000, &elsewhere(TYPE_IPV4, &ipv4(REMOTE4, B4, 64))));
            let expected = ethernet(MAC_B, LXC_MAC_B, TYPE_IPV4, &ipv4(REMOTE4, B4, 63));
            let is_v4 = |frame: &[u8]| frame[12..14] == TYPE_IPV4.to_be_bytes();
            assert_eq!(endpoint.receive(is_v4), expected, "IPv6 outside: {outer_ipv6}");
            far.send(&from_peer(outer_ipv6, 40_000, &elsewhere(TYPE_IPV6, &ipv6(REMOTE6, B6, 64))));
            let expected = ethernet(MAC_B, LXC_MAC_B, TYPE_IPV6, &ipv6(REMOTE6, B6, 63));
            let is_udp = |frame: &[u8]| frame[12..14] == [0x86, 0xdd] && frame[ETH_LEN + 6] == UDP;
            assert_eq!(endpoint.receive(is_udp), expected, "IPv6 outside: {outer_ipv6}");
        }
    });
}

/// A node with a tunnel and routes to its end, by `cilium_host` in place of the underlay.
fn past_host(lab: &mut Lab) {
    lab.add_tunnel();
    lab.route_past_host();
    add_routes();
}

/// Whether what came of a frame is the frame with something around it, where the kernel can do that.
fn is_around(out: &[u8], frame: &[u8], room: usize) -> bool {
    let room = if linux() < PUTS_IN && out.len() == frame.len() { 0 } else { room };
    out.len() == frame.len() + room && out[room..] == *frame
}

#[test]
fn what_is_simple_is_put_into_the_tunnel() {
    lab::run(|lab| {
        past_host(lab);
        for (frame, room) in [
            (a_to4(REMOTE4, 0), IPV4_ROOM),
            (a_to6(REMOTE6, 0), IPV4_ROOM),
            (a_to4(OTHER_FAMILY4, 0), IPV6_ROOM),
            (a_to6(OTHER_FAMILY6, 0), IPV6_ROOM),
        ] {
            let out = lab.container_sends(&frame);
            assert_eq!((out.action, out.mark), (Action::Redirect, overlay_mark(IDENTITY_A)));
            assert!(is_around(&out.frame, &frame, room), "{:02x?}", out.frame);
            // As it is counted on its way to the device.
            assert_eq!(lab.counted(), [count(REASON_FORWARDED, DIRECTION_EGRESS, frame.len())]);
        }
    });
}

#[test]
fn what_is_not_simple_is_left_to_the_device() {
    let packet = |len: usize| {
        let mut packet = ipv4_of(UDP, A4, REMOTE4, 64, &udp(&vec![0x42; len - 28]));
        // May be cut.
        packet[6] = 0;
        ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &packet)
    };
    let longest = usize::from(TUNNEL_MTU);
    lab::run(|lab| {
        past_host(lab);
        assert!(is_around(
            &lab.container_sends(&packet(longest)).frame,
            &packet(longest),
            IPV4_ROOM
        ));
        let left = |lab: &Lab, frame: &[u8]| {
            let out = lab.container_sends(frame);
            let expected = (Action::Redirect, frame, overlay_mark(IDENTITY_A));
            assert_eq!((out.action, &out.frame[..], out.mark), expected);
        };
        left(lab, &packet(longest + 1));
        let frame = ethernet(
            LXC_MAC_A,
            MAC_A,
            TYPE_IPV4,
            &ipv4_of(TCP, A4, REMOTE4, 64, &tcp(16, &[7; 900])),
        );
        let segments = context_of_segments(lab, 400);
        assert_eq!(test_run(lab.program("cil_from_container"), segments, &frame).frame, frame);
        // Too long for the route, which the stack is to cut it for; no route.
        ip("route add 172.18.0.2 dev cilium_host mtu lock 600");
        left(lab, &packet(551));
        assert!(is_around(&lab.container_sends(&packet(550)).frame, &packet(550), IPV4_ROOM));
        ip("route replace unreachable 172.18.0.2");
        left(lab, &a_to4(REMOTE4, 0));
        ip("route del unreachable 172.18.0.2");
        // To be encrypted.
        let mut value = IpcacheValue::new(IDENTITY_REMOTE);
        value.tunnel_endpoint_be[..4].copy_from_slice(&PEER4.octets());
        value.flags = IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT;
        value.key = IPCACHE_KEY_WIREGUARD;
        lab.set_prefix(REMOTE4.into(), 32, &value);
        assert_eq!(lab.container_sends(&a_to4(REMOTE4, 0)).frame, a_to4(REMOTE4, 0));
    });
}

/// What a peer sends to B, as it comes to the device that stands for the underlay.
fn to_b(outer_ipv6: bool, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let inner = ethernet([2; 6], [4; 6], ethertype, packet);
    let mut frame = from_peer(outer_ipv6, IDENTITY_REMOTE, &inner);
    assert_eq!(frame[..6], UNDERLAY_MAC);
    frame[..6].copy_from_slice(&HOST_MAC);
    frame
}

#[test]
fn what_is_simple_is_taken_out_of_the_tunnel() {
    lab::run(|lab| {
        past_host(lab);
        let (v4, v6) = (ipv4(REMOTE4, B4, 64), ipv6(REMOTE6, B6, 64));
        for outer_ipv6 in [false, true] {
            for (ethertype, packet, one_less) in
                [(TYPE_IPV4, &v4, ipv4(REMOTE4, B4, 63)), (TYPE_IPV6, &v6, ipv6(REMOTE6, B6, 63))]
            {
                let frame = to_b(outer_ipv6, ethertype, packet);
                let out = lab.send("cil_from_netdev", lab.sandbox.cilium_host, 0x1234, &frame);
                let other_family = outer_ipv6 != (ethertype == TYPE_IPV6);
                if linux() < TAKES_OUT_ANY && other_family && out.action == Action::Next {
                    assert_eq!(out.frame, frame);
                    lab.counted();
                    continue;
                }
                let expected = ethernet(MAC_B, LXC_MAC_B, ethertype, &one_less);
                assert_eq!((out.action, out.frame), (Action::Redirect, expected));
                assert_eq!(out.mark, identity_mark(IDENTITY_REMOTE));
                // At the underlay, and out of the tunnel.
                let inner = ETH_LEN + packet.len();
                let mut arrived = count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len() + inner);
                arrived.packets = 2;
                let delivered = count(REASON_FORWARDED, DIRECTION_INGRESS, inner);
                assert_eq!(lab.counted(), [delivered, arrived]);
            }
        }
    });
}

/// Writes bytes into a frame; the outer IPv4 header's checksum is made right again, unless it is what was written.
fn with(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    if frame[12..14] == TYPE_IPV4.to_be_bytes() && at != ETH_LEN + 10 {
        frame[ETH_LEN + 10..ETH_LEN + 12].fill(0);
        let sum = checksum(&[&frame[ETH_LEN..ETH_LEN + 20]]).to_be_bytes();
        frame[ETH_LEN + 10..ETH_LEN + 12].copy_from_slice(&sum);
    }
    frame
}

/// What of both families has the same behind the outer IP header, which ends at `udp`.
fn odd(frame: &[u8], udp: usize) -> Vec<Vec<u8>> {
    let (head, inner) = (udp + 8, udp + 16);
    let mut longer = frame.to_vec();
    longer.push(0);
    vec![
        longer,
        with(frame, 0, &MAC_A),
        with(frame, udp + 2, &(TUNNEL_PORT + 1).to_be_bytes()),
        with(frame, udp + 4, &[0, 1]),
        with(frame, udp + 6, &[0x12, 0x34]),
        // Without the flag of an identifier, with another one; the reserved bytes; this node's own identity.
        with(frame, head, &[0]),
        with(frame, head, &[0x0c]),
        with(frame, head + 3, &[1]),
        with(frame, head + 7, &[1]),
        with(frame, head + 4, &[0, 0, 1]),
        with(frame, inner + 12, &TYPE_ARP.to_be_bytes()),
        // Not IP of that family; a header that is too short or longer than the packet; nobody's; the node's; no hop.
        with(frame, inner + 14, &[0x55]),
        with(frame, inner + 14, &[0x44]),
        with(frame, inner + 14, &[0x4f]),
        with(frame, inner + 30, &UNUSED4.octets()),
        with(frame, inner + 30, &ROUTER4.octets()),
        with(frame, inner + 22, &[1]),
    ]
}

#[test]
fn what_is_not_simple_is_left_to_the_stack() {
    lab::run(|lab| {
        past_host(lab);
        let [v4, v6] = [false, true].map(|v6| to_b(v6, TYPE_IPV4, &ipv4(REMOTE4, B4, 64)));
        let ip = ETH_LEN;
        let mut frames = [odd(&v4, ip + 20), odd(&v6, ip + 40)].concat();
        frames.extend([
            with(&v4, ip, &[0x46]),
            with(&v4, ip, &[0x65]),
            // Congestion that was met; a wrong length; the first fragment, a later one; TCP; a wrong checksum.
            with(&v4, ip + 1, &[3]),
            with(&v4, ip + 2, &[0, 60]),
            with(&v4, ip + 6, &[0x20, 0]),
            with(&v4, ip + 6, &[0, 1]),
            with(&v4, ip + 9, &[TCP]),
            with(&v4, ip + 10, &[0x12, 0x34]),
            with(&v4, ip + 16, &PEER4.octets()),
            with(&v4, ip + 16, &B4.octets()),
            with(&v6, ip, &[0x40]),
            with(&v6, ip + 1, &[0x30]),
            with(&v6, ip + 4, &[0, 60]),
            with(&v6, ip + 6, &[TCP]),
            with(&v6, ip + 24, &PEER6.octets()),
        ]);
        let six = to_b(false, TYPE_IPV6, &ipv6(REMOTE6, B6, 64));
        let inner = ip + IPV4_ROOM;
        frames.extend([
            with(&six, inner, &[0x40]),
            with(&six, inner + 7, &[1]),
            with(&six, inner + 24, &UNUSED6.octets()),
            with(&six, inner + 24, &ROUTER6.octets()),
            with(&from_peer(false, IDENTITY_REMOTE, &[2; 33]), 0, &HOST_MAC),
        ]);
        let device = lab.sandbox.cilium_host;
        for frame in &frames {
            let out = lab.send("cil_from_netdev", device, 0x1234, frame);
            assert_eq!((out.action, &out.frame, out.mark), (Action::Next, frame, 0x1234));
            assert_eq!(lab.counted(), [count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len())]);
        }
        let mut segments = context_of_segments(lab, 400);
        segments[CONTEXT_IFINDEX..][..4].copy_from_slice(&device.to_ne_bytes());
        let out = test_run(lab.program("cil_from_netdev"), segments, &v4);
        assert_eq!((out.action, &out.frame), (Action::Next, &v4));
        let out = lab.send_tagged("cil_from_netdev", device, &[(0x8100, 7)], &v4);
        assert_eq!(out.action, Action::Next);
        let mut world = lab.world.clone();
        world.node.flags &= !NODE_FLAG_HOST_ROUTING;
        lab.describe(world);
        let out = lab.send("cil_from_netdev", device, 0, &v4);
        assert_eq!((out.action, &out.frame), (Action::Next, &v4), "unless it is told otherwise");
    });
}

#[test]
fn geneve_has_a_header_of_its_own() {
    lab::run(|lab| {
        past_host(lab);
        let mut world = lab.world.clone();
        world.node.flags |= NODE_FLAG_GENEVE;
        lab.describe(world);
        for (frame, room) in [(a_to4(REMOTE4, 0), IPV4_ROOM), (a_to6(OTHER_FAMILY6, 0), IPV6_ROOM)]
        {
            let out = lab.container_sends(&frame).frame;
            assert!(is_around(&out, &frame, room), "{out:02x?}");
            let head = out.len() - frame.len();
            // RFC 8926: version 0, no options; no flags; Ethernet inside; the sender's identity.
            let expected = [0, 0, 0x65, 0x58, 0x04, 0x32, 0x10, 0];
            assert!(head == 0 || out[ETH_LEN + head - 22..][..8] == expected, "{out:02x?}");
        }
        let device = lab.sandbox.cilium_host;
        let vxlan = to_b(false, TYPE_IPV4, &ipv4(REMOTE4, B4, 64));
        assert_eq!(lab.send("cil_from_netdev", device, 0, &vxlan).action, Action::Next);
        let geneve = with(&vxlan, ETH_LEN + 28, &[0, 0, 0x65, 0x58]);
        let out = lab.send("cil_from_netdev", device, 0, &geneve);
        let expected = ethernet(MAC_B, LXC_MAC_B, TYPE_IPV4, &ipv4(REMOTE4, B4, 63));
        assert_eq!((out.action, out.frame), (Action::Redirect, expected));
        // Options are the stack's.
        let options = with(&geneve, ETH_LEN + 28, &[1]);
        assert_eq!(lab.send("cil_from_netdev", device, 0, &options).action, Action::Next);
    });
}
