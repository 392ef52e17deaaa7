//! The one nftables table of ciliate, `inet ciliate`, replaced as a whole in one kernel transaction.
//! Ownership: the table's name. No other table is read or written; an accept here can't undo a drop
//! in somebody else's chain, and we don't try.
//!
//! Pure but for `exec.rs`.

pub mod exec;
mod ruleset;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Field, Kind, counted, owner, tunnel};

pub use ruleset::{from_router, mark_own, masquerade, notrack, parse, render};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Nftables;

/// There is one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key;

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table inet {}", owner::NFTABLES_TABLE)
    }
}

/// A table: asked for, or listed. Chains and rules are kept as the JSON text that nft lists them as,
/// without handles and counters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    /// Interval sets of prefixes, merged so that none lies in or beside another.
    pub sets: BTreeMap<String, BTreeSet<IpNet>>,
    /// Chain name → the chain's properties.
    pub chains: BTreeMap<String, String>,
    /// `(chain, expression list)`: chains by name, the rules of each in order.
    pub rules: Vec<(String, String)>,
    /// Things in the table that we never put there.
    pub strange: Vec<String>,
}

impl Kind for Nftables {
    type Key = Key;
    type Spec = Table;
    type Seen = Table;
    const NAME: &'static str = "nftables";

    fn realise(_key: &Key, spec: &Table) -> Table {
        spec.clone()
    }

    fn fields(_key: &Key, spec: &Table, seen: &Table) -> Vec<Field> {
        let list = |items: &BTreeSet<IpNet>| match items.len() {
            0..=8 => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            n => format!("{n} prefixes"),
        };
        let mut fields = Vec::new();
        let names: BTreeSet<_> = spec.sets.keys().chain(seen.sets.keys()).collect();
        for name in names {
            if spec.sets.get(name) != seen.sets.get(name) {
                let show = |sets: &BTreeMap<String, BTreeSet<IpNet>>| {
                    sets.get(name).map_or("none".to_string(), list)
                };
                let (seen, want) = (show(&seen.sets), show(&spec.sets));
                fields.push(Field { name: format!("set {name}"), seen, want, immutable: false });
            }
        }
        let same = |name: &str, same: bool| {
            (!same).then(|| Field {
                name: name.into(),
                seen: "altered".into(),
                want: "as configured".into(),
                immutable: false,
            })
        };
        fields.extend(same("chains", spec.chains == seen.chains));
        fields.extend(same("rules", spec.rules == seen.rules));
        if spec.strange != seen.strange {
            let (seen, want) = (seen.strange.join(", "), "as configured".to_owned());
            fields.push(Field { name: "contents".into(), seen, want, immutable: false });
        }
        fields
    }

    /// With a tunnel the peers' nodes are reached by the node's address, and the host's own packets are marked.
    fn tunnel(_key: &Key, _spec: &Table) -> tunnel::Part {
        tunnel::Part::Way
    }

    fn describe_spec(_key: &Key, spec: &Table) -> String {
        format!(
            "{}, {}, {}",
            counted(spec.sets.len(), "set"),
            counted(spec.chains.len(), "chain"),
            counted(spec.rules.len(), "rule")
        )
    }

    fn describe_seen(key: &Key, seen: &Table) -> String {
        Self::describe_spec(key, seen)
    }
}
