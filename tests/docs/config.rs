//! `config/`: the annotated default file and the reference, against the published schema.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;

use ciliate::config::{Document, render, schema};
use ciliate::intent::{self, Intent};
use serde_json::{Map, Value};

use crate::text::{path, read};

const BEGIN: &str = "<!-- generated: UPDATE_EXPECT=1 cargo test --test docs -->\n";
const END: &str = "<!-- end of the generated part -->\n";

fn of(schema: &Value) -> Map<String, Value> {
    schema["properties"].as_object().cloned().unwrap_or_default()
}

/// The sections in the order of a file, each as it is written, with its keys.
fn sections() -> Vec<(String, Value)> {
    let order = ["node", "routing", "masquerade", "datapath", "conntrack", "health", "encryption"];
    let order = order.into_iter().chain(["load-balancing", "paths", "peer", "endpoint", "service"]);
    let all = of(&schema());
    assert_eq!(all.len(), order.clone().count(), "a section is missing here");
    let mut sections = Vec::new();
    for name in order {
        section(name, &all[name], &mut sections);
    }
    sections
}

/// The table that an entry of a list may be instead of text.
fn table_form(schema: &Value) -> Option<&Value> {
    let forms = schema["items"]["anyOf"].as_array()?;
    forms.iter().find(|form| form["type"] == "object")
}

/// One section, and after it the tables in it that have a header of their own.
fn section(name: &str, schema: &Value, sections: &mut Vec<(String, Value)>) {
    let Some(items) = schema.get("items") else {
        return sections.push((format!("[{name}]"), schema.clone()));
    };
    let mut items = items.clone();
    items["description"] = schema["description"].clone();
    let (inner, plain): (Map<String, Value>, Map<String, Value>) =
        of(&items).into_iter().partition(|(_, schema)| schema["items"]["type"] == "object");
    items["properties"] = Value::Object(plain.clone());
    sections.push((format!("[[{name}]]"), items));
    for (key, schema) in &plain {
        let Some(table) = table_form(schema) else { continue };
        let mut table = table.clone();
        table["description"] = Value::from(format!(
            "An entry of `{key}` of `[[{name}]]`, where it says more than an address and port."
        ));
        sections.push((format!("{key} = [{{ … }}]"), table));
    }
    for (key, schema) in inner {
        section(&format!("{name}.{key}"), &schema, sections);
    }
}

fn kind(schema: &Value) -> String {
    let choices: Vec<String> = (schema["oneOf"].as_array().into_iter().flatten())
        .filter_map(|branch| branch["const"].as_str())
        .map(|choice| format!("`\"{choice}\"`"))
        .collect();
    match (schema["type"].as_str(), &schema["minimum"], &schema["maximum"]) {
        _ if !choices.is_empty() => choices.join(", "),
        (_, Value::Number(min), Value::Number(max)) => format!("number, {min} to {max}"),
        (Some("array"), ..) if table_form(schema).is_some() => "list of text and tables".into(),
        (Some("array"), ..) if schema["items"]["type"] == "integer" => "list of numbers".into(),
        (Some("array"), ..) => "list of text".into(),
        (Some("object"), ..) => "table of text".into(),
        (Some("boolean"), ..) => "`true`, `false`".into(),
        _ => "text".into(),
    }
}

/// The meaning of a key and its default, which is the last sentence of its description.
fn meaning(schema: &Value, required: bool) -> (String, String) {
    let text = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
    let (text, default) = match text.rsplit_once(" Default: ") {
        Some((text, default)) => (text.to_owned(), default.trim_end_matches('.').to_owned()),
        None => (text, String::new()),
    };
    let branches = || schema["oneOf"].as_array().into_iter().flatten();
    let is_default = |branch: &&Value| {
        branch["description"].as_str().is_some_and(|text| text.ends_with("; the default."))
    };
    let default = match branches().find(is_default).and_then(|branch| branch["const"].as_str()) {
        _ if required => "required".into(),
        Some(choice) => choice.to_owned(),
        None => default,
    };
    let mut text = text.replace('|', "\\|");
    for branch in branches() {
        let said = branch["description"].as_str().unwrap_or_default().trim_end_matches('.');
        let said = said.trim_end_matches("; the default");
        let _ = write!(text, " `{}`: {said}.", branch["const"].as_str().unwrap_or_default());
    }
    (text, default)
}

