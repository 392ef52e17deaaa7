//! Loaded BPF programs, pinned at `<paths.bpf>/programs/<digest>/<name>`. The digest is of the object
//! file's bytes, so a program of another build is another object: the new one is loaded beside the
//! old one, the links are switched to it, then the old one is removed.
//!
//! Ownership: the pin. Pure but for `exec.rs`.

pub mod exec;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bpf_map::MapName;
use super::{Field, Kind, ObjectKey, Observed, bpf_link};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct BpfProgram;

/// A program of one build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub name: Arc<str>,
    /// First 16 hexadecimal digits of the SHA-256 of the object file.
    pub digest: Arc<str>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.digest)
    }
}

impl Key {
    /// How a program that is attached differs from this one, which is to be. Within one build, programs
    /// differ by name.
    pub fn differs(&self, seen: Option<&Key>) -> Option<Field> {
        let show = |key: &Key| match key.name == self.name {
            true => key.digest.to_string(),
            false => key.to_string(),
        };
        let seen = seen.map_or_else(|| "unknown".to_owned(), show);
        Field::differs("program", &seen, &show(self))
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The object file that holds the program.
    pub object: Arc<str>,
    /// The maps the program uses.
    pub maps: BTreeSet<MapName>,
    /// Read-only numbers that it is loaded with. The digest in the key is of them, too.
    #[serde(default, skip_serializing_if = "Globals::is_empty")]
    pub globals: Globals,
}

/// Numbers of 64 bits by the names that the programs have for them.
pub type Globals = BTreeMap<Arc<str>, u64>;

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Those of our pinned maps that the program holds, by id.
    pub maps: BTreeSet<MapName>,
}

impl Seen {
    /// A map was made anew: the program still holds the old one.
    pub fn lose(&mut self, map: MapName) {
        self.maps.remove(&map);
    }
}

impl Kind for BpfProgram {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "bpf-program";
    const REMOVED_LATE: bool = true;

    fn realise(_key: &Key, spec: &Spec) -> Seen {
        Seen { maps: spec.maps.clone() }
    }

    fn fields(_key: &Key, spec: &Spec, seen: &Seen) -> Vec<Field> {
        spec.maps
            .difference(&seen.maps)
            .map(|map| Field {
                name: format!("map {map}"),
                seen: "another object".into(),
                want: "the pinned one".into(),
                immutable: true,
            })
            .collect()
    }

    fn describe_spec(_key: &Key, spec: &Spec) -> String {
        format!("from {}", spec.object)
    }

    fn describe_seen(_key: &Key, _seen: &Seen) -> String {
        String::new()
    }

    fn needs(_key: &Key, spec: &Spec) -> Vec<ObjectKey> {
        spec.maps.iter().copied().map(ObjectKey::BpfMap).collect()
    }

    /// A filter is known for ours by the pin of the program that it runs.
    fn outlives<'a>(
        key: &Key,
        _seen: &Seen,
        failed: &'a BTreeSet<ObjectKey>,
    ) -> Option<&'a ObjectKey> {
        let runs = |link: &bpf_link::Key| link.program == key.name;
        failed.iter().find(|other| matches!(other, ObjectKey::BpfLink(link) if runs(link)))
    }

    /// Links go on running the program they have; it is no longer the pinned one.
    fn cascade(key: &Key, _gone: &Seen, observed: &mut Observed) {
        for link in observed.bpf_links.values_mut() {
            if link.program.as_ref() == Some(key) {
                link.program = None;
            }
        }
        for link in observed.cgroup_links.values_mut() {
            if link.program.as_ref() == Some(key) {
                link.program = None;
            }
        }
        for link in observed.xdp_links.values_mut() {
            if link.program.as_ref() == Some(key) {
                link.program = None;
            }
        }
    }
}
