//! `ciliate destroy`: remove everything that is ours, and nothing else.

use std::path::PathBuf;

use super::{EXIT_OK, Failure, Format, Output, apply, load, plan};
use crate::config::Search;
use crate::engine;
use crate::kernel::Kernel;

/// Remove everything that ciliate made and put back every setting it changed; nothing else
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Show what would be removed; changes nothing
    #[arg(long)]
    dry_run: bool,
    /// Folder of the pins, instead of the configuration's paths.bpf (with --runtime: the configuration
    /// is not read at all)
    #[arg(long, value_name = "PATH", requires = "runtime")]
    bpf: Option<PathBuf>,
    /// Runtime folder, instead of the configuration's paths.runtime
    #[arg(long, value_name = "PATH", requires = "bpf")]
    runtime: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let (bpf, runtime) = match (&arguments.bpf, &arguments.runtime) {
        (Some(bpf), Some(runtime)) => (bpf.clone(), runtime.clone()),
        _ => {
            let paths = load(search)?.intent.paths;
            (paths.bpf, paths.runtime)
        }
    };
    let mut kernel = Kernel::open(&bpf)?;
    if arguments.dry_run {
        let view = engine::view_destroy(&mut kernel)?;
        plan::print(&view.plan, output)?;
        return Ok(EXIT_OK);
    }
    let scope = engine::lock(&runtime, false)?;
    let mut progress = output.progress();
    let tick = |done, total| progress.tick(done, total);
    let converged = engine::converge(&scope, &mut kernel, engine::view_destroy, tick)?;
    drop(progress);
    if converged.succeeded() {
        engine::remove_folders(&kernel, &runtime)?;
    }
    apply::finish(arguments.output, &converged, output)
}
