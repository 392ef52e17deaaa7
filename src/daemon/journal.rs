//! What the daemon logs of its start and of what it did. Imports `engine`, `plan`, `report` and `kinds`.

use std::collections::BTreeMap;

use tracing::{debug, info};

use super::classes;
use crate::engine::Loaded;
use crate::kinds::Op;
use crate::plan::Plan;
use crate::report::Outcome;

/// Changes of one kind in one round that are logged one by one. Of more there is one line, and with
/// `--log-level debug` all: a hundred thousand routes would be 16 MB.
const LINES_MAX: usize = 100;
/// Files of the configuration that are named.
const FILES_MAX: usize = 8;

/// Who starts with what.
pub fn begin(loaded: &Loaded) {
    let files: Vec<_> =
        loaded.document.sources().iter().map(|file| file.path().display().to_string()).collect();
    let more = match files.len().saturating_sub(FILES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = files[..files.len().min(FILES_MAX)].join(", ");
    let version = env!("CARGO_PKG_VERSION");
    info!(target: classes::STARTED, version, "ciliate {version} starts; configuration: {shown}{more}");
}

/// What was done. What is `contested` was said to be so, and is not said each time.
pub fn log_done(
    generation: u64,
    plan: &Plan,
    outcomes: &[Outcome],
    contested: impl Fn(&Op) -> bool,
) {
    let done = || {
        let ops = plan.ops.iter().zip(outcomes);
        ops.filter(|(_, outcome)| matches!(outcome, Outcome::Done)).map(|(op, _)| op)
    };
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for op in done() {
        *counts.entry((op.kind(), op.verb())).or_default() += 1;
    }
    for op in done() {
        let (object, operation, origin) = (op.object(), op.verb(), op.origin());
        let drift = op.drift();
        if counts[&(op.kind(), operation)] > LINES_MAX || contested(op) {
            debug!(target: classes::CHANGED, generation, %object, operation, %origin, drift, "{}", op.line());
        } else {
            info!(target: classes::CHANGED, generation, %object, operation, %origin, drift, "{}", op.line());
        }
    }
    for ((kind, operation), count) in counts.into_iter().filter(|(_, count)| *count > LINES_MAX) {
        info!(
            target: classes::CHANGED,
            generation,
            kind,
            operation,
            count,
            "{operation} {count} of kind {kind}"
        );
    }
}
