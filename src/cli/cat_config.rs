//! `ciliate cat-config`: the merged configuration, each key with the place it is from.

use serde_json::json;

use super::{EXIT_OK, Failure, Format, Output};
use crate::config::{Document, Search, cat_config, entries};
use crate::engine::Invalid;
use crate::plan::FORMAT_VERSION;

/// Print the merged configuration as TOML, each key with its file and line
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let document = Document::load(search);
    let diagnostics = document.problems().to_vec();
    if !diagnostics.is_empty() {
        return Err(Failure::Invalid(Box::new(Invalid { document, diagnostics })));
    }
    match arguments.output {
        Format::Text => output.line(cat_config(&document).trim_end())?,
        Format::Json => {
            let entries = entries(&document);
            output.json(&json!({ "format_version": FORMAT_VERSION, "entries": entries }))?;
        }
    }
    Ok(EXIT_OK)
}
