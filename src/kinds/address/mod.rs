//! Addresses on links of ours. Ownership: `IFA_PROTO` (Linux 5.18) is
//! [`owner::PROTOCOL`](super::owner::PROTOCOL); on older kernels an address can be added but not
//! proved to be ours, and goes with its link. One that we ask for, on a link of ours, and that isn't as ours
//! would be (see [`Seen::altered`]) is ours too: whoever alters one takes the protocol away with it.
//!
//! Pure but for `exec.rs`.

pub mod exec;

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Field, Kind, ObjectKey};
use crate::net::{IfName, Netns};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Address;

/// Where, and which address with which prefix length (host bits kept).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub netns: Netns,
    pub ifname: IfName,
    pub address: IpNet,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.address, self.ifname)?;
        match self.netns.path() {
            None => Ok(()),
            Some(path) => write!(f, " netns {path}"),
        }
    }
}

/// What ours have besides address and prefix length.
const NOTHING: &str = "none";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The link object the device belongs to.
    pub link: IfName,
}

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub owned: bool,
    /// Whether somebody gave it an end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expires: bool,
    /// What else it has and ours don't, as an operator would type it, `scope link`. The kernel chooses an
    /// address of narrow scope for no packet that goes further. Empty: it is as ours.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub altered: String,
}

impl Kind for Address {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "address";

    fn realise(_key: &Key, _spec: &Spec) -> Seen {
        Seen { owned: true, expires: false, altered: String::new() }
    }

    fn fields(_key: &Key, _spec: &Spec, seen: &Seen) -> Vec<Field> {
        let altered = if seen.altered.is_empty() { NOTHING } else { &seen.altered };
        // The kernel gives another end to an address that is there, and nothing else.
        let fields = [
            Field::differs("expires", &seen.expires, &false),
            Field::immutable("attributes", &altered, &NOTHING),
        ];
        fields.into_iter().flatten().collect()
    }

    fn owned(seen: &Seen) -> bool {
        seen.owned
    }

    /// An address that somebody else put there serves as well; it is never taken over.
    fn foreign_serves(_key: &Key, _spec: &Spec, _seen: &Seen) -> bool {
        true
    }

    fn describe_spec(_key: &Key, _spec: &Spec) -> String {
        String::new()
    }

    fn describe_seen(_key: &Key, _seen: &Seen) -> String {
        String::new()
    }

    fn needs(_key: &Key, spec: &Spec) -> Vec<ObjectKey> {
        vec![ObjectKey::Link(spec.link)]
    }

    /// The kernel drops routes whose preferred source is the address (`fib_sync_down_addr`), unless
    /// another device of the namespace has it too.
    fn cascade(key: &Key, _gone: &Seen, observed: &mut super::Observed) {
        let same =
            |other: &Key| other.netns == key.netns && other.address.addr() == key.address.addr();
        if observed.addresses.keys().any(same) {
            return;
        }
        observed
            .routes
            .retain(|k, route| k.netns != key.netns || route.way.src != Some(key.address.addr()));
    }
}
