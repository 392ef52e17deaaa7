//! What is known → the files. The README has it as a table.
//!
//! What is remembered only saves work: a round that looks at everything gives the same files as many that look at
//! what was touched. Pure; imports `endpoints`, `networks`, `nodes`, `page`, `services`, `settings`, `stores`.

use std::collections::{BTreeMap, BTreeSet};

use crate::networks::Networks;
use crate::page::file;
use crate::services::{Refused, by_service, refused};
use crate::settings::Settings;
use crate::stores::{Stores, Touched};
use crate::{endpoints, nodes, services};

/// Texts by the files' names; none for a file that is not to be.
pub type Files = BTreeMap<String, Option<String>>;

/// What there should be.
#[derive(Debug, Default)]
pub struct Wanted {
    pub files: Files,
    /// Groups of files of which all are here. Other files of other groups stay as they are.
    pub groups: BTreeSet<&'static str>,
}

/// Derives the files.
#[derive(Debug)]
pub struct Mapping {
    pub settings: Settings,
    networks: Networks,
    refused: Refused,
}

impl Mapping {
    /// One that has not seen anything.
    pub fn new(settings: Settings) -> Self {
        Self { settings, networks: Networks::default(), refused: Refused::default() }
    }

    /// The files that follow from what was touched, as far as all is known of it.
    pub fn wanted(&mut self, stores: &Stores, touched: BTreeSet<Touched>) -> Wanted {
        let mut wanted = Wanted::default();
        if !stores.nodes.complete {
            return wanted;
        }
        let all = touched.contains(&Touched::All);
        if all {
            wanted.groups.extend(["node", "peer"]);
            self.networks = nodes::files(&stores.nodes.objects, &self.settings, &mut wanted.files);
        }
        if (all || touched.contains(&Touched::Endpoints))
            // Without its namespace a pod would have fewer labels, without its slices a service no backends.
            && stores.pods.complete
            && stores.namespaces.complete
        {
            wanted.groups.insert("endpoint");
            endpoints::files(stores, &self.settings, &mut wanted.files);
        }
        let names = touched.into_iter().filter_map(|touched| match touched {
            Touched::Service(name) => Some(name),
            _ => None,
        });
        let mut names: BTreeSet<String> = names.collect();
        if (all || !names.is_empty()) && stores.services.complete && stores.slices.complete {
            if all {
                wanted.groups.insert("service");
                names.extend(stores.services.objects.keys().cloned());
            }
            self.services(stores, names, &mut wanted);
        }
        wanted
    }

    /// What services may have is decided among all of them; the texts are made of those that were touched, and of
    /// those of which it is decided otherwise now.
    fn services(&mut self, stores: &Stores, mut names: BTreeSet<String>, wanted: &mut Wanted) {
        let (services, slices) = (&stores.services.objects, by_service(&stores.slices.objects));
        let refused = refused(services, &slices, &self.networks, &self.settings);
        let before = std::mem::replace(&mut self.refused, refused);
        let refused = &self.refused;
        let differ = |name: &&String| before.get(*name) != refused.get(*name);
        names.extend(before.keys().chain(refused.keys()).filter(differ).cloned());
        for name in names {
            let slices = slices.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            let text = |service| services::text(&name, service, slices, refused.get(&name));
            wanted.files.insert(file("service", &name), services.get(&name).map(text));
        }
    }
}

/// Objects, the oldest first: of two that claim the same it was there first.
pub fn by_age<T>(objects: &BTreeMap<String, T>, created: fn(&T) -> i64) -> Vec<(&String, &T)> {
    let mut all: Vec<_> = objects.iter().collect();
    all.sort_by_key(|(_, object)| created(object));
    all
}
