//! The programs of `cilium_host`, `cilium_net` and the underlay.

use ciliate::bpf_abi::*;

use crate::frames::*;
use crate::lab::{self, Lab};
use crate::model::{Action, Count};
use crate::world::*;

/// As the kernel sends it out of a device without ARP: to and from that device's own address.
fn by_host(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    ethernet(HOST_MAC, HOST_MAC, ethertype, packet)
}

fn count(reason: u8, direction: u8, bytes: usize) -> Count {
    Count { reason, direction, packets: 1, bytes: bytes as u64 }
}

fn assert_dropped(lab: &mut Lab, mark: u32, frame: &[u8], reason: u8) {
    assert_eq!(lab.host_sends(mark, frame).action, Action::Drop);
    let entered = count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len());
    assert_eq!(lab.counted(), [entered, count(reason, DIRECTION_INGRESS, frame.len())]);
}

#[test]
fn forwarded_and_own_packets_reach_endpoints() {
    lab::run(|lab| {
        let frame = by_host(TYPE_IPV4, &ipv4(REMOTE4, B4, 61));
        let out = lab.host_sends(0, &frame);
        assert_eq!(out.frame, ethernet(MAC_B, LXC_MAC_B, TYPE_IPV4, &ipv4(REMOTE4, B4, 60)));
        assert_eq!(out.action, Action::Redirect);
        let delivered = count(REASON_FORWARDED, DIRECTION_INGRESS, frame.len());
        let entered = count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len());
        assert_eq!(lab.counted(), [delivered, entered]);

        let frame = by_host(TYPE_IPV6, &ipv6(ROUTER6, A6, 64));
        let out = lab.host_sends(MARK_MAGIC_HOST, &frame);
        assert_eq!(out.frame, ethernet(MAC_A, LXC_MAC_A, TYPE_IPV6, &ipv6(ROUTER6, A6, 63)));
        assert_eq!(out.action, Action::Redirect);
    });
}

#[test]
fn the_mark_names_the_sender() {
    let cases = [
        (MARK_MAGIC_HOST, WORLD4, IDENTITY_HOST),
        (identity_mark(0x00ab_cdef), WORLD4, 0x00ab_cdef),
        (0x3210_0a04, WORLD4, 0x0004_3210),
        (0x3210_0b04, WORLD4, 0x0004_3210),
        (0, REMOTE4, IDENTITY_REMOTE),
        (0, WORLD4, IDENTITY_WORLD_IPV4),
        (0, NODE4, IDENTITY_WORLD),
        (0x0200, REMOTE4, IDENTITY_REMOTE),
    ];
    lab::run(|lab| {
        for (mark, source, identity) in cases {
            let out = lab.host_sends(mark, &by_host(TYPE_IPV4, &ipv4(source, B4, 61)));
            assert_eq!(out.mark, identity_mark(identity), "mark {mark:#x} from {source}");
        }
        let out = lab.host_sends(0, &by_host(TYPE_IPV6, &ipv6(REMOTE6, B6, 61)));
        assert_eq!(out.mark, identity_mark(IDENTITY_REMOTE));
        let out = lab.host_sends(0, &by_host(TYPE_IPV6, &ipv6(WORLD6, B6, 61)));
        assert_eq!(out.mark, identity_mark(IDENTITY_WORLD_IPV6));
    });
}

#[test]
fn known_destinations_cross_to_cilium_net() {
    lab::run(|lab| {
        for destination in [NODE4, ROUTER4, NETNS4, REMOTE4] {
            let packet = ipv4(ROUTER4, destination, 64);
            let out = lab.host_sends(MARK_MAGIC_HOST, &by_host(TYPE_IPV4, &packet));
            let expected = ethernet(NET_MAC, HOST_MAC, TYPE_IPV4, &packet);
            assert_eq!((out.action, out.frame, out.mark), (Action::Pass, expected, 0));
        }
        for destination in [NODE6, ROUTER6, REMOTE6] {
            let packet = ipv6(ROUTER6, destination, 64);
            let out = lab.host_sends(MARK_MAGIC_HOST, &by_host(TYPE_IPV6, &packet));
            let expected = ethernet(NET_MAC, HOST_MAC, TYPE_IPV6, &packet);
            assert_eq!((out.action, out.frame, out.mark), (Action::Pass, expected, 0));
        }
    });
}

#[test]
fn unknown_destinations_are_unroutable() {
    lab::run(|lab| {
        for mark in [0, MARK_MAGIC_HOST] {
            for destination in [UNUSED4, WORLD4] {
                let frame = by_host(TYPE_IPV4, &ipv4(ROUTER4, destination, 64));
                assert_dropped(lab, mark, &frame, DROP_UNROUTABLE);
            }
            for destination in [UNUSED6, WORLD6] {
                let frame = by_host(TYPE_IPV6, &ipv6(ROUTER6, destination, 64));
                assert_dropped(lab, mark, &frame, DROP_UNROUTABLE);
            }
        }
    });
}

