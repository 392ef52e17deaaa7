//! Drops for which something has to be wrong with more than the packet.

use std::time::{Duration, Instant};

use aya::programs::TcAttachType;
use ciliate::bpf_abi::*;

use crate::frames::*;
use crate::lab::{self, Globals, Lab};
use crate::model::Action;
use crate::sandbox;
use crate::wire::Wire;
use crate::world::*;

const NARROW: Globals = Globals {
    seconds: &[],
    accounting: false,
    node_is_here: false,
    narrow: &[
        "cilium_ct4_global",
        "cilium_ct_any4_global",
        "cilium_ct6_global",
        "cilium_ct_any6_global",
    ],
};

fn echo(ipv6: bool, id: u16) -> Vec<u8> {
    let body = [&id.to_be_bytes()[..], &[0, 1]].concat();
    match ipv6 {
        false => {
            let packet = ipv4_of(ICMP4, A4, WORLD4, 64, &icmp4(8, 0, &body));
            ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &packet)
        }
        true => {
            let message = icmp6(A6, WORLD6, 128, 0, &body);
            let packet = ipv6_with(A6, WORLD6, 64, ICMP6, &message);
            ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &packet)
        }
    }
}

fn assert_no_room(lab: &mut Lab, frame: &[u8]) {
    lab.counted();
    assert_eq!(lab.container_sends(frame).action, Action::Drop, "{frame:02x?}");
    let counted = lab.counted();
    let reasons: Vec<_> = counted.iter().map(|count| (count.reason, count.direction)).collect();
    assert_eq!(reasons, [(DROP_CT_INSERT_FAILED, DIRECTION_EGRESS)], "{frame:02x?}");
}

/// The maps of the programs make room for a new flow; these don't.
#[test]
fn no_room_for_a_flow() {
    lab::run_with(NARROW, |lab| {
        for ipv6 in [false, true] {
            assert_eq!(lab.container_sends(&echo(ipv6, 1)).action, Action::Pass);
            assert_no_room(lab, &echo(ipv6, 2));
            assert_eq!(lab.container_sends(&echo(ipv6, 1)).action, Action::Pass, "known");
        }
        let v4 = |protocol, payload: &[u8]| {
            ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4_of(protocol, A4, WORLD4, 64, payload))
        };
        let v6 = |protocol, payload: &[u8]| {
            ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6_with(A6, WORLD6, 64, protocol, payload))
        };
        // There is room for the flow itself, but not for its companion.
        for frame in [v4(TCP, &tcp(TCP_SYN, b"")), v6(TCP, &tcp(TCP_SYN, b""))] {
            assert_no_room(lab, &frame);
        }
        for frame in [v4(UDP, &udp(b"")), v6(UDP, &udp(b""))] {
            assert_no_room(lab, &frame);
        }
    });
}

/// The kernel cuts nothing off that a checksum is still to be computed over, so the error can't be built.
#[test]
fn a_checksum_behind_what_an_error_quotes() {
    lab::run(|lab| {
        lab.add_tunnel();
        lab.attach("cil_from_container", "lxc_a", TcAttachType::Ingress);
        sandbox::ip("link set lxc_a mtu 3000 up");
        sandbox::ip("link set eth_a mtu 3000 up");
        let wire = Wire::open("eth_a");
        let payload = udp(&[0x5a; 2000]);
        let frames = [
            ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4_of(UDP, A4, REMOTE4, 64, &payload)),
            ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6_with(A6, REMOTE6, 64, UDP, &payload)),
            ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6_with(A6, B6, 1, UDP, &payload)),
        ];
        for (number, frame) in (1..).zip(&frames) {
            wire.send_unfinished(frame, 1800);
            let give_up = Instant::now() + Duration::from_secs(5);
            while write_errors(lab) < number {
                assert!(Instant::now() < give_up, "not dropped: {frame:02x?}");
            }
        }
    });
}

fn write_errors(lab: &mut Lab) -> u64 {
    let metrics = lab.metrics();
    let of_interest = |key: &MetricsKey| key.reason == DROP_WRITE_ERROR;
    metrics.iter().filter(|(key, _)| of_interest(key)).map(|(_, value)| value.packets).sum()
}
