//! Entries of those BPF maps whose content follows from the configuration. What programs write
//! (counters, connections) is not an object here.
//!
//! Ownership: everything in a map of ours is ours. Pure but for `exec.rs`.

pub mod exec;
mod text;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::bpf_map::MapName;
use super::{Field, Kind, ObjectKey, tunnel};
use crate::bpf_abi::{
    CILIATE_MONITOR, CILIATE_NODE, CILIATE_UNDERLAY, CILIUM_IPCACHE, IpcacheValue, LB_MAPS, MapKind,
};
use crate::net::IfName;

pub use exec::{dump, flush};
pub use text::{c_text, hex, ipcache_flags, unhex};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct BpfMapEntry;

/// Which map, and the key's bytes as the kernel keeps them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub map: MapName,
    #[serde(with = "text::serde_hex")]
    pub key: Vec<u8>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.map, text::key(self.map, &self.key))
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    #[serde(with = "text::serde_hex")]
    pub value: Vec<u8>,
    /// The link whose ifindex or address the value holds.
    pub link: Option<IfName>,
    /// What the value sends packets to. It takes the place of another value once that is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leads_to: Vec<ObjectKey>,
}

impl Spec {
    /// A value that stands by itself.
    pub fn of(value: &[u8]) -> Self {
        Self { value: value.to_vec(), link: None, leads_to: Vec::new() }
    }
}

/// The entry that says what the node is, the tunnel's device among it.
pub fn node() -> Key {
    Key { map: MapName::of_abi(CILIATE_NODE), key: vec![0; 4] }
}

/// The entry that says what the node is on its underlay.
pub fn underlay() -> Key {
    Key { map: MapName::of_abi(CILIATE_UNDERLAY), key: vec![0; 4] }
}

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    #[serde(with = "text::serde_hex")]
    pub value: Vec<u8>,
}

impl Kind for BpfMapEntry {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "bpf-map-entry";
    const REMOVED_LATE: bool = true;

    fn realise(_key: &Key, spec: &Spec) -> Seen {
        Seen { value: spec.value.clone() }
    }

    fn fields(key: &Key, spec: &Spec, seen: &Seen) -> Vec<Field> {
        let show = |value: &[u8]| text::value(key.map, value);
        if spec.value == seen.value {
            return Vec::new();
        }
        vec![Field {
            name: "value".into(),
            seen: show(&seen.value),
            want: show(&spec.value),
            immutable: false,
        }]
    }

    fn is_as_asked(_key: &Key, spec: &Spec, seen: &Seen) -> bool {
        spec.value == seen.value
    }

    fn describe_spec(key: &Key, spec: &Spec) -> String {
        text::value(key.map, &spec.value)
    }

    fn describe_seen(key: &Key, seen: &Seen) -> String {
        text::value(key.map, &seen.value)
    }

    fn needs(key: &Key, _spec: &Spec) -> Vec<ObjectKey> {
        vec![ObjectKey::BpfMap(key.map)]
    }

    /// Entries are made before the link they are about, so that no packet meets a link without them.
    fn stands_on(key: &Key, spec: &Spec) -> Vec<ObjectKey> {
        let mut objects = Self::needs(key, spec);
        objects.extend(spec.link.map(ObjectKey::Link));
        objects
    }

    fn gives_way_to(_key: &Key, spec: &Spec) -> Vec<ObjectKey> {
        spec.leads_to.clone()
    }

    /// What is known of an address that packets get to through the tunnel.
    fn tunnel(key: &Key, spec: &Spec) -> tunnel::Part {
        let value = spec.value.as_slice().try_into().ok().map(IpcacheValue::from_bytes);
        match value.filter(|_| key.map == MapName::of_abi(CILIUM_IPCACHE)) {
            Some(value) if value.tunnel_endpoint().is_some() => tunnel::Part::Way,
            _ => tunnel::Part::None,
        }
    }

    fn is_awaited(key: &Key) -> bool {
        *key == node()
    }
}

/// Whether the configuration decides what is in the map, entry by entry. Counters, flows and fragments are
/// written by the programs, and who listens to events by the listeners; maps of services belong to the kinds of
/// service and backend.
pub fn is_managed(map: MapName) -> bool {
    let def = map.def();
    matches!(def.kind, MapKind::Hash | MapKind::Array | MapKind::LpmTrie)
        && def.name != CILIATE_MONITOR
        && !LB_MAPS.contains(&def.name)
}
