//! Size, names, `unsafe`, and what only the command line may do.

use super::code::{code, functions};
use super::{File, files, said, try_on};

const FILE_LINES_MAX: usize = 600;
const FILE_LINES_MEDIAN: usize = 150;
const FUNCTION_LINES_MAX: usize = 70;

/// Names that say nothing of what is inside.
const NAMES: &[&str] = &["util", "utils", "common", "core", "helper", "helpers", "misc"];

/// `(what, where it may be, reason)`.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("unsafe", &["src/kernel/"], "what the compiler can't check is in one place"),
    ("Command::new", &[], "netlink and bpf(2); nft alone is run, by the crate that knows its JSON"),
    ("println!", &[], "the library never prints; the command line writes to its output"),
    ("print!", &[], "the library never prints; the command line writes to its output"),
    ("eprintln!", &[], "the library never prints; the command line writes to its output"),
    ("eprint!", &[], "the library never prints; the command line writes to its output"),
    ("dbg!", &[], "left over from debugging"),
    ("todo!", &[], "unfinished"),
    ("unimplemented!", &[], "unfinished"),
    ("process::exit", &[], "skips destructors; `main` returns an exit code"),
    ("std::env", &["src/cli/"], "what a program does follows from its arguments and files"),
    (
        "SystemTime",
        &["src/daemon/", "src/cli/", "src/kernel/"],
        "a clock makes equal input unequal",
    ),
    (
        "HashMap",
        &["src/kernel/"],
        "its order differs from run to run; plans are equal byte for byte",
    ),
    (
        "HashSet",
        &["src/kernel/"],
        "its order differs from run to run; plans are equal byte for byte",
    ),
];

fn only_in_its_place(file: &File) -> Vec<String> {
    let code = code(&file.text);
    let mut complaints = Vec::new();
    for (what, places, reason) in ONLY_IN {
        let allowed = places.iter().any(|place| file.path.starts_with(place));
        if allowed {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            let word = |at: usize| {
                let before = line[..at].chars().next_back();
                let after = line[at + what.len()..].chars().next();
                let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                !part(before) && !part(after)
            };
            if line.match_indices(what).any(|(at, _)| word(at)) {
                complaints.push(format!("line {}: {what}: {reason}", number + 1));
            }
        }
    }
    complaints
}

/// Every unsafe block says why it is sound, right above it.
fn unsafe_without_proof(file: &File) -> Vec<String> {
    let code = code(&file.text);
    let lines: Vec<&str> = file.text.lines().collect();
    let unsafes = code
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("unsafe {") || line.contains("unsafe impl"));
    let proved = |number: usize| {
        let above = lines[..number].iter().rev().take_while(|line| {
            let line = line.trim_start();
            line.starts_with("//") || !(line.ends_with(';') || line.ends_with('}'))
        });
        above.take(8).any(|line| line.trim_start().starts_with("// SAFETY: "))
    };
    unsafes
        .filter(|(number, _)| !proved(*number))
        .map(|(number, _)| format!("line {}: unsafe without a SAFETY comment", number + 1))
        .collect()
}

fn purpose(file: &File) -> Vec<String> {
    let first = file.text.lines().next().unwrap_or_default();
    let included = first.starts_with("#![doc = include_str!(");
    let stated = included || first.starts_with("//! ");
    if stated {
        Vec::new()
    } else {
        vec!["the first line does not say what the file is for".into()]
    }
}

fn size(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines = file.text.lines().count();
    if lines > FILE_LINES_MAX {
        complaints.push(format!("{lines} lines; at most {FILE_LINES_MAX}"));
    }
    for (name, first, lines) in functions(&code(&file.text)) {
        if lines > FUNCTION_LINES_MAX {
            complaints.push(format!(
                "line {first}: {name} has {lines} lines; at most {FUNCTION_LINES_MAX}"
            ));
        }
    }
    complaints
}

fn naming(file: &File) -> Vec<String> {
    let parts = file.path.split(['/', '.']);
    let bad = parts.filter(|part| NAMES.contains(part));
    bad.map(|part| format!("`{part}` does not say what is inside")).collect()
}

#[test]
fn things_are_where_they_belong() {
    try_on(&["src"], only_in_its_place);
    for text in [
        "let x = unsafe { f() };",
        "std::process::Command::new(\"ip\")",
        "println!(\"x\")",
        "use std::env::var;",
        "    todo!()",
        "std::process::exit(1)",
        "use std::collections::HashMap;",
    ] {
        assert!(!said(only_in_its_place, "src/plan/mod.rs", text).is_empty(), "{text}");
    }
    for text in ["// println!", "let a = \"unsafe\";", "struct MyHashMap;", "let unsafely = 1;"] {
        assert_eq!(said(only_in_its_place, "src/plan/mod.rs", text), [""; 0], "{text}");
    }
    assert!(!said(only_in_its_place, "src/cli/mod.rs", "eprintln!()").is_empty());
    assert_eq!(said(only_in_its_place, "src/cli/mod.rs", "use std::env;"), [""; 0]);
    assert_eq!(said(only_in_its_place, "src/kernel/bpf.rs", "unsafe {}"), [""; 0]);
}

#[test]
fn unsafe_is_proved() {
    try_on(&["src", "tests"], unsafe_without_proof);
    let bad = "fn f() {\n    // It is fine.\n    unsafe { g() }\n}\n";
    assert_eq!(said(unsafe_without_proof, "x", bad).len(), 1);
    let far = "// SAFETY: of another one.\nlet a = unsafe { g() };\nlet b = unsafe { g() };\n";
    assert_eq!(said(unsafe_without_proof, "x", far).len(), 1);
    let good = "// SAFETY: g asks\n// for nothing.\nlet a = unsafe { g() };\n";
    assert_eq!(said(unsafe_without_proof, "x", good), [""; 0]);
}

#[test]
fn files_say_what_they_are_for() {
    try_on(&["src", "tests", "benches"], purpose);
    assert_eq!(said(purpose, "x", "use std::fmt;\n").len(), 1);
    assert_eq!(said(purpose, "x", "//! What it is for.\n"), [""; 0]);
}

#[test]
fn files_and_functions_are_short() {
    try_on(&["src", "tests", "benches"], size);
    let long = |lines: usize| format!("fn f() {{\n{}}}\n", "    x();\n".repeat(lines));
    assert_eq!(said(size, "x", &long(FUNCTION_LINES_MAX)).len(), 1);
    assert_eq!(said(size, "x", &long(FUNCTION_LINES_MAX - 2)), [""; 0]);
    assert_eq!(said(size, "x", &"\n".repeat(FILE_LINES_MAX + 1)).len(), 1);
    let mut lengths: Vec<usize> =
        files("src").iter().map(|file| file.text.lines().count()).collect();
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median < FILE_LINES_MEDIAN, "half of the files have {median} lines or more");
}

#[test]
fn names_say_what_is_inside() {
    try_on(&["src", "tests", "benches"], naming);
    assert_eq!(said(naming, "src/util.rs", "").len(), 1);
    assert_eq!(said(naming, "src/helpers/x.rs", "").len(), 1);
    assert_eq!(said(naming, "src/scoreboard/hardcore_utility.rs", ""), [""; 0]);
}