fn reference() -> String {
    let mut out = String::new();
    for (header, section) in sections() {
        let about = section["description"].as_str().unwrap_or_default().replace('\n', " ");
        let _ = write!(out, "\n### `{header}`\n\n{about}\n\n");
        out += "| key | type | default | meaning |\n|---|---|---|---|\n";
        let required = section["required"].as_array().cloned().unwrap_or_default();
        for (key, schema) in of(&section) {
            let required = required.contains(&Value::from(key.as_str()))
                || (header.as_str(), key.as_str()) == ("[node]", "cidrs");
            let (meaning, default) = meaning(&schema, required);
            let _ = writeln!(out, "| `{key}` | {} | {default} | {meaning} |", kind(&schema));
        }
    }
    out + "\n"
}

#[test]
fn the_reference_is_that_of_the_schema() {
    let text = read("config/README.md");
    let (before, rest) = text.split_once(BEGIN).expect("where the generated part begins");
    let (_, after) = rest.split_once(END).expect("where the generated part ends");
    let wanted = format!("{before}{BEGIN}{}{END}{after}", reference());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path("config/README.md"), wanted).expect("write");
    } else {
        assert!(text == wanted, "config/README.md is not up to date: run with UPDATE_EXPECT=1");
    }
}

/// The default file with its keys uncommented.
fn uncommented() -> String {
    let text = read("config/ciliate.toml");
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

fn intent(text: String) -> Intent {
    let document = Document::of_texts([("ciliate.toml", text)]);
    intent::read(&document)
        .unwrap_or_else(|problems| panic!("{}", render(document.sources(), &problems, false)))
}

#[test]
fn the_default_file_has_every_key_and_sets_none() {
    let text = read("config/ciliate.toml");
    let set: Vec<&str> = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    assert_eq!(set, Vec::<&str>::new());
    let file: toml::Table = toml::from_str(&uncommented()).expect("TOML");
    for (header, section) in sections() {
        if header == "backends = [{ … }]" {
            let tables = file["service"][0]["backends"].as_array().expect("a list");
            let table = tables.iter().find_map(toml::Value::as_table).expect("one that is a table");
            let written: BTreeSet<String> = table.keys().cloned().collect();
            assert_eq!(written, of(&section).keys().cloned().collect(), "{header}");
            continue;
        }
        let name = header.trim_matches(['[', ']']);
        let mut parts = name.split('.');
        let top = parts.next().expect("a name");
        let whole = &file[top];
        let mut table = whole.get(0).unwrap_or(whole);
        for part in parts {
            table = &table[part][0];
        }
        let table = table.as_table().expect("a table");
        let plain = |value: &toml::Value| value.get(0).is_none_or(|first| !first.is_table());
        let plain = table.iter().filter(|(_, value)| plain(value));
        let mut written: BTreeSet<String> = plain.map(|(key, _)| key.clone()).collect();
        if name == "endpoint" {
            // One of the two has to be given, and only one.
            written.insert("pid".into());
        }
        assert_eq!(written, of(&section).keys().cloned().collect(), "{header}");
    }
}

#[test]
fn the_default_file_shows_the_defaults() {
    let shown = intent(uncommented());
    let cidrs = "cidrs = [\"10.244.0.0/24\", \"fd00:10:244::/80\"]";
    let addresses = "addresses = [\"172.18.0.3\"]";
    let unset = intent(format!("[node]\n{cidrs}\n{addresses}\n"));
    assert_eq!(shown.node.routers, unset.node.routers);
    assert_eq!(shown.masquerade, unset.masquerade);
    assert_eq!(shown.datapath, unset.datapath);
    assert_eq!(shown.conntrack, unset.conntrack);
    assert_eq!(shown.load_balancing, unset.load_balancing);
    assert_eq!(
        shown.peers["node-b"].routers,
        ["10.244.1.1".parse::<IpAddr>().expect("an address")]
    );
    assert_eq!(shown.paths, unset.paths);
    let (shown, unset) = (shown.routing, unset.routing);
    assert_eq!(shown.mode, unset.mode);
    assert_eq!(shown.auto_direct_node_routes, unset.auto_direct_node_routes);
    assert_eq!(shown.native_cidrs, unset.native_cidrs);
    assert_eq!(shown.rule_priority, unset.rule_priority);
}
