//! What is on the wire between nodes, byte by byte: headers that the kernel's tunnel makes of the key the
//! programs set, and a packet made here by hand that they take from it.
//!
//! The layout is that of RFC 7348; which values are in it is Cilium's choice, and has to stay: another
//! node may be one of Cilium's.

use std::net::{Ipv4Addr, Ipv6Addr};

use aya::programs::TcAttachType;

use crate::frames::*;
use crate::lab::{self, Lab};
use crate::sandbox::ip;
use crate::traffic;
use crate::wire::Wire;
use crate::world::*;

const PORT: u16 = 8472;
pub const UNDERLAY_MAC: Mac = [0x0e, 1, 1, 1, 1, 1];
pub const PEER_MAC: Mac = [0x0e, 2, 2, 2, 2, 2];

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A node with a tunnel, on a wire whose other end, `far`, is the peer.
pub fn set_up(lab: &mut Lab) -> Wire {
    traffic::set_up(lab);
    lab.add_tunnel();
    ip(&format!("link set cilium_vxlan address {} up", text(TUNNEL_MAC)));
    lab.attach("cil_from_overlay", "cilium_vxlan", TcAttachType::Ingress);
    lab.attach("cil_to_overlay", "cilium_vxlan", TcAttachType::Egress);
    // In a namespace of its own, where nobody forwards what arrives.
    ip("netns add peer");
    ip("link add underlay type veth peer name far netns peer");
    ip(&format!("link set underlay address {} up", text(UNDERLAY_MAC)));
    ip(&format!("-n peer link set far address {} up", text(PEER_MAC)));
    ip(&format!("address add {NODE4}/16 dev underlay"));
    ip(&format!("address add {NODE6}/64 dev underlay nodad"));
    for peer in [PEER4.to_string(), PEER6.to_string()] {
        ip(&format!("neighbour add {peer} lladdr {} dev underlay", text(PEER_MAC)));
    }
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{family}/conf/all/forwarding");
        std::fs::write(path, "1").expect("write forwarding");
    }
    // Answers to the peer's endpoints go by cilium_host, as in a real node.
    ip(&format!("route add 10.244.1.0/24 via {ROUTER4} dev cilium_host src {ROUTER4}"));
    ip(&format!("-6 route add fd00:10:244:0:1::/80 dev cilium_host src {ROUTER6}"));
    Wire::tap_in("peer", "far")
}

/// The outer packet's headers up to those of VXLAN, and what is behind.
struct Outer {
    ttl: u8,
    addresses: (std::net::IpAddr, std::net::IpAddr),
    checksum: [u8; 2],
    vxlan: [u8; 8],
    inner: Vec<u8>,
}

/// The UDP header's place, when it is one to the tunnel's port.
pub fn udp_at(frame: &[u8]) -> Option<usize> {
    let (at, protocol) = match u16::from_be_bytes([frame[12], frame[13]]) {
        TYPE_IPV4 => (ETH_LEN + 20, frame[ETH_LEN + 9]),
        TYPE_IPV6 => (ETH_LEN + 40, frame[ETH_LEN + 6]),
        _ => return None,
    };
    let port = frame.get(at + 2..at + 4)?;
    (protocol == UDP && port == PORT.to_be_bytes()).then_some(at)
}

fn next_outer(far: &Wire) -> Outer {
    let frame = far.receive(|frame| udp_at(frame).is_some());
    assert_eq!(frame[..12], [PEER_MAC, UNDERLAY_MAC].concat(), "link addresses");
    let udp = udp_at(&frame).expect("just found");
    let len = u16::from_be_bytes([frame[udp + 4], frame[udp + 5]]);
    assert_eq!(usize::from(len), frame.len() - udp, "length of the UDP header");
    let v4 = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).expect("4"));
    let v6 = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).expect("16"));
    let ipv4 = udp == ETH_LEN + 20;
    Outer {
        ttl: frame[if ipv4 { ETH_LEN + 8 } else { ETH_LEN + 7 }],
        addresses: match ipv4 {
            true => (v4(ETH_LEN + 12).into(), v4(ETH_LEN + 16).into()),
            false => (v6(ETH_LEN + 8).into(), v6(ETH_LEN + 24).into()),
        },
        checksum: [frame[udp + 6], frame[udp + 7]],
        vxlan: frame[udp + 8..udp + 16].try_into().expect("8 bytes"),
        inner: frame[udp + 16..].to_vec(),
    }
}

