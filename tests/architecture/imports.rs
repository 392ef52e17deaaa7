//! Who may not import whom, and why.

use super::code::code;
use super::{File, said, try_on};

/// `(whose path begins with, may not import, reason)`. Paths are below `src/`; imports are below
/// `crate::`.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("net.rs", &[""], "every stage shares it; it stands on nothing"),
    (
        "bpf_abi",
        &["config", "intent", "kinds", "kernel", "lower"],
        "C and Rust share it; it stands on nothing",
    ),
    (
        "bpf_objects.rs",
        &["config", "intent", "kinds", "kernel", "lower"],
        "bytes and names, no more",
    ),
    (
        "report",
        &["config", "intent", "kinds", "kernel", "lower", "observe", "apply"],
        "the daemon's clients read it too",
    ),
    (
        "config",
        &[
            "intent", "lower", "kinds", "observe", "plan", "apply", "kernel", "engine", "daemon",
            "bpf",
        ],
        "a document is text and places; what it means is the next stage's",
    ),
    (
        "intent",
        &["lower", "kinds", "observe", "plan", "apply", "kernel", "engine", "daemon", "bpf"],
        "what an operator asked for does not depend on the machine",
    ),
    (
        "facts.rs",
        &["config", "intent", "lower", "observe", "plan", "apply", "kernel", "engine", "daemon"],
        "pure: what the machine is like, not how it is found out",
    ),
    (
        "lower",
        &["config", "observe", "plan", "apply", "kernel", "engine", "daemon", "report"],
        "pure: values in, values out; what the machine is like comes in as facts",
    ),
    (
        "kinds",
        &["config", "intent", "lower", "plan", "engine", "daemon", "report"],
        "a kind knows its object, not who asks for it",
    ),
    (
        "plan",
        &["config", "intent", "lower", "observe", "apply", "kernel", "engine", "daemon"],
        "pure: no choice is left to whoever carries a plan out, and none is made by looking",
    ),
    (
        "observe",
        &["config", "plan", "apply", "engine", "daemon", "report"],
        "it reads, and nothing else",
    ),
    (
        "apply",
        &["config", "intent", "facts", "lower", "observe::facts", "engine", "daemon"],
        "it decides nothing: all it needs is in the plan",
    ),
    (
        "kernel",
        &[
            "config", "intent", "lower", "kinds", "observe", "plan", "apply", "report", "engine",
            "daemon",
        ],
        "system calls, for whoever wants them",
    ),
    (
        "monitor",
        &["config", "lower", "kinds", "observe", "apply", "kernel", "engine", "daemon", "report"],
        "pure: what a record says does not depend on the machine that reads it",
    ),
    (
        "listen",
        &[
            "config", "intent", "lower", "kinds", "observe", "plan", "apply", "engine", "daemon",
            "monitor", "report",
        ],
        "it brings records; what they mean is for whoever asked",
    ),
    ("engine.rs", &["daemon"], "command line and daemon use it"),
    ("daemon", &["apply", "observe"], "it goes through `engine`, as the command line does"),
    ("", &["cli"], "only `main` runs the command line"),
];

/// Of `kinds`, what only files that touch the kernel may import.
const KERNEL_SIDE: &[&str] = &["kernel", "observe", "apply"];

/// Everything of the crate that a text names: `crate::a::b`, groups spelt out one level deep.
fn imports(text: &str) -> Vec<String> {
    let code = code(text);
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let end = rest.find(|c| !path(c)).unwrap_or(rest.len());
        let stem = rest[..end].trim_end_matches("::");
        if rest[end..].starts_with('{') {
            let group = rest[end + 1..].split('}').next().unwrap_or_default();
            let items = group.split(',').map(str::trim).filter(|item| !item.is_empty());
            found.extend(items.map(|item| match stem {
                "" => item.to_string(),
                stem => format!("{stem}::{}", item.trim_start_matches("self")),
            }));
        } else {
            found.push(stem.to_string());
        }
    }
    found
}

fn is_below(import: &str, module: &str) -> bool {
    import == module || import.starts_with(&format!("{module}::")) || module.is_empty()
}

fn touches_the_kernel(path: &str) -> bool {
    path.ends_with("/exec.rs") || path.contains("/exec/")
}

fn forbidden(file: &File) -> Vec<String> {
    let path = file.path.strip_prefix("src/").unwrap_or(&file.path);
    let mut complaints = Vec::new();
    for import in imports(&file.text) {
        for (module, barred, reason) in FORBIDDEN {
            let own = module.trim_end_matches(".rs");
            let own_file = match own {
                "" => path.starts_with("cli/"),
                own => is_below(&import, own),
            };
            let applies = path.starts_with(module) && !own_file;
            if applies && barred.iter().any(|module| is_below(&import, module)) {
                complaints.push(format!("imports {import}: {reason}"));
            }
        }
        let kernel_side = KERNEL_SIDE.iter().any(|module| is_below(&import, module));
        if path.starts_with("kinds/") && kernel_side && !touches_the_kernel(path) {
            complaints.push(format!("imports {import}: only the exec.rs of a kind may"));
        }
    }
    complaints
}

#[test]
fn nobody_imports_what_is_forbidden() {
    try_on(&["src"], forbidden);
}

#[test]
fn forbidden_imports_are_found() {
    for (path, text) in [
        ("src/net.rs", "use crate::config::Span;"),
        ("src/config/load.rs", "use crate::intent;"),
        ("src/intent/mod.rs", "use crate::{config::Span, kinds::Op};"),
        ("src/lower/node.rs", "use crate::kernel::Kernel;"),
        ("src/lower/node.rs", "use crate::observe::{Facts, observe};"),
        ("src/plan/mod.rs", "fn f() { crate::apply::apply() }"),
        ("src/kinds/route/mod.rs", "use crate::kernel::netlink::Request;"),
        ("src/kinds/route/message.rs", "use crate::observe::Round;"),
        ("src/kinds/bpf_link/executable.rs", "use crate::kernel::Kernel;"),
        ("src/kinds/route/exec.rs", "use crate::plan::Plan;"),
        ("src/daemon/mod.rs", "use crate::cli::Output;"),
        ("src/daemon/mod.rs", "use crate::apply::apply;"),
        ("src/engine.rs", "use crate::cli;"),
        ("src/kernel/bpf.rs", "use crate::kinds::route;"),
    ] {
        assert!(!said(forbidden, path, text).is_empty(), "{path}: {text}");
    }
    for (path, text) in [
        ("src/kinds/route/exec.rs", "use crate::kernel::Kernel;"),
        ("src/kinds/bpf_link/exec/filter.rs", "use crate::kernel::Kernel;"),
        ("src/kinds/route/mod.rs", "// crate::kernel\nuse crate::net::IfName;"),
        ("src/lower/node.rs", "use crate::facts::Facts;"),
        ("src/cli/apply.rs", "use crate::cli::Output;\nuse crate::engine;"),
        ("src/plan/mod.rs", "#[cfg(test)]\nmod tests { use crate::kernel::Kernel; }"),
    ] {
        assert_eq!(said(forbidden, path, text), [""; 0], "{path}: {text}");
    }
}

#[test]
fn groups_are_spelt_out() {
    let found =
        imports("use crate::observe::{Facts, self};\nuse crate::{a, b::c};\ncrate::d::e(1)");
    assert_eq!(found, ["observe::Facts", "observe::", "a", "b::c", "d::e"]);
}
