//! `ciliate destroy`: remove everything that is ours, and nothing else.

use std::path::{Path, PathBuf};

use super::{EXIT_OK, Failure, Format, LOCK_PATIENCE, Output, apply, plan};
use crate::config::{Document, Search};
use crate::daemon::control::{self, Daemon};
use crate::engine::{self, Invalid};
use crate::intent;
use crate::kernel::lock::daemon::{self, DaemonLock};
use crate::kernel::{Kernel, KernelError};
use crate::plan::SavedPlan;

/// Remove everything that ciliate made and put back every setting it changed; nothing else
#[derive(Debug, clap::Args)]
#[command(after_help = "Without any configuration, what is in the default folders is removed.\n\n\
Exit codes: 0 everything is gone; 1 an error, or something is left.")]
pub struct Arguments {
    /// Show what would be removed; changes nothing
    #[arg(long)]
    dry_run: bool,
    /// Folder of the pins, instead of the configuration's paths.bpf (with --runtime: the configuration
    /// is not read at all, and a WireGuard key that was made stays)
    #[arg(long, value_name = "PATH", requires = "runtime")]
    bpf: Option<PathBuf>,
    /// Runtime folder, instead of the configuration's paths.runtime
    #[arg(long, value_name = "PATH", requires = "bpf")]
    runtime: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let (bpf, runtime, state) = match (&arguments.bpf, &arguments.runtime) {
        (Some(bpf), Some(runtime)) => (bpf.clone(), runtime.clone(), None),
        _ => {
            let document = document(search);
            match intent::paths_of(&document) {
                Ok(paths) => {
                    if document.sources().iter().next().is_none() {
                        let (bpf, runtime) = (paths.bpf.display(), paths.runtime.display());
                        output.note(&format!(
                            "there is no configuration: what is in the folders that are the default, {bpf} and \
                             {runtime}, goes; others are named with --bpf and --runtime"
                        ));
                    }
                    (paths.bpf, paths.runtime, Some(paths.state))
                }
                Err(diagnostics) => {
                    return Err(Failure::Invalid(Box::new(Invalid { document, diagnostics })));
                }
            }
        }
    };
    let mut kernel = Kernel::open(&bpf, &runtime)?;
    engine::at_home(&kernel)?;
    if arguments.dry_run {
        let view = engine::view_destroy(&mut kernel)?;
        match arguments.output {
            Format::Json => output.json(&SavedPlan::new(&view.plan))?,
            Format::Text => plan::print(&view.plan, output)?,
        }
        return Ok(EXIT_OK);
    }
    let _alone = alone(&runtime)?;
    let scope = engine::lock(&runtime, LOCK_PATIENCE)?;
    let mut progress = output.progress();
    let tick = |done, total| progress.tick(done, total);
    let converged = engine::converge(&scope, &mut kernel, engine::view_destroy, tick)?;
    drop(progress);
    if converged.succeeded() {
        control::remove_stale(&runtime);
        for path in engine::remove_folders(&kernel, &runtime)? {
            output.note(&format!("left: {}, which does not belong to ciliate", path.display()));
        }
        if let Some(state) = state {
            engine::remove_private_key(&state)?;
        }
    }
    apply::finish(arguments.output, &converged, output)
}

/// What has to go doesn't depend on the rest of the configuration, so that may be wrong; or all of it gone, as when a
/// package is purged.
fn document(search: &Search) -> Document {
    if search.finds_nothing() {
        return Document::of_texts::<PathBuf>([]);
    }
    Document::load(search)
}

/// Makes sure that no daemon runs, and that none begins until this is done. What tells is the daemon's lock, which it
/// has whether it answers or not. The socket is asked as well: somebody may have removed the lock's file.
fn alone(runtime: &Path) -> Result<DaemonLock, Failure> {
    let (lock, holder) = match DaemonLock::without_daemon(runtime, LOCK_PATIENCE) {
        Ok(lock) => (Some(lock), None),
        Err(error @ KernelError::Locked { .. }) => match daemon::holder(runtime) {
            Some(pid) => (None, Some(pid)),
            None => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
    };
    let pid = match (control::ask(runtime), lock) {
        (Daemon::Absent, Some(lock)) => return Ok(lock),
        (Daemon::Answers(status), _) => {
            return Err(Failure::Error(format!(
                "a daemon runs (pid {}) and would make everything again; stop it first, with \
                 `systemctl stop` or `kill {}`",
                status.pid, status.pid
            )));
        }
        (Daemon::Silent { pid }, _) => pid.or(holder),
        (Daemon::Absent, None) => holder,
    };
    let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
    Err(Failure::Error(format!(
        "a daemon{pid} does not answer, and would make everything again once it goes on; end it first, \
         with `systemctl stop` or `kill -KILL`"
    )))
}
