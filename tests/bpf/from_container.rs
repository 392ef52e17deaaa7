//! IP that an endpoint sends: source check, time to live, delivery, the way to the stack, the mark.

use ciliate::bpf_abi::*;

use crate::frames::*;
use crate::lab::{self, Lab};
use crate::model::{Action, Count};
use crate::world::*;

/// To whom it may concern on A's wire.
fn from_a(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    ethernet(LXC_MAC_A, MAC_A, ethertype, packet)
}

fn count(reason: u8, direction: u8, bytes: usize) -> Count {
    Count { reason, direction, packets: 1, bytes: bytes as u64 }
}

fn assert_dropped(lab: &mut Lab, frame: &[u8], reason: u8, what: &str) {
    assert_eq!(lab.container_sends(frame).action, Action::Drop, "{what}");
    assert_eq!(lab.counted(), [count(reason, DIRECTION_EGRESS, frame.len())], "{what}");
}

#[test]
fn ipv4_to_another_endpoint() {
    lab::run(|lab| {
        let frame = from_a(TYPE_IPV4, &ipv4(A4, B4, 64));
        let out = lab.container_sends(&frame);
        // Building the packet anew with TTL 63 also makes its checksum anew.
        assert_eq!(out.frame, ethernet(MAC_B, LXC_MAC_B, TYPE_IPV4, &ipv4(A4, B4, 63)));
        assert_eq!((out.action, out.mark), (Action::Redirect, 0x3210_0f04));
        let len = frame.len();
        let both = [count(0, DIRECTION_INGRESS, len), count(0, DIRECTION_EGRESS, len)];
        assert_eq!(lab.counted(), both);
    });
}

#[test]
fn ipv6_to_another_endpoint() {
    lab::run(|lab| {
        let frame = from_a(TYPE_IPV6, &ipv6(A6, B6, 64));
        let out = lab.container_sends(&frame);
        assert_eq!(out.frame, ethernet(MAC_B, LXC_MAC_B, TYPE_IPV6, &ipv6(A6, B6, 63)));
        assert_eq!((out.action, out.mark), (Action::Redirect, 0x3210_0f04));
        let len = frame.len();
        let both = [count(0, DIRECTION_INGRESS, len), count(0, DIRECTION_EGRESS, len)];
        assert_eq!(lab.counted(), both);
    });
}

#[test]
fn all_else_goes_to_the_stack() {
    lab::run(|lab| {
        for destination in [ROUTER4, NODE4, NETNS4, REMOTE4, WORLD4, UNUSED4] {
            let frame = from_a(TYPE_IPV4, &ipv4(A4, destination, 64));
            let out = lab.container_sends(&frame);
            let expected = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4(A4, destination, 63));
            assert_eq!((out.action, out.frame, out.mark), (Action::Pass, expected, 0x3210_0f04));
            assert_eq!(lab.counted(), [count(0, DIRECTION_EGRESS, frame.len())]);
        }
        for destination in [ROUTER6, NODE6, REMOTE6, WORLD6, UNUSED6] {
            let frame = from_a(TYPE_IPV6, &ipv6(A6, destination, 64));
            let out = lab.container_sends(&frame);
            let expected = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6(A6, destination, 63));
            assert_eq!((out.action, out.frame, out.mark), (Action::Pass, expected, 0x3210_0f04));
            assert_eq!(lab.counted(), [count(0, DIRECTION_EGRESS, frame.len())]);
        }
    });
}

#[test]
fn stack_bound_frames_are_readdressed() {
    lab::run(|lab| {
        let out = lab.container_sends(&ethernet(MAC_B, MAC_A, TYPE_IPV4, &ipv4(A4, WORLD4, 64)));
        assert_eq!(out.frame[..6], LXC_MAC_A);
    });
}

#[test]
fn options_pass() {
    lab::run(|lab| {
        let options = [7, 7, 4, 0, 0, 0, 0, 0];
        let packet = ipv4_with(A4, B4, 64, &options, &udp(b"x"));
        let out = lab.container_sends(&from_a(TYPE_IPV4, &packet));
        let expected = ipv4_with(A4, B4, 63, &options, &udp(b"x"));
        assert_eq!(out.frame, ethernet(MAC_B, LXC_MAC_B, TYPE_IPV4, &expected));
    });
}

#[test]
fn checksum_stays_valid_for_every_time_to_live() {
    lab::run(|lab| {
        for ttl in 2..=255 {
            let out = lab.container_sends(&from_a(TYPE_IPV4, &ipv4(A4, B4, ttl)));
            assert_eq!(out.frame[ETH_LEN + 8], ttl - 1);
            assert_eq!(checksum(&[&out.frame[ETH_LEN..ETH_LEN + 20]]), 0, "TTL {ttl}");
        }
    });
}

#[test]
fn foreign_sources_are_dropped() {
    lab::run(|lab| {
        for source in [B4, ROUTER4, WORLD4, std::net::Ipv4Addr::UNSPECIFIED] {
            let frame = from_a(TYPE_IPV4, &ipv4(source, B4, 64));
            assert_dropped(lab, &frame, DROP_INVALID_SOURCE_IP, &source.to_string());
        }
        for source in [B6, ROUTER6, WORLD6, A_LINK_LOCAL, std::net::Ipv6Addr::UNSPECIFIED] {
            let frame = from_a(TYPE_IPV6, &ipv6(source, B6, 64));
            assert_dropped(lab, &frame, DROP_INVALID_SOURCE_IP, &source.to_string());
        }
    });
}

