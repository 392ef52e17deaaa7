//! What is known of each kind of object, as the watches tell it, and what of it has changed.
//!
//! A list replaces what was known once it is complete, and not before: of what was deleted while nobody
//! watched no event tells, only the list. Pure; imports `objects`.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::runtime::watcher::Event;

use crate::objects::{Keep, Labels, Node, Pod, Service, Slice};

/// The objects of a kind, by `namespace/name`, or name where there is no namespace.
#[derive(Debug, Default)]
pub struct Store<T> {
    pub objects: BTreeMap<String, T>,
    /// The list that is not complete.
    coming: BTreeMap<String, T>,
    /// Whether a whole list was ever received.
    pub complete: bool,
}

/// What is to be derived anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touched {
    All,
    /// All of them: a node has few, and they share identities and addresses.
    Endpoints,
    /// One, by its name.
    Service(String),
}

impl<T: PartialEq> Store<T> {
    /// Takes an event. What follows from it is asked of the object as it was and as it is.
    pub fn take<K: Keep<Kept = T> + ResourceExt>(
        &mut self,
        event: Event<K>,
        touches: fn(&str, &T) -> Touched,
    ) -> Vec<Touched> {
        let (key, object) = match event {
            Event::Init => {
                self.coming.clear();
                return Vec::new();
            }
            Event::InitApply(object) => {
                let key = key(&object);
                self.coming.extend(object.keep().map(|object| (key, object)));
                return Vec::new();
            }
            Event::InitDone => {
                let coming = std::mem::take(&mut self.coming);
                let same = self.complete && self.objects == coming;
                (self.objects, self.complete) = (coming, true);
                return if same { Vec::new() } else { vec![Touched::All] };
            }
            Event::Apply(object) => (key(&object), object.keep()),
            Event::Delete(object) => (key(&object), None),
        };
        if self.objects.get(&key) == object.as_ref() {
            return Vec::new();
        }
        let before = self.objects.remove(&key);
        let touched = before.iter().chain(&object).map(|object| touches(&key, object)).collect();
        self.objects.extend(object.map(|object| (key, object)));
        touched
    }

    /// How many there are, if that is known.
    pub fn count(&self) -> Option<usize> {
        self.complete.then_some(self.objects.len())
    }
}

fn key(object: &impl ResourceExt) -> String {
    let name = object.name_any();
    object.namespace().map_or(name.clone(), |namespace| format!("{namespace}/{name}"))
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
