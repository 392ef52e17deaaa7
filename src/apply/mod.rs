//! The only interpreter of ops: [`Plan`] → kernel → [`Report`].
//!
//! Imports `kinds`, `kernel`, `plan`, `report`. It demands a [`WriterScope`], so that one process
//! changes a node at a time; runs the ops of a kind in one batch; has what each op expects checked again
//! ([`Apply::exec`] says how far; it is in the kinds' `exec.rs`, next to the call it protects); skips ops that wait for
//! an object whose own op failed; and carries on with the rest. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::for_each_kind;
use crate::kernel::lock::WriterScope;
use crate::kernel::netlink::Outgoing;
use crate::kernel::{Kernel, KernelError, chain};
use crate::kinds::{Change, Kind, ObjectKey, Op};
use crate::net::Netns;
use crate::plan::Plan;
use crate::report::{Outcome, Report};

/// Why an op was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// The kernel, or something on the way to it, refused.
    #[error("{error}")]
    Failed { error: String, errno: Option<i32> },
    /// The object is not what the op expects: somebody changed it since it was observed.
    #[error("expected {expected}, found {found}; it changed after the plan was made")]
    Refused { expected: String, found: String },
}

impl ExecError {
    /// The object is not what the op expects.
    pub fn refused(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Refused { expected: expected.into(), found: found.into() }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Failed { errno, .. } => *errno,
            Self::Refused { .. } => None,
        }
    }
}

impl From<KernelError> for ExecError {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::Refused { expected, found } => Self::Refused { expected, found },
            other => Self::Failed { errno: other.errno(), error: chain(&other) },
        }
    }
}

/// The writing half of a kind.
pub trait Apply: Kind {
    /// Makes the changes, in order and in as few system calls as can be, and says what became of
    /// each. Making what is there already as asked, and removing what is gone already, succeeds.
    ///
    /// Re-checks of what a change expects all that a wrong guess would lose: whose the object is, which one
    /// of that name it is, and in records what they hold. A value of an object of ours that follows from the
    /// configuration is written whatever was there before it.
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>>;
}

/// Groups changes by namespace: their places in the list.
pub fn by_netns<'a, K: Kind>(
    changes: &[&'a Change<K>],
    netns: impl Fn(&'a K::Key) -> &'a Netns,
) -> BTreeMap<&'a Netns, Vec<usize>> {
    let mut groups: BTreeMap<&Netns, Vec<usize>> = BTreeMap::new();
    for (index, change) in changes.iter().enumerate() {
        groups.entry(netns(&change.key)).or_default().push(index);
    }
    groups
}

/// Sends requests to a namespace's route socket: one outcome for each.
pub fn send(
    kernel: &mut Kernel,
    netns: &Netns,
    operation: &'static str,
    requests: Vec<impl Outgoing>,
) -> Vec<Result<(), ExecError>> {
    let count = requests.len();
    if count == 0 {
        return Vec::new();
    }
    kernel.writes += 1;
    let sent = kernel.netlink(netns).and_then(|netlink| {
        netlink.change(requests).map_err(|source| KernelError::Netlink { operation, source })
    });
    match sent {
        Ok(outcomes) => outcomes
            .into_iter()
            .map(|outcome| {
                outcome.map_err(|source| KernelError::Netlink { operation, source }.into())
            })
            .collect(),
        Err(error) => vec![Err(ExecError::from(error)); count],
    }
}

/// Runs a plan.
///
/// `progress` is called with the number of finished ops after each batch.
pub fn apply(
    _scope: &WriterScope,
    kernel: &mut Kernel,
    plan: &Plan,
    progress: impl FnMut(usize),
) -> Report {
    let writes_before = kernel.writes;
    let run = |batch: &[&Op]| {
        let results = exec(kernel, batch);
        kernel.beat();
        results
    };
    let outcomes = interpret(&plan.ops, run, progress);
    kernel.end_round();
    Report { outcomes, writes: kernel.writes - writes_before }
}

/// Runs ops in their order by `exec`, those of a kind and phase in one batch, but for one that others of its
/// kind wait for. An op that waits for one
/// that was not done is skipped; the others are carried on with. No I/O of its own.
pub fn interpret(
    ops: &[Op],
    mut exec: impl FnMut(&[&Op]) -> Vec<Result<(), ExecError>>,
    mut progress: impl FnMut(usize),
) -> Vec<Outcome> {
    let mut failed: BTreeSet<ObjectKey> = BTreeSet::new();
    let mut outcomes = Vec::with_capacity(ops.len());
    let mut rest = ops;
    while let Some(first) = rest.first() {
        let same =
            |op: &&Op| op.kind() == first.kind() && op.phase() == first.phase() && !op.is_awaited();
        let count = 1 + rest[1..].iter().take_while(same).count();
        let count = if first.is_awaited() { 1 } else { count };
        let (batch, after) = rest.split_at(count);
        rest = after;
        for (op, outcome) in batch.iter().zip(run_batch(batch, &failed, &mut exec)) {
            if outcome != Outcome::Done {
                failed.insert(op.object());
            }
            outcomes.push(outcome);
        }
        progress(outcomes.len());
    }
    outcomes
}

/// Runs ops of one kind and phase.
fn run_batch(
    batch: &[Op],
    failed: &BTreeSet<ObjectKey>,
    exec: impl FnOnce(&[&Op]) -> Vec<Result<(), ExecError>>,
) -> Vec<Outcome> {
    let (mut ready, mut blocked) = (Vec::with_capacity(batch.len()), BTreeMap::new());
    for (index, op) in batch.iter().enumerate() {
        match op.waits_for(failed) {
            Some(object) => drop(blocked.insert(index, object)),
            None => ready.push(op),
        }
    }
    let mut results = exec(&ready).into_iter();
    (0..batch.len())
        .map(|index| match blocked.remove(&index) {
            Some(object) => Outcome::Skipped { needs: object.to_string() },
            None => match results.next() {
                Some(Ok(())) => Outcome::Done,
                Some(Err(ExecError::Refused { expected, found })) => {
                    Outcome::Refused { expected, found }
                }
                Some(Err(ExecError::Failed { error, errno })) => Outcome::Failed { error, errno },
                None => Outcome::Failed { error: "no result".into(), errno: None },
            },
        })
        .collect()
}

macro_rules! exec_all {
    ($($kind:ident $field:ident $module:ident,)*) => {
        /// Hands ops of one kind to that kind.
        fn exec(kernel: &mut Kernel, ops: &[&Op]) -> Vec<Result<(), ExecError>> {
            match ops.first() {
                None => Vec::new(),
                $(Some(Op::$kind(_)) => {
                    let changes: Vec<_> = ops.iter().filter_map(|op| match op {
                        Op::$kind(change) => Some(change),
                        _ => None,
                    }).collect();
                    <crate::kinds::$module::$kind as Apply>::exec(kernel, &changes)
                })*
            }
        }
    };
}
for_each_kind!(exec_all);
