//! Every type of error in the sources has a page, and what such types say inside of other messages is on it.

use std::fs;
use std::io;
use std::path::Path;

use ciliate::apply::ExecError;
use ciliate::facts::NetnsProblem;
use ciliate::kernel::netlink::NetlinkError;
use ciliate::kernel::netns::NetnsError;
use ciliate::kernel::private_key::KeyProblem;
use ciliate::monitor::RecordError;
use ciliate::net::KeyError;
use ciliate::plan::check::Broken;

use crate::text::{path, read};

/// What derives `thiserror::Error`, and its page. What only says why a value in a file is none has that of mistakes.
const TYPES: &[(&str, &str)] = &[
    ("BlockedReason", "underlay"),
    ("Broken", "plan"),
    ("EngineError", "plan"),
    ("ExecError", "kernel"),
    ("FileError", "configuration"),
    ("FolderError", "kubernetes"),
    ("IdentityError", "configuration"),
    ("IfNameError", "configuration"),
    ("KernelError", "kernel"),
    ("KeyError", "encryption"),
    ("KeyProblem", "encryption"),
    ("ListenError", "events"),
    ("MacError", "configuration"),
    ("NetlinkError", "kernel"),
    ("NetnsError", "kernel"),
    ("NetnsProblem", "endpoint"),
    ("RecordError", "events"),
    ("SavedPlanError", "plan"),
    ("StartError", "kubernetes"),
    ("Trouble", "configuration"),
    ("UnknownMap", "plan"),
];

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let file = entry.expect("an entry").path();
        if file.is_dir() {
            sources(&file, found);
        } else if file.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(&file).expect("a file"));
        }
    }
}

/// The types after each `thiserror::Error` of a file.
fn types_in(text: &str) -> Vec<String> {
    let after = text.split("thiserror::Error").skip(1);
    after
        .filter_map(|rest| {
            let mut words = rest.split(|c: char| !c.is_alphanumeric());
            words.find(|word| ["enum", "struct"].contains(word))?;
            Some(words.next()?.to_owned())
        })
        .collect()
}

#[test]
fn every_type_of_error_has_a_page() {
    let mut texts = Vec::new();
    sources(&path("src"), &mut texts);
    let mut found: Vec<String> = texts.iter().flat_map(|text| types_in(text)).collect();
    found.sort_unstable();
    let listed: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, listed);
    for (name, page) in TYPES {
        assert!(path(&format!("docs/errors/{page}.md")).exists(), "{name}: {page}");
    }
}

#[track_caller]
fn assert_said(page: &str, messages: impl IntoIterator<Item = String>) {
    let text = read(&format!("docs/errors/{page}.md"));
    for message in messages {
        assert!(text.contains(&message), "docs/errors/{page}.md does not have: {message}");
    }
}

#[test]
fn what_is_wrong_with_a_private_key() {
    let problems = [
        KeyProblem::Readable { mode: 0o640 },
        KeyProblem::NotRoots { uid: 1000 },
        KeyProblem::NotAFile,
        KeyProblem::NoKey(KeyError::NotBase64),
        KeyProblem::Credential,
        KeyProblem::TooLong,
    ];
    for problem in problems {
        match problem {
            KeyProblem::Readable { .. }
            | KeyProblem::NotRoots { .. }
            | KeyProblem::NotAFile
            | KeyProblem::NoKey(_)
            | KeyProblem::Credential
            | KeyProblem::TooLong => assert_said("encryption", [problem.to_string()]),
        }
    }
    for error in [KeyError::NotBase64, KeyError::Length(31), KeyError::Zero] {
        match error {
            KeyError::NotBase64 | KeyError::Length(_) | KeyError::Zero => {
                assert_said("encryption", [error.to_string()]);
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_namespace() {
    let problems = [
        NetnsProblem::NoSuchPath,
        NetnsProblem::NoSuchPid,
        NetnsProblem::NotANetns,
        NetnsProblem::IsNodesOwn,
        NetnsProblem::IsMachinesOwn,
        NetnsProblem::IsOf("web".into()),
    ];
    for problem in problems {
        match problem {
            NetnsProblem::NoSuchPath
            | NetnsProblem::NoSuchPid
            | NetnsProblem::NotANetns
            | NetnsProblem::IsNodesOwn
            | NetnsProblem::IsMachinesOwn
            | NetnsProblem::IsOf(_)
            // The kernel's words.
            | NetnsProblem::Refused(_) => assert_said("endpoint", [problem.to_string()]),
        }
    }
    for error in [NetnsError::Missing, NetnsError::NotANamespace, NetnsError::ThreadEnded] {
        match error {
            NetnsError::Missing
            | NetnsError::NotANamespace
            | NetnsError::ThreadEnded
            // The kernel's words.
            | NetnsError::Io(_) => assert_said("kernel", [error.to_string()]),
        }
    }
}

#[test]
fn what_is_wrong_with_an_answer_of_the_kernel() {
    let errors = [
        NetlinkError::Io(io::Error::from_raw_os_error(105)),
        NetlinkError::Interrupted,
        NetlinkError::Decode("a link without a name".into()),
    ];
    for error in errors {
        match error {
            NetlinkError::Io(_)
            | NetlinkError::Interrupted
            | NetlinkError::Decode(_)
            // With its number it is in the list of the kernel's errors.
            | NetlinkError::Kernel { .. } => assert_said("kernel", [error.to_string()]),
        }
    }
    let moved = ExecError::refused("no link", "link cilium_host");
    match moved {
        // Those of the kernel, as they are.
        ExecError::Failed { .. } | ExecError::Refused { .. } => {
            assert_said("kernel", [moved.to_string()]);
        }
    }
}

#[test]
fn what_is_wrong_with_a_plan() {
    let broken = [
        Broken::Foreign("link eth0".into()),
        Broken::RemovalBeforeAddition("route 10.244.1.0/24".into()),
        Broken::Expectation("link cilium_host".into()),
    ];
    for broken in broken {
        match broken {
            Broken::Foreign(_) | Broken::RemovalBeforeAddition(_) | Broken::Expectation(_) => {
                assert_said("plan", [broken.to_string()]);
            }
        }
    }
}

#[test]
fn what_is_wrong_with_an_event() {
    let errors = [
        RecordError::CutOff(7),
        RecordError::Type(200),
        RecordError::Version { event_type: 4, version: 9 },
    ];
    for error in errors {
        match error {
            RecordError::CutOff(_) | RecordError::Type(_) | RecordError::Version { .. } => {
                assert_said("events", [error.to_string()]);
            }
        }
    }
}

/// The adapter is another program: its messages are read from its sources, and of each the longest piece that is the
/// same each time is looked for.
#[test]
fn what_the_kubernetes_adapter_says() {
    let (main, folder) = (read("src/kubernetes/main.rs"), read("src/kubernetes/folder.rs"));
    let start = main.split("async fn connect").nth(1).and_then(|rest| rest.split("#[tokio").next());
    let of_start = start.expect("how it starts").split('"').skip(1).step_by(2);
    let of_folder =
        folder.split("#[error(").skip(1).map(|rest| rest.split('"').nth(1).expect("a message"));
    let messages: Vec<&str> = of_start.filter(|text| text.contains(' ')).chain(of_folder).collect();
    assert!(messages.len() > 12, "{messages:?}");
    for message in messages {
        let pieces = message.split(['{', '}']).step_by(2);
        let piece = pieces.max_by_key(|piece| piece.len()).expect("a piece");
        assert_said("kubernetes", [piece.to_owned()]);
    }
}
