//! `ciliate run`: the daemon.

use std::time::Duration;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::{Failure, Output};
use crate::config::{Place, Search, locate};
use crate::daemon::classes::CLASSES;
use crate::daemon::{self, Options};

/// Keep the kernel as configured: converge, then watch files and kernel and repair
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Reads the configuration again on SIGHUP and whenever a file changes; one with errors is refused and\n\
the last good one stays in force. On SIGTERM it ends and leaves the kernel as it is."
)]
pub struct Arguments {
    /// Seconds between two full looks at the kernel when nothing reports a change
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    resync: u64,
    /// Seconds between two collections of conntrack entries that are over. Without it: 300 at first, then
    /// 10 to 43200, by how many were found
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=43200))]
    conntrack_gc_interval: Option<u64>,
    /// Least important messages that are logged: error, warn, info, debug, trace or off
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: LevelFilter,
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let result = start(arguments, search, output);
    // What a process says last, journald may not know to be the unit's; `systemctl status` has it by this.
    if let Err(failure) = &result {
        daemon::failed(&headline(failure));
    }
    result
}

/// A failure in one line.
fn headline(failure: &Failure) -> String {
    match failure {
        Failure::Invalid(invalid) => {
            let located = locate(invalid.document.sources(), &invalid.diagnostics);
            let first = located.first().map(|first| {
                let Place { file, line, column, message } = &first.place;
                format!(": {file}:{line}:{column}: {message}")
            });
            format!("configuration refused{}", first.unwrap_or_default())
        }
        Failure::Error(text) => text.lines().next().unwrap_or_default().to_owned(),
        Failure::BrokenPipe => String::new(),
    }
}

fn start(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let loaded = super::load(search)?;
    output.flush()?;
    log_to_journal_or_stderr(arguments.log_level);
    let options = Options {
        resync: Duration::from_secs(arguments.resync),
        conntrack_gc: arguments.conntrack_gc_interval.map(Duration::from_secs),
    };
    daemon::run(search, loaded, options)?;
    Ok(super::EXIT_OK)
}

/// Whether standard error is the stream to the journal that systemd named in `JOURNAL_STREAM`, as device
/// and inode. A service's children inherit the variable, and may write elsewhere.
fn stderr_is_the_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// One layer for each class of messages, which adds its id, and one for those of no class.
fn journal<S>() -> std::io::Result<Box<dyn Layer<S> + Send + Sync>>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let mut layers = Vec::new();
    for (target, id) in CLASSES {
        let layer = tracing_journald::layer()?.with_field_prefix(Some("CILIATE".into()));
        let layer = layer.with_custom_fields([("MESSAGE_ID", id)]);
        layers.push(layer.with_filter(filter_fn(move |event| event.target() == *target)).boxed());
    }
    let other = tracing_journald::layer()?.with_field_prefix(Some("CILIATE".into()));
    let in_no_class = |target: &str| CLASSES.iter().all(|(class, _)| *class != target);
    layers.push(other.with_filter(filter_fn(move |event| in_no_class(event.target()))).boxed());
    Ok(layers.boxed())
}

/// systemd sets `JOURNAL_STREAM` for services whose output goes to the journal (systemd.exec(5)). Then
/// messages go there with their fields (`CILIATE_OBJECT=…`); else they are lines on standard error.
fn log_to_journal_or_stderr(level: LevelFilter) {
    let journal = stderr_is_the_journal().then(|| journal().ok()).flatten();
    let layer = match journal {
        Some(journal) => journal,
        None => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .with_target(false)
            .boxed(),
    };
    // The file watcher warns of each watch that ends with its folder, as one does with each endpoint.
    let filter = Targets::new().with_default(level).with_target("notify", LevelFilter::OFF);
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
}
