//! `ciliate plan`: what would change. Changes nothing.

use std::fs;
use std::path::PathBuf;

use super::{EXIT_CHANGES, EXIT_OK, Failure, Format, Output, load_to_plan, open, view_strictly};
use crate::config::Search;
use crate::engine::tally;
use crate::lower::lost_text;
use crate::plan::{Plan, SavedPlan};

/// Show every kernel object and map entry that apply would touch, and why; changes nothing
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing to change, or nothing that can be; 1 an error; 2 there are changes to make."
)]
pub struct Arguments {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    /// Save the plan; `ciliate apply FILE` applies exactly it, or refuses
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let loaded = load_to_plan(search)?;
    let mut kernel = open(&loaded)?;
    let (_, view) = view_strictly(&mut kernel, loaded)?;
    let saved = SavedPlan::new(&view.plan);
    if let Some(path) = &arguments.out {
        let text = serde_json::to_string_pretty(&saved).map_err(std::io::Error::from)?;
        fs::write(path, text + "\n")
            .map_err(|error| Failure::Error(format!("write {}: {error}", path.display())))?;
    }
    match arguments.output {
        Format::Json => output.json(&saved)?,
        Format::Text => {
            print(&view.plan, output)?;
            for setting in &view.summary.lost {
                output.line(&format!("! {}", lost_text(setting)))?;
            }
        }
    }
    Ok(if view.plan.ops.is_empty() { EXIT_OK } else { EXIT_CHANGES })
}

/// The plan for people.
pub fn print(plan: &Plan, output: &mut Output) -> std::io::Result<()> {
    for op in &plan.ops {
        output.plan_line(&op.line())?;
    }
    for blocked in &plan.blocked {
        output.plan_line(&blocked.to_string())?;
    }
    let (add, change, remove) = tally(&plan.ops);
    if plan.ops.is_empty() {
        let blocked = match plan.blocked.len() {
            0 => String::new(),
            n => format!(", {n} blocked"),
        };
        return output.heading(&format!("No changes{blocked}."));
    }
    let mut text = format!("Plan: {add} to add, {change} to change, {remove} to remove");
    if !plan.blocked.is_empty() {
        text += &format!(", {} blocked", plan.blocked.len());
    }
    output.heading(&format!("{text}."))
}
