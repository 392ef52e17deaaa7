//! Backends of services: where traffic goes. A number for each address, port and protocol, which services
//! share.
//!
//! Ownership: everything in a map of ours is ours. Pure but for `exec.rs`.

pub mod exec;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::bpf_map::MapName;
use super::{Field, Kind, ObjectKey, Observed};
use crate::bpf_abi::{
    BACKEND_ACTIVE, BACKEND_MAINTENANCE, BACKEND_QUARANTINED, BACKEND_TERMINATING,
    CILIUM_LB4_BACKENDS, CILIUM_LB6_BACKENDS, Lb4Backend, Lb6Backend, protocol_name,
};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct LbBackend;

/// The number. Both families have theirs from the same range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub id: u32,
    pub ipv6: bool,
}

impl Key {
    /// The map it is in.
    pub fn map(self) -> MapName {
        map(self.ipv6)
    }
}

/// The map of a family.
pub fn map(ipv6: bool) -> MapName {
    MapName::of_abi(if ipv6 { CILIUM_LB6_BACKENDS } else { CILIUM_LB4_BACKENDS })
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.id, if self.ipv6 { " ipv6" } else { "" })
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Of the key's family.
    pub address: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// `BACKEND_*`.
    pub state: u8,
}

/// What the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    #[serde(flatten)]
    pub backend: Spec,
    /// Something is in a field that we leave at zero.
    pub strange: bool,
}

impl Spec {
    /// The value of the map.
    pub fn bytes(&self) -> Vec<u8> {
        let port_be = self.address.port().to_be_bytes();
        let (protocol, state) = (self.protocol, self.state);
        match self.address.ip() {
            IpAddr::V4(v4) => {
                let address_be = v4.octets();
                Lb4Backend { address_be, port_be, protocol, state, ..Lb4Backend::default() }
                    .to_bytes()
                    .to_vec()
            }
            IpAddr::V6(v6) => {
                let address_be = v6.octets();
                Lb6Backend { address_be, port_be, protocol, state, ..Lb6Backend::default() }
                    .to_bytes()
                    .to_vec()
            }
        }
    }
}

impl Seen {
    /// What a value of the map says; `None` if it has another size.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (address, port_be, protocol, state, rest): (IpAddr, _, _, _, _) = match bytes.len() {
            12 => {
                let b = Lb4Backend::from_bytes(bytes.try_into().ok()?);
                let rest = (b.cluster_id, b.zone, b.pad);
                (b.address_be.into(), b.port_be, b.protocol, b.state, rest)
            }
            _ => {
                let b = Lb6Backend::from_bytes(bytes.try_into().ok()?);
                let rest = (b.cluster_id, b.zone, b.pad);
                (b.address_be.into(), b.port_be, b.protocol, b.state, rest)
            }
        };
        let address = SocketAddr::new(address, u16::from_be_bytes(port_be));
        Some(Self { backend: Spec { address, protocol, state }, strange: rest != (0, 0, 0) })
    }
}

/// A state as the configuration writes it.
pub fn state_name(state: u8) -> &'static str {
    match state {
        BACKEND_ACTIVE => "active",
        BACKEND_TERMINATING => "terminating",
        BACKEND_QUARANTINED => "quarantined",
        BACKEND_MAINTENANCE => "maintenance",
        _ => "unknown",
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.address, protocol_name(self.protocol), state_name(self.state))
    }
}

impl Kind for LbBackend {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "lb-backend";
    const REMOVED_LATE: bool = true;

    fn realise(_key: &Key, spec: &Spec) -> Seen {
        Seen { backend: *spec, strange: false }
    }

    fn fields(_key: &Key, spec: &Spec, seen: &Seen) -> Vec<Field> {
        let found = seen.backend;
        [
            Field::differs("address", &found.address, &spec.address),
            Field::differs("protocol", &found.protocol, &spec.protocol),
            Field::differs("state", &found.state, &spec.state).map(|field| Field {
                seen: state_name(found.state).into(),
                want: state_name(spec.state).into(),
                ..field
            }),
            Field::differs("strange", &seen.strange, &false),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn is_as_asked(_key: &Key, spec: &Spec, seen: &Seen) -> bool {
        seen.backend == *spec && !seen.strange
    }

    fn describe_spec(_key: &Key, spec: &Spec) -> String {
        spec.to_string()
    }

    fn describe_seen(_key: &Key, seen: &Seen) -> String {
        seen.backend.to_string()
    }

    fn needs(key: &Key, _spec: &Spec) -> Vec<ObjectKey> {
        vec![ObjectKey::BpfMap(key.map())]
    }

    /// A service that could not be taken off its backends still sends there.
    fn outlives<'a>(
        _key: &Key,
        _seen: &Seen,
        failed: &'a BTreeSet<ObjectKey>,
    ) -> Option<&'a ObjectKey> {
        failed.iter().find(|other| matches!(other, ObjectKey::LbService(_)))
    }
}

/// A map goes, with what is in it.
pub fn lose(gone: MapName, observed: &mut Observed) {
    observed.lb_backends.retain(|key, _| key.map() != gone);
}
