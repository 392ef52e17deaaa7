//! ([`Desired`], [`Observed`]) → [`Plan`]. Pure: no I/O, no clock, no randomness; equal input gives
//! an equal plan, byte for byte.
//!
//! Imports `kinds` and `net`. A plan is complete: every value that apply will write is in it, ifindexes and
//! Ethernet addresses included, so that it can be read, saved, compared, and applied later or not at
//! all.

pub mod check;
mod misled;
mod saved;

use crate::kinds::{Blocked, Desired, Observed, Op};

pub use saved::{FORMAT_VERSION, SavedPlan, SavedPlanError};

/// The ordered ops that lead from what was observed to what is desired.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    pub ops: Vec<Op>,
    /// What is asked for and is not in the plan, with the reason.
    pub blocked: Vec<Blocked>,
}

impl Plan {
    /// Plans. Returns with the plan what the kernel will look like after it.
    pub fn make(desired: &Desired, mut observed: Observed) -> (Plan, Observed) {
        let (ops, mut blocked) = crate::kinds::plan_all(desired, &mut observed);
        blocked.sort();
        blocked.dedup();
        (Plan { ops, blocked }, observed)
    }

    /// Nothing to do, and nothing in the way.
    pub fn is_converged(&self) -> bool {
        self.ops.is_empty() && self.blocked.is_empty()
    }
}
