//! What is known of each kind of object, as the watches tell it.
//!
//! A list replaces what was known once it is complete, and not before: of what was deleted while nobody
//! watched no event tells, only the list. Pure; imports `objects`.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::runtime::watcher::Event;

use crate::objects::{Keep, Namespace, Node, Pod, Service, Slice};

/// The objects of a kind, by `namespace/name`, or name where there is no namespace.
#[derive(Debug, Default)]
pub struct Store<T> {
    pub objects: BTreeMap<String, T>,
    /// The list that is not complete.
    coming: BTreeMap<String, T>,
    /// Whether a whole list was ever received.
    pub complete: bool,
}

impl<T: PartialEq> Store<T> {
    /// Takes an event; true if what is known has changed.
    pub fn take(&mut self, event: Event<(String, Option<T>)>) -> bool {
        match event {
            Event::Init => self.coming.clear(),
            Event::InitApply((key, Some(object))) => drop(self.coming.insert(key, object)),
            Event::InitApply((_, None)) => {}
            Event::InitDone => {
                let coming = std::mem::take(&mut self.coming);
                let changed = !self.complete || self.objects != coming;
                (self.objects, self.complete) = (coming, true);
                return changed;
            }
            Event::Apply((key, Some(object))) => {
                let changed = self.objects.get(&key) != Some(&object);
                self.objects.insert(key, object);
                return changed;
            }
            Event::Apply((key, None)) | Event::Delete((key, _)) => {
                return self.objects.remove(&key).is_some();
            }
        }
        false
    }
}

/// The same event with what is kept of its object.
pub fn kept<K: Keep + ResourceExt>(event: Event<K>) -> Event<(String, Option<K::Kept>)> {
    let keep = |object: K| {
        let name = object.name_any();
        let key =
            object.namespace().map_or(name.clone(), |namespace| format!("{namespace}/{name}"));
        (key, object.keep())
    };
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(keep(object)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(keep(object)),
        Event::Delete(object) => Event::Delete(keep(object)),
    }
}

/// All that is known.
#[derive(Debug, Default)]
pub struct Stores {
    pub nodes: Store<Node>,
    pub services: Store<Service>,
    pub slices: Store<Slice>,
    pub pods: Store<Pod>,
    pub namespaces: Store<Namespace>,
}
