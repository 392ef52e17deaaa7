//! Maglev tables: which backend an entry of the hash leads to. A table is made of backends and their weights
//! and named by a number that follows from them, so that services with equal ones share it.
//!
//! A table is tens of kilobytes; what is asked for and what is found is its digest.
//!
//! Ownership: everything in a map of ours is ours. Pure but for `exec.rs`.

pub mod exec;
pub mod fill;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bpf_map::MapName;
use super::{Field, Kind, ObjectKey, Observed, lb_backend};
use crate::bpf_abi::CILIATE_MAGLEV;

/// The map of the tables.
pub const MAP: MapName = MapName::of_abi(CILIATE_MAGLEV);

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct MaglevTable;

/// The number; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub u32);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A backend of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    pub id: u32,
    pub address: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Share of the table, of the sum of all; at least 1.
    pub weight: u16,
}

/// What is asked for: a table of `size` entries for the backends, and what that has in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub size: u32,
    pub members: Arc<[Member]>,
    /// [`fill::digest`] of the table.
    pub digest: u64,
}

/// What the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub size: u32,
    pub digest: u64,
}

impl Kind for MaglevTable {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "maglev-table";
    const REMOVED_LATE: bool = true;

    fn realise(_key: &Key, spec: &Spec) -> Seen {
        Seen { size: spec.size, digest: spec.digest }
    }

    fn fields(_key: &Key, spec: &Spec, seen: &Seen) -> Vec<Field> {
        let digest = |digest: u64| format!("{digest:016x}");
        let size = Field::differs("entries", &seen.size, &spec.size);
        let content = Field::differs("content", &digest(seen.digest), &digest(spec.digest));
        size.into_iter().chain(content).collect()
    }

    fn is_as_asked(_key: &Key, spec: &Spec, seen: &Seen) -> bool {
        (spec.size, spec.digest) == (seen.size, seen.digest)
    }

    fn describe_spec(_key: &Key, spec: &Spec) -> String {
        format!("{} entries for {}", spec.size, super::counted(spec.members.len(), "backend"))
    }

    fn describe_seen(_key: &Key, seen: &Seen) -> String {
        format!("{} entries", seen.size)
    }

    fn needs(_key: &Key, spec: &Spec) -> Vec<ObjectKey> {
        let backend = |member: &Member| {
            let key = lb_backend::Key { id: member.id, ipv6: member.address.is_ipv6() };
            ObjectKey::LbBackend(key)
        };
        let map = std::iter::once(ObjectKey::BpfMap(MAP));
        map.chain(spec.members.iter().map(backend)).collect()
    }

    /// Of what a table needs, the map: nothing foreign can be in the place of the rest.
    fn stands_on(_key: &Key, _spec: &Spec) -> Vec<ObjectKey> {
        vec![ObjectKey::BpfMap(MAP)]
    }

    /// A service that could not be given another table still looks things up in this one.
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
    if gone == MAP {
        observed.maglev_tables.clear();
    }
}
