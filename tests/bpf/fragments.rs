//! Packets in pieces: the first one tells the ports of the others.

use std::net::IpAddr;

use ciliate::bpf_abi::*;

use crate::flows::Flow;
use crate::frames::*;
use crate::kept;
use crate::lab::{self, Lab, TUNNEL_PORT};
use crate::model::Action;
use crate::world::*;

/// A piece of a packet from A; `at` is its offset in units of eight bytes.
fn piece(ipv6: bool, protocol: u8, id: u16, at: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    if ipv6 {
        let field = (at << 3 | u16::from(more)).to_be_bytes();
        let header = [&[protocol, 0][..], &field, &[0, 0], &id.to_be_bytes(), payload].concat();
        let packet = ipv6_with(A6, B6, 64, 44, &header);
        return ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &packet);
    }
    let mut packet = ipv4_of(protocol, A4, B4, 64, payload);
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&(at | u16::from(more) << 13).to_be_bytes());
    ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &packet)
}

fn assert_dropped(lab: &mut Lab, frame: &[u8], reason: u8, what: &str) {
    lab.counted();
    assert_eq!(lab.container_sends(frame).action, Action::Drop, "{what}");
    let reasons: Vec<_> = lab.counted().iter().map(|count| count.reason).collect();
    assert_eq!(reasons, [REASON_FRAGMENT, reason], "{what}");
}

#[test]
fn later_pieces_are_of_the_flow_of_the_first() {
    lab::run(|lab| {
        for (ipv6, ends) in [(false, [IpAddr::from(A4), B4.into()]), (true, [A6.into(), B6.into()])]
        {
            for protocol in [UDP, TCP, 132] {
                let first = piece(ipv6, protocol, 1, 0, true, &tcp(TCP_ACK, &[7; 28]));
                let last = piece(ipv6, protocol, 1, 6, false, &[9; 5]);
                assert_dropped(lab, &last, DROP_FRAGMENT_NOT_FOUND, "before the first");
                assert_eq!(lab.container_sends(&first).action, Action::Redirect);
                let middle = piece(ipv6, protocol, 1, 3, true, &[9; 24]);
                for later in [middle, last] {
                    assert_eq!(lab.container_sends(&later).action, Action::Redirect);
                    let of_another = {
                        let mut frame = later.clone();
                        frame[ETH_LEN + if ipv6 { 40 + 7 } else { 5 }] ^= 0x40;
                        frame
                    };
                    assert_dropped(lab, &of_another, DROP_FRAGMENT_NOT_FOUND, "another packet");
                }
                let flow = Flow {
                    from: (ends[0], 40_000),
                    to: (ends[1], 80),
                    protocol,
                    inward: false,
                    related: false,
                    service: false,
                };
                let kept = kept::flows(lab);
                assert!(kept.contains_key(&flow), "{kept:?}");
                let of_protocol = kept.keys().filter(|flow| flow.protocol == protocol);
                assert_eq!(of_protocol.filter(|flow| flow.from.0 == ends[0]).count(), 2);
            }
        }
    });
}

#[test]
fn pieces_without_ports_are_dropped() {
    lab::run(|lab| {
        for ipv6 in [false, true] {
            let icmp = if ipv6 { ICMP6 } else { ICMP4 };
            for (at, more) in [(0, true), (3, true), (6, false)] {
                let echo = piece(ipv6, icmp, 1, at, more, &[if ipv6 { 128 } else { 8 }; 24]);
                assert_dropped(lab, &echo, DROP_INVALID_PACKET, "ICMP");
                let tunnel = piece(ipv6, 47, 1, at, more, &[0; 24]);
                assert_dropped(lab, &tunnel, DROP_CT_UNKNOWN_PROTOCOL, "GRE");
            }
            let cut_off = piece(ipv6, UDP, 1, 0, true, &[0; 3]);
            assert_dropped(lab, &cut_off, DROP_CT_INVALID_HEADER, "three bytes");
            let later = piece(ipv6, UDP, 1, 3, false, &[0; 3]);
            assert_dropped(lab, &later, DROP_FRAGMENT_NOT_FOUND, "nothing was noted");
        }
    });
}

#[test]
fn a_fragment_header_around_a_whole_packet_is_none() {
    lab::run(|lab| {
        let whole = piece(true, UDP, 1, 0, false, &udp(b"whole"));
        assert_eq!(lab.container_sends(&whole).action, Action::Redirect);
        let counts = lab.counted();
        assert!(counts.iter().all(|count| count.reason == REASON_FORWARDED), "{counts:?}");
        let echo = piece(true, ICMP6, 1, 0, false, &icmp6(A6, B6, 128, 0, &[0, 7, 0, 1]));
        assert_eq!(lab.container_sends(&echo).action, Action::Redirect);
    });
}

#[test]
fn extension_headers_without_an_end_are_dropped() {
    let option = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let behind = |headers: &[u8], last: u8| {
        let mut chain: Vec<u8> = Vec::new();
        for (index, _) in headers.iter().enumerate() {
            chain.extend(option(headers.get(index + 1).copied().unwrap_or(last)));
        }
        let packet = ipv6_with(A6, B6, 64, headers[0], &[&chain, &udp(b"x")[..]].concat());
        ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &packet)
    };
    lab::run(|lab| {
        for headers in [&[0][..], &[60, 60], &[0, 43, 60], &[0, 60, 43, 60]] {
            let out = lab.container_sends(&behind(headers, UDP));
            assert_eq!(out.action, Action::Redirect, "{headers:?}");
        }
        lab.counted();
        let cut_off = behind(&[0, 60], UDP)[..ETH_LEN + 40 + 12].to_vec();
        let nothing = ipv6_with(A6, B6, 64, 59, b"");
        let nothing = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &nothing);
        for frame in [behind(&[60; 5], UDP), behind(&[0], 59), cut_off, nothing] {
            assert_eq!(lab.container_sends(&frame).action, Action::Drop, "{frame:02x?}");
            let reasons: Vec<_> = lab.counted().iter().map(|count| count.reason).collect();
            assert_eq!(reasons, [DROP_INVALID_EXTENSION_HEADER], "{frame:02x?}");
        }
    });
}

#[test]
fn later_pieces_for_the_tunnels_port_are_dropped_as_well() {
    lab::run(|lab| {
        lab.add_tunnel();
        for ipv6 in [false, true] {
            let first = udp_between(1000, TUNNEL_PORT, &[7; 40]);
            let first = piece(ipv6, UDP, 1, 0, true, &first);
            let last = piece(ipv6, UDP, 1, 6, false, &[9; 5]);
            for frame in [first, last] {
                assert_dropped(lab, &frame, DROP_ENCAP_PROHIBITED, "to the tunnel's port");
            }
        }
    });
}
