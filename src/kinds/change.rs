//! The op of a kind as data: one object, what is expected to be there, what will be there after.
//!
//! Pure; imports the kind trait only.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Blocked, Kind, ObjectKey, Observed, Origin, SeenMap, WantedMap, tunnel};

/// A property that is not as asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    pub seen: String,
    pub want: String,
    /// The kernel can't change this property of a living object.
    pub immutable: bool,
}

impl Field {
    /// A difference in a property that can be changed in place, or nothing.
    pub fn differs<T: PartialEq + ToString>(name: &str, seen: &T, want: &T) -> Option<Field> {
        (seen != want).then(|| Field {
            name: name.into(),
            seen: seen.to_string(),
            want: want.to_string(),
            immutable: false,
        })
    }

    /// The same for a property that is fixed when the object is made.
    pub fn immutable<T: PartialEq + ToString>(name: &str, seen: &T, want: &T) -> Option<Field> {
        Field::differs(name, seen, want).map(|field| Field { immutable: true, ..field })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.name, self.seen, self.want)
    }
}

/// What happens to the object. Each variant carries what it expects to find, in a box: most of the many
/// ops of a first plan expect nothing, and have the size of the largest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action<Spec, Seen> {
    /// Nothing is there.
    Create { to: Spec },
    /// Changed in place, or replaced by the kernel in one step.
    Update { from: Box<Seen>, to: Spec, fields: Vec<Field> },
    /// Made anew, because a property that differs can't be changed.
    Replace { from: Box<Seen>, to: Spec, fields: Vec<Field> },
    /// Removed.
    Delete { from: Box<Seen> },
}

/// One change of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound(serialize = "", deserialize = ""))]
pub struct Change<K: Kind> {
    pub key: K::Key,
    pub action: Action<K::Spec, K::Seen>,
    pub origin: Origin,
}

impl<K: Kind> Change<K> {
    /// What the op leads to, or `None` for a removal.
    pub fn spec(&self) -> Option<&K::Spec> {
        match &self.action {
            Action::Create { to } | Action::Update { to, .. } | Action::Replace { to, .. } => {
                Some(to)
            }
            Action::Delete { .. } => None,
        }
    }

    /// What the op expects to find.
    pub fn expects(&self) -> Option<&K::Seen> {
        match &self.action {
            Action::Create { .. } => None,
            Action::Update { from, .. }
            | Action::Replace { from, .. }
            | Action::Delete { from } => Some(from),
        }
    }

    /// Whether the op takes something out of force, and comes after all other additions. `opens`: a tunnel
    /// is to take the place of native routing.
    pub fn is_late(&self, opens: bool) -> bool {
        let gives_way = match &self.action {
            Action::Update { to, .. } => !K::gives_way_to(&self.key, to).is_empty(),
            _ => false,
        };
        gives_way || (opens && self.waits_for_tunnel())
    }

    fn waits_for_tunnel(&self) -> bool {
        let is_there = self.expects().is_some();
        self.spec().is_some_and(|spec| tunnel::waits::<K>(&self.key, spec, is_there))
    }

    /// The objects, and with them those that what is in force gives way to.
    pub fn with_successors(&self, mut objects: Vec<ObjectKey>) -> Vec<ObjectKey> {
        if let Action::Update { to, .. } = &self.action {
            objects.extend(K::gives_way_to(&self.key, to));
        }
        objects.extend(self.waits_for_tunnel().then(tunnel::entry));
        objects
    }

    /// Makes `observed` what the kernel will be after the op.
    pub fn predict(&self, objects: fn(&mut Observed) -> &mut SeenMap<K>, observed: &mut Observed) {
        if let Action::Replace { from, .. } | Action::Delete { from } = &self.action {
            objects(observed).remove(&self.key);
            K::cascade(&self.key, from, observed);
        }
        if let Action::Replace { .. } = &self.action {
            K::remainder(&self.key, observed);
        }
        if let Some(spec) = self.spec() {
            objects(observed).insert(self.key.clone(), K::realise(&self.key, spec));
            K::effects(&self.key, spec, observed);
        }
    }

