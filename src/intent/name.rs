//! Names of nodes, peers, endpoints and services, and names of devices.
//!
//! Pure.

use std::sync::Arc;

use serde_spanned::Spanned;

use super::address::shown;
use super::draft::{At, Problems};
use super::limits::{NAME_BYTES_MAX, SERVICE_NAME_BYTES_MAX};
use crate::config::Diagnostic;
use crate::net::IfName;

/// Characters of a name besides ASCII letters and digits; a name doesn't begin with one.
const PUNCTUATION: &str = "._:/@-";

/// Reads the name of a node, peer or endpoint.
pub(super) fn name(text: &Spanned<String>, problems: &mut Problems) -> Option<At<Arc<str>>> {
    within(NAME_BYTES_MAX, text, problems)
}

/// Reads the name of a service.
pub(super) fn of_service(text: &Spanned<String>, problems: &mut Problems) -> Option<At<Arc<str>>> {
    within(SERVICE_NAME_BYTES_MAX, text, problems)
}

fn within(
    bytes_max: usize,
    text: &Spanned<String>,
    problems: &mut Problems,
) -> Option<At<Arc<str>>> {
    let written = text.get_ref();
    let allowed = |c: char| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c);
    let problem = if written.is_empty() {
        Diagnostic::new(text, "a name can't be empty")
            .help(format!("give it a name of 1 to {bytes_max} bytes"))
    } else if written.len() > bytes_max {
        let length = written.len();
        Diagnostic::new(text, format!("this name is too long: {length} bytes"))
            .help(format!("a name has at most {bytes_max} bytes"))
    } else if let Some(bad) = written.chars().find(|c| !allowed(*c)) {
        Diagnostic::new(text, format!("a name can't have {bad:?} in it"))
            .help("names are made of ASCII letters and digits and of . _ : / @ -")
    } else if !written.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Diagnostic::new(text, format!("a name can't begin with {:?}", &written[..1]))
            .help("begin it with an ASCII letter or digit")
    } else {
        return Some(At { value: Arc::from(written.as_str()), span: text.into() });
    };
    problems.push(problem);
    None
}

/// Reads the name of a device.
pub(super) fn ifname(text: &Spanned<String>, problems: &mut Problems) -> Option<IfName> {
    let written = text.get_ref();
    let problem = match written.parse::<IfName>() {
        Ok(_) if written == "lo" => {
            Diagnostic::new(text, "`lo` can't be used here: every network namespace has its own")
        }
        Ok(name) => return Some(name),
        Err(why) => Diagnostic::new(text, format!("{} is not an interface name", shown(written)))
            .label(why.to_string()),
    };
    problems.push(problem.help("give a name as `ip link` shows it, like \"eth0\""));
    None
}
