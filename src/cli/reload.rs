//! `ciliate reload`: have the daemon read its configuration again, and wait for it.

use super::{EXIT_OK, Failure, Output};
use crate::config::{Document, Search};
use crate::daemon::control::{self, Daemon};
use crate::engine::Invalid;
use crate::intent;

/// Have the daemon read its configuration again, and wait until it has looked at the kernel with it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The daemon notices changed files by itself; this says what it makes of them. `systemctl reload\n\
ciliated` runs it.\n\n\
Exit codes: 0 read; 1 refused, and the last good configuration stays in force, or no daemon runs\n\
or answers."
)]
pub struct Arguments {}

pub fn run(_arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let document = Document::load(search);
    let runtime = match intent::paths_of(&document) {
        Ok(paths) => paths.runtime,
        // The daemon reads the same files, and refuses them for the same reason.
        Err(diagnostics) => {
            return Err(Failure::Invalid(Box::new(Invalid { document, diagnostics })));
        }
    };
    match control::reload(&runtime) {
        Daemon::Answers(Ok(())) => {
            output.line("read")?;
            Ok(EXIT_OK)
        }
        Daemon::Answers(Err(text)) => Err(Failure::Error(format!(
            "the configuration is refused; the last good one stays in force\n{}",
            text.trim_end()
        ))),
        Daemon::Silent { pid } => {
            let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
            Err(Failure::Error(format!(
                "the daemon{pid} does not answer: it is stopped, stuck, or asked by too many at once; \
                 see its log, and try again"
            )))
        }
        Daemon::Absent => Err(Failure::Error(format!(
            "no daemon runs with the runtime folder {}; start it with `systemctl start ciliated`",
            runtime.display()
        ))),
    }
}
