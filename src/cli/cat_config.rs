//! `ciliate cat-config`: the merged configuration, each key with the place it is from.

use super::{EXIT_OK, Failure, Output};
use crate::config::{Document, Search, cat_config};
use crate::engine::Invalid;

/// Print the merged configuration as TOML, each key with its file and line
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub fn run(_arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let document = Document::load(search);
    let diagnostics = document.problems().to_vec();
    if !diagnostics.is_empty() {
        return Err(Failure::Invalid(Box::new(Invalid { document, diagnostics })));
    }
    output.line(cat_config(&document).trim_end())?;
    Ok(EXIT_OK)
}
