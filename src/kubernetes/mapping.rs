//! What is known → the files. The README has it as a table. Pure; imports `endpoints`, `nodes`, `page`, `services`,
//! `settings`, `stores`.

use crate::page::Wanted;
use crate::services::Memory;
use crate::settings::Settings;
use crate::stores::Stores;
use crate::{endpoints, nodes, services};

/// The files that follow from what is known, as far as all is known of it. What is remembered only saves work.
pub fn wanted(stores: &Stores, settings: &Settings, memory: &mut Memory, afresh: bool) -> Wanted {
    let mut wanted = Wanted { afresh, ..Wanted::default() };
    memory.retain(|_, _| !afresh);
    if stores.nodes.complete {
        wanted.groups.extend(["node", "peer"]);
        let networks = nodes::files(&stores.nodes, settings, &mut wanted.files);
        // Without its namespace a pod would have fewer labels, without its slices a service no backends.
        if stores.pods.complete && stores.namespaces.complete {
            wanted.groups.insert("endpoint");
            endpoints::files(stores, settings, &mut wanted.files);
        }
        if stores.services.complete && stores.slices.complete {
            wanted.groups.insert("service");
            wanted.files.extend(services::files(stores, &networks, settings.node_ports, memory));
        }
    }
    wanted
}
