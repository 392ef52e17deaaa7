//! An independent look at a finished plan: does it keep the promises that matter most? Pure.
//!
//! It shares no code with the planner beyond the types. A plan that fails here is a bug in ciliate;
//! it is not applied.

use crate::kinds::{Observed, Op, Phase};

/// A promise that a plan breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("the plan changes {0}, which is not ours")]
    Foreign(String),
    #[error("the plan removes {0} before it is done adding")]
    RemovalBeforeAddition(String),
    #[error("the plan expects {0} to be as it isn't")]
    Expectation(String),
}

/// Checks the ops against what was observed before the first of them.
///
/// # Errors
/// The first promise that is broken.
pub fn check(ops: &[Op], observed: &Observed) -> Result<(), Broken> {
    let mut removing = false;
    for op in ops {
        if names_foreign(op, observed) {
            return Err(Broken::Foreign(op.object().to_string()));
        }
        match op.phase() {
            Phase::Remove => removing = true,
            Phase::Add if removing => {
                return Err(Broken::RemovalBeforeAddition(op.object().to_string()));
            }
            Phase::Add => {}
        }
    }
    Ok(())
}

/// Whether the op is about an object that was seen without our mark.
fn names_foreign(op: &Op, observed: &Observed) -> bool {
    match op {
        Op::Link(change) => observed.links.get(&change.key).is_some_and(|seen| !seen.owned),
        Op::Address(change) => observed.addresses.get(&change.key).is_some_and(|seen| !seen.owned),
        Op::Neighbour(change) => {
            observed.neighbours.get(&change.key).is_some_and(|seen| !seen.owned)
        }
        // The others are listed by mark: what isn't ours is never seen.
        _ => false,
    }
}

/// Walks through a plan that was made earlier: each op must find what it expects, given what the ops
/// before it lead to.
///
/// # Errors
/// The first op that would not.
pub fn still_fits(ops: &[Op], observed: &Observed) -> Result<(), Broken> {
    let mut state = observed.clone();
    for op in ops {
        if !op.expected_in(&state) {
            return Err(Broken::Expectation(op.object().to_string()));
        }
        op.predict(&mut state);
    }
    Ok(())
}
