//! Route messages → what was seen. Pure: decodes bytes that `kernel` received.
//!
//! There may be a hundred thousand of them, so the bytes are read as they are (`struct rtmsg` and
//! attributes, rtnetlink(7)); building a message of `netlink-packet-route` first takes three times as
//! long as the kernel takes for the dump.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NlaBuffer, NlasIterator};

use super::{Key, Scope, Seen};
use crate::net::{IfName, Netns};

/// `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;

/// `struct rtmsg`: family, destination length, source length, tos, table, protocol, scope, type, flags.
const RTMSG_BYTES: usize = 12;
/// `RT_SCOPE_LINK`.
const SCOPE_LINK: u8 = 253;

/// `enum rtattr_type_t` and `RTAX_MTU` (linux/rtnetlink.h).
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
    for attribute in NlasIterator::new(payload.get(RTMSG_BYTES..)?) {
        let attribute = attribute.ok()?;
        let value = attribute.value();
        match attribute.kind() {
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

fn metric_mtu(metrics: &[u8]) -> Option<u32> {
    let is_mtu = |metric: &NlaBuffer<&[u8]>| metric.kind() == attribute::METRIC_MTU;
    let mtu = NlasIterator::new(metrics).flatten().find(is_mtu)?;
    number(mtu.value())
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
