//! `ciliate schema`: the configuration's JSON Schema.

use super::{EXIT_OK, Failure, Output};

/// Print the JSON Schema of the configuration, for editors
#[derive(Debug, clap::Args)]
#[command(
    after_help = "In an editor with a TOML language server: ciliate schema > ciliate.schema.json, and as the first\n\
line of the configuration: #:schema ./ciliate.schema.json"
)]
pub struct Arguments {}

pub fn run(_arguments: &Arguments, output: &mut Output) -> Result<u8, Failure> {
    output.json(&crate::config::schema())?;
    Ok(EXIT_OK)
}
