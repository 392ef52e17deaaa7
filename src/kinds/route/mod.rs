//! Routes. We make unicast ones with one next hop. Ownership: `rtm_protocol` is
//! [`owner::PROTOCOL`](super::owner::PROTOCOL), whatever else the route says: what somebody made of it is
//! replaced or removed. `RTM_DELROUTE` with a protocol matches these only. A foreign route is looked for
//! where one of ours is missing, since it may be what is in the way.
//!
//! Pure but for `exec.rs`.

pub mod exec;
mod message;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{BlockedReason, Field, Kind, ObjectKey, tunnel};
use crate::net::{IfName, Netns};

pub use message::{Decoded, TABLE_MAIN, decode, encode, encode_removal};

/// Metric the kernel gives an IPv6 route that asks for none (`IP6_RT_PRIO_USER`).
pub const METRIC_IPV6_DEFAULT: u32 = 1024;

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Route;

/// What the kernel tells routes apart by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub netns: Netns,
    pub table: u32,
    pub dst: IpNet,
    /// 0 for IPv4 and [`METRIC_IPV6_DEFAULT`] for IPv6 where none is asked for.
    pub metric: u32,
    /// Ours are for all packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Box<Only>>,
}

/// Which packets a route is for, beyond their destination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Only {
    pub tos: u8,
    /// Source, of IPv6.
    pub from: Option<IpNet>,
}

impl fmt::Display for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tos != 0 {
            write!(f, " tos {:#x}", self.tos)?;
        }
        self.from.map_or(Ok(()), |from| write!(f, " from {from}"))
    }
}

impl Key {
    /// A route of the main table with the family's default metric.
    pub fn main(netns: Netns, dst: IpNet) -> Self {
        Self::in_table(netns, TABLE_MAIN, dst)
    }

    /// A route of a table with the family's default metric.
    pub fn in_table(netns: Netns, table: u32, dst: IpNet) -> Self {
        let metric = if dst.addr().is_ipv6() { METRIC_IPV6_DEFAULT } else { 0 };
        Self { netns, table, dst, metric, only: None }
    }
}

/// Most specific first: the kernel takes a gateway only if a route to it is there.
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        // One after the other: sorting a hundred thousand routes is little else than this.
        self.netns
            .cmp(&other.netns)
            .then_with(|| self.table.cmp(&other.table))
            .then_with(|| other.dst.prefix_len().cmp(&self.dst.prefix_len()))
            .then_with(|| self.dst.cmp(&other.dst))
            .then_with(|| self.metric.cmp(&other.metric))
            .then_with(|| self.only.cmp(&other.only))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.dst.prefix_len(), self.dst.addr()) {
            (0, _) => f.write_str("default")?,
            (32, IpAddr::V4(host)) => write!(f, "{host}")?,
            (128, IpAddr::V6(host)) => write!(f, "{host}")?,
            _ => write!(f, "{}", self.dst)?,
        }
        if self.dst.prefix_len() == 0 && self.dst.addr().is_ipv6() {
            f.write_str(" -6")?;
        }
        if self.table != TABLE_MAIN {
            write!(f, " table {}", self.table)?;
        }
        if let Some(only) = &self.only {
            write!(f, "{only}")?;
        }
        match self.netns.path() {
            None => Ok(()),
            Some(path) => write!(f, " netns {path}"),
        }
    }
}

/// How far away the destination is (`rtm_scope`); IPv6 routes are always `Universe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    Universe,
    Link,
    Other(u8),
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub route: Way,
    /// The link object `dev` belongs to, when it is ours.
    pub link: Option<IfName>,
}

