//! Encryption, packet by packet: what is marked for WireGuard, what goes to its device at the underlay, and what must
//! not leave.

use std::net::IpAddr;

use aya::maps::Array;
use ciliate::bpf_abi::*;

use crate::frames::*;
use crate::host_routing::add_routes;
use crate::lab::{self, Lab, TUNNEL_PORT};
use crate::model::{Action, Count};
use crate::world::*;

const PORT: u16 = 51_871;
const MTU: u16 = 1420;
const OVERLAY: u32 = 0x400;

fn to_encrypt(identity: u32) -> u32 {
    identity_mark(identity) & !MARK_MAGIC_MASK | MARK_MAGIC_ENCRYPT
}

/// A node that encrypts, with a device or without one, and a peer whose key it knows or doesn't.
fn encrypt(lab: &mut Lab, (flags, device, key): (u32, bool, bool)) {
    let value = EncryptionValue {
        ifindex: if device { lab.sandbox.cilium_vxlan } else { 0 },
        flags: ENCRYPTION_FLAG_ON | flags,
        port_be: PORT.to_be_bytes(),
        mtu: MTU,
        ..EncryptionValue::default()
    };
    let mut map: Array<_, [u8; 16]> = lab.map(CILIATE_ENCRYPTION).try_into().expect("array");
    map.set(0, value.to_bytes(), 0).expect("set how packets are encrypted");
    let guarded = if flags & ENCRYPTION_FLAG_STRICT != 0 { IPCACHE_FLAG_ENDPOINTS } else { 0 };
    let key = if key { IPCACHE_KEY_WIREGUARD } else { 0 };
    let of_node = if flags & ENCRYPTION_FLAG_NODES != 0 { key } else { 0 };
    let direct = IpcacheValue::direct(IDENTITY_REMOTE);
    let behind = IpcacheValue::behind_tunnel(IDENTITY_REMOTE, PEER4.into());
    let mut set = |prefix: IpAddr, value: IpcacheValue, key: u8, guarded: u8| {
        let bits = if prefix.is_ipv4() { 32 } else { 128 };
        let value = IpcacheValue { key, flags: value.flags | guarded, ..value };
        lab.set_prefix(prefix, bits, &value);
    };
    for (own, peers, far, node) in [
        (IpAddr::from(A4), IpAddr::from(SKIP4), IpAddr::from(REMOTE4), IpAddr::from(PEER4)),
        (A6.into(), SKIP6.into(), REMOTE6.into(), PEER6.into()),
    ] {
        set(own, IpcacheValue::new(IDENTITY_A), 0, guarded);
        set(peers, direct, key, guarded);
        set(far, behind, key, guarded);
        set(node, IpcacheValue::new(IDENTITY_REMOTE_NODE), of_node, 0);
    }
}

/// From A's device, of both families: to a peer's endpoint, behind the tunnel or not.
fn from_a(len: usize) -> [[Vec<u8>; 2]; 2] {
    let payload = udp(&vec![0x42; len]);
    let frame4 = |to| ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4_of(UDP, A4, to, 64, &payload));
    let frame6 = |to| ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6_with(A6, to, 64, UDP, &payload));
    [[frame4(SKIP4), frame6(SKIP6)], [frame4(REMOTE4), frame6(REMOTE6)]]
}

#[track_caller]
fn sends(lab: &mut Lab, frames: &[Vec<u8>; 2], action: Action, mark: u32) {
    for frame in frames {
        let out = lab.container_sends(frame);
        assert_eq!((&out.action, out.mark), (&action, mark), "{frame:02x?}");
        let (reason, bytes) = (REASON_FORWARDED, frame.len() as u64);
        let reason = if action == Action::Drop { DROP_UNENCRYPTED } else { reason };
        let expected = Count { reason, direction: DIRECTION_EGRESS, packets: 1, bytes };
        assert_eq!(lab.counted(), [expected], "{frame:02x?}");
    }
}

#[test]
fn what_a_peer_has_a_key_for_is_marked() {
    let mark = to_encrypt(IDENTITY_A);
    for strict in [0, ENCRYPTION_FLAG_STRICT] {
        lab::run(|lab| {
            encrypt(lab, (strict, true, true));
            let [direct, far] = from_a(8);
            sends(lab, &direct, Action::Pass, mark);
            lab.add_tunnel();
            sends(lab, &far, Action::Redirect, mark);
        });
        lab::run(|lab| {
            lab.route_past_host();
            add_routes();
            encrypt(lab, (strict, true, true));
            sends(lab, &from_a(8)[0], Action::Redirect, mark);
            // The stack tells the sender, by the device's MTU.
            sends(lab, &from_a(usize::from(MTU))[0], Action::Pass, mark);
        });
    }
}

