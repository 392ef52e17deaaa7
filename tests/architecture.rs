//! Rules of the source tree that no compiler checks, each with its reason.
//!
//! `docs::architecture` compares the imports with the table that is published; here is what that
//! table may never say. Each rule is a function of one file's path and text, and is shown to be able
//! to fail.

#[path = "architecture/code.rs"]
mod code;
#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/rules.rs"]
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file: where it is, and what is in it.
pub struct File {
    /// From the root of the repository.
    pub path: String,
    pub text: String,
}

/// Every Rust file below a folder.
fn files(folder: &str) -> Vec<File> {
    let mut folders = vec![PathBuf::from(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push(File { path: name(&path), text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!files.is_empty());
    files
}

fn name(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Tries a rule on every file of some folders.
fn try_on(folders: &[&str], rule: impl Fn(&File) -> Vec<String>) {
    let complaints: Vec<String> = folders
        .iter()
        .flat_map(|folder| files(folder))
        .flat_map(|file| {
            let complaints = rule(&file);
            complaints.into_iter().map(move |complaint| format!("{}: {complaint}", file.path))
        })
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// What a rule says of a snippet that stands in a file.
fn said(rule: impl Fn(&File) -> Vec<String>, path: &str, text: &str) -> Vec<String> {
    rule(&File { path: path.into(), text: text.into() })
}
