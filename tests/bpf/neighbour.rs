//! IPv6 neighbour discovery of an endpoint: what is answered, how, and what is not.

use std::net::Ipv6Addr;

use ciliate::bpf_abi::{
    DIRECTION_EGRESS, DROP_INVALID_EXTENSION_HEADER, DROP_INVALID_PACKET, DROP_INVALID_SOURCE_IP,
    DROP_UNKNOWN_TARGET,
};

use crate::frames::*;
use crate::lab::{self, Lab, Outcome};
use crate::model::{Action, Count};
use crate::world::*;

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Options of a solicitation: none, and the sender's link address.
const BARE: &[u8] = &[];
const WITH_MAC: &[u8] = &[1, 1, 0x4a, 0xde, 0x3b, 0x33, 0xf8, 0x4b];

fn solicitation(source: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let group = solicited_node(target);
    let message = icmp6(source, group, SOLICITATION, 0, &nd_body(0, target, options));
    let packet = ipv6_with(source, group, 255, ICMP6, &message);
    ethernet(group_mac(group), MAC_A, TYPE_IPV6, &packet)
}

fn advertisement(to: Ipv6Addr, target: Ipv6Addr, flags: u8) -> Vec<u8> {
    let option = [&[2, 1][..], &LXC_MAC_A].concat();
    let message = icmp6(target, to, ADVERTISEMENT, 0, &nd_body(flags, target, &option));
    ethernet(MAC_A, LXC_MAC_A, TYPE_IPV6, &ipv6_with(target, to, 255, ICMP6, &message))
}

fn assert_dropped(lab: &mut Lab, frame: &[u8], reason: u8, what: &str) {
    assert_eq!(lab.container_sends(frame).action, Action::Drop, "{what}");
    let bytes = frame.len() as u64;
    let count = Count { reason, direction: DIRECTION_EGRESS, packets: 1, bytes };
    assert_eq!(lab.counted(), [count], "{what}");
}

fn assert_passed(out: &Outcome, frame: &[u8], what: &str) {
    assert_eq!((out.action, &out.frame[..], out.mark), (Action::Pass, frame, 0), "{what}");
}

#[test]
fn router_and_endpoints_are_answered_for() {
    lab::run(|lab| {
        let nonce = [WITH_MAC, &[14, 1, 1, 2, 3, 4, 5, 6]].concat();
        for source in [A6, A_LINK_LOCAL] {
            for (target, flags) in [(ROUTER6, 0xc0), (B6, 0x60)] {
                for options in [BARE, WITH_MAC, &nonce] {
                    let out = lab.container_sends(&solicitation(source, target, options));
                    assert_eq!(out.action, Action::Redirect);
                    assert_eq!(out.frame, advertisement(source, target, flags));
                    let sum = icmp6_checksum(target, source, &out.frame[ETH_LEN + 40..]);
                    assert_eq!(sum, 0, "checksum");
                }
            }
        }
        assert_eq!(lab.counted(), [], "Cilium counts no ND");
    });
}

#[test]
fn behind_extension_headers_too() {
    lab::run(|lab| {
        let group = solicited_node(ROUTER6);
        let message = icmp6(A6, group, SOLICITATION, 0, &nd_body(0, ROUTER6, WITH_MAC));
        let chain = |types: &[u8]| {
            let mut payload = Vec::new();
            for next in types[1..].iter().chain([&ICMP6]) {
                payload.extend([*next, 0, 1, 4, 0, 0, 0, 0]);
            }
            payload.extend(&message);
            let packet = ipv6_with(A6, group, 255, types[0], &payload);
            ethernet(group_mac(group), MAC_A, TYPE_IPV6, &packet)
        };
        for types in [&[0][..], &[60], &[43, 60], &[0, 51, 60], &[0, 60, 43, 60]] {
            let out = lab.container_sends(&chain(types));
            assert_eq!(out.frame, advertisement(A6, ROUTER6, 0xc0), "{types:?}");
        }
        let frame = chain(&[0, 60, 43, 60, 60]);
        assert_dropped(lab, &frame, DROP_INVALID_EXTENSION_HEADER, "five headers");
        let cut = &chain(&[0, 60])[..ETH_LEN + 49];
        assert_dropped(lab, cut, DROP_INVALID_EXTENSION_HEADER, "cut in the second");
    });
}

