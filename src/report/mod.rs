//! What became of a plan. Pure; imports `plan` for nothing but its ops' order.

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
