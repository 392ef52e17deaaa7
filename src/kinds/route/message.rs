//! Routes as messages: `struct rtmsg` and attributes (rtnetlink(7)), read and written. Pure: the bytes
//! come from `kernel` and go to it.
//!
//! There may be a hundred thousand of them, and a message of `netlink-packet-route` in between takes three
//! times as long as the kernel takes for a dump.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Key, Only, Scope, Seen, Way};
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
/// `RT_SCOPE_NOWHERE`, by which a removal asks for any scope.
const SCOPE_ANY: u8 = 255;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;
/// The other values of `rtm_type`, in the words of `ip`; 0 in a removal asks for any.
const TYPES: [&str; 11] = [
    "any",
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
    "throw",
    "nat",
];
/// `RTNH_F_ONLINK`; the other flags are what the kernel says of the route.
const FLAG_ONLINK: u32 = 4;
/// `RTAX_*` in the words of `ip`, without that of the MTU.
const METRICS: [&str; 18] = [
    "",
    "lock",
    "",
    "window",
    "rtt",
    "rttvar",
    "ssthresh",
    "cwnd",
    "advmss",
    "reordering",
    "hoplimit",
    "initcwnd",
    "features",
    "rto_min",
    "initrwnd",
    "quickack",
    "congctl",
    "fastopen_no_cookie",
];
/// Where `struct rta_cacheinfo` has `rta_expires`.
const EXPIRES_AT: std::ops::Range<usize> = 8..12;

/// `enum rtattr_type_t` and `RTAX_MTU` (linux/rtnetlink.h), `NLA_TYPE_MASK` (linux/netlink.h).
mod attribute {
    pub const DST: u16 = 1;
    pub const SRC: u16 = 2;
    pub const OIF: u16 = 4;
    pub const GATEWAY: u16 = 5;
    pub const PRIORITY: u16 = 6;
    pub const PREFSRC: u16 = 7;
    pub const METRICS: u16 = 8;
    pub const MULTIPATH: u16 = 9;
    pub const FLOW: u16 = 11;
    pub const CACHE_INFO: u16 = 12;
    pub const TABLE: u16 = 15;
    pub const VIA: u16 = 18;
    pub const PREFERENCE: u16 = 20;
    pub const ENCAP_TYPE: u16 = 21;
    pub const TTL_PROPAGATE: u16 = 26;
    pub const NEXT_HOP_ID: u16 = 30;
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

/// Decodes the payload of a route message; `None` for one of another family, or that isn't whole.
pub fn decode(netns: &Netns, payload: &[u8], names: &BTreeMap<u32, IfName>) -> Option<Decoded> {
    let [family, dst_len, src_len, tos, table, protocol, scope, kind, f, l, a, g, ..] = *payload
    else {
        return None;
    };
    let unspecified: IpAddr = match i32::from(family) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let scope = match scope {
        0 => Scope::Universe,
        SCOPE_LINK => Scope::Link,
        other => Scope::Other(other),
    };
    let (mut address, mut from) = (unspecified, unspecified);
    let (mut table, mut metric, mut strange) = (u32::from(table), 0, String::new());
    let mut way = Way { via: None, dev: None, src: None, scope, mtu_bytes: None };
    if kind != UNICAST {
        note(&mut strange, TYPES.get(usize::from(kind)).unwrap_or(&"of another type"));
    }
    if u32::from_ne_bytes([f, l, a, g]) & FLAG_ONLINK != 0 {
        note(&mut strange, "onlink");
    }
    for attribute in attributes(payload.get(RTMSG_BYTES..)?) {
        let (kind, value) = attribute?;
        match kind {
            attribute::DST => address = ip(value)?,
            attribute::SRC => from = ip(value)?,
            attribute::TABLE => table = number(value)?,
            attribute::PRIORITY => metric = number(value)?,
            attribute::GATEWAY => way.via = ip(value),
            attribute::PREFSRC => way.src = ip(value),
            attribute::OIF => way.dev = names.get(&number(value)?).copied(),
            attribute::METRICS => {
                way.mtu_bytes = metric_mtu(value);
                other_metrics(value, &mut strange);
            }
            other => beyond(other, value, names, &mut strange),
        }
    }
    let dst = IpNet::new(address, dst_len).ok()?;
    let from = (src_len > 0).then(|| IpNet::new(from, src_len)).transpose().ok()?;
    let only = (tos != 0 || from.is_some()).then(|| Box::new(Only { tos, from }));
    let key = Key { netns: netns.clone(), table, dst, metric, only };
    let foreign = protocol != owner::PROTOCOL;
    let seen = Seen { way, strange: strange.into(), more: 0, foreign };
    Some(Decoded { protocol, key, seen })
}

fn note(strange: &mut String, what: &str) {
    if !strange.is_empty() {
        strange.push(' ');
    }
    strange.push_str(what);
}

/// Notes what an attribute says that we never ask for. One that we don't know says nothing: a later
/// kernel may add it to every route.
fn beyond(kind: u16, value: &[u8], names: &BTreeMap<u32, IfName>, strange: &mut String) {
    let what = match kind {
        attribute::MULTIPATH => next_hops(value, names),
        attribute::NEXT_HOP_ID => format!("nhid {}", number(value).unwrap_or_default()),
        attribute::FLOW => format!("realm {}", number(value).unwrap_or_default()),
        attribute::VIA => "via another family".into(),
        attribute::ENCAP_TYPE => "encapsulated".into(),
        attribute::TTL_PROPAGATE => "ttl-propagate".into(),
        attribute::PREFERENCE if value.first().is_some_and(|medium| *medium != 0) => "pref".into(),
        attribute::CACHE_INFO if value.get(EXPIRES_AT).and_then(number).is_some_and(|t| t != 0) => {
            "expires".into()
        }
        _ => return,
    };
    note(strange, &what);
}

/// Several next hops in the words of `ip`: `struct rtnexthop` (length, flags, weight - 1, device) and
/// attributes, in a row.
fn next_hops(mut rest: &[u8], names: &BTreeMap<u32, IfName>) -> String {
    let mut text = String::new();
    while let [a, b, _, weight, i, j, k, l, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b])).max(8);
        let inner = rest.get(8..length).unwrap_or_default();
        let via = attributes(inner).flatten().find(|(kind, _)| *kind == attribute::GATEWAY);
        let via = via.and_then(|(_, value)| ip(value));
        note(&mut text, "nexthop");
        if let Some(via) = via {
            note(&mut text, &format!("via {via}"));
        }
        if let Some(dev) = names.get(&u32::from_ne_bytes([i, j, k, l])) {
            note(&mut text, &format!("dev {dev}"));
        }
        note(&mut text, &format!("weight {}", u16::from(weight) + 1));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    text
}

