//! The tunnel, verdict by verdict.

use ciliate::bpf_abi::*;

use crate::frames::*;
use crate::lab::{self, Lab, TUNNEL_PORT};
use crate::model::{Action, Count};
use crate::world::*;

/// Whatever the sender's link addresses were, the receiver is not among them.
fn inner(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], ethertype, packet)
}

fn count(reason: u8, direction: u8, bytes: usize) -> Count {
    Count { reason, direction, packets: 1, bytes: bytes as u64 }
}

/// The mark of a packet into the tunnel.
fn overlay_mark(identity: u32) -> u32 {
    identity_mark(identity) & !0xf00 | 0x400
}

fn assert_dropped(lab: &mut Lab, id: u32, frame: &[u8], reason: u8) {
    assert_eq!(lab.tunnel_sends(id, false, frame).action, Action::Drop);
    let arrived = count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len());
    assert_eq!(lab.counted(), [arrived, count(reason, DIRECTION_INGRESS, frame.len())]);
}

#[test]
fn endpoints_send_to_remote_ones_by_the_tunnel() {
    lab::run(|lab| {
        lab.add_tunnel();
        for ttl in [64, 1] {
            for destination in [REMOTE4, OTHER_FAMILY4] {
                let frame = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4(A4, destination, ttl));
                let out = lab.container_sends(&frame);
                let expected = (Action::Redirect, &frame, overlay_mark(IDENTITY_A));
                assert_eq!((out.action, &out.frame, out.mark), expected, "{destination}");
                let sent = count(REASON_FORWARDED, DIRECTION_EGRESS, frame.len());
                assert_eq!(lab.counted(), [sent]);
            }
            for destination in [REMOTE6, OTHER_FAMILY6] {
                let frame = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6(A6, destination, ttl));
                let out = lab.container_sends(&frame);
                let expected = (Action::Redirect, &frame, overlay_mark(IDENTITY_A));
                assert_eq!((out.action, &out.frame, out.mark), expected, "{destination}");
                let sent = count(REASON_FORWARDED, DIRECTION_EGRESS, frame.len());
                assert_eq!(lab.counted(), [sent]);
            }
        }
    });
}

#[test]
fn what_the_tunnel_does_not_lead_to_goes_to_the_stack() {
    lab::run(|lab| {
        lab.add_tunnel();
        for destination in [SKIP4, PEER4, WORLD4, ROUTER4, NODE4] {
            let frame = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4(A4, destination, 64));
            let out = lab.container_sends(&frame);
            let expected = (Action::Pass, identity_mark(IDENTITY_A));
            assert_eq!((out.action, out.mark), expected, "{destination}");
            assert_eq!(out.frame[ETH_LEN + 8], 63, "{destination}");
        }
        for destination in [SKIP6, PEER6, WORLD6, ROUTER6, NODE6] {
            let frame = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6(A6, destination, 64));
            let out = lab.container_sends(&frame);
            let expected = (Action::Pass, identity_mark(IDENTITY_A));
            assert_eq!((out.action, out.mark), expected, "{destination}");
        }
    });
}

#[test]
fn a_tunnel_without_an_end_drops() {
    lab::run(|lab| {
        lab.add_tunnel();
        for packet in [(TYPE_IPV4, ipv4(A4, NO_TUNNEL4, 64)), (TYPE_IPV6, ipv6(A6, NO_TUNNEL6, 64))]
        {
            let frame = ethernet(LXC_MAC_A, MAC_A, packet.0, &packet.1);
            let dropped = count(DROP_NO_TUNNEL_ENDPOINT, DIRECTION_EGRESS, frame.len());
            assert_eq!(lab.container_sends(&frame).action, Action::Drop);
            assert_eq!(lab.counted(), [dropped]);

            assert_eq!(lab.host_sends(0, &frame).action, Action::Drop);
            let entered = count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len());
            let dropped = count(DROP_NO_TUNNEL_ENDPOINT, DIRECTION_INGRESS, frame.len());
            assert_eq!(lab.counted(), [entered, dropped]);
        }
    });
}

