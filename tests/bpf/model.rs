//! What the programs are meant to do, written a second time: over byte slices, without the programs'
//! constraints, and without looking at their code. Pure.
//!
//! Disagreement with the bytecode is a bug in one of the two. What both leave out (fragments,
//! extension headers in front of anything but ND, total lengths) no test here will notice.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ciliate::bpf_abi::*;

use crate::frames::{ETH_LEN, ICMP6, Mac, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, ethernet, icmp6};
use crate::frames::{ipv6_with, nd_body};

/// What the maps hold.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub node: NodeValue,
    pub devices: BTreeMap<u32, DeviceValue>,
    pub endpoints: BTreeMap<IpAddr, EndpointValue>,
    pub ipcache: Vec<(IpAddr, u8, u32)>,
}

/// Verdict of a classifier (`TC_ACT_*`, linux/pkt_cls.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Next,
    Pass,
    Drop,
    Redirect,
}

impl Action {
    pub fn from_return_value(value: i32) -> Self {
        match value {
            -1 => Self::Next,
            0 => Self::Pass,
            2 => Self::Drop,
            7 => Self::Redirect,
            other => panic!("no program returns {other}"),
        }
    }
}

/// An amount in `cilium_metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub reason: u8,
    pub direction: u8,
    pub packets: u64,
    pub bytes: u64,
}

/// What should become of a packet. Frame and mark of a dropped one are nobody's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub action: Action,
    pub frame: Vec<u8>,
    pub mark: u32,
    /// Reason and direction of each time the packet is counted, with its length on arrival.
    pub counts: Vec<(u8, u8)>,
}

const FORWARD_IN: (u8, u8) = (REASON_FORWARDED, DIRECTION_INGRESS);
const FORWARD_OUT: (u8, u8) = (REASON_FORWARDED, DIRECTION_EGRESS);
const EXTENSIONS: [u8; 4] = [0, 43, 51, 60];
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// A drop, or a packet that is answered or passed.
type Fate = Result<Expected, u8>;

fn done(action: Action, frame: Vec<u8>, mark: u32, counts: &[(u8, u8)]) -> Fate {
    Ok(Expected { action, frame, mark, counts: counts.to_vec() })
}

fn settle(fate: Fate, direction: u8) -> Expected {
    fate.unwrap_or_else(|reason| Expected {
        action: Action::Drop,
        frame: Vec::new(),
        mark: 0,
        counts: vec![(reason, direction)],
    })
}

/// `cil_from_container`; `frame` has at least an Ethernet header.
pub fn from_container(world: &World, ifindex: u32, mark: u32, frame: &[u8]) -> Expected {
    let fate = match (world.devices.get(&ifindex), ethertype(frame)) {
        (None, _) => Err(DROP_NO_CONFIG),
        (_, ..0x600) => Err(DROP_UNSUPPORTED_L2),
        (Some(device), TYPE_ARP) => arp(device, mark, frame),
        (Some(device), TYPE_IPV4 | TYPE_IPV6) => ip_from_container(world, device, mark, frame),
        _ => Err(DROP_UNSUPPORTED_L3),
    };
    settle(fate, DIRECTION_EGRESS)
}

/// `cil_from_host`; `frame` has at least an Ethernet header.
pub fn from_host(world: &World, mark: u32, frame: &[u8]) -> Expected {
    let fate = match ethertype(frame) {
        TYPE_IPV4 | TYPE_IPV6 => ip_from_host(world, mark, frame),
        _ => done(Action::Pass, frame.to_vec(), mark, &[]),
    };
    let mut expected = settle(fate, DIRECTION_INGRESS);
    if !from_proxy(mark) {
        expected.counts.push((REASON_INTERFACE, DIRECTION_INGRESS));
    }
    expected
}

fn ethertype(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[12], frame[13]])
}

fn mac(bytes: &[u8]) -> Mac {
    bytes.try_into().expect("6 bytes")
}