/// Notes metrics other than the MTU.
fn other_metrics(metrics: &[u8], strange: &mut String) {
    for (kind, value) in attributes(metrics).flatten() {
        match METRICS.get(usize::from(kind)).filter(|name| !name.is_empty()) {
            None => {}
            Some(name) => match number(value).filter(|_| value.len() == 4) {
                Some(number) => note(strange, &format!("{name} {number}")),
                None => note(strange, name),
            },
        }
    }
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

/// Appends the payload of a message that makes a route of ours.
pub fn encode(key: &Key, way: &Way, ifindex: u32, bytes: &mut Vec<u8>) {
    let scope = match way.scope {
        Scope::Universe => 0,
        Scope::Link => SCOPE_LINK,
        Scope::Other(scope) => scope,
    };
    encode_key(key, scope, UNICAST, bytes);
    if let Some(via) = way.via {
        put_ip(bytes, attribute::GATEWAY, via);
    }
    if let Some(src) = way.src {
        put_ip(bytes, attribute::PREFSRC, src);
    }
    put(bytes, attribute::OIF, &ifindex.to_ne_bytes());
    if let Some(mtu) = way.mtu_bytes {
        let mut metrics = Vec::with_capacity(ATTRIBUTE_BYTES + 4);
        put(&mut metrics, attribute::METRIC_MTU, &mtu.to_ne_bytes());
        put(bytes, attribute::METRICS, &metrics);
    }
}

/// Appends the payload of a message that removes one route of ours, wherever it leads.
pub fn encode_removal(key: &Key, bytes: &mut Vec<u8>) {
    encode_key(key, SCOPE_ANY, 0, bytes);
}

/// The header, and the attributes that the kernel tells routes apart by.
fn encode_key(key: &Key, scope: u8, kind: u8, bytes: &mut Vec<u8>) {
    let family = if key.dst.addr().is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let length = key.dst.prefix_len();
    let only = key.only.as_deref();
    let (tos, from) = only.map_or((0, None), |only| (only.tos, only.from));
    let src_len = from.map_or(0, |from| from.prefix_len());
    // The table is an attribute, since it may not fit here. The last four are flags.
    let header = [family as u8, length, src_len, tos, 0, owner::PROTOCOL, scope, kind, 0, 0, 0, 0];
    bytes.extend(header);
    put(bytes, attribute::TABLE, &key.table.to_ne_bytes());
    if length > 0 {
        put_ip(bytes, attribute::DST, key.dst.addr());
    }
    if let Some(from) = from {
        put_ip(bytes, attribute::SRC, from.addr());
    }
    if key.metric != 0 {
        put(bytes, attribute::PRIORITY, &key.metric.to_ne_bytes());
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