/// A VXLAN packet as a Cilium node would send it.
pub fn from_peer(outer_ipv6: bool, id: u32, inner: &[u8]) -> Vec<u8> {
    let [_, vni @ ..] = id.to_be_bytes();
    let vxlan = [&[8, 0, 0, 0][..], &vni, &[0], inner].concat();
    let len = (8 + vxlan.len() as u16).to_be_bytes();
    let udp = [&[0xc3, 0x50][..], &PORT.to_be_bytes(), &len, &[0, 0], &vxlan].concat();
    match outer_ipv6 {
        true => {
            ethernet(UNDERLAY_MAC, PEER_MAC, TYPE_IPV6, &ipv6_with(PEER6, NODE6, 64, UDP, &udp))
        }
        false => {
            let packet = ipv4_with(PEER4, NODE4, 64, &[], &udp);
            ethernet(UNDERLAY_MAC, PEER_MAC, TYPE_IPV4, &packet)
        }
    }
}

#[test]
fn what_endpoints_send() {
    let cases = [
        (TYPE_IPV4, ipv4(A4, REMOTE4, 64), false),
        (TYPE_IPV6, ipv6(A6, REMOTE6, 64), false),
        (TYPE_IPV4, ipv4(A4, OTHER_FAMILY4, 64), true),
        (TYPE_IPV6, ipv6(A6, OTHER_FAMILY6, 64), true),
    ];
    lab::run(|lab| {
        let far = set_up(lab);
        let endpoint = Wire::tap_in("a", "eth0");
        for (ethertype, packet, outer_ipv6) in cases {
            let frame = ethernet(LXC_MAC_A, MAC_A, ethertype, &packet);
            endpoint.send(&frame);
            let outer = next_outer(&far);
            let addresses = match outer_ipv6 {
                true => (NODE6.into(), PEER6.into()),
                false => (NODE4.into(), PEER4.into()),
            };
            assert_eq!(outer.addresses, addresses);
            assert_eq!((outer.ttl, outer.checksum), (64, [0, 0]), "IPv6 outside: {outer_ipv6}");
            // The flag that there is an identifier, and the identifier: the sender's identity.
            assert_eq!(outer.vxlan, [8, 0, 0, 0, 0x04, 0x32, 0x10, 0]);
            assert_eq!(outer.inner, frame, "the frame is as the endpoint sent it");
        }
    });
}

#[test]
fn what_the_host_sends() {
    lab::run(|lab| {
        let far = set_up(lab);
        let host = Wire::open("cilium_host");
        for (ethertype, packet) in
            [(TYPE_IPV4, ipv4(ROUTER4, REMOTE4, 64)), (TYPE_IPV6, ipv6(ROUTER6, REMOTE6, 64))]
        {
            host.send(&ethernet(HOST_MAC, HOST_MAC, ethertype, &packet));
            let outer = next_outer(&far);
            assert_eq!(outer.addresses, (NODE4.into(), PEER4.into()));
            // Without a mark that says it is the host's own, the router's address says no more than world.
            assert_eq!(outer.vxlan, [8, 0, 0, 0, 0, 0, 2, 0]);
            assert_eq!(outer.inner[ETH_LEN..], packet);
        }
    });
}

#[test]
fn what_a_peer_sends_to_endpoints() {
    lab::run(|lab| {
        let far = set_up(lab);
        let endpoint = Wire::tap_in("b", "eth0");
        let elsewhere = |ethertype, packet: &[u8]| ethernet([2; 6], [4; 6], ethertype, packet);
        for outer_ipv6 in [false, true] {
            let inner = elsewhere(TYPE_IPV4, &ipv4(REMOTE4, B4, 64));
            far.send(&from_peer(outer_ipv6, 40_000, &inner));
            let expected = ethernet(MAC_B, LXC_MAC_B, TYPE_IPV4, &ipv4(REMOTE4, B4, 63));
            let is_v4 = |frame: &[u8]| frame[12..14] == TYPE_IPV4.to_be_bytes();
            assert_eq!(endpoint.receive(is_v4), expected, "IPv6 outside: {outer_ipv6}");

            let inner = elsewhere(TYPE_IPV6, &ipv6(REMOTE6, B6, 64));
            far.send(&from_peer(outer_ipv6, 40_000, &inner));
            let expected = ethernet(MAC_B, LXC_MAC_B, TYPE_IPV6, &ipv6(REMOTE6, B6, 63));
            // Its stack says something of its own in IPv6 as well.
            let is_udp = |frame: &[u8]| frame[12..14] == [0x86, 0xdd] && frame[ETH_LEN + 6] == UDP;
            assert_eq!(endpoint.receive(is_udp), expected, "IPv6 outside: {outer_ipv6}");
        }
    });
}

