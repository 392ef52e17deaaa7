//! `src/ARCHITECTURE.md`: who imports whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::text::{path, read, table};

type Imports = BTreeMap<String, BTreeSet<String>>;

/// The module that a file counts as.
fn module(file: &Path) -> String {
    let relative =
        file.strip_prefix(path("src")).expect("below src").to_string_lossy().into_owned();
    if relative.ends_with("/exec.rs") || relative.contains("/exec/") {
        return "exec".into();
    }
    relative.split(['/', '.']).next().unwrap_or_default().to_owned()
}

/// The top modules that a text names after `crate::`, without its tests.
fn imported(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut found = BTreeSet::new();
    for line in code {
        for rest in line.split("crate::").skip(1) {
            let name: String =
                rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(!name.is_empty(), "imports one by one: {line}");
            found.insert(name);
        }
    }
    found
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let file = entry.expect("an entry").path();
        if file.is_dir() {
            list(&file, files);
        } else if file.extension().is_some_and(|extension| extension == "rs") {
            files.push(file);
        }
    }
}

#[test]
fn imports_are_those_of_the_table() {
    let mut found = Imports::new();
    let mut files = Vec::new();
    list(&path("src"), &mut files);
    // A crate of its own, which can't name this one's modules: `kubernetes::size::it_cannot_touch_the_kernel`.
    files.retain(|file| !file.starts_with(path("src/kubernetes")));
    for file in files {
        let text = fs::read_to_string(&file).expect("text");
        found.entry(module(&file)).or_default().extend(imported(&text));
    }
    for (module, imports) in &mut found {
        imports.remove(module);
        // The registry's macro.
        imports.remove("for_each_kind");
    }
    found.retain(|module, _| !["lib", "main"].contains(&module.as_str()));
    let rows = table(&read("src/ARCHITECTURE.md"), "| module | may import |");
    let split = |cell: &str| -> BTreeSet<String> {
        cell.split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let written: Imports = rows.into_iter().map(|row| (row[0].clone(), split(&row[1]))).collect();
    let mut rows = String::new();
    for (module, imports) in
        found.iter().filter(|(module, used)| written.get(*module) != Some(used))
    {
        let list = imports.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        rows += &format!("| `{module}` | {list} |\n");
    }
    assert!(rows.is_empty(), "these rows should be:\n{rows}");
    assert_eq!(found.len(), written.len(), "a module of the table does not exist");
}

#[test]
fn invariants_are_numbered() {
    let text = read("src/ARCHITECTURE.md");
    let rows = table(&text, "| | holds | checked by |");
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row[0], format!("I{}", at + 1));
        assert!(row[2].contains("::"), "{}: no check", row[0]);
    }
}

#[test]
fn marks_are_those_of_the_code() {
    use ciliate::kinds::owner::{LINK_ALIAS_PREFIX, LINK_GROUP, NFTABLES_TABLE, PROTOCOL};
    let text = read("src/ARCHITECTURE.md");
    for mark in [
        format!("protocol {PROTOCOL}"),
        format!("group {LINK_GROUP:#x}"),
        format!("begins with `{LINK_ALIAS_PREFIX}`"),
        format!("table `inet {NFTABLES_TABLE}`"),
    ] {
        assert!(text.contains(&mark), "{mark}");
    }
}