#[test]
fn without_a_key_it_is_dropped_where_that_is_strict() {
    lab::run(|lab| {
        encrypt(lab, (0, true, false));
        let [direct, far] = from_a(8);
        sends(lab, &direct, Action::Pass, identity_mark(IDENTITY_A));
        encrypt(lab, (ENCRYPTION_FLAG_STRICT, true, false));
        sends(lab, &direct, Action::Drop, 0);
        lab.add_tunnel();
        sends(lab, &far, Action::Drop, 0);
    });
}

/// Who sends what to whom at the underlay.
struct Leaving {
    mark: u32,
    frame: Vec<u8>,
}

fn leaving(mark: u32, (from, to): (IpAddr, IpAddr), (sport, dport): (u16, u16)) -> Leaving {
    let payload = udp_between(sport, dport, b"hello");
    let (ethertype, packet) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (TYPE_IPV4, ipv4_of(UDP, from, to, 64, &payload)),
        (IpAddr::V6(from), IpAddr::V6(to)) => (TYPE_IPV6, ipv6_with(from, to, 64, UDP, &payload)),
        _ => panic!("two families"),
    };
    Leaving { mark, frame: ethernet(HOST_MAC, NET_MAC, ethertype, &packet) }
}

#[track_caller]
fn leaves(lab: &mut Lab, what: &Leaving, action: Action) {
    let out = lab.send("cil_to_netdev", lab.sandbox.cilium_host, what.mark, &what.frame);
    assert_eq!(out.action, action);
    let bytes = what.frame.len() as u64;
    let (reason, direction) = (DROP_UNENCRYPTED, DIRECTION_EGRESS);
    let dropped = Count { reason, direction, packets: 1, bytes };
    let expected = if action == Action::Drop { vec![dropped] } else { Vec::new() };
    assert_eq!(lab.counted(), expected);
}

/// Addresses of one family: an endpoint, the node, a peer's endpoint, the peer, the world.
fn families() -> [[IpAddr; 5]; 2] {
    let v4 = [A4, NODE4, SKIP4, PEER4, WORLD4].map(IpAddr::from);
    [v4, [A6, NODE6, SKIP6, PEER6, WORLD6].map(IpAddr::from)]
}

const ANY: (u16, u16) = (1000, 2000);

#[test]
fn what_was_not_encrypted_is_so_at_the_underlay() {
    lab::run(|lab| {
        for [own, node, peers, peer, world] in families() {
            encrypt(lab, (0, true, true));
            leaves(lab, &leaving(0, (own, peers), ANY), Action::Redirect);
            leaves(lab, &leaving(to_encrypt(1), (node, peer), ANY), Action::Redirect);
            leaves(lab, &leaving(0, (own, world), ANY), Action::Next);
            leaves(lab, &leaving(0, (world, peers), ANY), Action::Next);
            leaves(lab, &leaving(0, (node, peers), ANY), Action::Next);
            encrypt(lab, (ENCRYPTION_FLAG_NODES, true, true));
            leaves(lab, &leaving(0, (node, peers), ANY), Action::Redirect);
            leaves(lab, &leaving(0, (node, peer), ANY), Action::Redirect);
            // Somebody took away the mark of what WireGuard sends.
            leaves(lab, &leaving(0, (node, peer), (PORT, PORT)), Action::Next);
        }
    });
}

#[test]
fn what_wireguard_made_is_never_encrypted_again() {
    lab::run(|lab| {
        let flags = ENCRYPTION_FLAG_NODES | ENCRYPTION_FLAG_STRICT;
        encrypt(lab, (flags, true, true));
        for [own, node, peers, peer, _] in families() {
            for way in [(node, peer), (own, peers)] {
                leaves(lab, &leaving(MARK_MAGIC_WIREGUARD, way, ANY), Action::Next);
            }
        }
    });
}

#[test]
fn what_cannot_be_encrypted_does_not_leave() {
    lab::run(|lab| {
        lab.add_tunnel();
        for [own, node, peers, peer, world] in families() {
            // No device.
            encrypt(lab, (0, false, true));
            leaves(lab, &leaving(0, (own, peers), ANY), Action::Drop);
            // No key.
            encrypt(lab, (ENCRYPTION_FLAG_STRICT, true, false));
            leaves(lab, &leaving(0, (own, peers), ANY), Action::Drop);
            leaves(lab, &leaving(OVERLAY, (node, peer), ANY), Action::Drop);
            leaves(lab, &leaving(0, (node, peer), (1000, TUNNEL_PORT)), Action::Drop);
            leaves(lab, &leaving(0, (own, world), ANY), Action::Next);
            leaves(lab, &leaving(0, (node, peers), ANY), Action::Next);
            encrypt(lab, (0, true, false));
            leaves(lab, &leaving(0, (own, peers), ANY), Action::Next);
            leaves(lab, &leaving(OVERLAY, (node, peer), ANY), Action::Next);
        }
    });
}
