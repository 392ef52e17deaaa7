//! Reading Markdown: blocks, tables, code, links.

use std::fs;
use std::path::{Path, PathBuf};

/// The documents that are checked.
pub const PAGES: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "benches/README.md",
    "bpf/README.md",
    "config/README.md",
    "docs/encryption.md",
    "docs/errors/README.md",
    "docs/errors/configuration.md",
    "docs/errors/encryption.md",
    "docs/errors/endpoint.md",
    "docs/errors/events.md",
    "docs/errors/foreign.md",
    "docs/errors/kernel.md",
    "docs/errors/machine.md",
    "docs/errors/kubernetes.md",
    "docs/errors/node.md",
    "docs/errors/plan.md",
    "docs/errors/service.md",
    "docs/errors/tunnel.md",
    "docs/errors/underlay.md",
    "docs/from-keepalived.md",
    "docs/json.md",
    "docs/two-machines.md",
    "packaging/README.md",
    "packaging/kubernetes/README.md",
    "src/ARCHITECTURE.md",
    "src/kubernetes/README.md",
    "systemd/README.md",
];

/// A file of the repository.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The fenced blocks of a language.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(name)) => open = Some((name == language, String::new())),
            (Some((wanted, block)), Some(_)) => {
                if *wanted {
                    found.push(std::mem::take(block));
                }
                open = None;
            }
            (Some((_, block)), None) => *block += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// What is between backticks outside of fenced blocks.
pub fn code(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The cells of the table below a heading row, without backticks.
pub fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "no table {heading}");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().replace('`', "")).collect()
    })
    .collect()
}

/// The targets of links to files.
pub fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.map(|target| target.split('#').next().unwrap_or_default());
    targets.filter(|target| !target.is_empty()).map(str::to_owned).collect()
}
