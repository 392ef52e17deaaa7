//! ICMPv6 "time exceeded", which the programs build themselves.

use std::net::Ipv6Addr;

use ciliate::bpf_abi::{DIRECTION_EGRESS, DROP_TTL_EXCEEDED};

use crate::frames::*;
use crate::lab;
use crate::model::{Action, Count};
use crate::world::*;

fn error(to: Ipv6Addr, packet: &[u8]) -> Vec<u8> {
    let quote = &packet[..packet.len().min(1280 - 48)];
    let message = icmp6(ROUTER6, to, 3, 0, &[&[0; 4][..], quote].concat());
    ipv6_with(ROUTER6, to, 64, ICMP6, &message)
}

#[test]
fn endpoint_is_told() {
    lab::run(|lab| {
        for len in (0..40).chain([1000, 1183, 1184, 1185, 1186, 1400, 2000]) {
            for (destination, hop_limit) in [(B6, 1), (WORLD6, 1), (ROUTER6, 0)] {
                let payload = udp(&vec![0xa5; len]);
                let packet = ipv6_with(A6, destination, hop_limit, UDP, &payload);
                let out = lab.container_sends(&ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &packet));
                assert_eq!(out.action, Action::Redirect, "{len}");
                let expected = ethernet(MAC_A, LXC_MAC_A, TYPE_IPV6, &error(A6, &packet));
                assert_eq!(out.frame, expected, "payload of {len}");
                assert!(out.frame.len() <= ETH_LEN + 1280);
                let sum = icmp6_checksum(ROUTER6, A6, &out.frame[ETH_LEN + 40..]);
                assert_eq!(sum, 0, "checksum");
            }
        }
        assert_eq!(lab.counted(), []);
    });
}

#[test]
fn host_is_told_through_its_own_device() {
    lab::run(|lab| {
        let packet = ipv6(REMOTE6, B6, 1);
        let out = lab.host_sends(0, &ethernet(HOST_MAC, HOST_MAC, TYPE_IPV6, &packet));
        let expected = ethernet(HOST_MAC, HOST_MAC, TYPE_IPV6, &error(REMOTE6, &packet));
        assert_eq!((out.action, out.frame), (Action::Redirect, expected));
    });
}

#[test]
fn no_error_about_errors_or_groups() {
    let message = |kind: u8| icmp6(A6, B6, kind, 0, &[0; 12]);
    let packets = [
        ("unreachable", ipv6_with(A6, B6, 1, ICMP6, &message(1))),
        ("time exceeded", ipv6_with(A6, B6, 1, ICMP6, &message(3))),
        ("redirect", ipv6_with(A6, B6, 1, ICMP6, &message(137))),
        ("behind an option", {
            let option = [&[ICMP6, 0, 1, 4, 0, 0, 0, 0][..], &message(1)].concat();
            ipv6_with(A6, B6, 1, 60, &option)
        }),
        ("group", ipv6("fd00:10:244::49".parse().expect("A6"), "ff0e::1".parse().expect("x"), 1)),
    ];
    lab::run(|lab| {
        for (what, packet) in &packets {
            let frame = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, packet);
            assert_eq!(lab.container_sends(&frame).action, Action::Drop, "{what}");
            let bytes = frame.len() as u64;
            let reason = DROP_TTL_EXCEEDED;
            let count = Count { reason, direction: DIRECTION_EGRESS, packets: 1, bytes };
            assert_eq!(lab.counted(), [count], "{what}");
        }
        let echo = ipv6_with(A6, B6, 1, ICMP6, &message(128));
        let out = lab.container_sends(&ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &echo));
        assert_eq!(out.action, Action::Redirect, "an echo request is no error");
    });
}

#[test]
fn a_node_without_ipv6_address_is_silent() {
    lab::run(|lab| {
        let mut world = lab.world.clone();
        world.node.router_ipv6_be = [0; 16];
        lab.describe(world);
        let frame = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6(A6, B6, 1));
        assert_eq!(lab.container_sends(&frame).action, Action::Drop);
        assert_eq!(lab.counted()[0].reason, DROP_TTL_EXCEEDED);
    });
}
