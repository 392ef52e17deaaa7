//! The command line: one file for each command.
//!
//! Imports `engine`, `config`, `kinds` (to show them), `daemon`. The library never prints, exits or
//! asks for arguments; this module does, and nothing else.

mod apply;
mod bpf;
mod cat_config;
mod check;
mod completion;
mod destroy;
mod get;
mod health;
mod manual;
mod monitor;
mod output;
mod plan;
mod reload;
mod run;
mod schema;
mod status;
mod version;
mod wireguard;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{Search, locate, render};
use crate::daemon::checks::Found;
use crate::daemon::control;
use crate::engine::{self, EngineError, Invalid, Loaded, View};
use crate::facts::Remembered;
use crate::intent::Intent;
use crate::kernel::{Kernel, KernelError, chain};
use crate::listen::ListenError;
use output::Output;

/// Exit code: something to report, or done.
pub const EXIT_OK: u8 = 0;
/// Exit code: an error.
pub const EXIT_ERROR: u8 = 1;
/// Exit code of `plan`: there are changes to make.
pub const EXIT_CHANGES: u8 = 2;
/// Exit code of `status`: not converged, as systemctl(1) has it for a unit that isn't running.
pub const EXIT_NOT_CONVERGED: u8 = 3;

/// How long a command waits for a daemon or another command to finish a round.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Shown below the list of commands.
const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 an error, or not converged; 2 `plan` found changes to make;
3 `status` found the node not converged; 64 wrong arguments.";

/// Cilium's node datapath for hosts without Kubernetes: converges the kernel to a TOML file.
#[derive(Debug, Parser)]
#[command(name = "ciliate", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Arguments {
    /// Configuration file, or folder of *.toml files. Without it: ciliate.toml and conf.d/*.toml in
    /// /etc/ciliate, over conf.d/*.toml in /run/ciliate and in /usr/lib/ciliate
    #[arg(short, long, global = true, value_name = "PATH", display_order = 100)]
    config: Option<PathBuf>,
    /// When to colour the output
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value_t = ColourChoice::Auto,
        display_order = 101
    )]
    color: ColourChoice,
    #[command(subcommand)]
    command: Command,
}

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ColourChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Into files and pipes as well
    Always,
    /// Not at all
    Never,
}

/// How output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
enum Format {
    /// For people
    #[default]
    Text,
    /// For programs; `format_version` is raised when something is renamed or removed
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Arguments),
    Plan(plan::Arguments),
    Apply(apply::Arguments),
    Run(run::Arguments),
    Reload(reload::Arguments),
    Status(status::Arguments),
    Get(get::Arguments),
    Bpf(bpf::Arguments),
    Monitor(monitor::Arguments),
    Destroy(destroy::Arguments),
    Schema(schema::Arguments),
    Completion(completion::Arguments),
    Manual(manual::Arguments),
    CatConfig(cat_config::Arguments),
    Version(version::Arguments),
    Wireguard(wireguard::Arguments),
}

/// What ends a command early.
#[derive(Debug)]
enum Failure {
    /// The configuration has errors.
    Invalid(Box<Invalid>),
    /// Anything else, with what to do about it if that can be said.
    Error(String),
    /// Nobody reads the output any more.
    BrokenPipe,
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Failure::Error(explain(chain(&error)))
    }
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        Failure::Error(explain(chain(&error)))
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        Failure::Error(explain(chain(&error)))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
            // What is done with other files has errors of its own, which name the file.
            _ => Failure::Error(format!("write to standard output: {error}")),
        }
    }
}

