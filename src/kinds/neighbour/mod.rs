//! Permanent neighbour entries on the host, for peers in networks that answer no ARP or ND.
//! Ownership: `NDA_PROTOCOL` (Linux 5.2) is [`owner::PROTOCOL`](super::owner::PROTOCOL).
//!
//! Pure but for `exec.rs`.

pub mod exec;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Field, Kind};
use crate::net::{IfName, Mac};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbour;

/// Whom, and through which device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub ifname: IfName,
    pub address: IpAddr,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.address, self.ifname)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub mac: Mac,
}

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `NDA_PROTOCOL` is ours.
    pub owned: bool,
    /// `None`: not resolved.
    pub mac: Option<Mac>,
    pub permanent: bool,
}

impl Kind for Neighbour {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "neighbour";

    fn realise(_key: &Key, spec: &Spec) -> Seen {
        Seen { owned: true, mac: Some(spec.mac), permanent: true }
    }

    fn fields(_key: &Key, spec: &Spec, seen: &Seen) -> Vec<Field> {
        let show = |mac: Option<Mac>| mac.map_or("none".to_string(), |mac| mac.to_string());
        let mut fields = Vec::new();
        fields.extend(Field::differs("lladdr", &show(seen.mac), &show(Some(spec.mac))));
        fields.extend(Field::differs("permanent", &seen.permanent, &true));
        fields
    }

    fn owned(seen: &Seen) -> bool {
        seen.owned
    }

    fn describe_spec(_key: &Key, spec: &Spec) -> String {
        format!("lladdr {} permanent", spec.mac)
    }

    fn describe_seen(_key: &Key, seen: &Seen) -> String {
        seen.mac.map_or(String::new(), |mac| format!("lladdr {mac}"))
    }
}
