//! What every key of the configuration is: sections, types, defaults and meanings, from the schema.
//!
//! Pure; imports its siblings. `config/README.md` and the manual page ciliate.toml(5) are written from it.
//! Texts have code between backticks.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::schema;

/// The order of sections in a file; tables in arrays come last.
const ORDER: &[&str] = &[
    "node",
    "routing",
    "masquerade",
    "datapath",
    "conntrack",
    "health",
    "encryption",
    "load-balancing",
    "paths",
    "peer",
    "endpoint",
    "service",
];

/// A section, or a table in an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// As it is written: `[node]`, `[[peer]]`.
    pub header: String,
    pub about: String,
    pub keys: Vec<Key>,
}

/// A key of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub name: String,
    /// What its value is, in words.
    pub kind: String,
    /// `required`, the value, how it is found, or empty where there is none.
    pub default: String,
    pub meaning: String,
}

/// Every section with its keys.
///
/// # Panics
/// A section of the schema has no place in the order, which a test would have told.
pub fn reference() -> Vec<Section> {
    let schema = schema();
    let all = of(&schema);
    assert_eq!(all.len(), ORDER.len(), "a section has no place in the order");
    let mut sections = Vec::new();
    for name in ORDER {
        section(name, &all[*name], &mut sections);
    }
    sections
}

/// One section, and after it the tables in it that have a header of their own.
fn section(name: &str, schema: &Value, sections: &mut Vec<Section>) {
    let Some(items) = schema.get("items") else {
        return sections.push(described(format!("[{name}]"), schema, schema));
    };
    let (inner, plain): (Map<String, Value>, Map<String, Value>) =
        of(items).into_iter().partition(|(_, schema)| has_header(schema));
    let mut own = items.clone();
    own["properties"] = Value::Object(plain.clone());
    sections.push(described(format!("[[{name}]]"), &own, schema));
    for (key, schema) in &plain {
        let Some(table) = table_form(schema) else { continue };
        let mut own = described(format!("{key} = [{{ … }}]"), table, table);
        own.about = format!(
            "An entry of `{key}` of `[[{name}]]`, where it says more than an address and port."
        );
        sections.push(own);
    }
    for (key, schema) in inner {
        section(&format!("{name}.{key}"), &schema, sections);
    }
}

fn described(header: String, schema: &Value, about: &Value) -> Section {
    let about = about["description"].as_str().unwrap_or_default().replace('\n', " ");
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let keys = of(schema).into_iter().map(|(name, schema)| {
        let required = required.contains(&Value::from(name.as_str()))
            || (header.as_str(), name.as_str()) == ("[node]", "cidrs");
        let (meaning, default) = meaning(&schema, required);
        Key { kind: kind(&schema), name, default, meaning }
    });
    let keys = keys.collect();
    Section { header, about, keys }
}

/// Whether a key is a table, or a list of tables, with a header of its own.
fn has_header(schema: &Value) -> bool {
    schema["items"]["type"] == "object" || schema["properties"].is_object()
}

/// The table that an entry of a list may be instead of text.
fn table_form(schema: &Value) -> Option<&Value> {
    let forms = schema["items"]["anyOf"].as_array()?;
    forms.iter().find(|form| form["type"] == "object")
}

fn of(schema: &Value) -> Map<String, Value> {
    schema["properties"].as_object().cloned().unwrap_or_default()
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
    let (mut text, default) = match text.rsplit_once(" Default: ") {
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
    for branch in branches() {
        let said = branch["description"].as_str().unwrap_or_default().trim_end_matches('.');
        let said = said.trim_end_matches("; the default");
        let _ = write!(text, " `{}`: {said}.", branch["const"].as_str().unwrap_or_default());
    }
    (text, default)
}
