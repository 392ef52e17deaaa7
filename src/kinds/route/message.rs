//! Routes as messages: `struct rtmsg` and attributes (rtnetlink(7)), read and written. Pure: the bytes
//! come from `kernel` and go to it.
//!
//! There may be a hundred thousand of them, and a message of `netlink-packet-route` in between takes three
//! times as long as the kernel takes for a dump.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Key, Scope, Seen};
use crate::kinds::owner;
use crate::net::{IfName, Netns};

/// `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;

/// `struct rtmsg`: family, destination length, source length, tos, table, protocol, scope, type, flags.
const RTMSG_BYTES: usize = 12;
/// `struct rtattr`: length with this header, type.
const ATTRIBUTE_BYTES: usize = 4;
/// `RT_SCOPE_LINK`.
const SCOPE_LINK: u8 = 253;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;

/// `enum rtattr_type_t` and `RTAX_MTU` (linux/rtnetlink.h), `NLA_TYPE_MASK` (linux/netlink.h).
mod attribute {
    pub const DST: u16 = 1;
    pub const OIF: u16 = 4;
    pub const GATEWAY: u16 = 5;
    pub const PRIORITY: u16 = 6;
    pub const PREFSRC: u16 = 7;
    pub const METRICS: u16 = 8;
    pub const MULTIPATH: u16 = 9;
    pub const TABLE: u16 = 15;
    pub const METRIC_MTU: u16 = 2;
    pub const KIND_MASK: u16 = 0x3fff;
}

/// A route, and the `rtm_protocol` that says whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    pub protocol: u8,
    pub key: Key,
    pub seen: Seen,
}

/// Decodes the payload of a route message; `None` for one that can't be one of ours (no device, several
/// next hops, other families).
pub fn decode(netns: &Netns, payload: &[u8], names: &BTreeMap<u32, IfName>) -> Option<Decoded> {
    let [family, dst_len, _, _, table, protocol, scope, _, ..] = *payload else { return None };
    let unspecified: IpAddr = match i32::from(family) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut address, mut table, mut metric) = (unspecified, u32::from(table), 0);
    let (mut via, mut src, mut mtu_bytes, mut dev) = (None, None, None, None);
    for attribute in attributes(payload.get(RTMSG_BYTES..)?) {
        let (kind, value) = attribute?;
        match kind {
            attribute::DST => address = ip(value)?,
            attribute::TABLE => table = number(value)?,
            attribute::PRIORITY => metric = number(value)?,
            attribute::GATEWAY => via = ip(value),
            attribute::PREFSRC => src = ip(value),
            attribute::OIF => dev = names.get(&number(value)?).copied(),
            attribute::MULTIPATH => return None,
            attribute::METRICS => mtu_bytes = metric_mtu(value),
            _ => {}
        }
    }
    let scope = match scope {
        0 => Scope::Universe,
        SCOPE_LINK => Scope::Link,
        other => Scope::Other(other),
    };
    let dst = IpNet::new(address, dst_len).ok()?;
    let key = Key { netns: netns.clone(), table, dst, metric };
    Some(Decoded { protocol, key, seen: Seen { via, dev: dev?, src, scope, mtu_bytes } })
}

/// The types and values of attributes in a row; `None` for one that isn't whole.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let attribute = first_attribute(rest);
        rest = attribute.map_or(&[], |(.., after)| after);
        Some(attribute.map(|(kind, value, _)| (kind, value)))
    })
}

/// Type and value of the first attribute, and what comes after it.
fn first_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let [a, b, c, d, ..] = *bytes else { return None };
    let length = usize::from(u16::from_ne_bytes([a, b]));
    let kind = u16::from_ne_bytes([c, d]) & attribute::KIND_MASK;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    Some((kind, bytes.get(ATTRIBUTE_BYTES..length)?, after))
}

fn metric_mtu(metrics: &[u8]) -> Option<u32> {
    let (_, mtu) =
        attributes(metrics).flatten().find(|(kind, _)| *kind == attribute::METRIC_MTU)?;
    number(mtu)
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Appends the payload of a message about a route of ours.
pub fn encode(key: &Key, route: &Seen, ifindex: u32, bytes: &mut Vec<u8>) {
    let family = if key.dst.addr().is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let scope = match route.scope {
        Scope::Universe => 0,
        Scope::Link => SCOPE_LINK,
        Scope::Other(scope) => scope,
    };
    // The table is an attribute, since it may not fit here. The last four are flags.
    let length = key.dst.prefix_len();
    bytes.extend([family as u8, length, 0, 0, 0, owner::PROTOCOL, scope, UNICAST, 0, 0, 0, 0]);
    put(bytes, attribute::TABLE, &key.table.to_ne_bytes());
    if length > 0 {
        put_ip(bytes, attribute::DST, key.dst.addr());
    }
    if key.metric != 0 {
        put(bytes, attribute::PRIORITY, &key.metric.to_ne_bytes());
    }
    if let Some(via) = route.via {
        put_ip(bytes, attribute::GATEWAY, via);
    }
    if let Some(src) = route.src {
        put_ip(bytes, attribute::PREFSRC, src);
    }
    put(bytes, attribute::OIF, &ifindex.to_ne_bytes());
    if let Some(mtu) = route.mtu_bytes {
        let mut metrics = Vec::with_capacity(ATTRIBUTE_BYTES + 4);
        put(&mut metrics, attribute::METRIC_MTU, &mtu.to_ne_bytes());
        put(bytes, attribute::METRICS, &metrics);
    }
}

/// Appends an attribute. Values of routes need no padding: their lengths are multiples of 4.
fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend_from_slice(&((ATTRIBUTE_BYTES + value.len()) as u16).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
}

fn put_ip(bytes: &mut Vec<u8>, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => put(bytes, kind, &v4.octets()),
        IpAddr::V6(v6) => put(bytes, kind, &v6.octets()),
    }
}
