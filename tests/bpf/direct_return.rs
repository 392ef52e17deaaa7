//! Direct return, packet by packet: at the node that a client asks, and at that of the backend.

use std::net::IpAddr;

use ciliate::bpf_abi::*;

use crate::frames::*;
use crate::lab::Lab;
use crate::model::Action;
use crate::node_port::{Outside, PORT, SENT, arrives, assert_out, at_host, b_sends, with};
use crate::service_world::*;
use crate::services::{End, assert_packet, only, segment};
use crate::world::*;

/// A node that does so, and knows the backend's node.
fn with_direct_return(test: impl Fn(&mut Lab, &Outside) + Send + Sync) {
    with(|lab, outside| {
        let mut world = lab.world.clone();
        world.node.flags |= NODE_FLAG_DSR;
        let before = world.clone();
        for address in [REMOTE4.into(), REMOTE6.into()] {
            let prefix_len = if IpAddr::is_ipv4(&address) { 32 } else { 128 };
            world.ipcache.push((address, prefix_len, IpcacheValue::direct(IDENTITY_REMOTE)));
        }
        lab.describe(world);
        test(lab, outside);
        lab.describe(before);
    });
}

/// A packet with the option that says who was asked; the header's checksum is right.
fn with_option(packet: &[u8], (address, port): End) -> Vec<u8> {
    let port = port.to_be_bytes();
    match address {
        IpAddr::V4(address) => {
            let option = [&[0x9a, 8][..], &port, &address.octets()].concat();
            let mut made = [&packet[..20], &option, &packet[20..]].concat();
            made[0] = 0x47;
            let len = (made.len() as u16).to_be_bytes();
            made[2..4].copy_from_slice(&len);
            made[10..12].fill(0);
            let sum = checksum(&[&made[..28]]).to_be_bytes();
            made[10..12].copy_from_slice(&sum);
            made
        }
        IpAddr::V6(address) => {
            let option =
                [&[packet[6], 2, 0x1b, 20][..], &address.octets(), &port, &[0; 2]].concat();
            let mut made = [&packet[..40], &option, &packet[40..]].concat();
            made[6] = 60;
            let len = (made.len() as u16 - 40).to_be_bytes();
            made[4..6].copy_from_slice(&len);
            made
        }
    }
}

/// As it was with a hop more.
fn before_the_hop(frame: &[u8]) -> Vec<u8> {
    let mut packet = frame[ETH_LEN..].to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] += 1;
        return packet;
    }
    let len = usize::from(packet[0] & 15) * 4;
    assert_eq!(checksum(&[&packet[..len]]), 0, "the header's checksum");
    packet[8] += 1;
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..len]]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet
}

#[test]
fn the_option_is_where_a_flow_begins() {
    with_direct_return(|lab, Outside { ends, client, .. }| {
        for (protocol, first, later) in [(TCP, TCP_SYN, false), (UDP, 0, true)] {
            only(lab, (ends.vip, 80, protocol), &[TO_REMOTE], ends.base);
            let (from, vip, backend) = ((*client, PORT), (ends.vip, 80), (ends.remote, 80));
            for (flags, told) in [(first, true), (TCP_ACK, later)] {
                let out = arrives(lab, &segment(from, vip, protocol, flags));
                assert_eq!((out.action, out.mark), (Action::Redirect, SENT));
                let plain = segment(from, backend, protocol, flags);
                let expected = if told { with_option(&plain, vip) } else { plain };
                assert_eq!(before_the_hop(&out.frame), expected, "{protocol} {flags}");
            }
        }
        // What is no node's goes on from this one.
        only(lab, (ends.vip, 80, TCP), &[TO_FAR], ends.base);
        let out = arrives(lab, &segment((*client, PORT + 1), (ends.vip, 80), TCP, TCP_SYN));
        assert_out(&out, &segment((ends.node, PORT + 1), (ends.far, 80), TCP, TCP_SYN));
    });
}

#[test]
fn the_backends_answer_is_from_the_service() {
    with_direct_return(|lab, Outside { ends, client, .. }| {
        let (from, asked, b) = ((*client, PORT), (ends.far, 4321), (ends.b, 1000));
        for (protocol, first) in [(TCP, TCP_SYN), (UDP, 0)] {
            // Nobody has said anything of it yet.
            let later = segment(from, b, protocol, TCP_ACK);
            assert_eq!(arrives(lab, &later).action, Action::Next);
            let told = with_option(&segment(from, b, protocol, first), asked);
            let out = arrives(lab, &told);
            assert_eq!((out.action, &out.frame[..6]), (Action::Redirect, &MAC_B[..]));
            assert_eq!(before_the_hop(&out.frame), told);
            let answer = b_sends(lab, &segment(b, from, protocol, first | TCP_ACK));
            assert_out(&answer, &segment(asked, from, protocol, first | TCP_ACK));
            if protocol == TCP {
                let out = arrives(lab, &later);
                assert_eq!((out.action, &out.frame[..6]), (Action::Redirect, &MAC_B[..]));
                assert_packet(&out, &later);
            }
        }
        // Its client comes to the backend itself: the next answer is the backend's.
        let direct = segment(from, b, TCP, TCP_SYN);
        assert_eq!(arrives(lab, &direct).action, Action::Next);
        let answer = segment(b, from, TCP, TCP_ACK);
        assert_packet(&b_sends(lab, &answer), &answer);
    });
}

/// Cut off at every length, and with an option that is another: never more than there is.
#[test]
fn at_every_length() {
    with_direct_return(|lab, Outside { ends, client, .. }| {
        let (from, b) = ((*client, PORT), (ends.b, 1000));
        let told = with_option(&segment(from, b, UDP, 0), (ends.vip, 80));
        let frame = at_host(&told);
        for len in crate::truncated::shortest(&frame)..=frame.len() {
            let out = lab.send("cil_from_netdev", lab.sandbox.cilium_host, 0, &frame[..len]);
            if out.action == Action::Next {
                assert_eq!(out.frame.len(), len, "{len} of {frame:02x?}");
            }
        }
        let type_at = ETH_LEN + if ends.b.is_ipv4() { 20 } else { 42 };
        let mut other =
            at_host(&with_option(&segment((*client, PORT + 9), b, UDP, 0), (ends.vip, 80)));
        other[type_at] = 0x1e;
        let out = lab.send("cil_from_netdev", lab.sandbox.cilium_host, 0, &other);
        assert_eq!(out.action, Action::Next);
    });
}
