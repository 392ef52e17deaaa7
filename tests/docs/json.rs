//! `docs/json.md`: its samples have the shape of what the program prints, and are read by its types.

use std::collections::BTreeMap;
use std::process::Command;

use ciliate::daemon::control::Status;
use ciliate::kinds::Op;
use ciliate::plan::SavedPlan;
use ciliate::report::Outcome;
use serde_json::{Value, json};

use crate::examples;
use crate::text::{blocks, read};

/// Command → sample.
fn samples() -> BTreeMap<String, Value> {
    let text = read("docs/json.md");
    let mut samples = BTreeMap::new();
    for section in text.split("\n## ").skip(1) {
        let heading = section.lines().next().unwrap_or_default().trim_matches('`');
        let Some(command) = heading.strip_prefix("ciliate ") else { continue };
        let sample = blocks(section, "json").remove(0);
        let value = serde_json::from_str(&sample).unwrap_or_else(|e| panic!("{heading}: {e}"));
        samples.insert(command.trim_end_matches(" -o json").to_owned(), value);
    }
    samples
}

/// A value without its content: kinds of scalars, the first entry of lists.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            object.iter().map(|(key, value)| (key.clone(), shape(value))).collect()
        }
        Value::Array(items) => items.iter().take(1).map(shape).collect(),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("truth"),
        Value::Null => Value::Null,
    }
}

fn same<T: serde::Serialize + serde::de::DeserializeOwned>(sample: &Value) {
    let read: T = serde_json::from_value(sample.clone()).expect("the type reads the sample");
    assert_eq!(&serde_json::to_value(&read).expect("JSON"), sample);
}

#[test]
fn samples_are_read_by_the_types() {
    let samples = samples();
    same::<SavedPlan>(&samples["plan"]);
    same::<SavedPlan>(&samples["apply"]["left"]);
    same::<Op>(&samples["apply"]["ops"][0]["op"]);
    same::<Outcome>(&samples["apply"]["ops"][0]["result"]);
    let mut status = samples["status"].clone();
    // What the command adds.
    for key in ["daemon", "daemon_state", "event_readers"] {
        status.as_object_mut().expect("an object").remove(key);
    }
    same::<Status>(&status);
}

#[test]
fn outcomes_have_the_described_keys() {
    let text = || "x".to_string();
    let failed = Outcome::Failed { error: text(), errno: Some(1) };
    let refused = Outcome::Refused { expected: text(), found: text() };
    let skipped = Outcome::Skipped { needs: text() };
    let values = [failed, refused, skipped].map(|o| serde_json::to_value(o).expect("JSON"));
    let wanted = [
        json!({"outcome": "failed", "error": "x", "errno": 1}),
        json!({"outcome": "refused", "expected": "x", "found": "x"}),
        json!({"outcome": "skipped", "needs": "x"}),
    ];
    assert_eq!(values, wanted);
}

fn printed(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_ciliate")).args(arguments).output();
    serde_json::from_slice(&output.expect("run ciliate").stdout).expect("JSON")
}

#[test]
fn diagnostics_and_version_have_the_shape_of_the_samples() {
    let samples = samples();
    let folder = tempfile::tempdir().expect("make a folder");
    let file = folder.path().join("wrong.toml");
    let text = "[node]\ncidr = [\"10.244.0.0/24\"]\n[routing]\nmode = \"native\"\n";
    std::fs::write(&file, text).expect("write");
    let path = file.display().to_string();
    let mut found = printed(&["-c", &path, "check", "-o", "json"]);
    found["diagnostics"][0]["file"] = json!("/etc/ciliate/ciliate.toml");
    assert_eq!(found, samples["check"]);
    assert_eq!(shape(&printed(&["version", "-o", "json"])), shape(&samples["version"]));
}

#[test]
fn the_merged_configuration_is_the_sample() {
    let folder = tempfile::tempdir().expect("make a folder");
    const PEER: &str = "[[peer]]\nname = \"node-b\"\naddresses = [\"172.18.0.2\"]\n\
         cidrs = [\"10.244.1.0/24\"]\n";
    let files =
        [("10-node.toml", "[node]\ncidrs = [\"10.244.0.0/24\"]\n"), ("20-peers.toml", PEER)];
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("write");
    }
    let path = folder.path().display().to_string();
    let mut found = printed(&["-c", &path, "cat-config", "-o", "json"]);
    for entry in found["entries"].as_array_mut().expect("a list") {
        let file = entry["file"].as_str().expect("a file").replace(&path, "/etc/ciliate/conf.d");
        entry["file"] = json!(file);
    }
    assert_eq!(found, samples()["cat-config"]);
}

/// What is compared by other tests.
const ELSEWHERE: &[&str] = &["cat-config", "check", "version", "plan", "monitor"];

/// The samples of events are fixtures of `monitor`, whose JSON its unit tests compare.
#[test]
fn events_are_those_of_the_fixtures() {
    let text = read("docs/json.md");
    let section = text.split("\n## ").find(|section| section.starts_with("`ciliate monitor"));
    let samples = blocks(section.expect("a section"), "json");
    let fixtures = ["trace-from-endpoint", "drop-not-ip", "capture-arp", "debug-local-delivery"];
    for (sample, name) in samples.iter().zip(fixtures) {
        let case: toml::Table =
            toml::from_str(&read(&format!("src/monitor/cases/{name}.toml"))).expect(name);
        let expected: Value = serde_json::from_str(case["json"].as_str().expect(name)).expect(name);
        assert_eq!(serde_json::from_str::<Value>(sample).expect(name), expected, "{name}");
    }
    let mut lost = String::new();
    ciliate::monitor::json::write_lost(&mut lost, 3, 17);
    let [sample] = &samples[fixtures.len()..] else { panic!("{} samples", samples.len()) };
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(read(sample), read(&lost));
}

/// What commands print with an example's configuration.
fn outputs_of(example: &str) -> Option<BTreeMap<String, Value>> {
    let configuration = crate::text::path("config/examples").join(example);
    let said = examples::converge_on_a_machine(&configuration)?;
    let outputs = said.split("=== ").skip(1).map(|part| {
        let (command, text) = part.split_once('\n').expect("an output");
        (command.to_owned(), serde_json::from_str(text).expect(command))
    });
    Some(outputs.collect())
}

#[test]
fn samples_have_the_shape_of_real_output() {
    let Some(mut outputs) = outputs_of("two-nodes/node-a.toml") else { return };
    // Two nodes on one wire have no tunnel.
    let command = "bpf tunnel list";
    let tunnels = outputs_of("tunnel/ciliate.toml").and_then(|mut all| all.remove(command));
    outputs.insert(command.into(), tunnels.expect(command));
    // And no services.
    let with_services = outputs_of("services/ciliate.toml").expect("outputs");
    let about_services =
        |command: &String| command.contains("services") || command.contains("bpf lb");
    outputs.extend(with_services.into_iter().filter(|(command, _)| about_services(command)));
    let samples = samples();
    for command in samples.keys().filter(|c| !ELSEWHERE.contains(&c.as_str())) {
        let mut output = outputs.remove(command.as_str()).expect(command);
        let mut sample = samples[command].clone();
        if command == "apply" {
            // What is in an op depends on its kind.
            for value in [&mut output, &mut sample] {
                value["ops"][0]["op"] = json!("op");
                value["left"]["blocked"] = json!([]);
            }
        }
        assert_eq!(shape(&output), shape(&sample), "{command}");
    }
    assert!(outputs.is_empty(), "not documented: {:?}", outputs.keys());
}