#[test]
fn the_proxy_may_go_anywhere_and_is_not_counted_again() {
    lab::run(|lab| {
        for mark in [0x3210_0a04, 0x3210_0b04] {
            let out = lab.host_sends(mark, &by_host(TYPE_IPV4, &ipv4(ROUTER4, WORLD4, 64)));
            assert_eq!(out.action, Action::Pass);
            let out = lab.host_sends(mark, &by_host(TYPE_IPV6, &ipv6(ROUTER6, WORLD6, 64)));
            assert_eq!(out.action, Action::Pass);
        }
        assert_eq!(lab.counted(), []);
    });
}

#[test]
fn groups_and_other_protocols_pass_untouched() {
    let group = "ff02::16".parse().expect("an address");
    let frames = [
        by_host(TYPE_IPV4, &ipv4(ROUTER4, [224, 0, 0, 22].into(), 1)),
        by_host(TYPE_IPV4, &ipv4(ROUTER4, [255; 4].into(), 64)),
        ethernet(group_mac(group), HOST_MAC, TYPE_IPV6, &ipv6(A_LINK_LOCAL, group, 1)),
        ethernet(BROADCAST, HOST_MAC, TYPE_ARP, &arp(1, (HOST_MAC, ROUTER4), ([0; 6], B4))),
        by_host(0x88cc, &[1; 40]),
        by_host(0x0026, &[0x42; 40]),
    ];
    lab::run(|lab| {
        for frame in &frames {
            let out = lab.host_sends(MARK_MAGIC_HOST, frame);
            let expected = (Action::Pass, frame, MARK_MAGIC_HOST);
            assert_eq!((out.action, &out.frame, out.mark), expected);
        }
    });
}

#[test]
fn link_local_addresses_cross_to_cilium_net() {
    lab::run(|lab| {
        let packet = ipv4(ROUTER4, [169, 254, 1, 1].into(), 64);
        let out = lab.host_sends(0, &by_host(TYPE_IPV4, &packet));
        assert_eq!(out.frame, ethernet(NET_MAC, HOST_MAC, TYPE_IPV4, &packet));
        let packet = ipv6(A_LINK_LOCAL, "fe80::1".parse().expect("an address"), 255);
        let out = lab.host_sends(0, &by_host(TYPE_IPV6, &packet));
        assert_eq!(out.frame, ethernet(NET_MAC, HOST_MAC, TYPE_IPV6, &packet));
        assert_eq!(out.action, Action::Pass);
    });
}

#[test]
fn headers_that_are_none_and_used_up_ones_are_dropped() {
    lab::run(|lab| {
        for ttl in [0, 1] {
            let frame = by_host(TYPE_IPV4, &ipv4(REMOTE4, B4, ttl));
            assert_dropped(lab, 0, &frame, DROP_TTL_EXCEEDED);
        }
        assert_dropped(lab, 0, &by_host(TYPE_IPV4, &[0x60; 40]), DROP_INVALID_PACKET);
        assert_dropped(lab, 0, &by_host(TYPE_IPV6, &[0x40; 40]), DROP_INVALID_PACKET);
    });
}

#[test]
fn to_host_counts_and_passes() {
    lab::run(|lab| {
        for frame in [by_host(TYPE_IPV4, &ipv4(B4, NODE4, 63)), by_host(0x88cc, &[1; 40])] {
            let out = lab.send("cil_to_host", lab.sandbox.cilium_host, 0x1234, &frame);
            assert_eq!((out.action, &out.frame, out.mark), (Action::Pass, &frame, 0x1234));
            let count = count(REASON_FORWARDED, DIRECTION_EGRESS, frame.len());
            assert_eq!(lab.counted(), [count]);
        }
    });
}

#[test]
fn from_netdev_counts_and_lets_others_decide() {
    let tagged = [&[0, 5, 8, 0][..], &ipv4(REMOTE4, B4, 62)].concat();
    let frames = [
        by_host(TYPE_IPV4, &ipv4(REMOTE4, B4, 62)),
        by_host(TYPE_IPV6, &ipv6(REMOTE6, B6, 1)),
        by_host(TYPE_ARP, &arp(1, (MAC_A, NODE4), ([0; 6], NODE4))),
        by_host(0x8100, &tagged),
        by_host(0x0026, &[0x42; 40]),
    ];
    lab::run(|lab| {
        for frame in &frames {
            let out = lab.send("cil_from_netdev", lab.sandbox.cilium_host, 0x1234, frame);
            assert_eq!((out.action, &out.frame, out.mark), (Action::Next, frame, 0x1234));
            let count = count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len());
            assert_eq!(lab.counted(), [count]);
        }
    });
}
