//! Packets as bytes, and the Internet checksum. Pure; std only.

use std::net::{Ipv4Addr, Ipv6Addr};

pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];
pub const ETH_LEN: usize = 14;
pub const TYPE_IPV4: u16 = 0x0800;
pub const TYPE_ARP: u16 = 0x0806;
pub const TYPE_IPV6: u16 = 0x86dd;
pub const ICMP4: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP6: u8 = 58;

/// The sum of RFC 1071, complemented. Over data that holds its own valid checksum it is zero.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Checksum of an ICMPv6 message with its pseudo header.
pub fn icmp6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let len = (message.len() as u32).to_be_bytes();
    checksum(&[&source.octets(), &destination.octets(), &len, &[0, 0, 0, ICMP6], message])
}

pub fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &source, &ethertype.to_be_bytes(), payload].concat()
}

/// An IPv4 packet; `options` is a multiple of four bytes.
pub fn ipv4_with(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    ipv4_whole((source, destination), ttl, UDP, options, payload)
}

/// An IPv4 packet of any protocol.
pub fn ipv4_of(
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    payload: &[u8],
) -> Vec<u8> {
    ipv4_whole((source, destination), ttl, protocol, &[], payload)
}

/// An IPv4 packet of any protocol, with options.
pub fn ipv4_whole(
    (source, destination): (Ipv4Addr, Ipv4Addr),
    ttl: u8,
    protocol: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header_len = 20 + options.len();
    let total = (header_len + payload.len()) as u16;
    let mut packet = vec![0x40 | (header_len / 4) as u8, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0x12, 0x34, 0x40, 0, ttl, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(options);
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, ttl: u8) -> Vec<u8> {
    ipv4_with(source, destination, ttl, &[], &udp(b"hello"))
}

/// Ports 1000 to 2000, without checksum.
pub fn udp(payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    [&[0x03, 0xe8, 0x07, 0xd0][..], &len.to_be_bytes(), &[0, 0], payload].concat()
}

pub const TCP_FIN: u8 = 1;
pub const TCP_SYN: u8 = 2;
pub const TCP_RST: u8 = 4;
pub const TCP_ACK: u8 = 16;

/// From port 40000 to port 80, without checksum.
pub fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
    tcp_between(40_000, 80, flags, payload)
}

pub fn tcp_between(source: u16, destination: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    [&ports, &rest[..], payload].concat()
}

/// A UDP packet or what begins like one, without checksum.
pub fn udp_between(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len() as u16).to_be_bytes();
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &len, &[0, 0], payload].concat()
}

pub fn ipv6_with(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    next: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, hop_limit]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8) -> Vec<u8> {
    ipv6_with(source, destination, hop_limit, UDP, &udp(b"hello"))
}

/// An ICMPv6 message with its checksum; `body` follows the first four bytes.
pub fn icmp6(source: Ipv6Addr, destination: Ipv6Addr, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(body);
    let sum = icmp6_checksum(source, destination, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An ICMP message with its checksum; `body` follows the first four bytes.
pub fn icmp4(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(body);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Flags, target and options of a solicitation or advertisement.
pub fn nd_body(flags: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    [&[flags, 0, 0, 0][..], &target.octets(), options].concat()
}

/// The group a solicitation for `target` is sent to.
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let mut octets = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    octets[13..].copy_from_slice(&target.octets()[13..]);
    octets.into()
}

/// The Ethernet address of an IPv6 group.
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let octets = group.octets();
    [0x33, 0x33, octets[12], octets[13], octets[14], octets[15]]
}

pub fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        packet.extend(mac);
        packet.extend(address.octets());
    }
    packet
}
