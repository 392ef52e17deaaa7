//! The command line as an operator meets it, as far as it needs no kernel and no root: whole outputs,
//! exit codes, colours, pipes.
//!
//! Snapshots are `tests/cli/<name>.txt`; `UPDATE_EXPECT=1` rewrites them. They are read in review as
//! texts that somebody will have to understand at three in the morning.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const GOOD: &str = "tests/cli/configs/good";
const BAD: &str = "tests/cli/configs/bad.toml";

/// Every command that has a help text.
const COMMANDS: &[&str] = &[
    "check",
    "plan",
    "apply",
    "run",
    "reload",
    "status",
    "get",
    "bpf",
    "bpf endpoint",
    "bpf ct",
    "bpf ct flush",
    "bpf ct list",
    "bpf endpoint list",
    "bpf ipcache list",
    "bpf tunnel list",
    "bpf lb",
    "bpf lb list",
    "bpf metrics list",
    "monitor",
    "destroy",
    "schema",
    "completion",
    "manual",
    "cat-config",
    "version",
    "wireguard",
    "wireguard pubkey",
    "wireguard rotate",
];

/// The program, with nothing of the tester's environment but a terminal of 100 columns.
fn ciliate(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ciliate"));
    command.args(arguments.split_whitespace()).env_clear().env("COLUMNS", "100");
    command
}

fn run(arguments: &str) -> Output {
    ciliate(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A command and all that came of it. What differs from build to build is left out.
fn transcript(arguments: &str) -> String {
    let output = run(arguments);
    let mut text = format!("$ ciliate {arguments}\n{}", stdout(&output));
    let errors = stderr(&output);
    if !errors.is_empty() {
        text += &format!("--- stderr ---\n{errors}");
    }
    text += &format!("--- exit code {} ---\n", output.status.code().unwrap());
    let version = env!("CARGO_PKG_VERSION");
    text.replace(version, "VERSION").split_inclusive('\n').map(without_digests).collect()
}

/// The line with every run of 16 hexadecimal digits named as what it is.
fn without_digests(line: &str) -> String {
    let mut parts: Vec<&str> = line.split([' ', '"', '\n', ',']).collect();
    parts.retain(|part| part.len() == 16 && part.bytes().all(|b| b.is_ascii_hexdigit()));
    parts.iter().fold(line.to_owned(), |line, digest| line.replace(digest, "DIGEST"))
}

/// Compares, or rewrites.
fn expect(name: &str, commands: &[&str]) {
    let found = commands.iter().map(|c| transcript(c)).collect::<Vec<_>>().join("\n");
    let file = Path::new("tests/cli").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&file, &found).unwrap();
        return;
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{}: found\n{found}\ninstead of\n{expected}", file.display());
}

#[test]
fn help() {
    expect("help", &["--help", "-h"]);
    for command in COMMANDS {
        expect(&format!("help-{}", command.replace(' ', "-")), &[&format!("{command} --help")]);
    }
}

#[test]
fn every_command_is_in_the_list_of_helps() {
    let help = stdout(&run("-h"));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| {
        line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next()
    });
    let names: Vec<&str> = names.filter(|name| *name != "help").collect();
    assert!(names.len() >= 12, "{names:?}");
    for name in names {
        assert!(COMMANDS.contains(&name), "{name} has no snapshot of its help");
    }
}

#[test]
fn check() {
    expect(
        "check",
        &[
            &format!("check -c {GOOD}"),
            &format!("check -c {GOOD} -o json"),
            &format!("-c {BAD} check"),
            &format!("check --config {BAD} --output json"),
        ],
    );
}

#[test]
fn check_of_what_cannot_be_read() {
    expect(
        "check-unreadable",
        &[
            "check -c tests/cli/configs/none.toml",
            "check -c /proc/self/mem",
            "check -c /dev/zero/x",
        ],
    );
}

#[test]
fn other_commands_refuse_a_bad_configuration_alike() {
    expect("refused", &[&format!("plan -c {BAD}"), &format!("run -c {BAD}")]);
    for command in ["plan", "apply", "run", "get peers", "bpf endpoint list"] {
        let output = run(&format!("{command} -c {BAD}"));
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert_eq!(stderr(&output), stderr(&run(&format!("check -c {BAD}"))), "{command}");
        assert_eq!(stdout(&output), "", "{command}");
    }
}

#[test]
fn cat_config() {
    expect("cat-config", &[&format!("cat-config -c {GOOD}"), &format!("cat-config -c {BAD}")]);
}

#[test]
fn version() {
    expect("version", &["version", "version -o json", "--version"]);
}

#[test]
fn wrong_arguments() {
    let commands = [
        "",
        "frobnicate",
        "chekc",
        "check --outptu json",
        "plan -o yaml",
        "get pods",
        "run --resync 0",
        "destroy --bpf /sys/fs/bpf/x",
        "completion tcsh",
        "apply a b",
    ];
    expect("wrong-arguments", &commands);
    for command in commands {
        let output = run(command);
        assert_eq!(output.status.code(), Some(64), "ciliate {command}");
        assert_eq!(stdout(&output), "", "ciliate {command}: complaints go to standard error");
    }
}

#[test]
fn schema_is_json_schema() {
    let output = run("schema");
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"));
    for section in ["node", "peer", "endpoint", "routing"] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}

#[test]
fn json_output_is_versioned() {
    for command in [format!("check -o json -c {GOOD}"), format!("check -o json -c {BAD}")] {
        let value: serde_json::Value = serde_json::from_slice(&run(&command).stdout).unwrap();
        assert_eq!(value["format_version"], 1, "{command}");
    }
}

#[test]
fn completion_knows_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&format!("completion {shell}"));
        assert_eq!(output.status.code(), Some(0));
        let script = stdout(&output);
        for command in COMMANDS.iter().filter(|command| !command.contains(' ')) {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn colour_is_for_terminals_or_on_request() {
    let escape = |output: &Output| output.stderr.contains(&0x1b);
    let check = |more: &str| format!("check -c {BAD} {more}");
    assert!(!escape(&run(&check(""))), "a pipe is no terminal");
    assert!(escape(&run(&check("--color always"))));
    assert!(!escape(&run(&check("--color never"))));
    let asked = ciliate(&check("--color always")).env("NO_COLOR", "1").output().unwrap();
    assert!(escape(&asked), "what is asked for on the command line comes first");
    let plain = strip(&stderr(&run(&check("--color always"))));
    assert_eq!(plain, stderr(&run(&check(""))), "colours are the only difference");
}

/// Without escape sequences that end in `m`.
fn strip(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for command in ["schema", "completion bash", "completion zsh", &format!("cat-config -c {GOOD}")]
    {
        let mut child = ciliate(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // As `| head -1` does: one byte, then nobody reads.
        let mut first = [0];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(stderr(&output), "", "{command}");
        assert_eq!(output.status.code(), Some(0), "{command}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let check = format!("check -c {GOOD}");
    for command in ["schema", "completion bash", "--help", "plan --help", "--version", &check] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = ciliate(command).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}");
        let told = "error: write to standard output: No space left on device";
        assert!(stderr(&output).starts_with(told), "{command}: {}", stderr(&output));
    }
}