/// Where packets go, and how: all that we ask of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    pub via: Option<IpAddr>,
    /// `None`: to no device, or to several. Never asked for.
    pub dev: Option<IfName>,
    pub src: Option<IpAddr>,
    pub scope: Scope,
    pub mtu_bytes: Option<u32>,
}

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    #[serde(flatten)]
    pub way: Way,
    /// What we never ask for, in the words of `ip`: another type, next hops, other metrics. Empty if there
    /// is nothing of the kind.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub strange: Box<str>,
    /// How many more of ours there are for the same packets, after this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u32,
    /// Somebody else's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Seen {
    /// One of ours that is nothing but its way.
    pub fn plain(way: Way) -> Self {
        Self { way, strange: "".into(), more: 0, foreign: false }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(via) = self.via {
            write!(f, "via {via} ")?;
        }
        match self.dev {
            Some(dev) => write!(f, "dev {dev}")?,
            None => f.write_str("without device")?,
        }
        match self.scope {
            Scope::Universe => {}
            Scope::Link => f.write_str(" scope link")?,
            Scope::Other(scope) => write!(f, " scope {scope}")?,
        }
        if let Some(src) = self.src {
            write!(f, " src {src}")?;
        }
        if let Some(mtu) = self.mtu_bytes {
            write!(f, " mtu {mtu}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.way)?;
        if self.strange.is_empty() { Ok(()) } else { write!(f, " {}", self.strange) }
    }
}

impl Kind for Route {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "route";

    fn realise(_key: &Key, spec: &Spec) -> Seen {
        Seen::plain(spec.route.clone())
    }

    fn fields(_key: &Key, spec: &Spec, seen: &Seen) -> Vec<Field> {
        let show = |ip: Option<IpAddr>| ip.map_or("none".to_string(), |ip| ip.to_string());
        let dev = |dev: Option<IfName>| dev.map_or("none".to_string(), |dev| dev.to_string());
        let mtu = |mtu: Option<u32>| mtu.map_or("none".to_string(), |mtu| mtu.to_string());
        let (want, way) = (&spec.route, &seen.way);
        let scope = |scope: Scope| format!("{scope:?}").to_lowercase();
        let none = "none".to_string();
        let strange = if seen.strange.is_empty() { &*none } else { &*seen.strange };
        [
            Field::differs("via", &show(way.via), &show(want.via)),
            Field::differs("dev", &dev(way.dev), &dev(want.dev)),
            Field::differs("src", &show(way.src), &show(want.src)),
            Field::differs("scope", &scope(way.scope), &scope(want.scope)),
            Field::differs("mtu", &mtu(way.mtu_bytes), &mtu(want.mtu_bytes)),
            Field::differs("otherwise", &strange, &&*none),
            // The kernel replaces the first of them.
            Field::immutable("others like it", &seen.more, &0),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn is_as_asked(_key: &Key, spec: &Spec, seen: &Seen) -> bool {
        spec.route == seen.way && seen.strange.is_empty() && seen.more == 0
    }

    fn owned(seen: &Seen) -> bool {
        !seen.foreign
    }

    fn in_the_way(key: &Key, _seen: &Seen) -> BlockedReason {
        BlockedReason::RouteTaken { route: key.to_string() }
    }

    fn describe_spec(_key: &Key, spec: &Spec) -> String {
        spec.route.to_string()
    }

    fn describe_seen(_key: &Key, seen: &Seen) -> String {
        seen.to_string()
    }

    fn needs(key: &Key, spec: &Spec) -> Vec<ObjectKey> {
        let Some(link) = spec.link else { return Vec::new() };
        let mut needs = vec![ObjectKey::Link(link)];
        needs.extend(spec.route.src.zip(spec.route.dev).map(|(src, ifname)| {
            ObjectKey::Address(super::address::Key {
                netns: key.netns.clone(),
                ifname,
                address: IpNet::from(src),
            })
        }));
        needs
    }

    /// Routes of the host have an MTU if they lead into the tunnel, and those of endpoints one that leaves room
    /// for it.
    fn tunnel(key: &Key, spec: &Spec) -> tunnel::Part {
        match spec.route.mtu_bytes {
            None => tunnel::Part::None,
            Some(_) if key.netns == Netns::HOST => tunnel::Part::Way,
            Some(_) => tunnel::Part::Form,
        }
    }

    /// The route to the same destination in another table, which was to take its place.
    fn outlives<'a>(
        key: &Key,
        _seen: &Seen,
        failed: &'a BTreeSet<ObjectKey>,
    ) -> Option<&'a ObjectKey> {
        let mut tables = 0..u32::MAX;
        while let Some(table) = tables.next() {
            let (_, found) = first_of(failed, &key.netns, table)?;
            let same = Key { table: found.table, ..key.clone() };
            let same = failed.get(&ObjectKey::Route(same));
            if same.is_some() {
                return same;
            }
            tables.start = found.table.saturating_add(1);
        }
        None
    }
}

/// The first route of a namespace in a table, or in one after it.
fn first_of<'a>(
    objects: &'a BTreeSet<ObjectKey>,
    netns: &Netns,
    table: u32,
) -> Option<(&'a ObjectKey, &'a Key)> {
    // None comes before that in the order of routes.
    let dst = IpNet::from(IpAddr::from(Ipv6Addr::UNSPECIFIED));
    let least = Key { netns: netns.clone(), table, dst, metric: 0, only: None };
    let object = objects.range(ObjectKey::Route(least)..).next()?;
    match object {
        ObjectKey::Route(key) if key.netns == *netns => Some((object, key)),
        _ => None,
    }
}

/// Of the objects, a route of the host's namespace in a table.
pub(super) fn any_in(objects: &BTreeSet<ObjectKey>, table: u32) -> Option<&ObjectKey> {
    let (object, key) = first_of(objects, &Netns::HOST, table)?;
    (key.table == table).then_some(object)
}
