//! Frames cut off at every length: never more than the headers allow, never accepted wrongly.
//!
//! `BPF_PROG_TEST_RUN` refuses frames without anything behind the Ethernet header and, since 6.18, IP
//! frames shorter than the IP header. Those arrive over a real veth instead.

use std::time::{Duration, Instant};

use aya::programs::TcAttachType;
use ciliate::bpf_abi::{DIRECTION_EGRESS, DROP_INVALID_PACKET, MetricsKey};

use crate::flows::Flows;
use crate::frames::*;
use crate::kept;
use crate::lab::{self, Lab};
use crate::model::{self, Action};
use crate::sandbox;
use crate::service_world::{VIP4, VIP6, add_services};
use crate::wire::Wire;
use crate::world::*;

/// Shortest frame that a test run takes.
pub fn shortest(frame: &[u8]) -> usize {
    match u16::from_be_bytes([frame[12], frame[13]]) {
        TYPE_IPV4 => ETH_LEN + 20,
        TYPE_IPV6 => ETH_LEN + 40,
        _ => ETH_LEN + 1,
    }
}

fn samples() -> Vec<Vec<u8>> {
    let group = solicited_node(ROUTER6);
    let option = [1, 1, 2, 3, 4, 5, 6, 7];
    let solicitation = icmp6(A6, group, 135, 0, &nd_body(0, ROUTER6, &option));
    let behind = [&[ICMP6, 0, 1, 4, 0, 0, 0, 0][..], &solicitation].concat();
    let to_b = |ethertype, packet: &[u8]| ethernet(LXC_MAC_A, MAC_A, ethertype, packet);
    vec![
        to_b(TYPE_IPV4, &ipv4(A4, B4, 64)),
        to_b(TYPE_IPV4, &ipv4_with(A4, B4, 64, &[1; 40], &udp(b"x"))),
        to_b(TYPE_IPV6, &ipv6(A6, B6, 64)),
        to_b(TYPE_IPV4, &ipv4(A4, VIP4, 64)),
        to_b(TYPE_IPV6, &ipv6(A6, VIP6, 64)),
        to_b(TYPE_IPV4, &ipv4_of(TCP, A4, VIP4, 64, &tcp(TCP_SYN, b"x"))),
        to_b(TYPE_IPV6, &ipv6_with(A6, VIP6, 64, TCP, &tcp(TCP_SYN, b"x"))),
        to_b(TYPE_IPV6, &ipv6(A6, B6, 1)),
        to_b(TYPE_IPV6, &ipv6_with(A6, group, 255, ICMP6, &solicitation)),
        to_b(TYPE_IPV6, &ipv6_with(A6, group, 255, 60, &behind)),
        ethernet(BROADCAST, MAC_A, TYPE_ARP, &arp(1, (MAC_A, A4), ([0; 6], ROUTER4))),
        to_b(0x8100, &[0, 5, 8, 0, 0x45]),
    ]
}

#[test]
fn from_container_at_every_length() {
    lab::run(|lab| {
        add_services(lab);
        let (ifindex, mut flows) = (lab.sandbox.lxc_a, Flows::default());
        flows.taken = Some(kept::taken(lab));
        for frame in samples() {
            for len in shortest(&frame)..=frame.len() {
                let out = lab.container_sends(&frame[..len]);
                let expected =
                    model::from_container(&lab.world, &mut flows, (ifindex, 0), &frame[..len]);
                assert_eq!(out.action, expected.action, "{len} of {frame:02x?}");
                if out.action != Action::Drop {
                    assert_eq!(out.frame, expected.frame, "{len} of {frame:02x?}");
                }
            }
        }
    });
}

#[test]
fn from_host_at_every_length() {
    lab::run(|lab| {
        let mut flows = Flows::default();
        for frame in samples() {
            for len in shortest(&frame)..=frame.len() {
                let out = lab.host_sends(0, &frame[..len]);
                let expected = model::from_host(&lab.world, &mut flows, 0, &frame[..len]);
                assert_eq!(out.action, expected.action, "{len} of {frame:02x?}");
                if out.action != Action::Drop {
                    assert_eq!(out.frame, expected.frame, "{len} of {frame:02x?}");
                }
            }
        }
    });
}

/// How many frames an endpoint sent that were no valid packets, so far.
fn invalid_packets(lab: &mut Lab) -> u64 {
    let of_interest =
        |key: &MetricsKey| (key.reason, key.direction) == (DROP_INVALID_PACKET, DIRECTION_EGRESS);
    let metrics = lab.metrics();
    metrics.iter().filter(|(key, _)| of_interest(key)).map(|(_, value)| value.packets).sum()
}

#[test]
fn shorter_than_an_ip_header_over_the_wire() {
    lab::run(|lab| {
        lab.attach("cil_from_container", "lxc_a", TcAttachType::Ingress);
        sandbox::ip("link set lxc_a up");
        sandbox::ip("link set eth_a up");
        let wire = Wire::open("eth_a");
        for frame in samples() {
            let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
            if ethertype != TYPE_IPV4 && ethertype != TYPE_IPV6 {
                continue;
            }
            // Without the Ethernet header alone: the kernel itself sends no such frame.
            for len in ETH_LEN + 1..shortest(&frame) {
                let before = invalid_packets(lab);
                wire.send(&frame[..len]);
                let give_up = Instant::now() + Duration::from_secs(5);
                while invalid_packets(lab) == before {
                    assert!(Instant::now() < give_up, "not dropped: {len} of {frame:02x?}");
                }
            }
        }
    });
}
