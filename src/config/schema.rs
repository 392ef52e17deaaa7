//! JSON Schema of the configuration file, from the types of [`super::document`].
//!
//! Pure; imports only its siblings.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::document::Root;

/// Identifies the schema; names no host, so that no editor looks for it on the network.
pub const SCHEMA_ID: &str = "urn:ciliate:configuration";

/// The schema, draft 2020-12, without references: as `ciliate schema` prints it.
pub fn schema() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Root>().to_value();
    without_null(&mut schema);
    if let Value::Object(root) = &mut schema {
        root.insert("$id".to_owned(), json!(SCHEMA_ID));
        root.insert("title".to_owned(), json!("ciliate configuration"));
    }
    schema
}

/// Removes `null` and Rust's widths of integers, neither of which TOML has.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(mut branches)) = object.remove("anyOf") {
                branches.retain(|branch| branch.get("type").is_none_or(|kind| kind != "null"));
                if branches.len() > 1 {
                    // Text or a table: that is TOML's as well.
                    object.insert("anyOf".to_owned(), Value::Array(std::mem::take(&mut branches)));
                }
                // The section's own description is shorter than that of its field: keep the field's.
                for (key, value) in branches.into_iter().filter_map(into_object).flatten() {
                    object.entry(key).or_insert(value);
                }
            }
            object.retain(|key, value| key != "format" && !(key == "default" && value.is_null()));
            object.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

fn into_object(value: Value) -> Option<serde_json::Map<String, Value>> {
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}
