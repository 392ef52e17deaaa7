//! Unicast routes. Ownership: `rtm_protocol` is [`owner::PROTOCOL`](super::owner::PROTOCOL); the
//! kernel is asked for these only, and `RTM_DELROUTE` with a protocol matches these only, so a
//! foreign route is neither seen nor touched.
//!
//! Pure but for `exec.rs`.

pub mod exec;
mod message;

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Field, Kind, ObjectKey};
use crate::net::{IfName, Netns};

pub use message::{Decoded, TABLE_MAIN, decode, encode};

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
}

impl Key {
    /// A route of the main table with the family's default metric.
    pub fn main(netns: Netns, dst: IpNet) -> Self {
        Self::in_table(netns, TABLE_MAIN, dst)
    }

    /// A route of a table with the family's default metric.
    pub fn in_table(netns: Netns, table: u32, dst: IpNet) -> Self {
        let metric = if dst.addr().is_ipv6() { METRIC_IPV6_DEFAULT } else { 0 };
        Self { netns, table, dst, metric }
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
    pub route: Seen,
    /// The link object `dev` belongs to, when it is ours.
    pub link: Option<IfName>,
}

/// What the kernel has, and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub via: Option<IpAddr>,
    pub dev: IfName,
    pub src: Option<IpAddr>,
    pub scope: Scope,
    pub mtu_bytes: Option<u32>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(via) = self.via {
            write!(f, "via {via} ")?;
        }
        write!(f, "dev {}", self.dev)?;
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

impl Kind for Route {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "route";

    fn realise(_key: &Key, spec: &Spec) -> Seen {
        spec.route.clone()
    }

    fn fields(_key: &Key, spec: &Spec, seen: &Seen) -> Vec<Field> {
        let show = |ip: Option<IpAddr>| ip.map_or("none".to_string(), |ip| ip.to_string());
        let mtu = |mtu: Option<u32>| mtu.map_or("none".to_string(), |mtu| mtu.to_string());
        let want = &spec.route;
        let scope = |scope: Scope| format!("{scope:?}").to_lowercase();
        [
            Field::differs("via", &show(seen.via), &show(want.via)),
            Field::differs("dev", &seen.dev, &want.dev),
            Field::differs("src", &show(seen.src), &show(want.src)),
            Field::differs("scope", &scope(seen.scope), &scope(want.scope)),
            Field::differs("mtu", &mtu(seen.mtu_bytes), &mtu(want.mtu_bytes)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn is_as_asked(_key: &Key, spec: &Spec, seen: &Seen) -> bool {
        spec.route == *seen
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
        needs.extend(spec.route.src.map(|src| {
            ObjectKey::Address(super::address::Key {
                netns: key.netns.clone(),
                ifname: spec.route.dev,
                address: IpNet::from(src),
            })
        }));
        needs
    }
}