    /// The same for additions in the order of their keys: what is made goes into the map in bulk, which
    /// takes a fraction of the time for many. Not for kinds that write through.
    pub fn predict_all<'a>(
        changes: impl Iterator<Item = &'a Self>,
        objects: fn(&mut Observed) -> &mut SeenMap<K>,
        observed: &mut Observed,
    ) where
        K: 'a,
    {
        let mut made = Vec::with_capacity(changes.size_hint().1.unwrap_or_default());
        for change in changes {
            if let Action::Create { to } = &change.action {
                made.push((change.key.clone(), K::realise(&change.key, to)));
                continue;
            }
            // What goes with an object depends on what is there at that moment.
            insert_all(objects(observed), std::mem::take(&mut made));
            change.predict(objects, observed);
        }
        insert_all(objects(observed), made);
    }

    /// `+` makes, `~` changes, `-/+` makes anew, `-` removes.
    pub fn verb(&self) -> &'static str {
        match &self.action {
            Action::Create { .. } => "+",
            Action::Update { .. } => "~",
            Action::Replace { .. } => "-/+",
            Action::Delete { .. } => "-",
        }
    }

    /// What about the object is not as asked.
    pub fn drift(&self) -> String {
        match &self.action {
            Action::Create { .. } => "missing".to_string(),
            Action::Update { fields, .. } | Action::Replace { fields, .. } => join(fields),
            Action::Delete { .. } => "no longer wanted".to_string(),
        }
    }

    /// The op as one line: verb, kind, key, properties, and who asks for it and why.
    pub fn line(&self) -> String {
        let text = match (self.spec(), self.expects()) {
            (Some(spec), _) => K::describe_spec(&self.key, spec),
            (None, Some(seen)) => K::describe_seen(&self.key, seen),
            (None, None) => String::new(),
        };
        let why = self.drift();
        let gap = if text.is_empty() { "" } else { " " };
        let verb = self.verb();
        format!("{verb} {} {}{gap}{text}  ({}: {why})", K::NAME, self.key, self.origin)
    }
}

/// A number of things in words: `1 file`, `2 files`.
pub fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn insert_all<K: Ord, V>(map: &mut BTreeMap<K, V>, more: Vec<(K, V)>) {
    if more.len() > map.len() {
        // Of equal keys the last one stays.
        *map = std::mem::take(map).into_iter().chain(more).collect();
    } else {
        map.extend(more);
    }
}

fn join(fields: &[Field]) -> String {
    fields.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The wanted objects whose place is held by something foreign that doesn't serve, and what is said of it.
pub fn conflicts<K: Kind>(wanted: &WantedMap<K>, seen: &SeenMap<K>) -> Vec<(K::Key, Blocked)> {
    seen.iter()
        .filter(|(_, seen)| !K::owned(seen))
        .filter_map(|(key, seen)| Some((key, wanted.get(key)?, seen)))
        .filter(|(key, want, seen)| !K::foreign_serves(key, &want.spec, seen))
        .map(|(key, want, seen)| {
            let (origin, reason) = (want.origin.clone(), K::in_the_way(key, seen));
            (key.clone(), Blocked { origin, reason })
        })
        .collect()
}

/// The ops that bring objects into being or into shape. Foreign objects are passed over.
pub fn additions<K: Kind>(wanted: &WantedMap<K>, seen: &SeenMap<K>) -> Vec<Change<K>> {
    // As many as are missing at least; the rest differ, which is rare.
    let mut changes = Vec::with_capacity(wanted.len().saturating_sub(seen.len()));
    let mut found = seen.iter().peekable();
    for (key, want) in wanted {
        while found.next_if(|(k, _)| *k < key).is_some() {}
        let action = match found.next_if(|(k, _)| *k == key) {
            None => Action::Create { to: want.spec.clone() },
            Some((_, seen)) if !K::owned(seen) => continue,
            Some((_, seen)) if K::is_as_asked(key, &want.spec, seen) => continue,
            Some((_, seen)) => {
                let fields = K::fields(key, &want.spec, seen);
                let (from, to) = (Box::new(seen.clone()), want.spec.clone());
                if fields.iter().any(|f| f.immutable) {
                    Action::Replace { from, to, fields }
                } else {
                    Action::Update { from, to, fields }
                }
            }
        };
        changes.push(Change { key: key.clone(), action, origin: want.origin.clone() });
    }
    changes
}

/// The ops that remove objects of ours that nobody asks for any more, last made first.
pub fn removals<K: Kind>(wanted: &WantedMap<K>, seen: &SeenMap<K>) -> Vec<Change<K>> {
    if !K::REMOVABLE {
        return Vec::new();
    }
    let mut asked = wanted.keys().rev().peekable();
    seen.iter()
        .rev()
        .filter(|(key, seen)| {
            while asked.next_if(|asked| asked > key).is_some() {}
            asked.peek() != Some(key) && K::owned(seen)
        })
        .map(|(key, seen)| Change {
            key: key.clone(),
            action: Action::Delete { from: Box::new(seen.clone()) },
            origin: Origin::Leftover,
        })
        .collect()
}