fn v6(bytes: &[u8]) -> Ipv6Addr {
    <[u8; 16]>::try_from(bytes).expect("16 bytes").into()
}

fn v4(bytes: &[u8]) -> Ipv4Addr {
    <[u8; 4]>::try_from(bytes).expect("4 bytes").into()
}

fn from_proxy(mark: u32) -> bool {
    matches!(mark >> 8 & 15, 0xa | 0xb)
}

fn arp(device: &DeviceValue, mark: u32, frame: &[u8]) -> Fate {
    let untouched = done(Action::Pass, frame.to_vec(), mark, &[]);
    let Some(packet) = frame.get(ETH_LEN..ETH_LEN + 28) else { return untouched };
    let for_device = frame[..6] == [0xff; 6] || frame[..6] == device.node_mac;
    let request = packet[..8] == [0, 1, 8, 0, 6, 4, 0, 1];
    if !for_device || !request || packet[24..28] == device.ipv4_be {
        return untouched;
    }
    let reply = [
        &frame[6..12],
        &device.node_mac,
        &frame[12..20],
        &[0, 2],
        &device.node_mac,
        &packet[24..28],
        &packet[8..14],
        &packet[14..18],
        &frame[ETH_LEN + 28..],
    ];
    done(Action::Redirect, reply.concat(), mark, &[])
}

/// The addresses of a valid packet.
fn addresses(frame: &[u8]) -> Result<(IpAddr, IpAddr), u8> {
    let packet = &frame[ETH_LEN..];
    if ethertype(frame) == TYPE_IPV6 {
        let valid = packet.len() >= 40 && packet[0] >> 4 == 6;
        return match valid {
            true => Ok((v6(&packet[8..24]).into(), v6(&packet[24..40]).into())),
            false => Err(DROP_INVALID_PACKET),
        };
    }
    let header_len = usize::from(packet[0] & 15) * 4;
    if packet[0] >> 4 != 4 || header_len < 20 || packet.len() < header_len {
        return Err(DROP_INVALID_PACKET);
    }
    Ok((v4(&packet[12..16]).into(), v4(&packet[16..20]).into()))
}

/// The frame with one hop less, `None` when there is none left.
fn one_hop_less(frame: &[u8]) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    if ethertype(&frame) == TYPE_IPV6 {
        frame[ETH_LEN + 7] = frame[ETH_LEN + 7].checked_sub(1).filter(|left| *left > 0)?;
        return Some(frame);
    }
    frame[ETH_LEN + 8] = frame[ETH_LEN + 8].checked_sub(1).filter(|left| *left > 0)?;
    // The header's words sum up to what they did before, modulo 65535, right or wrong.
    let sum = u16::from_be_bytes([frame[ETH_LEN + 10], frame[ETH_LEN + 11]]);
    let sum = ((u32::from(sum) + 0x100) % 0xffff) as u16;
    frame[ETH_LEN + 10..ETH_LEN + 12].copy_from_slice(&sum.to_be_bytes());
    Some(frame)
}

fn endpoint_elsewhere(world: &World, address: IpAddr) -> Option<&EndpointValue> {
    world.endpoints.get(&address).filter(|endpoint| endpoint.flags & 3 == 0)
}

fn ip_from_container(world: &World, device: &DeviceValue, mark: u32, frame: &[u8]) -> Fate {
    let (source, destination) = addresses(frame)?;
    if let IpAddr::V6(source) = source
        && let Some(fate) = discovery(world, device, mark, frame, source)
    {
        return fate;
    }
    let own: [IpAddr; 2] = [v4(&device.ipv4_be).into(), v6(&device.ipv6_be).into()];
    if !own.contains(&source) || source.is_unspecified() {
        return Err(DROP_INVALID_SOURCE_IP);
    }
    let Some(mut sent) = one_hop_less(frame) else {
        let error = time_exceeded(world, device.mac, device.node_mac, frame)?;
        return done(Action::Redirect, error, mark, &[]);
    };
    let mark = identity_mark(device.identity);
    match endpoint_elsewhere(world, destination) {
        Some(endpoint) => {
            sent[..6].copy_from_slice(&endpoint.mac);
            sent[6..12].copy_from_slice(&endpoint.node_mac);
            done(Action::Redirect, sent, mark, &[FORWARD_OUT, FORWARD_IN])
        }
        None => {
            sent[..6].copy_from_slice(&device.node_mac);
            done(Action::Pass, sent, mark, &[FORWARD_OUT])
        }
    }
}

