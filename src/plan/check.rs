//! An independent look at a finished plan: does it keep the promises that matter most? Pure.
//!
//! It shares no code with the planner beyond the types. A plan that fails here is a bug in ciliate;
//! it is not applied.

use crate::kinds::{ObjectKey, Observed, Op, Phase};
use crate::net::IfName;


/// A promise that a plan breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("the plan changes {0}, or something on it, and it is not ours")]
    Foreign(String),
    #[error("the plan removes {0} before it is done adding")]
    RemovalBeforeAddition(String),
    #[error("{0} is nothing that ciliate makes")]
    Strange(String),
    #[error("the plan expects {0} to be as it isn't")]
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
        links: observed.links.clone(),
        addresses: observed.addresses.clone(),
        neighbours: observed.neighbours.clone(),
        ..Observed::default()
    };
    for op in ops {
        if is_strange(op) {
            return Err(Broken::Strange(op.object().to_string()));
        }
        if let Some(object) = std::iter::once(op.object())
            .chain(op.stands_on().into_iter().filter(|on| matches!(on, ObjectKey::Link(_))))
            .find(|object| is_foreign(object, &state))
        {
            return Err(Broken::Foreign(object.to_string()));
        }
        match op.phase() {
            Phase::Remove => removing = true,
            Phase::Add if removing => {
                return Err(Broken::RemovalBeforeAddition(op.object().to_string()));
            }
            Phase::Add => {}
        }
        if matches!(op, Op::Link(_) | Op::Address(_) | Op::Neighbour(_)) {
            op.predict(&mut state);
        }
    }
    Ok(())
}

/// Whether the object is there without our mark.
fn is_foreign(object: &ObjectKey, observed: &Observed) -> bool {
    match object {
        ObjectKey::Link(key) => observed.links.get(key).is_some_and(|seen| !seen.owned),
        ObjectKey::Address(key) => observed.addresses.get(key).is_some_and(|seen| !seen.owned),
        ObjectKey::Neighbour(key) => observed.neighbours.get(key).is_some_and(|seen| !seen.owned),
        _ => false,
    }
}

/// Whether the op would make something under a name, or write to a place, that no configuration leads
/// to. A plan from a file may have been edited.
fn is_strange(op: &Op) -> bool {
    let leads_astray = |text: &str| {
        text.split('/').any(|part| part.is_empty() || part == "." || part == "..")
    };
    let is_file_name = |text: &str| !text.contains('/') && !leads_astray(text);
    match op {
        Op::Link(change) => {
            let made = |ifname: &IfName| {
                ifname.as_str() == "cilium_host" || ifname.as_str().starts_with("lxc")
            };
            change.spec().is_some() && !made(&change.key)
        }
        Op::Sysctl(change) => {
            let path = &change.key.path;
            leads_astray(path) || !path.starts_with("net/ipv4/") && !path.starts_with("net/ipv6/")
        }
        Op::BpfProgram(change) => {
            !is_file_name(&change.key.name) || !is_file_name(&change.key.digest)
        }
        Op::BpfLink(change) => {
            let digest = change.spec().is_none_or(|spec| is_file_name(&spec.program.digest));
            !is_file_name(&change.key.program) || !digest
        }
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