#[test]
fn host_addresses_are_for_the_stack() {
    lab::run(|lab| {
        for source in [A6, A_LINK_LOCAL, Ipv6Addr::UNSPECIFIED] {
            let frame = solicitation(source, NODE6, WITH_MAC);
            assert_passed(&lab.container_sends(&frame), &frame, "NODE6");
        }
    });
}

#[test]
fn advertisements_pass() {
    lab::run(|lab| {
        for source in [A6, A_LINK_LOCAL] {
            let body = nd_body(0x60, A6, &[2, 1, 1, 2, 3, 4, 5, 6]);
            let message = icmp6(source, ROUTER6, ADVERTISEMENT, 0, &body);
            let packet = ipv6_with(source, ROUTER6, 255, ICMP6, &message);
            let frame = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &packet);
            assert_passed(&lab.container_sends(&frame), &frame, "advertisement");
        }
    });
}

#[test]
fn unknown_targets_are_dropped() {
    lab::run(|lab| {
        for target in [UNUSED6, REMOTE6, WORLD6, A6, A_LINK_LOCAL, Ipv6Addr::UNSPECIFIED] {
            let frame = solicitation(A6, target, WITH_MAC);
            assert_dropped(lab, &frame, DROP_UNKNOWN_TARGET, &target.to_string());
        }
    });
}

#[test]
fn duplicate_address_detection_finds_no_duplicate() {
    lab::run(|lab| {
        for target in [A_LINK_LOCAL, A6, B6, ROUTER6] {
            let frame = solicitation(Ipv6Addr::UNSPECIFIED, target, BARE);
            assert_dropped(lab, &frame, DROP_UNKNOWN_TARGET, &target.to_string());
        }
    });
}

#[test]
fn foreign_sources_are_dropped() {
    lab::run(|lab| {
        for source in [B6, WORLD6] {
            let frame = solicitation(source, ROUTER6, WITH_MAC);
            assert_dropped(lab, &frame, DROP_INVALID_SOURCE_IP, "solicitation");
        }
        for source in [B6, Ipv6Addr::UNSPECIFIED] {
            let message = icmp6(source, ROUTER6, ADVERTISEMENT, 0, &nd_body(0x60, B6, &[]));
            let packet = ipv6_with(source, ROUTER6, 255, ICMP6, &message);
            let frame = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &packet);
            assert_dropped(lab, &frame, DROP_INVALID_SOURCE_IP, "advertisement");
        }
    });
}

#[test]
fn malformed_messages_are_dropped() {
    lab::run(|lab| {
        let frame = solicitation(A6, ROUTER6, WITH_MAC);
        for len in ETH_LEN + 40..ETH_LEN + 40 + 24 {
            assert_dropped(lab, &frame[..len], DROP_INVALID_PACKET, "cut off");
        }
        let mut coded = frame.clone();
        coded[ETH_LEN + 41] = 1;
        assert_dropped(lab, &coded, DROP_INVALID_PACKET, "code 1");
    });
}

#[test]
fn forwarded_solicitations_are_ordinary_packets() {
    lab::run(|lab| {
        let mut frame = solicitation(A6, ROUTER6, WITH_MAC);
        frame[ETH_LEN + 7] = 254;
        assert_eq!(lab.container_sends(&frame).action, Action::Pass);
        lab.counted();
        let mut frame = solicitation(A_LINK_LOCAL, ROUTER6, WITH_MAC);
        frame[ETH_LEN + 7] = 254;
        assert_dropped(lab, &frame, DROP_INVALID_SOURCE_IP, "link-local");
    });
}
