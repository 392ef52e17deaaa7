//! `ciliate check`: the configuration alone, no kernel.

use serde_json::json;

use super::{EXIT_ERROR, EXIT_OK, Failure, Format, Output, diagnostics_json};
use crate::config::Search;
use crate::engine;
use crate::intent::Intent;
use crate::kernel::wireguard;
use crate::kinds::{BlockedReason, counted};
use crate::plan::FORMAT_VERSION;

/// What this machine lacks of what is asked for. No mistake: the files may be another machine's.
fn missing(intent: &Intent) -> Option<String> {
    let encryption = intent.encryption.is_some() && wireguard::is_known() == Some(false);
    encryption.then(|| format!("on this machine, {}", BlockedReason::WireguardMissing))
}

/// Parse and validate the configuration; needs no privileges and no kernel
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 valid; 1 invalid, with everything that is wrong.")]
pub struct Arguments {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    match (engine::load(search), arguments.output) {
        (Err(invalid), Format::Text) => Err(Failure::Invalid(invalid)),
        (Err(invalid), Format::Json) => {
            output.json(&diagnostics_json(&invalid))?;
            Ok(EXIT_ERROR)
        }
        (Ok(loaded), Format::Json) => {
            let mut valid =
                json!({"format_version": FORMAT_VERSION, "valid": true, "diagnostics": []});
            if let Some(note) = missing(&loaded.intent) {
                valid["notes"] = json!([note]);
            }
            output.json(&valid)?;
            Ok(EXIT_OK)
        }
        (Ok(loaded), Format::Text) => {
            let (files, intent) = (loaded.document.sources().iter().len(), &loaded.intent);
            output.line(&format!(
                "valid: {}, {}, {}",
                counted(files, "file"),
                counted(intent.peers.len(), "peer"),
                counted(intent.endpoints.len(), "endpoint")
            ))?;
            if let Some(note) = missing(&loaded.intent) {
                output.line(&format!("note: {note}"))?;
            }
            Ok(EXIT_OK)
        }
    }
}
