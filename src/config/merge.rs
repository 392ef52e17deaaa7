//! Trees of several files → one.
//!
//! A section's keys are joined, and of a key that is in several files the last one's value stands,
//! whole: lists are not joined, so that a drop-in can shorten one. Arrays of tables are joined, since
//! there each table is a thing of its own. Pure; imports only its siblings.

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::diagnostic::Diagnostic;
use super::document::Root;

/// The sections and arrays of tables of the files added so far.
#[derive(Debug, Default)]
pub(super) struct Merged<'i> {
    tree: DeTable<'i>,
}

impl<'i> Merged<'i> {
    /// Adds the tree of a later file. Its shape has been checked: what is a section in one file is one
    /// in all.
    pub(super) fn add(&mut self, later: DeTable<'i>) {
        for (name, value) in later {
            let Some(ours) = self.tree.get_mut(name.get_ref().as_ref()) else {
                self.tree.insert(name, value);
                continue;
            };
            match (ours.get_mut(), value.into_inner()) {
                (DeValue::Table(ours), DeValue::Table(theirs)) => {
                    for (key, value) in theirs {
                        // `insert` alone would keep the earlier key, and with it the wrong place.
                        ours.remove(key.get_ref().as_ref());
                        ours.insert(key, value);
                    }
                }
                (DeValue::Array(ours), DeValue::Array(theirs)) => {
                    theirs.into_iter().for_each(|item| ours.push(item));
                }
                (ours, theirs) => *ours = theirs,
            }
        }
    }

    /// The merged tree.
    pub(super) fn tree(&self) -> &DeTable<'i> {
        &self.tree
    }

    /// Reads the merged tree.
    ///
    /// # Errors
    /// A value that `shape` has let through and the types can't hold, which is a mistake of ours; it
    /// is reported like the operator's, for lack of anything better.
    pub(super) fn read(self) -> Result<Root, Diagnostic> {
        let tree = Deserializer::from(Spanned::new(0..0, self.tree));
        Root::deserialize(tree).map_err(|error| {
            Diagnostic::new(
                error.span().unwrap_or(0..0),
                format!("can't read this: {}", error.message()),
            )
        })
    }
}
