//! What became of a plan. Pure; imports `plan` for nothing but its ops' order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What became of one op.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    Done,
    /// The kernel refused.
    Failed {
        error: String,
        /// The kernel's error number, if it was the kernel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errno: Option<i32>,
    },
    /// The object was not what the op expects.
    Refused {
        expected: String,
        found: String,
    },
    /// An object it needs could not be had.
    Skipped {
        needs: String,
    },
}

/// What became of a plan: one outcome for each op, in the plan's order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    pub outcomes: Vec<Outcome>,
    /// System calls that wrote to the kernel.
    pub writes: u64,
}

impl Report {
    /// Whether every op was done.
    pub fn succeeded(&self) -> bool {
        self.outcomes.iter().all(|outcome| *outcome == Outcome::Done)
    }

    /// How many ops were done.
    pub fn done(&self) -> usize {
        self.outcomes.iter().filter(|outcome| **outcome == Outcome::Done).count()
    }
}

/// How many of the ops were skipped for each object that could not be had itself, in the order of their ops.
/// `object` names the object that the op at a place is about.
pub fn waiting(outcomes: &[Outcome], object: impl Fn(usize) -> String) -> Vec<(String, usize)> {
    let mut causes: BTreeMap<String, usize> = BTreeMap::new();
    let mut counts: Vec<(String, usize)> = Vec::new();
    for (index, outcome) in outcomes.iter().enumerate() {
        let Outcome::Skipped { needs } = outcome else { continue };
        // What it waits for may itself wait.
        let cause = causes.get(needs).copied().unwrap_or_else(|| {
            counts.push((needs.clone(), 0));
            causes.insert(needs.clone(), counts.len() - 1);
            counts.len() - 1
        });
        counts[cause].1 += 1;
        causes.insert(object(index), cause);
    }
    counts
}

/// What is said of ops that [wait](waiting).
pub fn waiting_text(count: usize) -> String {
    match count {
        1 => "1 more change waits for it; until then what is there in its place stays".into(),
        _ => format!(
            "{count} more changes wait for it; until then what is there in their places stays"
        ),
    }
}

impl Outcome {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Outcome::Failed { errno, .. } => *errno,
            _ => None,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Done => f.write_str("done"),
            Outcome::Failed { error, .. } => f.write_str(error),
            Outcome::Refused { expected, found } => {
                write!(
                    f,
                    "refused: expected {expected}, found {found}; it changed after the plan was made"
                )
            }
            Outcome::Skipped { needs } => write!(f, "skipped: it needs {needs}, which failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_by_its_cause() {
        let objects = ["link a", "address b", "route c", "link d", "link e", "route f", "route g"];
        let skipped = |needs: &str| Outcome::Skipped { needs: needs.into() };
        let failed = Outcome::Failed { error: "no".into(), errno: None };
        let outcomes = [
            failed.clone(),
            skipped("link a"),
            skipped("address b"),
            failed,
            Outcome::Done,
            skipped("link d"),
            skipped("route c"),
        ];
        let counted = waiting(&outcomes, |index| objects[index].to_string());
        assert_eq!(counted, [("link a".to_string(), 3), ("link d".to_string(), 1)]);
    }
}
