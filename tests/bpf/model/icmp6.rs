//! The part of the model that is about ICMPv6: neighbour discovery, and errors.

use std::net::{IpAddr, Ipv6Addr};

use ciliate::bpf_abi::*;

use super::{Action, Fate, World, addresses, mac, v6};
use crate::frames::{ETH_LEN, ICMP6, Mac, TYPE_IPV6, ethernet, icmp6, ipv6_with, nd_body};

const EXTENSIONS: [u8; 4] = [0, 43, 51, 60];
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

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
pub fn discovery(
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
            Ok(None) => Ok((Action::Pass, frame.to_vec(), mark)),
            _ => Err(DROP_UNKNOWN_TARGET),
        },
        (false, true) => Err(DROP_INVALID_SOURCE_IP),
        _ if !own => Err(DROP_INVALID_SOURCE_IP),
        (false, _) => Ok((Action::Pass, frame.to_vec(), mark)),
        (true, _) => match solicited(world, device, v6(&message[8..])) {
            Ok(None) => Ok((Action::Pass, frame.to_vec(), mark)),
            Ok(Some(flags)) => {
                let advert = advertisement(device, frame, flags, v6(&message[8..]));
                Ok((Action::Redirect, advert, mark))
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

pub fn time_exceeded(world: &World, to: Mac, from: Mac, frame: &[u8]) -> Result<Vec<u8>, u8> {
    error(world, (to, from), frame, (3, 0)).ok_or(DROP_TTL_EXCEEDED)
}

/// An error, by type and the last word of its header; `None` where there must be none.
pub fn error(
    world: &World,
    (to, from): (Mac, Mac),
    frame: &[u8],
    (kind, word): (u8, u32),
) -> Option<Vec<u8>> {
    let packet = &frame[ETH_LEN..];
    let router = v6(&world.node.router_ipv6_be);
    let Ok((IpAddr::V6(source), IpAddr::V6(destination))) = addresses(frame) else {
        return None;
    };
    let nobody = source.is_unspecified() || source.is_multicast() || destination.is_multicast();
    let about_error = match upper_layer(packet) {
        Some((ICMP6, at)) => packet.get(at).is_none_or(|kind| *kind < 128 || *kind == 137),
        upper => upper.is_none(),
    };
    if router.is_unspecified() || nobody || about_error {
        return None;
    }
    let quote = &packet[..packet.len().min(1280 - 48)];
    let body = [&word.to_be_bytes()[..], quote].concat();
    let packet = ipv6_with(router, source, 64, ICMP6, &icmp6(router, source, kind, 0, &body));
    Some(ethernet(to, from, TYPE_IPV6, &packet))
}
