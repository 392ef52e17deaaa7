//! An independent look at a finished plan: does it keep the promises that matter most? Pure.
//!
//! It shares no code with the planner beyond the types. A plan that fails here is a bug in ciliate;
//! it is not applied.

use crate::kinds::netns::Netns;
use crate::kinds::route::Route;
use crate::kinds::{Kind, ObjectKey, Observed, Op, Phase, SeenMap};

/// A promise that a plan breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("the plan changes {0}, or something on it, and it is not ours")]
    Foreign(String),
    #[error("the plan removes {0} before it is done adding")]
    RemovalBeforeAddition(String),
    #[error("{0} is not as the plan expects it")]
    Expectation(String),
}

/// Checks the ops against what was observed before the first of them.
///
/// # Errors
/// The first promise that is broken.
pub fn check(ops: &[Op], observed: &Observed) -> Result<(), Broken> {
    let mut removing = false;
    // Walked through, because what is on a link goes with it, foreign addresses included. Kinds that
    // are listed by mark are left out: what isn't ours is never seen there.
    let mut state = Observed {
        namespaces: observed.namespaces.clone(),
        links: observed.links.clone(),
        addresses: observed.addresses.clone(),
        neighbours: observed.neighbours.clone(),
        routes: foreign_routes(observed),
        ..Observed::default()
    };
    for op in ops {
        if let Some(object) = std::iter::once(op.object())
            .chain(
                op.stands_on()
                    .into_iter()
                    .filter(|on| matches!(on, ObjectKey::Link(_) | ObjectKey::Netns(_))),
            )
            .find(|object| is_foreign(object, &state))
        {
            return Err(Broken::Foreign(object.to_string()));
        }
        if let (Op::Link(change), Phase::Add) = (op, op.phase())
            && let Some(taken) = observed.taken.get(&change.key)
        {
            return Err(Broken::Foreign(format!("link {} in {}", taken.ifname, taken.netns)));
        }
        if op.phase() == Phase::Add
            && let Some(occupied) = observed.occupied.get(&op.object())
        {
            return Err(Broken::Foreign(occupied.path.clone()));
        }
        match op.phase() {
            Phase::Remove => removing = true,
            Phase::Add if removing => {
                return Err(Broken::RemovalBeforeAddition(op.object().to_string()));
            }
            Phase::Add => {}
        }
        if matches!(op, Op::Netns(_) | Op::Link(_) | Op::Address(_) | Op::Neighbour(_)) {
            op.predict(&mut state);
        }
    }
    Ok(())
}

/// Foreign routes only: ours may be many, and nothing is asked of them here.
fn foreign_routes(observed: &Observed) -> SeenMap<Route> {
    let foreign = observed.routes.iter().filter(|(_, seen)| !Route::owned(seen));
    foreign.map(|(key, seen)| (key.clone(), seen.clone())).collect()
}

/// Whether the object is there without our mark.
fn is_foreign(object: &ObjectKey, observed: &Observed) -> bool {
    match object {
        ObjectKey::Netns(key) => {
            observed.namespaces.get(key).is_some_and(|seen| !Netns::owned(seen))
        }
        ObjectKey::Link(key) => observed.links.get(key).is_some_and(|seen| !seen.owned),
        ObjectKey::Address(key) => observed.addresses.get(key).is_some_and(|seen| !seen.owned),
        ObjectKey::Neighbour(key) => observed.neighbours.get(key).is_some_and(|seen| !seen.owned),
        ObjectKey::Route(key) => observed.routes.get(key).is_some_and(|seen| !Route::owned(seen)),
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