#[test]
fn an_endpoint_without_a_family_has_no_source_in_it() {
    lab::run(|lab| {
        let mut world = lab.world.clone();
        let device = world.devices.get_mut(&lab.sandbox.lxc_a).expect("device A");
        (device.ipv4_be, device.ipv6_be) = ([0; 4], [0; 16]);
        lab.describe(world);
        let frame = from_a(TYPE_IPV4, &ipv4(std::net::Ipv4Addr::UNSPECIFIED, B4, 64));
        assert_dropped(lab, &frame, DROP_INVALID_SOURCE_IP, "IPv4");
        let frame = from_a(TYPE_IPV6, &ipv6(std::net::Ipv6Addr::UNSPECIFIED, B6, 64));
        assert_dropped(lab, &frame, DROP_INVALID_SOURCE_IP, "IPv6");
    });
}

#[test]
fn group_reports_and_router_solicitations_are_dropped() {
    lab::run(|lab| {
        let all_routers = "ff02::2".parse().expect("an address");
        let solicitation = icmp6(A_LINK_LOCAL, all_routers, 133, 0, &[0; 4]);
        let packet = ipv6_with(A_LINK_LOCAL, all_routers, 255, ICMP6, &solicitation);
        assert_dropped(lab, &from_a(TYPE_IPV6, &packet), DROP_INVALID_SOURCE_IP, "solicitation");

        let reports = "ff02::16".parse().expect("an address");
        let report = icmp6(A_LINK_LOCAL, reports, 143, 0, &[0; 24]);
        let hop_by_hop = [&[ICMP6, 0, 5, 2, 0, 0, 1, 0][..], &report].concat();
        let packet = ipv6_with(A_LINK_LOCAL, reports, 1, 0, &hop_by_hop);
        assert_dropped(lab, &from_a(TYPE_IPV6, &packet), DROP_INVALID_SOURCE_IP, "report");
    });
}

#[test]
fn ipv4_time_to_live_ends() {
    lab::run(|lab| {
        for ttl in [0, 1] {
            for destination in [B4, WORLD4, ROUTER4] {
                let frame = from_a(TYPE_IPV4, &ipv4(A4, destination, ttl));
                assert_dropped(lab, &frame, DROP_TTL_EXCEEDED, &destination.to_string());
            }
        }
    });
}

#[test]
fn headers_that_are_none_are_dropped() {
    let changed = |mut packet: Vec<u8>, first: u8| {
        packet[0] = first;
        packet
    };
    lab::run(|lab| {
        for first in [0x65, 0x44, 0x05, 0x4f] {
            let frame = from_a(TYPE_IPV4, &changed(ipv4(A4, B4, 64), first));
            assert_dropped(lab, &frame, DROP_INVALID_PACKET, "IPv4");
        }
        let frame = from_a(TYPE_IPV6, &changed(ipv6(A6, B6, 64), 0x40));
        assert_dropped(lab, &frame, DROP_INVALID_PACKET, "IPv6");
    });
}

#[test]
fn other_protocols_are_dropped() {
    lab::run(|lab| {
        let tagged = [&[0, 5, 8, 0][..], &ipv4(A4, B4, 64)].concat();
        assert_dropped(lab, &from_a(0x8100, &tagged), DROP_UNSUPPORTED_L3, "VLAN");
        let tagged = [&[0, 5, 0x86, 0xdd][..], &ipv6(A6, B6, 64)].concat();
        assert_dropped(lab, &from_a(0x88a8, &tagged), DROP_UNSUPPORTED_L3, "provider VLAN");
        assert_dropped(lab, &from_a(0x88cc, &[0; 60]), DROP_UNSUPPORTED_L3, "LLDP");
        assert_dropped(lab, &from_a(0x0600, &[0; 60]), DROP_UNSUPPORTED_L3, "first Ethernet II");
        assert_dropped(lab, &from_a(0x05ff, &[0; 60]), DROP_UNSUPPORTED_L2, "last 802.3");
        assert_dropped(lab, &from_a(0x0026, &[0x42; 60]), DROP_UNSUPPORTED_L2, "spanning tree");
    });
}

#[test]
fn a_device_nobody_described_passes_nothing() {
    lab::run(|lab| {
        let frame = from_a(TYPE_IPV4, &ipv4(A4, B4, 64));
        let out = lab.send("cil_from_container", lab.sandbox.cilium_host, 0, &frame);
        assert_eq!(out.action, Action::Drop);
        assert_eq!(lab.counted(), [count(DROP_NO_CONFIG, DIRECTION_EGRESS, frame.len())]);
    });
}

#[test]
fn one_program_serves_both_endpoints() {
    lab::run(|lab| {
        let frame = ethernet(LXC_MAC_B, MAC_B, TYPE_IPV4, &ipv4(B4, A4, 64));
        let out = lab.send("cil_from_container", lab.sandbox.lxc_b, 0, &frame);
        assert_eq!(out.frame, ethernet(MAC_A, LXC_MAC_A, TYPE_IPV4, &ipv4(B4, A4, 63)));
        assert_eq!((out.action, out.mark), (Action::Redirect, 0x4321_0f05));
    });
}

#[test]
fn counters_name_the_place() {
    lab::run(|lab| {
        lab.container_sends(&from_a(TYPE_IPV4, &ipv4(B4, B4, 64)));
        let metrics = lab.metrics();
        let [(key, _)] = metrics[..] else { panic!("{metrics:?}") };
        assert_eq!(source_file(key.file), Some("bpf_lxc.c"));
        assert_eq!(reason_text(key.reason), Some("Invalid source ip"));
        assert!(key.line > 1);
    });
}
