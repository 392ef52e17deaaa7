//! Pinned BPF maps. Ownership: the pin, `<paths.bpf>/maps/<name>`; which object a program uses is
//! told by map **id**, never by name.
//!
//! Pure but for `exec.rs`.

pub mod exec;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Field, Kind, ObjectKey, Observed, bpf_old_map, lb_backend, lb_service, maglev_table};
use crate::bpf_abi::{LB_MAPS, MAPS, MapDef, MapKind};

/// Name of the map of records: what ciliate changed on things it doesn't own, and how they were
/// before. It lives exactly as long as the changes do: both are gone after a reboot.
pub const BEFORE_NAME: &str = "ciliate_before";

/// Bytes of a record's key and of its value: text, filled up with NULs.
pub const BEFORE_TEXT_BYTES: usize = 128;

/// The one map that no program uses.
const BEFORE: MapDef = MapDef {
    name: BEFORE_NAME,
    kind: MapKind::Hash,
    key_size: BEFORE_TEXT_BYTES as u32,
    value_size: BEFORE_TEXT_BYTES as u32,
    max_entries: 16_384,
    flags: 0,
};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct BpfMap;

/// A map, by its place in [`MAPS`]; the place behind the last is `BEFORE`'s.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapName(u8);

/// The text is not the name of a map of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a map of ciliate")]
pub struct UnknownMap(String);

impl MapName {
    /// The map of records.
    pub const BEFORE: MapName = MapName(MAPS.len() as u8);

    /// Every map.
    pub fn all() -> impl Iterator<Item = MapName> {
        (0..=MAPS.len()).map(|index| MapName(index as u8))
    }

    /// A map of the ABI.
    #[expect(clippy::panic, reason = "names are constants; each is in use whenever anything runs")]
    pub const fn of_abi(name: &str) -> MapName {
        let mut index = 0;
        while index < MAPS.len() {
            if same(MAPS[index].name, name) {
                return MapName(index as u8);
            }
            index += 1;
        }
        panic!("not a map of the ABI")
    }

    /// The map's definition.
    pub fn def(self) -> &'static MapDef {
        MAPS.get(self.0 as usize).unwrap_or(&BEFORE)
    }
}

/// `==` of texts, which is not `const` yet.
const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut index = 0;
    while index < a.len() && index < b.len() && a[index] == b[index] {
        index += 1;
    }
    index == a.len() && index == b.len()
}

impl std::str::FromStr for MapName {
    type Err = UnknownMap;

    fn from_str(text: &str) -> Result<Self, UnknownMap> {
        Self::all().find(|m| m.def().name == text).ok_or_else(|| UnknownMap(text.into()))
    }
}

impl fmt::Display for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.def().name)
    }
}

impl fmt::Debug for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.def().name)
    }
}

impl Serialize for MapName {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.def().name)
    }
}

impl<'de> Deserialize<'de> for MapName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a map is made with, asked for or seen. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    /// `BPF_F_*` flags of `BPF_MAP_CREATE`.
    pub flags: u32,
}

impl Layout {
    /// The layout the ABI gives a map.
    pub fn of(name: MapName) -> Self {
        let def = name.def();
        Self {
            map_type: def.kind.number(),
            key_size: def.key_size,
            value_size: def.value_size,
            max_entries: def.max_entries,
            flags: def.flags,
        }
    }
}

impl Kind for BpfMap {
    type Key = MapName;
    type Spec = Layout;
    type Seen = Layout;
    const NAME: &'static str = "bpf-map";
    const REMOVED_LATE: bool = true;

    fn realise(_key: &MapName, spec: &Layout) -> Layout {
        *spec
    }

    fn fields(_key: &MapName, spec: &Layout, seen: &Layout) -> Vec<Field> {
        [
            Field::immutable("type", &seen.map_type, &spec.map_type),
            Field::immutable("key bytes", &seen.key_size, &spec.key_size),
            Field::immutable("value bytes", &seen.value_size, &spec.value_size),
            Field::immutable("max entries", &seen.max_entries, &spec.max_entries),
            Field::immutable("flags", &seen.flags, &spec.flags),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn describe_spec(_key: &MapName, spec: &Layout) -> String {
        format!("key {}B value {}B max {}", spec.key_size, spec.value_size, spec.max_entries)
    }

    fn describe_seen(key: &MapName, seen: &Layout) -> String {
        Self::describe_spec(key, seen)
    }

    /// A record that has to stay needs its map.
    fn outlives<'a>(
        key: &MapName,
        _seen: &Layout,
        failed: &'a BTreeSet<ObjectKey>,
    ) -> Option<&'a ObjectKey> {
        let is_record = |other: &ObjectKey| matches!(other, ObjectKey::BpfMapEntry(entry) if entry.map == MapName::BEFORE);
        failed.iter().find(|other| *key == MapName::BEFORE && is_record(other))
    }

    /// The entries go with the map, and programs that hold it hold a map that is no longer ours.
    fn cascade(key: &MapName, _gone: &Layout, observed: &mut Observed) {
        observed.bpf_map_entries.retain(|k, _| k.map != *key);
        if LB_MAPS.contains(&key.def().name) {
            lb_backend::lose(*key, observed);
            maglev_table::lose(*key, observed);
            lb_service::lose(*key, observed);
        }
        for seen in observed.bpf_programs.values_mut() {
            seen.lose(*key);
        }
    }

    /// Programs write to the old map until they are swapped.
    fn remainder(key: &MapName, observed: &mut Observed) {
        if bpf_old_map::is_carried(*key) {
            observed.bpf_old_maps.insert(*key, bpf_old_map::Seen);
        }
    }
}