#[test]
fn the_host_is_a_remote_node_to_others() {
    let cases = [
        (MARK_MAGIC_HOST, IDENTITY_REMOTE_NODE),
        (0, IDENTITY_WORLD),
        (identity_mark(IDENTITY_WORLD_IPV4), IDENTITY_WORLD),
        (identity_mark(IDENTITY_WORLD_IPV6), IDENTITY_WORLD),
        (identity_mark(IDENTITY_WORLD), IDENTITY_WORLD),
        (identity_mark(IDENTITY_HEALTH), IDENTITY_HEALTH),
        (0x3210_0b04, 0x0004_3210),
    ];
    lab::run(|lab| {
        lab.add_tunnel();
        for (mark, identity) in cases {
            for frame in [
                ethernet(HOST_MAC, HOST_MAC, TYPE_IPV4, &ipv4(ROUTER4, REMOTE4, 64)),
                ethernet(HOST_MAC, HOST_MAC, TYPE_IPV6, &ipv6(ROUTER6, REMOTE6, 64)),
            ] {
                let out = lab.host_sends(mark, &frame);
                let expected = (Action::Redirect, frame, overlay_mark(identity));
                assert_eq!((out.action, out.frame, out.mark), expected, "mark {mark:#x}");
            }
        }
    });
}

#[test]
fn endpoints_do_not_send_to_the_tunnels_port() {
    let v4 = |to, port| {
        let packet = ipv4_of(UDP, A4, to, 64, &udp_between(1000, port, b"inside"));
        ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &packet)
    };
    let v6 = |to, port, options: &[u8]| {
        let payload = [options, &udp_between(1000, port, b"inside")].concat();
        let next = if options.is_empty() { UDP } else { 60 };
        ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6_with(A6, to, 64, next, &payload))
    };
    let option = [UDP, 0, 1, 4, 0, 0, 0, 0];
    lab::run(|lab| {
        let all = |port| {
            let mut frames: Vec<_> =
                [PEER4, NODE4, WORLD4, B4, REMOTE4].map(|to| v4(to, port)).into();
            for to in [PEER6, NODE6, WORLD6, B6, REMOTE6] {
                frames.extend([v6(to, port, &[]), v6(to, port, &option)]);
            }
            frames
        };
        for frame in all(TUNNEL_PORT) {
            assert_ne!(lab.container_sends(&frame).action, Action::Drop, "without a tunnel");
        }
        lab.add_tunnel();
        lab.counted();
        for frame in all(TUNNEL_PORT) {
            assert_eq!(lab.container_sends(&frame).action, Action::Drop, "{frame:02x?}");
            let dropped = count(DROP_ENCAP_PROHIBITED, DIRECTION_EGRESS, frame.len());
            assert_eq!(lab.counted(), [dropped]);
        }
        for frame in all(TUNNEL_PORT + 1) {
            assert_ne!(lab.container_sends(&frame).action, Action::Drop, "{frame:02x?}");
        }
        let tcp = ipv4_of(TCP, A4, PEER4, 64, &tcp_between(1000, TUNNEL_PORT, TCP_SYN, b""));
        let tcp = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &tcp);
        assert_eq!(lab.container_sends(&tcp).action, Action::Pass);
    });
}

#[test]
fn endpoints_are_delivered_to() {
    lab::run(|lab| {
        lab.add_tunnel();
        for outer_ipv6 in [false, true] {
            let frame = inner(TYPE_IPV4, &ipv4(REMOTE4, B4, 64));
            let out = lab.tunnel_sends(40_000, outer_ipv6, &frame);
            let expected = ethernet(MAC_B, LXC_MAC_B, TYPE_IPV4, &ipv4(REMOTE4, B4, 63));
            let mark = identity_mark(40_000);
            assert_eq!((out.action, out.frame, out.mark), (Action::Redirect, expected, mark));
            let delivered = count(REASON_FORWARDED, DIRECTION_INGRESS, frame.len());
            let arrived = count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len());
            assert_eq!(lab.counted(), [delivered, arrived]);

            let frame = inner(TYPE_IPV6, &ipv6(REMOTE6, A6, 64));
            let out = lab.tunnel_sends(0x00ff_ffff, outer_ipv6, &frame);
            let expected = ethernet(MAC_A, LXC_MAC_A, TYPE_IPV6, &ipv6(REMOTE6, A6, 63));
            let mark = identity_mark(0x00ff_ffff);
            assert_eq!((out.action, out.frame, out.mark), (Action::Redirect, expected, mark));
            lab.counted();
        }
    });
}

