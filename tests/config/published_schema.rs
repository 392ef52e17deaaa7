//! The published JSON Schema says what the program does.
//!
//! A small validator stands in for an editor's: it knows the keywords the schema uses, and fails on any
//! other. Of patterns it knows nothing: whatever fits the ones of names is tried on the program instead.

use ciliate::config::{Document, schema};
use ciliate::intent;
use proptest::prelude::*;
use proptest::string::string_regex;
use serde_json::{Value, json};

use crate::good_inputs::{CONTRACT, MINIMAL};

const KNOWN: &[&str] = &[
    "$schema",
    "$id",
    "title",
    "description",
    "type",
    "properties",
    "additionalProperties",
    "required",
    "items",
    "oneOf",
    "anyOf",
    "const",
    "enum",
    "minimum",
    "maximum",
    "pattern",
    "default",
];

fn complaints(schema: &Value, value: &Value, path: &str, out: &mut Vec<String>) {
    let keywords = schema.as_object().unwrap();
    for keyword in keywords.keys() {
        assert!(KNOWN.contains(&keyword.as_str()), "{path}: unknown keyword {keyword}");
    }
    let is_kind = match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("boolean") => value.is_boolean(),
        None => true,
        Some(other) => panic!("{path}: type {other}"),
    };
    let in_range = |key: &str, fits: fn(i64, i64) -> bool| {
        let bound = schema.get(key).and_then(Value::as_i64);
        bound.is_none_or(|bound| value.as_i64().is_none_or(|value| fits(value, bound)))
    };
    let listed = schema.get("enum").is_none_or(|list| list.as_array().unwrap().contains(value));
    let constant = schema.get("const").is_none_or(|constant| constant == value);
    if !is_kind
        || !in_range("minimum", |v, b| v >= b)
        || !in_range("maximum", |v, b| v <= b)
        || !listed
        || !constant
    {
        out.push(path.to_owned());
        return;
    }
    for keyword in ["oneOf", "anyOf"] {
        let Some(branches) = schema.get(keyword).and_then(Value::as_array) else { continue };
        let fits = |branch: &&Value| {
            let mut inner = Vec::new();
            complaints(branch, value, path, &mut inner);
            inner.is_empty()
        };
        // No two forms of a value fit at once.
        if branches.iter().filter(fits).count() != 1 {
            out.push(path.to_owned());
        }
    }
    for wanted in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if value.get(wanted.as_str().unwrap()).is_none() {
            out.push(format!("{path}.{}", wanted.as_str().unwrap()));
        }
    }
    // What is text or a table has no keys of its own.
    let table = value.as_object().filter(|_| schema.get("anyOf").is_none());
    for (key, inner) in table.into_iter().flatten() {
        let path = format!("{path}.{key}");
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Object(_)) => {
                complaints(&schema["additionalProperties"], inner, &path, out);
            }
            (Value::Null, _) => out.push(path),
            (known, _) => complaints(known, inner, &path, out),
        }
    }
    for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
        complaints(&schema["items"], inner, &format!("{path}[{index}]"), out);
    }
}

fn judge(text: &str) -> Vec<String> {
    let value = serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap();
    let mut out = Vec::new();
    complaints(&schema(), &value, "", &mut out);
    out
}

#[test]
fn good_files_fit_and_bad_ones_do_not() {
    assert_eq!(judge(CONTRACT), Vec::<String>::new());
    assert_eq!(judge(MINIMAL), Vec::<String>::new());
    let bad = "[node]\ncolour = 1\ncidrs = \"x\"\n[routing]\nmode = \"bridge\"\nmtu = 10\n[[peer]]\nname = \"x\"\naddresses = [1]\n";
    let expected = [
        ".node.cidrs",
        ".node.colour",
        ".peer[0].cidrs",
        ".peer[0].addresses[0]",
        ".routing.mode",
        ".routing.mtu",
    ];
    let mut found = judge(bad);
    found.sort();
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn what_the_schema_refuses_the_program_refuses() {
    for bad in [
        "[node]\ncolour = 1\n",
        "[node]\ncidrs = \"x\"\n",
        "[routing]\nmode = \"bridge\"\n",
        "[conntrack]\ntcp-max-entries = \"many\"\n",
        "[[peer]]\nname = \"x\"\n",
        "[[peer]]\nname = \"x\"\naddresses = []\ncidrs = []\n[[peer.endpoint]]\nname = \"y\"\n",
        "[[endpoint]]\nname = \"x\"\nlabels = { a = 1 }\n",
        "[load-balancing]\nmode = \"nat\"\n",
        "[load-balancing]\nnode-port-range = [\"1\", 2]\n",
        "[[service]]\nprotocol = \"TCP\"\n",
        "[[service]]\nname = \"x\"\nbackends = [1]\n",
        "[[service]]\nname = \"x\"\nbackends = [{ weight = 1 }]\n",
        "[[service]]\nname = \"x\"\nbackends = [{ address = \"10.0.0.1:80\", state = \"dead\" }]\n",
    ] {
        assert!(!judge(bad).is_empty(), "{bad}");
        let document = Document::of_texts([("x.toml", bad.to_owned())]);
        assert!(!document.problems().is_empty(), "{bad}");
    }
}

#[test]
fn editors_get_a_dialect_a_name_and_descriptions() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["$id"], "urn:ciliate:configuration");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["node"]["description"], "This host.");
    assert_eq!(
        schema["properties"]["peer"]["items"]["required"],
        json!(["name", "addresses", "cidrs"])
    );
    let mode = &schema["properties"]["datapath"]["properties"]["attach-mode"];
    assert_eq!(mode["oneOf"][1]["const"], "tcx");
    undescribed(&schema, "");
}

/// Every key has a description, and nothing of Rust shows.
fn undescribed(schema: &Value, path: &str) {
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        assert!(inner["description"].is_string(), "{path}");
        assert!(inner["type"].is_string() || inner["oneOf"].is_array(), "{path}: {inner}");
        assert!(
            inner.get("format").is_none() && inner.get("default").is_none_or(|d| !d.is_null()),
            "{path}"
        );
        undescribed(inner, &path);
        undescribed(&inner["items"], &path);
    }
}

/// Texts that fit the pattern of a key of `[[endpoint]]`.
fn fitting(key: &str) -> impl Strategy<Value = String> + use<> {
    let pattern = schema()["properties"]["endpoint"]["items"]["properties"][key]["pattern"].clone();
    string_regex(pattern.as_str().unwrap().trim_start_matches('^').trim_end_matches('$')).unwrap()
}

proptest! {
    #[test]
    fn what_fits_the_patterns_of_names_is_accepted(name in fitting("name"), ifname in fitting("ifname")) {
        prop_assume!(!["lo", ".", ".."].contains(&ifname.as_str()));
        let endpoint = format!("[[endpoint]]\nname = {name:?}\nifname = {ifname:?}\npid = 7\n");
        let document = Document::of_texts([("a.toml", MINIMAL.to_owned()), ("b.toml", endpoint)]);
        let intent = intent::read(&document).map_err(|problems| TestCaseError::fail(format!("{problems:?}")))?;
        prop_assert_eq!(intent.endpoints[name.as_str()].ifname.as_str(), ifname);
    }
}
