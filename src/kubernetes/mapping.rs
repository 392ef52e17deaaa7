//! What is known → the files: a function, without memory and without any input but its arguments.
//!
//! The README has it as a table. Pure; imports `endpoints`, `nodes`, `services`, `stores`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::stores::Stores;
use crate::{endpoints, nodes, services};

/// Texts by the files' names.
pub type Files = BTreeMap<String, String>;

/// What the adapter was told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of this node's `Node`.
    pub node: String,
    /// Name of the cluster, a label of every endpoint.
    pub cluster: String,
    /// Where the runtime hands network namespaces over.
    pub sandboxes: String,
    /// First and last port that a node port can be.
    pub node_ports: (u16, u16),
    /// The file that has this node's public key, where keys are exchanged.
    pub public_key: Option<PathBuf>,
}

/// What there should be.
#[derive(Debug, Default)]
pub struct Wanted {
    pub files: Files,
    /// Groups of files of which all is known. Files of the others stay as they are.
    pub groups: BTreeSet<&'static str>,
}

/// Derives the files of which all is known.
pub fn wanted(stores: &Stores, settings: &Settings) -> Wanted {
    let mut wanted = Wanted::default();
    if !stores.nodes.complete {
        return wanted;
    }
    wanted.groups.extend(["node", "peer"]);
    let networks = nodes::files(&stores.nodes.objects, settings, &mut wanted.files);
    // Without its slices a service would have no backends, without its namespace a pod fewer labels.
    if stores.services.complete && stores.slices.complete {
        wanted.groups.insert("service");
        services::files(stores, settings, &networks, &mut wanted.files);
    }
    if stores.pods.complete && stores.namespaces.complete {
        wanted.groups.insert("endpoint");
        endpoints::files(stores, settings, &mut wanted.files);
    }
    wanted
}

/// Objects, the oldest first: of two that claim the same it was there first.
pub fn by_age<T>(objects: &BTreeMap<String, T>, created: fn(&T) -> i64) -> Vec<(&String, &T)> {
    let mut all: Vec<_> = objects.iter().collect();
    all.sort_by_key(|(_, object)| created(object));
    all
}
