//! Past the host's stack: which packets go from device to device, and which remain the stack's.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use ciliate::bpf_abi::*;

use crate::frames::*;
use crate::lab::{self, Lab};
use crate::model::{Action, Count};
use crate::sandbox::ip;
use crate::world::*;

fn count(reason: u8, direction: u8, bytes: usize) -> Count {
    Count { reason, direction, packets: 1, bytes: bytes as u64 }
}

/// Routes to the peer's endpoints, out of the device that stands for the underlay.
pub fn add_routes() {
    for line in [
        "link set lxc_a up",
        "link set eth_a up",
        "link set cilium_net up",
        "link set cilium_host up",
        "addr add 172.18.0.3/16 dev cilium_host",
        "addr add fd00:172:18::3/64 dev cilium_host nodad",
        "route add 10.244.4.0/24 via 172.18.0.2 mtu lock 600",
        "-6 route add fd00:10:244:0:4::/80 via fd00:172:18::2 mtu lock 1280",
    ] {
        ip(line);
    }
    for family in ["ipv4", "ipv6"] {
        // The file is that of the thread's namespace.
        fs::write(format!("/proc/sys/net/{family}/conf/all/forwarding"), "1")
            .expect("let the kernel forward");
    }
}

fn a_to4(destination: Ipv4Addr, len: usize) -> Vec<u8> {
    let packet = ipv4_of(UDP, A4, destination, 64, &udp_of(len));
    ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &packet)
}

fn a_to6(destination: Ipv6Addr, len: usize) -> Vec<u8> {
    let packet = ipv6_with(A6, destination, 64, UDP, &udp_of(len));
    ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &packet)
}

fn udp_of(len: usize) -> Vec<u8> {
    udp(&vec![0x42; len])
}

#[track_caller]
fn assert_out(lab: &mut Lab, frame: &[u8], action: Action) {
    let out = lab.container_sends(frame);
    assert_eq!((out.action, out.mark), (action, identity_mark(IDENTITY_A)), "{frame:02x?}");
    assert_eq!(lab.counted(), [count(REASON_FORWARDED, DIRECTION_EGRESS, frame.len())]);
}

#[test]
fn what_has_a_route_to_a_peer_leaves_by_it() {
    lab::run(|lab| {
        lab.route_past_host();
        for frame in [a_to4(SKIP4, 8), a_to6(SKIP6, 8)] {
            assert_out(lab, &frame, Action::Pass);
        }
        add_routes();
        for frame in [a_to4(SKIP4, 8), a_to6(SKIP6, 8)] {
            assert_out(lab, &frame, Action::Redirect);
        }
        // Not a peer's, or nobody's, or too long for the route.
        for frame in [a_to4(WORLD4, 8), a_to4(REMOTE4, 8), a_to4(PEER4, 8), a_to4(SKIP4, 600)] {
            assert_out(lab, &frame, Action::Pass);
        }
        for frame in [a_to6(WORLD6, 8), a_to6(REMOTE6, 8), a_to6(PEER6, 8), a_to6(SKIP6, 1300)] {
            assert_out(lab, &frame, Action::Pass);
        }
    });
}

#[test]
fn the_stack_gets_all_of_it_unless_it_is_told_otherwise() {
    lab::run(|lab| {
        add_routes();
        for frame in [a_to4(SKIP4, 8), a_to6(SKIP6, 8)] {
            assert_out(lab, &frame, Action::Pass);
        }
        let frame = ethernet(HOST_MAC, NET_MAC, TYPE_IPV4, &ipv4(SKIP4, B4, 62));
        let out = lab.send("cil_from_netdev", lab.sandbox.cilium_host, 0, &frame);
        assert_eq!((out.action, out.frame), (Action::Next, frame));
    });
}

#[test]
fn what_peers_send_is_delivered() {
    let v4 = |source, destination, hops| {
        ethernet(HOST_MAC, NET_MAC, TYPE_IPV4, &ipv4(source, destination, hops))
    };
    let v6 = |source, destination, hops| {
        ethernet(HOST_MAC, NET_MAC, TYPE_IPV6, &ipv6(source, destination, hops))
    };
    let mut to_another = v4(SKIP4, B4, 62);
    to_another[..6].copy_from_slice(&MAC_A);
    let for_the_stack = [
        to_another,
        v4(SKIP4, B4, 1),
        v4(SKIP4, UNUSED4, 62),
        v4(SKIP4, NODE4, 62),
        v4(REMOTE4, B4, 62),
        v4(WORLD4, B4, 62),
        v6(SKIP6, B6, 1),
        v6(SKIP6, UNUSED6, 62),
        v6(SKIP6, NODE6, 62),
        v6(REMOTE6, B6, 62),
        v6(WORLD6, B6, 62),
    ];
    lab::run(|lab| {
        lab.route_past_host();
        let device = lab.sandbox.cilium_host;
        for (frame, packet, ethertype) in [
            (v4(SKIP4, B4, 62), ipv4(SKIP4, B4, 61), TYPE_IPV4),
            (v6(SKIP6, B6, 62), ipv6(SKIP6, B6, 61), TYPE_IPV6),
        ] {
            let out = lab.send("cil_from_netdev", device, 0x1234, &frame);
            assert_eq!(out.action, Action::Redirect);
            assert_eq!(out.frame, ethernet(MAC_B, LXC_MAC_B, ethertype, &packet));
            assert_eq!(out.mark, identity_mark(IDENTITY_REMOTE));
            let delivered = count(REASON_FORWARDED, DIRECTION_INGRESS, frame.len());
            let entered = count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len());
            assert_eq!(lab.counted(), [delivered, entered]);
        }
        for frame in &for_the_stack {
            let out = lab.send("cil_from_netdev", device, 0x1234, frame);
            assert_eq!((out.action, &out.frame, out.mark), (Action::Next, frame, 0x1234));
            assert_eq!(lab.counted(), [count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len())]);
        }
    });
}
