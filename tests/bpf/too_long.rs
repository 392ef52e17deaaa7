//! Packets that are too long for the tunnel and must not be cut: their sender is told.

use ciliate::bpf_abi::*;

use crate::frames::*;
use crate::lab::{self, Lab, TUNNEL_MTU, context_of_segments, test_run};
use crate::model::{Action, Count};
use crate::world::*;

/// A packet of A's that is `len` bytes long.
fn packet4(protocol: u8, len: usize, payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    payload.resize(len - 20, 0x5a);
    ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4_of(protocol, A4, REMOTE4, 64, &payload))
}

fn packet6(protocol: u8, len: usize, payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    payload.resize(len - 40, 0x5a);
    ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6_with(A6, REMOTE6, 64, protocol, &payload))
}

fn told4(packet: &[u8], mtu: u16) -> Vec<u8> {
    let message = icmp4(3, 4, &[&[0, 0][..], &mtu.to_be_bytes(), &packet[..548]].concat());
    let mut error = ipv4_of(ICMP4, ROUTER4, A4, 64, &message);
    error[4..6].copy_from_slice(&[0, 0]);
    error[10..12].copy_from_slice(&[0, 0]);
    let sum = checksum(&[&error[..20]]).to_be_bytes();
    error[10..12].copy_from_slice(&sum);
    ethernet(MAC_A, LXC_MAC_A, TYPE_IPV4, &error)
}

fn told6(packet: &[u8], mtu: u16) -> Vec<u8> {
    let body = [&u32::from(mtu).to_be_bytes()[..], &packet[..1280 - 48]].concat();
    let error = ipv6_with(ROUTER6, A6, 64, ICMP6, &icmp6(ROUTER6, A6, 2, 0, &body));
    ethernet(MAC_A, LXC_MAC_A, TYPE_IPV6, &error)
}

fn with_mtu(lab: &mut Lab, mtu: u16) {
    let mut world = lab.world.clone();
    world.node.tunnel_mtu = mtu;
    lab.describe(world);
}

#[test]
fn the_sender_is_told() {
    lab::run(|lab| {
        lab.add_tunnel();
        for mtu in [TUNNEL_MTU, 1390] {
            with_mtu(lab, mtu);
            let longest = usize::from(mtu);
            for frame in [packet4(UDP, longest, &udp(b"")), packet6(UDP, longest, &udp(b""))] {
                let out = lab.container_sends(&frame);
                assert_eq!((out.action, out.frame), (Action::Redirect, frame), "{mtu}");
            }
            lab.counted();
            let frame = packet4(UDP, longest + 1, &udp(b""));
            let out = lab.container_sends(&frame);
            let expected = (Action::Redirect, told4(&frame[ETH_LEN..], mtu), 0);
            assert_eq!((out.action, out.frame, out.mark), expected);
            let frame = packet6(UDP, longest + 1, &udp(b""));
            let out = lab.container_sends(&frame);
            let expected = (Action::Redirect, told6(&frame[ETH_LEN..], mtu), 0);
            assert_eq!((out.action, out.frame, out.mark), expected);
            assert_eq!(lab.counted(), [], "answers are not counted");
        }
    });
}

#[test]
fn what_may_be_cut_is_not_held_up() {
    lab::run(|lab| {
        lab.add_tunnel();
        let mut frame = packet4(UDP, 2000, &udp(b""));
        frame[ETH_LEN + 6] = 0;
        assert_eq!(lab.container_sends(&frame).frame, frame);
        // Nothing is said of a tunnel without a limit, nor of other ways.
        with_mtu(lab, 0);
        for frame in [packet4(UDP, 2000, &udp(b"")), packet6(UDP, 2000, &udp(b""))] {
            assert_eq!(lab.container_sends(&frame).frame, frame);
        }
        // No sender of IPv6 goes below 1280.
        with_mtu(lab, 1000);
        let frame = packet6(UDP, 1280, &udp(b""));
        assert_eq!(lab.container_sends(&frame).frame, frame);
        let frame = packet6(UDP, 1281, &udp(b""));
        assert_eq!(lab.container_sends(&frame).frame, told6(&frame[ETH_LEN..], 1280));
    });
}

#[test]
fn segments_are_measured() {
    // 12 bytes of options: 32 bytes of header.
    let ack = [&tcp(TCP_ACK, &[])[..12], &[0x80, TCP_ACK, 0, 9, 0, 0, 0, 0], &[1; 12]].concat();
    lab::run(|lab| {
        lab.add_tunnel();
        for (protocol, payload, room) in [(TCP, &ack, 32), (UDP, &udp(b""), 8)] {
            for (frame, head) in
                [(packet4(protocol, 2900, payload), 20), (packet6(protocol, 2900, payload), 40)]
            {
                let fits = u32::from(TUNNEL_MTU) - head - room;
                let send = |size| {
                    let context = context_of_segments(lab, size);
                    test_run(lab.program("cil_from_container"), context, &frame).frame
                };
                assert_eq!(send(fits), frame, "{protocol} by {head}");
                let told = if head == 20 { told4 } else { told6 };
                let expected = told(&frame[ETH_LEN..], TUNNEL_MTU);
                assert_eq!(send(fits + 1), expected, "{protocol} by {head}");
            }
        }
    });
}

#[test]
fn nobody_is_told_of_errors_and_later_pieces() {
    let error4 = icmp4(3, 3, &[0; 40]);
    let error6 = icmp6(A6, REMOTE6, 1, 0, &[0; 60]);
    let mut later = packet4(UDP, 2000, &udp(b""));
    later[ETH_LEN + 7] = 1;
    let mut first = packet4(UDP, 1400, &udp(b""));
    first[ETH_LEN + 6] = 0x60;
    let of_nobody = [packet4(UDP, 2000, &udp(b"")), packet6(UDP, 2000, &udp(b""))];
    lab::run(|lab| {
        lab.add_tunnel();
        assert_eq!(lab.container_sends(&first).action, Action::Redirect);
        let frames = [packet4(ICMP4, 2000, &error4), packet6(ICMP6, 2000, &error6), later];
        for frame in frames {
            assert_dropped(lab, &frame);
        }
        let mut world = lab.world.clone();
        (world.node.router_ipv4_be, world.node.router_ipv6_be) = ([0; 4], [0; 16]);
        lab.describe(world);
        of_nobody.iter().for_each(|frame| assert_dropped(lab, frame));
    });
}

fn assert_dropped(lab: &mut Lab, frame: &[u8]) {
    lab.counted();
    assert_eq!(lab.container_sends(frame).action, Action::Drop);
    let counted: Vec<Count> = lab.counted();
    let dropped = counted.last().expect("a counter");
    assert_eq!((dropped.reason, dropped.packets), (DROP_FRAG_NEEDED, 1), "{counted:?}");
}
