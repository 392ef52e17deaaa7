//! Policy routing rules that send packets to a table of ours. Ownership: `FRA_PROTOCOL` is
//! [`owner::PROTOCOL`](super::owner::PROTOCOL), whatever else the rule says: one that somebody altered is
//! another rule of ours, which nobody asks for. Rule 0 (`from all lookup local`) is never moved.
//!
//! Pure but for `exec.rs`.

pub mod exec;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Field, Kind, ObjectKey, route, tunnel};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule;

/// A rule is nothing but its selector: two that differ in anything are two rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub ipv6: bool,
    pub priority: u32,
    /// `(mark, mask)`; `None` matches every packet.
    pub fwmark: Option<(u32, u32)>,
    pub table: u32,
    /// What we never ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<Box<Other>>,
}

/// What else a rule of ours says, after somebody altered it: other selectors, another action.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Other {
    /// For people.
    pub text: String,
    /// The rule as the kernel lists it (`struct fib_rule_hdr`, attributes), by which it is removed: the
    /// kernel removes the first rule that has all of what it is given.
    pub message: Vec<u8>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.ipv6 { "-6 " } else { "" };
        write!(f, "{family}priority {} from all", self.priority)?;
        if let Some((mark, mask)) = self.fwmark {
            write!(f, " fwmark {mark:#x}/{mask:#x}")?;
        }
        write!(f, " lookup {}", self.table)?;
        self.other.as_ref().map_or(Ok(()), |other| write!(f, " {}", other.text))
    }
}

/// Nothing beyond the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec;

/// Nothing beyond the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen;

impl Kind for Rule {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "rule";

    fn realise(_key: &Key, _spec: &Spec) -> Seen {
        Seen
    }

    fn fields(_key: &Key, _spec: &Spec, _seen: &Seen) -> Vec<Field> {
        Vec::new()
    }

    fn tunnel(_key: &Key, _spec: &Spec) -> tunnel::Part {
        tunnel::Part::Way
    }

    fn describe_spec(_key: &Key, _spec: &Spec) -> String {
        String::new()
    }

    fn describe_seen(_key: &Key, _seen: &Seen) -> String {
        String::new()
    }

    /// The routes of its table.
    fn outlives<'a>(
        key: &Key,
        _seen: &Seen,
        failed: &'a BTreeSet<ObjectKey>,
    ) -> Option<&'a ObjectKey> {
        route::any_in(failed, key.table)
    }
}