#[test]
fn endpoints_answer_a_peer() {
    lab::run(|lab| {
        let far = set_up(lab);
        let body = [0x12, 0x34, 0, 1, 0xa5];
        let request = icmp6(REMOTE6, B6, 128, 0, &body);
        let cases = [
            (TYPE_IPV4, ipv4_of(ICMP4, REMOTE4, B4, 64, &icmp4(8, 0, &body)), 20, 0),
            (TYPE_IPV6, ipv6_with(REMOTE6, B6, 64, ICMP6, &request), 40, 129),
        ];
        for (ethertype, packet, head_len, reply) in cases {
            // To a link address that is not the endpoint's: its stack must take it all the same.
            far.send(&from_peer(false, 40_000, &ethernet([2; 6], [4; 6], ethertype, &packet)));
            let outer = next_outer(&far);
            assert_eq!(outer.vxlan, [8, 0, 0, 0, 0x05, 0x43, 0x21, 0], "the endpoint's identity");
            assert_eq!(outer.inner[ETH_LEN + head_len], reply, "{:02x?}", outer.inner);
            assert_eq!(outer.inner[ETH_LEN + head_len + 4..], body);
            let ttl = outer.inner[ETH_LEN + if head_len == 20 { 8 } else { 7 }];
            assert_eq!(ttl, 64, "no hop is taken on the way into the tunnel");
        }
    });
}

#[test]
fn the_host_answers_a_peer_through_the_tunnel() {
    lab::run(|lab| {
        let far = set_up(lab);
        let arrived = Wire::tap("cilium_host");
        let elsewhere = |ethertype, packet: &[u8]| ethernet([2; 6], [4; 6], ethertype, packet);
        let request = icmp4(8, 0, &[0x12, 0x34, 0, 1, 0xa5]);
        let packet = ipv4_of(ICMP4, REMOTE4, ROUTER4, 64, &request);
        far.send(&from_peer(false, 40_000, &elsewhere(TYPE_IPV4, &packet)));
        let one_less = ipv4_of(ICMP4, REMOTE4, ROUTER4, 63, &request);
        let expected = ethernet(HOST_MAC, TUNNEL_MAC, TYPE_IPV4, &one_less);
        let is_v4 = |frame: &[u8]| frame[12..14] == TYPE_IPV4.to_be_bytes();
        assert_eq!(arrived.receive(is_v4), expected);
        let outer = next_outer(&far);
        assert_eq!(outer.addresses, (NODE4.into(), PEER4.into()));
        assert_eq!(outer.inner[ETH_LEN + 20], 0, "an echo reply: {:02x?}", outer.inner);

        // A used-up hop limit: the error goes the same way.
        let packet = ipv6(REMOTE6, B6, 1);
        far.send(&from_peer(true, 40_000, &elsewhere(TYPE_IPV6, &packet)));
        let outer = next_outer(&far);
        assert_eq!(outer.inner[ETH_LEN + 40..][..2], [3, 0], "time exceeded: {:02x?}", outer.inner);
        assert_eq!(outer.inner[ETH_LEN + 48..], packet);
        assert_eq!(outer.vxlan[4..7], [0, 0, 6], "of a remote node, to the other end");
    });
}

#[test]
fn the_outer_packet_has_the_mark() {
    lab::run(|lab| {
        let far = set_up(lab);
        let endpoint = Wire::tap_in("a", "eth0");
        // A route only for what is marked as overlay: without the mark nothing comes to the wire.
        ip("rule add fwmark 0x400/0xf00 lookup 7");
        ip("route add 172.18.0.0/16 dev underlay table 7");
        ip("route del 172.18.0.0/16 dev underlay");
        endpoint.send(&ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4(A4, REMOTE4, 64)));
        let outer = next_outer(&far);
        assert_eq!(outer.addresses.1, std::net::IpAddr::from(PEER4));
    });
}
