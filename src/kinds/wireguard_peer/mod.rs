//! Peers of WireGuard devices of ours: one object each, by public key, so that a change of one touches no other,
//! nor its session. Everything on a device of ours is ours.
//!
//! A peer may be reached at another address than it was given: WireGuard answers where packets with the right key
//! come from. An address that the configuration says is the peer's is as good as the one asked for.
//!
//! Peers are made last of all: from then on what they send comes in, and by no route yet to the endpoint that it is
//! for, it would go out again by another, in plain text.
//!
//! Pure but for `exec.rs`.

pub mod exec;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Field, Kind, ObjectKey, Observed};
use crate::net::{IfName, PublicKey};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct WireguardPeer;

/// Which peer of which device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub ifname: IfName,
    pub public_key: PublicKey,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.ifname, self.public_key)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub endpoint: SocketAddr,
    /// Other addresses that it may send from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Seconds between two signs of life where nothing else is sent; 0 is off.
    pub keepalive_s: u16,
    pub allowed_ips: BTreeSet<IpNet>,
}

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// One of those that are asked for is seen as that which is, wherever it sends from now.
    pub endpoint: Option<SocketAddr>,
    pub keepalive_s: u16,
    pub allowed_ips: BTreeSet<IpNet>,
    /// Somebody gave it a preshared key, which the other end has not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preshared: bool,
}

fn list(nets: &BTreeSet<IpNet>) -> String {
    if nets.is_empty() {
        return "none".into();
    }
    nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn keepalive(seconds: u16) -> String {
    if seconds == 0 { "off".into() } else { format!("{seconds} s") }
}

impl Kind for WireguardPeer {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "wireguard-peer";
    /// An address that one peer is given is taken from another.
    const WRITES_THROUGH: bool = true;

    fn realise(_key: &Key, spec: &Spec) -> Seen {
        Seen {
            endpoint: Some(spec.endpoint),
            keepalive_s: spec.keepalive_s,
            allowed_ips: spec.allowed_ips.clone(),
            preshared: false,
        }
    }

    fn fields(_key: &Key, spec: &Spec, seen: &Seen) -> Vec<Field> {
        let endpoint = seen.endpoint.map_or("none".to_string(), |endpoint| endpoint.to_string());
        [
            Field::differs("endpoint", &endpoint, &spec.endpoint.to_string()),
            Field::differs("keepalive", &keepalive(seen.keepalive_s), &keepalive(spec.keepalive_s)),
            Field::differs("allowed ips", &list(&seen.allowed_ips), &list(&spec.allowed_ips)),
            Field::differs("preshared key", &seen.preshared, &false),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn describe_spec(_key: &Key, spec: &Spec) -> String {
        let allowed = list(&spec.allowed_ips);
        let keepalive = keepalive(spec.keepalive_s);
        format!("endpoint {} keepalive {keepalive} allowed ips {allowed}", spec.endpoint)
    }

    fn describe_seen(_key: &Key, seen: &Seen) -> String {
        format!("allowed ips {}", list(&seen.allowed_ips))
    }

    fn needs(key: &Key, _spec: &Spec) -> Vec<ObjectKey> {
        vec![ObjectKey::Link(key.ifname), ObjectKey::Wireguard(key.ifname)]
    }

    fn effects(key: &Key, spec: &Spec, observed: &mut Observed) {
        for (other, seen) in &mut observed.wireguard_peers {
            if other.ifname == key.ifname && other.public_key != key.public_key {
                seen.allowed_ips.retain(|net| !spec.allowed_ips.contains(net));
            }
        }
    }
}