#[test]
fn the_node_is_reached_through_cilium_net() {
    lab::run(|lab| {
        lab.add_tunnel();
        for destination in [ROUTER4, NODE4, NETNS4] {
            let frame = inner(TYPE_IPV4, &ipv4(REMOTE4, destination, 64));
            let out = lab.tunnel_sends(40_000, false, &frame);
            let packet = ipv4(REMOTE4, destination, 63);
            let expected = ethernet(HOST_MAC, TUNNEL_MAC, TYPE_IPV4, &packet);
            let mark = identity_mark(40_000);
            assert_eq!((out.action, out.frame, out.mark), (Action::Redirect, expected, mark));
            let arrived = count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len());
            assert_eq!(lab.counted(), [arrived], "cil_to_host counts it");
        }
        for destination in [ROUTER6, NODE6] {
            let frame = inner(TYPE_IPV6, &ipv6(REMOTE6, destination, 64));
            let out = lab.tunnel_sends(40_000, false, &frame);
            let packet = ipv6(REMOTE6, destination, 63);
            let expected = ethernet(HOST_MAC, TUNNEL_MAC, TYPE_IPV6, &packet);
            assert_eq!((out.action, out.frame), (Action::Redirect, expected));
        }
    });
}

#[test]
fn identities_are_read_from_the_wire() {
    lab::run(|lab| {
        lab.add_tunnel();
        let v4 = |source| inner(TYPE_IPV4, &ipv4(source, B4, 64));
        let v6 = |source| inner(TYPE_IPV6, &ipv6(source, B6, 64));
        let cases = [
            (2, v4(WORLD4), IDENTITY_WORLD_IPV4),
            (2, v6(WORLD6), IDENTITY_WORLD_IPV6),
            // Of a remote node's stack: the address may be that of an endpoint.
            (6, v4(REMOTE4), IDENTITY_REMOTE),
            (7, v6(REMOTE6), IDENTITY_REMOTE),
            (6, v4(PEER4), IDENTITY_REMOTE_NODE),
            // Everything else is as the sender says.
            (17_248, v4(REMOTE4), 17_248),
            (4, v6(REMOTE6), IDENTITY_HEALTH),
        ];
        for (id, frame, identity) in cases {
            let out = lab.tunnel_sends(id, false, &frame);
            assert_eq!(out.mark, identity_mark(identity), "identifier {id}: {frame:02x?}");
        }
        let mut world = lab.world.clone();
        world.node.flags &= !NODE_FLAG_TWO_WORLDS;
        lab.describe(world);
        for frame in [v4(WORLD4), v6(WORLD6)] {
            let out = lab.tunnel_sends(2, false, &frame);
            assert_eq!(out.mark, identity_mark(IDENTITY_WORLD), "with one family");
        }
    });
}

#[test]
fn wrong_packets_from_the_tunnel_are_dropped() {
    lab::run(|lab| {
        lab.add_tunnel();
        for frame in
            [inner(TYPE_IPV4, &ipv4(REMOTE4, B4, 64)), inner(TYPE_IPV6, &ipv6(REMOTE6, B6, 64))]
        {
            assert_dropped(lab, IDENTITY_HOST, &frame, DROP_INVALID_IDENTITY);
            let out = lab.send("cil_from_overlay", lab.sandbox.cilium_vxlan, 0, &frame);
            assert_eq!(out.action, Action::Drop);
            let arrived = count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len());
            let dropped = count(DROP_NO_TUNNEL_KEY, DIRECTION_INGRESS, frame.len());
            assert_eq!(lab.counted(), [arrived, dropped]);
        }
        for destination in [UNUSED4, WORLD4, REMOTE4, [224, 0, 0, 22].into()] {
            let frame = inner(TYPE_IPV4, &ipv4(REMOTE4, destination, 64));
            assert_dropped(lab, 40_000, &frame, DROP_UNROUTABLE);
        }
        for destination in [UNUSED6, WORLD6, REMOTE6, solicited_node(B6)] {
            let frame = inner(TYPE_IPV6, &ipv6(REMOTE6, destination, 64));
            assert_dropped(lab, 40_000, &frame, DROP_UNROUTABLE);
        }
        for destination in [B4, ROUTER4] {
            let frame = inner(TYPE_IPV4, &ipv4(REMOTE4, destination, 1));
            assert_dropped(lab, 40_000, &frame, DROP_TTL_EXCEEDED);
        }
        assert_dropped(lab, 40_000, &inner(TYPE_IPV4, &[0x60; 40]), DROP_INVALID_PACKET);
        assert_dropped(lab, 40_000, &inner(TYPE_IPV6, &[0x40; 40]), DROP_INVALID_PACKET);
    });
}