/// Type of the first header that is no extension header, and where it begins in the packet.
fn upper_layer(packet: &[u8]) -> Option<(u8, usize)> {
    let (mut next, mut at) = (packet[6], 40);
    for _ in 0..4 {
        if !EXTENSIONS.contains(&next) {
            break;
        }
        let header = packet.get(at..at + 2)?;
        at += if next == 51 {
            8 + usize::from(header[1]) * 4
        } else {
            8 + usize::from(header[1]) * 8
        };
        next = header[0];
    }
    (!EXTENSIONS.contains(&next)).then_some((next, at))
}

/// Neighbour discovery; `None` when the packet is something else.
fn discovery(
    world: &World,
    device: &DeviceValue,
    mark: u32,
    frame: &[u8],
    source: Ipv6Addr,
) -> Option<Fate> {
    let packet = &frame[ETH_LEN..];
    if packet[7] != 255 || packet[6] != ICMP6 && !EXTENSIONS.contains(&packet[6]) {
        return None;
    }
    let Some((next, at)) = upper_layer(packet) else {
        return Some(Err(DROP_INVALID_EXTENSION_HEADER));
    };
    if next != ICMP6 {
        return None;
    }
    let solicits = match packet.get(at) {
        Some(&SOLICITATION) => true,
        Some(&ADVERTISEMENT) => false,
        Some(_) => return None,
        None => return Some(Err(DROP_INVALID_PACKET)),
    };
    let Some(message) = packet.get(at..at + 24).filter(|message| message[1] == 0) else {
        return Some(Err(DROP_INVALID_PACKET));
    };
    let own = source.is_unicast_link_local() || source == v6(&device.ipv6_be);
    Some(match (solicits, source.is_unspecified()) {
        (true, true) => match solicited(world, device, v6(&message[8..])) {
            Ok(None) => done(Action::Pass, frame.to_vec(), mark, &[]),
            _ => Err(DROP_UNKNOWN_TARGET),
        },
        (false, true) => Err(DROP_INVALID_SOURCE_IP),
        _ if !own => Err(DROP_INVALID_SOURCE_IP),
        (false, _) => done(Action::Pass, frame.to_vec(), mark, &[]),
        (true, _) => match solicited(world, device, v6(&message[8..])) {
            Ok(None) => done(Action::Pass, frame.to_vec(), mark, &[]),
            Ok(Some(flags)) => {
                let advert = advertisement(device, frame, flags, v6(&message[8..]));
                done(Action::Redirect, advert, mark, &[])
            }
            Err(reason) => Err(reason),
        },
    })
}

/// Flags of the answer to a solicitation, `None` when the stack answers.
fn solicited(world: &World, device: &DeviceValue, target: Ipv6Addr) -> Result<Option<u8>, u8> {
    if target == v6(&world.node.router_ipv6_be) && !target.is_unspecified() {
        return Ok(Some(0xc0));
    }
    match world.endpoints.get(&target.into()) {
        Some(endpoint) if endpoint.flags & 3 != 0 => Ok(None),
        Some(_) if target != v6(&device.ipv6_be) && !target.is_unspecified() => Ok(Some(0x60)),
        _ => Err(DROP_UNKNOWN_TARGET),
    }
}