/// Adds what to do to errors that one cause has in most cases.
fn explain(text: String) -> String {
    let denied = text.contains("Operation not permitted") || text.contains("Permission denied");
    if denied && !rustix::process::geteuid().is_root() {
        format!("{text}\n  ciliate reads and changes the network: run it as root")
    } else {
        text
    }
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            let _ = error.print();
            return ExitCode::from(64);
        }
        Err(help) => {
            let printed = help.print().map(|()| EXIT_OK).map_err(Failure::from);
            return finish(printed, &mut Output::new(ColourChoice::Auto));
        }
    };
    let mut output = Output::new(arguments.color);
    let search = arguments.config.map_or_else(Search::system, Search::path);
    let result = match arguments.command {
        Command::Check(a) => check::run(&a, &search, &mut output),
        Command::Plan(a) => plan::run(&a, &search, &mut output),
        Command::Apply(a) => apply::run(&a, &search, &mut output),
        Command::Run(a) => run::run(&a, &search, &mut output),
        Command::Reload(a) => reload::run(&a, &search, &mut output),
        Command::Status(a) => status::run(&a, &search, &mut output),
        Command::Get(a) => get::run(&a, &search, &mut output),
        Command::Bpf(a) => bpf::run(&a, &search, &mut output),
        Command::Monitor(a) => monitor::run(&a, &search, &mut output),
        Command::Destroy(a) => destroy::run(&a, &search, &mut output),
        Command::Schema(a) => schema::run(&a, &mut output),
        Command::Completion(a) => completion::run(&a, &mut output),
        Command::Manual(a) => manual::run(&a, &mut output),
        Command::CatConfig(a) => cat_config::run(&a, &search, &mut output),
        Command::Version(a) => version::run(&a, &mut output),
        Command::Wireguard(a) => wireguard::run(&a, &search, &mut output),
    };
    finish(result, &mut output)
}

/// Everything is out, or says why not; the exit code tells.
fn finish(result: Result<u8, Failure>, output: &mut Output) -> ExitCode {
    match result.and_then(|code| output.flush().map(|()| code).map_err(Failure::from)) {
        Ok(code) => ExitCode::from(code),
        Err(Failure::BrokenPipe) => ExitCode::from(EXIT_OK),
        Err(Failure::Error(text)) => {
            output.complain(&text);
            ExitCode::from(EXIT_ERROR)
        }
        Err(Failure::Invalid(invalid)) => {
            output.diagnostics(&invalid);
            ExitCode::from(EXIT_ERROR)
        }
    }
}

/// Reads the configuration.
fn load(search: &Search) -> Result<Loaded, Failure> {
    engine::load(search).map_err(Failure::Invalid)
}

/// The same for a command that plans, which says at once what the machine lacks.
fn load_to_plan(search: &Search) -> Result<Loaded, Failure> {
    engine::load_to_plan(search).map_err(Failure::Invalid)
}

/// Opens the kernel of the node that the configuration is for.
fn open(loaded: &Loaded) -> Result<Kernel, Failure> {
    let paths = &loaded.intent.paths;
    Ok(Kernel::open(&paths.bpf, &paths.runtime)?)
}

/// Which backends the daemon has found dead. Nobody knows that but the daemon, if one runs.
fn found(intent: &Intent) -> Found {
    let checked = intent.services.values().any(|service| service.health_check.is_some());
    let status = if checked { control::ask(&intent.paths.runtime).answer() } else { None };
    status.map(|status| status.backend_checks).unwrap_or_default()
}

/// Looks at the kernel as the daemon would that has found this.
fn look(kernel: &mut Kernel, intent: &Intent, found: &Found) -> Result<View, EngineError> {
    let remembered = Remembered { dead: found.dead().into(), ..Remembered::default() };
    engine::view_with(kernel, intent, &remembered)
}

/// Looks at the kernel; a namespace that isn't there is an error of the configuration.
fn view_strictly(kernel: &mut Kernel, loaded: Loaded) -> Result<(Loaded, View), Failure> {
    let view = look(kernel, &loaded.intent, &found(&loaded.intent))?;
    let diagnostics = engine::missing_namespaces(&loaded.intent, &view.facts);
    if diagnostics.is_empty() {
        return Ok((loaded, view));
    }
    Err(Failure::Invalid(Box::new(Invalid { document: loaded.document, diagnostics })))
}

/// Diagnostics as JSON.
fn diagnostics_json(invalid: &Invalid) -> serde_json::Value {
    serde_json::json!({
        "format_version": crate::plan::FORMAT_VERSION,
        "valid": false,
        "diagnostics": locate(invalid.document.sources(), &invalid.diagnostics),
    })
}

/// Diagnostics as text.
fn diagnostics_text(invalid: &Invalid, colour: bool) -> String {
    render(invalid.document.sources(), &invalid.diagnostics, colour)
}
