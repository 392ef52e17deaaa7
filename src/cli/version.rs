//! `ciliate version`: which build this is, down to its BPF programs.

use super::{EXIT_OK, Failure, Format, Output};
use crate::bpf_objects::OBJECTS;
use crate::lower;
use crate::plan::FORMAT_VERSION;

/// Print the version, the format of JSON output and the digests of the BPF objects inside
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub fn run(arguments: &Arguments, output: &mut Output) -> Result<u8, Failure> {
    let objects: Vec<(&str, String)> =
        OBJECTS.iter().map(|object| (object.name, lower::digest(object).to_string())).collect();
    match arguments.output {
        Format::Json => output.json(&serde_json::json!({
            "format_version": FORMAT_VERSION,
            "version": env!("CARGO_PKG_VERSION"),
            "objects": objects.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        }))?,
        Format::Text => {
            output.line(&format!("ciliate {}", env!("CARGO_PKG_VERSION")))?;
            for (name, digest) in objects {
                output.line(&format!("{name} {digest}"))?;
            }
        }
    }
    Ok(EXIT_OK)
}