#[test]
fn what_is_not_ip_is_left_to_the_stack() {
    let tagged = [&[0, 5, 8, 0][..], &ipv4(REMOTE4, B4, 64)].concat();
    let frames = [
        inner(TYPE_ARP, &arp(1, (MAC_A, REMOTE4), ([0; 6], B4))),
        inner(0x8100, &tagged),
        inner(0x88cc, &[0; 40]),
        inner(0x0026, &[0x42; 40]),
    ];
    lab::run(|lab| {
        lab.add_tunnel();
        for frame in &frames {
            let out = lab.tunnel_sends(40_000, false, frame);
            assert_eq!((out.action, &out.frame, out.mark), (Action::Pass, frame, 0));
            let arrived = count(REASON_INTERFACE, DIRECTION_INGRESS, frame.len());
            assert_eq!(lab.counted(), [arrived]);
        }
    });
}

#[test]
fn used_up_hop_limits_are_answered_through_the_stack() {
    lab::run(|lab| {
        lab.add_tunnel();
        for destination in [B6, ROUTER6] {
            let packet = ipv6(REMOTE6, destination, 1);
            let out = lab.tunnel_sends(40_000, false, &inner(TYPE_IPV6, &packet));
            let message = icmp6(ROUTER6, REMOTE6, 3, 0, &[&[0; 4][..], &packet].concat());
            let error = ipv6_with(ROUTER6, REMOTE6, 64, ICMP6, &message);
            let expected = ethernet(HOST_MAC, HOST_MAC, TYPE_IPV6, &error);
            let mark = MARK_MAGIC_HOST;
            assert_eq!((out.action, out.frame, out.mark), (Action::Redirect, expected, mark));
        }
    });
}

/// The stack would take off a second tunnel, and believe what that says of the sender.
#[test]
fn tunnels_do_not_carry_what_is_for_the_tunnels_port() {
    let v4 = |to, port| {
        inner(TYPE_IPV4, &ipv4_of(UDP, REMOTE4, to, 64, &udp_between(1, port, b"vxlan")))
    };
    let v6 = |to, port, options: &[u8]| {
        let payload = [options, &udp_between(1, port, b"vxlan")].concat();
        let next = if options.is_empty() { UDP } else { 60 };
        inner(TYPE_IPV6, &ipv6_with(REMOTE6, to, 64, next, &payload))
    };
    let option = [UDP, 0, 1, 4, 0, 0, 0, 0];
    lab::run(|lab| {
        lab.add_tunnel();
        let all = |port| {
            let mut frames: Vec<_> = [ROUTER4, NODE4].map(|to| v4(to, port)).into();
            for to in [ROUTER6, NODE6] {
                frames.extend([v6(to, port, &[]), v6(to, port, &option)]);
            }
            frames
        };
        for frame in all(TUNNEL_PORT) {
            for id in [40_000, IDENTITY_REMOTE_NODE] {
                assert_dropped(lab, id, &frame, DROP_ENCAP_PROHIBITED);
            }
        }
        for frame in all(TUNNEL_PORT + 1) {
            assert_eq!(lab.tunnel_sends(40_000, false, &frame).action, Action::Redirect);
        }
        let tcp = ipv4_of(TCP, REMOTE4, NODE4, 64, &tcp_between(1, TUNNEL_PORT, TCP_SYN, b""));
        let out = lab.tunnel_sends(40_000, false, &inner(TYPE_IPV4, &tcp));
        assert_eq!(out.action, Action::Redirect);
    });
}

#[test]
fn to_overlay_marks_what_the_programs_did_not() {
    lab::run(|lab| {
        lab.add_tunnel();
        let frame = inner(TYPE_IPV4, &ipv4(A4, REMOTE4, 64));
        let marks = [(0x1234_0456, 0x1234_0456), (0xc00, 0xc00), (0, 0)];
        for (before, after) in marks {
            let out = lab.send("cil_to_overlay", lab.sandbox.cilium_vxlan, before, &frame);
            assert_eq!((out.action, &out.frame, out.mark), (Action::Pass, &frame, after));
        }
        assert_eq!(lab.counted(), []);
    });
}