fn advertisement(device: &DeviceValue, asked: &[u8], flags: u8, target: Ipv6Addr) -> Vec<u8> {
    let asker = v6(&asked[ETH_LEN + 8..ETH_LEN + 24]);
    let option = [&[2, 1][..], &device.node_mac].concat();
    let message = icmp6(target, asker, ADVERTISEMENT, 0, &nd_body(flags, target, &option));
    let packet = ipv6_with(target, asker, 255, ICMP6, &message);
    ethernet(mac(&asked[6..12]), device.node_mac, TYPE_IPV6, &packet)
}

fn time_exceeded(world: &World, to: Mac, from: Mac, frame: &[u8]) -> Result<Vec<u8>, u8> {
    let packet = &frame[ETH_LEN..];
    let router = v6(&world.node.router_ipv6_be);
    let (source, destination) = addresses(frame)?;
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) else {
        return Err(DROP_TTL_EXCEEDED);
    };
    let nobody = source.is_unspecified() || source.is_multicast() || destination.is_multicast();
    let about_error = match upper_layer(packet) {
        Some((ICMP6, at)) => packet.get(at).is_none_or(|kind| *kind < 128 || *kind == 137),
        upper => upper.is_none(),
    };
    if router.is_unspecified() || nobody || about_error {
        return Err(DROP_TTL_EXCEEDED);
    }
    let quote = &packet[..packet.len().min(1280 - 48)];
    let body = [&[0; 4][..], quote].concat();
    let packet = ipv6_with(router, source, 64, ICMP6, &icmp6(router, source, 3, 0, &body));
    Ok(ethernet(to, from, TYPE_IPV6, &packet))
}

fn identity_of(world: &World, address: IpAddr) -> u32 {
    let covers = |(prefix, len, _): &&(IpAddr, u8, u32)| match (prefix, address) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => {
            (prefix.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(*len)
        }
        (IpAddr::V6(prefix), IpAddr::V6(address)) => {
            (prefix.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(*len)
        }
        _ => false,
    };
    let longest = world.ipcache.iter().filter(covers).max_by_key(|(_, len, _)| *len);
    longest.map_or(IDENTITY_WORLD, |(.., identity)| *identity)
}

fn sender_identity(world: &World, mark: u32, source: IpAddr) -> u32 {
    let told = match mark >> 8 & 15 {
        0xc => IDENTITY_HOST,
        0xa | 0xb | 0xf => mark >> 16 | (mark & 0xff) << 16,
        _ => IDENTITY_UNKNOWN,
    };
    match (told, identity_of(world, source)) {
        (IDENTITY_UNKNOWN, IDENTITY_HOST) => IDENTITY_WORLD,
        (IDENTITY_UNKNOWN, looked_up) => looked_up,
        _ => told,
    }
}

fn ip_from_host(world: &World, mark: u32, frame: &[u8]) -> Fate {
    let (source, destination) = addresses(frame)?;
    if let Some(endpoint) = endpoint_elsewhere(world, destination) {
        let Some(mut sent) = one_hop_less(frame) else {
            let mac = world.node.host_mac;
            return done(Action::Redirect, time_exceeded(world, mac, mac, frame)?, 0, &[]);
        };
        sent[..6].copy_from_slice(&endpoint.mac);
        sent[6..12].copy_from_slice(&endpoint.node_mac);
        let mark = identity_mark(sender_identity(world, mark, source));
        return done(Action::Redirect, sent, mark, &[FORWARD_IN]);
    }
    let (to_group, on_link) = match destination {
        IpAddr::V4(address) => {
            (address.is_multicast() || address.is_broadcast(), address.is_link_local())
        }
        IpAddr::V6(address) => (address.is_multicast(), address.is_unicast_link_local()),
    };
    if to_group {
        return done(Action::Pass, frame.to_vec(), mark, &[]);
    }
    let known = world.endpoints.contains_key(&destination)
        || !matches!(identity_of(world, destination), 2 | 9 | 10);
    if !known && !on_link && !from_proxy(mark) {
        return Err(DROP_UNROUTABLE);
    }
    let mut sent = frame.to_vec();
    sent[..6].copy_from_slice(&world.node.net_mac);
    done(Action::Pass, sent, 0, &[])
}
