//! `ciliate schema`: the configuration's JSON Schema.

use super::{EXIT_OK, Failure, Output};

/// Print the JSON Schema of the configuration, for editors
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub fn run(_arguments: &Arguments, output: &mut Output) -> Result<u8, Failure> {
    output.json(&crate::config::schema())?;
    Ok(EXIT_OK)
}
