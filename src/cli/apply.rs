//! `ciliate apply`: converge once, and verify by looking again.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{
    EXIT_ERROR, EXIT_OK, Failure, Format, LOCK_PATIENCE, Output, found, load_to_plan, look, open,
    view_strictly,
};
use crate::config::Search;
use crate::engine::{self, Converged, EngineError, tally};
use crate::kernel::chain;
use crate::kinds::{ObjectKey, Op, counted};
use crate::lower::lost_text;
use crate::plan::{FORMAT_VERSION, Plan, SavedPlan};
use crate::report::{Outcome, Report, waiting, waiting_text};

/// Converge the kernel once and verify it by looking again
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 converged; 1 an error, or something is left to do or blocked."
)]
pub struct Arguments {
    /// A plan saved by `ciliate plan --out`: applied exactly, or refused if the kernel moved on
    plan: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let loaded = load_to_plan(search)?;
    let mut kernel = open(&loaded)?;
    // Everything that can be wrong with the configuration is said before anything is changed.
    let (loaded, view) = view_strictly(&mut kernel, loaded)?;
    let saved = match arguments.plan.as_deref() {
        None => None,
        Some(path) => Some((path, read(path)?)),
    };
    match &saved {
        Some((path, saved)) => {
            saved.is_as(&view.plan, &view.observed).map_err(|error| refused(path, &error))?;
        }
        // A look that finds nothing to do needs no lock.
        None if view.plan.ops.is_empty() => {
            return finish(arguments.output, &Converged::at_once(view), output);
        }
        None => {}
    }
    let scope = engine::lock(&loaded.intent.paths.runtime, LOCK_PATIENCE)?;
    let mut progress = output.progress();
    let tick = |done, total| progress.tick(done, total);
    let found = found(&loaded.intent);
    let look = |kernel: &mut _| look(kernel, &loaded.intent, &found);
    let converged = match &saved {
        None => engine::converge(&scope, &mut kernel, look, tick)?,
        // Compared again: whoever had the lock may have changed the kernel.
        Some((path, saved)) => match engine::apply_saved(&scope, &mut kernel, saved, look, tick) {
            Err(EngineError::Saved(error)) => return Err(refused(path, &error)),
            other => other?,
        },
    };
    drop(progress);
    finish(arguments.output, &converged, output)
}

