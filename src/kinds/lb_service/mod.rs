//! Frontends of services: what the programs look up to balance a packet. One object is all that the maps say of
//! one address, port, protocol and scope:
//!
//! ```text
//! cilium_lb4_services_v2    slot 0: how it is balanced       by frontend
//!                           slots 1…: backend ids
//! cilium_lb4_reverse_nat    what replies come from           by the frontend's number
//! cilium_lb4_source_range   who may use it
//! cilium_lb_affinity_match  backends clients are kept at
//! ciliate_maglev_index      the number of its Maglev table
//! ```
//!
//! No packet meets a frontend that is half made: slot 0 is written when all that it speaks of is there, and what
//! it no longer speaks of is removed after that. See `exec`.
//!
//! Ownership: everything in a map of ours is ours. What is left under a number that no frontend has, by a
//! process that was killed, is an object of its own ([`Key::Number`]); nobody asks for it, so it goes.
//! Pure but for `exec.rs`.

pub mod exec;
mod frontend;
mod pieces;
mod text;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::bpf_map::MapName;
use super::maglev_table;
use super::{Field, Kind, ObjectKey, lb_backend};
use crate::bpf_abi::{
    CILIATE_MAGLEV_INDEX, CILIUM_LB_AFFINITY_MATCH, CILIUM_LB4_REVERSE_NAT, CILIUM_LB4_SERVICES,
    CILIUM_LB4_SOURCE_RANGE, CILIUM_LB6_REVERSE_NAT, CILIUM_LB6_SERVICES, CILIUM_LB6_SOURCE_RANGE,
};

pub use frontend::{Frontend, Key};
pub use pieces::{Pieces, lose};
pub use text::{algorithm_name, flag_names, type_name};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct LbService;

/// Slot 0: how a frontend is balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The frontend's number (`rev_nat`).
    pub id: u16,
    /// `LB_ALGORITHM_*`.
    pub algorithm: u8,
    /// 0: clients are not kept.
    pub affinity_s: u32,
    /// Backends in use: slots 1 to this.
    pub count: u16,
    /// Backends out of use, in the slots behind.
    pub quarantined: u16,
    /// `SERVICE_FLAG_*`.
    pub flags: u8,
    /// `SERVICE_FLAG2_*`.
    pub flags2: u8,
}

/// Another slot: a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    pub number: u16,
    pub backend: u32,
    /// The frontend's number.
    pub id: u16,
    /// Something is in a field that we leave at zero.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strange: bool,
}

/// What the maps say of a frontend, or should say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub head: Option<Head>,
    /// In their order.
    pub slots: Vec<Slot>,
    /// What replies come from: the frontend itself.
    pub reverse_nat: Option<SocketAddr>,
    /// In their order.
    pub source_ranges: Vec<IpNet>,
    /// Backends that clients may be kept at, in their order.
    pub kept: Vec<u32>,
    /// The Maglev table; 0 is none.
    pub table: u32,
}

impl State {
    /// The frontend's number, as far as anything says it.
    pub fn id(&self) -> Option<u16> {
        self.head.map(|head| head.id).or_else(|| self.slots.first().map(|slot| slot.id))
    }
}

/// The map of frontends and their slots.
pub fn map(ipv6: bool) -> MapName {
    MapName::of_abi(if ipv6 { CILIUM_LB6_SERVICES } else { CILIUM_LB4_SERVICES })
}

fn reverse_nat_map(ipv6: bool) -> MapName {
    MapName::of_abi(if ipv6 { CILIUM_LB6_REVERSE_NAT } else { CILIUM_LB4_REVERSE_NAT })
}

fn source_range_map(ipv6: bool) -> MapName {
    MapName::of_abi(if ipv6 { CILIUM_LB6_SOURCE_RANGE } else { CILIUM_LB4_SOURCE_RANGE })
}

impl Kind for LbService {
    type Key = Key;
    /// Shared: with many services, the plan, the prediction and what is desired are one.
    type Spec = Arc<State>;
    type Seen = Arc<State>;
    const NAME: &'static str = "lb-service";
    const REMOVED_LATE: bool = true;

    fn realise(_key: &Key, spec: &Arc<State>) -> Arc<State> {
        spec.clone()
    }

    fn fields(_key: &Key, spec: &Arc<State>, seen: &Arc<State>) -> Vec<Field> {
        text::fields(spec, seen)
    }

    fn is_as_asked(_key: &Key, spec: &Arc<State>, seen: &Arc<State>) -> bool {
        spec == seen
    }

    fn describe_spec(_key: &Key, spec: &Arc<State>) -> String {
        text::describe(spec)
    }

    fn describe_seen(_key: &Key, seen: &Arc<State>) -> String {
        text::describe(seen)
    }

    fn needs(key: &Key, spec: &Arc<State>) -> Vec<ObjectKey> {
        let ipv6 = key.is_ipv6();
        let backend =
            |slot: &Slot| ObjectKey::LbBackend(lb_backend::Key { id: slot.backend, ipv6 });
        let maps = [map(ipv6), reverse_nat_map(ipv6)].map(ObjectKey::BpfMap);
        let table =
            (spec.table != 0).then(|| ObjectKey::MaglevTable(maglev_table::Key(spec.table)));
        maps.into_iter().chain(spec.slots.iter().map(backend)).chain(table).collect()
    }

    /// Of what a frontend needs, the maps: nothing foreign can be in the place of the rest. And those of what is
    /// written along with it.
    fn stands_on(key: &Key, spec: &Arc<State>) -> Vec<ObjectKey> {
        let ipv6 = key.is_ipv6();
        let mut maps = vec![map(ipv6), reverse_nat_map(ipv6)];
        maps.extend((!spec.slots.is_empty()).then(|| lb_backend::map(ipv6)));
        maps.extend((!spec.source_ranges.is_empty()).then(|| source_range_map(ipv6)));
        maps.extend((!spec.kept.is_empty()).then(|| MapName::of_abi(CILIUM_LB_AFFINITY_MATCH)));
        let index = || [maglev_table::MAP, MapName::of_abi(CILIATE_MAGLEV_INDEX)];
        maps.extend((spec.table != 0).then(index).into_iter().flatten());
        maps.into_iter().map(ObjectKey::BpfMap).collect()
    }

    /// What is left under a number goes when no frontend has that number any more.
    fn outlives<'a>(
        key: &Key,
        _seen: &Self::Seen,
        failed: &'a BTreeSet<ObjectKey>,
    ) -> Option<&'a ObjectKey> {
        let is_frontend =
            |other: &&ObjectKey| matches!(other, ObjectKey::LbService(Key::Frontend(_)));
        match key {
            Key::Number { .. } => failed.iter().find(is_frontend),
            Key::Frontend(_) => None,
        }
    }
}
