//! `ciliate completion`: a script that completes this command line in a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{EXIT_OK, Failure, Output};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "For bash: ciliate completion bash > /etc/bash_completion.d/ciliate")]
pub struct Arguments {
    /// Which shell
    shell: Shell,
}

pub fn run(arguments: &Arguments, output: &mut Output) -> Result<u8, Failure> {
    let mut script = Vec::new();
    let mut command = super::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "ciliate", &mut script);
    output.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(EXIT_OK)
}
