//! What is known of each kind of object, as the watches tell it.
//!
//! A list replaces what was known once it is complete, and not before: of what was deleted while nobody
//! watched no event tells, only the list. Pure; imports `objects`.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::watcher::Event;

use crate::objects::{Labels, Node, Pod, Service, Slice};

/// The objects of a kind with their time of creation, by `namespace/name`, or name where there is no namespace.
type Objects<T> = BTreeMap<String, (i64, Arc<T>)>;

/// What is known of a kind.
#[derive(Debug, Default)]
pub struct Store<T> {
    objects: Objects<T>,
    /// The list that is not complete.
    coming: Objects<T>,
    /// Whether a whole list was ever received.
    pub complete: bool,
}

impl<T: Eq> Store<T> {
    /// Takes an event, and says whether anything is different now.
    pub fn take<K: ResourceExt>(&mut self, event: Event<K>, keep: fn(K) -> Option<T>) -> bool {
        let entry = |object: K| {
            let (name, namespace) = (object.name_any(), object.namespace());
            let key = namespace.map_or(name.clone(), |namespace| format!("{namespace}/{name}"));
            let created = object.creation_timestamp().map_or(i64::MAX, |time| time.0.as_second());
            (key, keep(object).map(|object| (created, Arc::new(object))))
        };
        match event {
            Event::Init => self.coming.clear(),
            Event::InitApply(object) => _ = put(&mut self.coming, entry(object)),
            Event::InitDone => {
                let before = std::mem::replace(&mut self.objects, std::mem::take(&mut self.coming));
                return !std::mem::replace(&mut self.complete, true) || before != self.objects;
            }
            Event::Apply(object) => return put(&mut self.objects, entry(object)),
            Event::Delete(object) => return put(&mut self.objects, (entry(object).0, None)),
        }
        false
    }
}

/// True if that is different from what there was.
fn put<T: Eq>(objects: &mut Objects<T>, (key, object): (String, Option<(i64, Arc<T>)>)) -> bool {
    let differs = objects.remove(&key) != object;
    objects.extend(object.map(|object| (key, object)));
    differs
}

impl<T> Store<T> {
    pub fn get(&self, key: &str) -> Option<&T> {
        self.objects.get(key).map(|(_, object)| &**object)
    }

    /// How many there are, if that is known.
    pub fn count(&self) -> Option<usize> {
        self.complete.then_some(self.objects.len())
    }

    /// The oldest first: of two that claim the same it was there first.
    pub fn by_age(&self) -> Vec<(&String, &Arc<T>)> {
        let mut all: Vec<_> = self.objects.iter().collect();
        all.sort_by_key(|(_, (created, _))| *created);
        all.into_iter().map(|(key, (_, object))| (key, object)).collect()
    }
}

/// All that is known.
#[derive(Debug, Default)]
pub struct Stores {
    pub nodes: Store<Node>,
    pub services: Store<Service>,
    pub slices: Store<Slice>,
    pub pods: Store<Pod>,
    pub namespaces: Store<Labels>,
}