/// Reads a saved plan, from a pipe too.
fn read(path: &Path) -> Result<SavedPlan, Failure> {
    let failed = |error: io::Error| refused(path, &error);
    let mut file = File::open(path).map_err(failed)?;
    // It may have no end.
    if file.metadata().map_err(failed)?.file_type().is_char_device() {
        return Err(failed(io::Error::other("this is a device, not a file")));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    SavedPlan::parse(&text).map_err(|error| refused(path, &error))
}

fn refused(path: &Path, reason: &dyn std::error::Error) -> Failure {
    Failure::Error(format!("plan {} is not applied: {}", path.display(), chain(reason)))
}

/// Says what became of it.
pub fn finish(format: Format, converged: &Converged, output: &mut Output) -> Result<u8, Failure> {
    match format {
        Format::Json => {
            let ops = converged.rounds.iter().flat_map(|(plan, report)| {
                plan.ops
                    .iter()
                    .zip(&report.outcomes)
                    .map(|(op, outcome)| json!({"op": op, "result": outcome}))
            });
            let mut value = json!({
                "format_version": FORMAT_VERSION,
                "converged": converged.succeeded(),
                "writes": converged.writes(),
                "ops": ops.collect::<Vec<_>>(),
                "left": SavedPlan::new(&converged.last.plan),
            });
            if !converged.lost.is_empty() {
                value["lost"] = json!(converged.lost);
            }
            output.json(&value)?;
        }
        Format::Text => text(converged, output)?,
    }
    Ok(if converged.succeeded() { EXIT_OK } else { EXIT_ERROR })
}

fn text(converged: &Converged, output: &mut Output) -> io::Result<()> {
    // What a round could not do, the next one may have tried again.
    let mut said = BTreeSet::new();
    for (plan, report) in &converged.rounds {
        let mut bad = Vec::new();
        for (op, outcome) in plan.ops.iter().zip(&report.outcomes) {
            match outcome {
                Outcome::Done => output.plan_line(&op.line())?,
                Outcome::Skipped { .. } => {}
                outcome => bad.push(format!("! {}: {outcome}", op.line())),
            }
        }
        for (cause, count) in waiting(&report.outcomes, |at| plan.ops[at].object().to_string()) {
            bad.push(format!("! {cause}: {}", waiting_text(count)));
        }
        for line in bad {
            if said.insert(line.clone()) {
                output.plan_line(&line)?;
            }
        }
    }
    for setting in &converged.lost {
        output.plan_line(&format!("! {}", lost_text(setting)))?;
    }
    let (add, change, remove) = tally(done(&converged.rounds));
    for blocked in &converged.last.plan.blocked {
        output.plan_line(&blocked.to_string())?;
    }
    let left = &converged.last.plan;
    let text = match (add + change + remove, left.ops.len(), left.blocked.len()) {
        (0, 0, 0) => "Converged, nothing to do.".to_string(),
        (_, 0, 0) => format!("Converged: {add} added, {change} changed, {remove} removed."),
        (_, 0, blocked) => format!(
            "Not converged: {add} added, {change} changed, {remove} removed, {blocked} blocked."
        ),
        (_, n, blocked) => {
            format!("Not converged: {} left, {blocked} blocked.", counted(n, "change"))
        }
    };
    output.heading(&text)?;
    // What waits is counted with what it waits for.
    let waiting = converged.rounds.last().map(|(plan, report)| skipped(plan, report));
    let waiting = waiting.unwrap_or_default();
    for op in left.ops.iter().filter(|op| !waiting.contains(&op.object())) {
        output.plan_line(&format!("left: {}", op.line()))?;
    }
    Ok(())
}

/// The objects of the ops that waited in vain.
fn skipped(plan: &Plan, report: &Report) -> BTreeSet<ObjectKey> {
    let ops = plan.ops.iter().zip(&report.outcomes);
    let skipped = ops.filter(|(_, outcome)| matches!(outcome, Outcome::Skipped { .. }));
    skipped.map(|(op, _)| op.object()).collect()
}

/// The ops that were done.
fn done(rounds: &[(Plan, Report)]) -> impl Iterator<Item = &Op> {
    let all = rounds.iter().flat_map(|(plan, report)| plan.ops.iter().zip(&report.outcomes));
    all.filter(|(_, outcome)| **outcome == Outcome::Done).map(|(op, _)| op)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Observed;

    #[test]
    fn only_what_was_done_is_counted() {
        let mut desired = crate::kinds::Desired::default();
        for priority in 1..4 {
            let key = crate::kinds::rule::Key {
                ipv6: false,
                priority,
                fwmark: None,
                table: 2,
                other: None,
            };
            let wanted = crate::kinds::Wanted {
                spec: crate::kinds::rule::Spec,
                origin: crate::kinds::Origin::Routing,
            };
            desired.rules.insert(key, wanted);
        }
        let (plan, _) = Plan::make(&desired, Observed::default());
        let failed = Outcome::Failed { error: "no".into(), errno: None };
        let skipped = Outcome::Skipped { needs: "it".into() };
        let outcomes = vec![failed, Outcome::Done, skipped];
        let again = Report { outcomes: vec![Outcome::Done; 3], writes: 0 };
        let rounds = [(plan.clone(), Report { outcomes, writes: 0 })];
        assert_eq!(tally(done(&rounds)), (1, 0, 0));
        let rounds = [rounds[0].clone(), (plan, again)];
        assert_eq!(tally(done(&rounds)), (4, 0, 0));
    }
}
