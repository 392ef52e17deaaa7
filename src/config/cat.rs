//! The merged document as TOML again or as JSON, with the place every key comes from.
//!
//! Pure; imports only its siblings.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::load::Document;
use super::merge::Merged;
use super::shape::Shape;
use super::span::{Sources, Span};
use super::syntax;

/// Writes the document as one file: each section once, with its keys in the order in which they were
/// written, and above each key a comment that names its file and line. Reads back as an equal document.
/// What is wrong (see [`Document::problems`]) is left out.
pub fn cat_config(document: &Document) -> String {
    let sources = document.sources();
    let merged = merged(sources);
    let mut out = String::new();
    for (name, value) in in_order(merged.tree()) {
        match value.get_ref() {
            DeValue::Table(table) => {
                section(&mut out, sources, &format!("[{name}]"), value.into(), table);
            }
            DeValue::Array(items) => {
                for item in items {
                    if let DeValue::Table(table) = item.get_ref() {
                        section(&mut out, sources, &format!("[[{name}]]"), item.into(), table);
                    }
                }
            }
            _ => {}
        }
    }
    out
}

/// A key of the merged document.
#[derive(Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Names of tables and keys, and numbers of entries of lists, from the outside in.
    pub path: Vec<Value>,
    pub value: Value,
    pub file: String,
    /// 1 for the first.
    pub line: usize,
}

/// The same document as a list of its keys, in the same order.
pub fn entries(document: &Document) -> Vec<Entry> {
    let sources = document.sources();
    let mut found = Vec::new();
    collect(&mut found, sources, &[], merged(sources).tree());
    found
}

fn merged(sources: &Sources) -> Merged<'_> {
    let shape = Shape::of_document();
    let mut merged = Merged::default();
    for tree in sources.iter().filter_map(|source| syntax::parse(source).ok()) {
        // What is found here has been found by `load` already.
        merged.add(shape.fit(tree, &mut Vec::new(), &mut BTreeSet::new()));
    }
    merged
}

fn collect(found: &mut Vec<Entry>, sources: &Sources, outer: &[Value], table: &DeTable<'_>) {
    let inner = |more: &[Value]| [outer, more].concat();
    for (key, value) in in_order(table) {
        match value.get_ref() {
            DeValue::Table(table) => collect(found, sources, &inner(&[key.into()]), table),
            DeValue::Array(items) if is_tables(value.get_ref()) => {
                for (number, item) in items.iter().enumerate() {
                    let DeValue::Table(table) = item.get_ref() else { continue };
                    collect(found, sources, &inner(&[key.into(), number.into()]), table);
                }
            }
            leaf => {
                let Some(place) = sources.resolve(value.into()) else { continue };
                let file = place.source.path().display().to_string();
                let (path, value) = (inner(&[key.into()]), json(leaf));
                found.push(Entry { path, value, file, line: place.line });
            }
        }
    }
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(switch) => Value::from(*switch),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let entries = in_order(table).into_iter();
            entries.map(|(key, value)| (key.to_owned(), json(value.get_ref()))).collect()
        }
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            number.map_or(Value::Null, Value::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Datetime(time) => Value::from(time.to_string()),
    }
}

/// A table's entries by place: sections of one file stay in the order of that file.
fn in_order<'a>(table: &'a DeTable<'_>) -> Vec<(&'a str, &'a Spanned<DeValue<'a>>)> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| (key.span().start, key.get_ref().as_ref(), value))
        .collect();
    entries.sort_by_key(|&(start, ..)| start);
    entries.into_iter().map(|(_, key, value)| (key, value)).collect()
}

fn section(out: &mut String, sources: &Sources, header: &str, span: Span, table: &DeTable<'_>) {
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "{}\n{header}", comment(sources, span));
    // Tables of their own come last: what follows a header is part of that table.
    let (tables, values): (Vec<_>, Vec<_>) =
        in_order(table).into_iter().partition(|(_, value)| is_tables(value.get_ref()));
    for (key, value) in values {
        let _ = write!(out, "{}\n{} = ", comment(sources, value.into()), key_text(key));
        value_text(out, value.get_ref());
        out.push('\n');
    }
    for (key, value) in tables {
        let header = header.replace("]]", &format!(".{key}]]"));
        for item in value.get_ref().as_array().into_iter().flatten() {
            if let DeValue::Table(table) = item.get_ref() {
                section(out, sources, &header, item.into(), table);
            }
        }
    }
}

/// Whether a value is what `[[…]]` makes.
fn is_tables(value: &DeValue<'_>) -> bool {
    let items = value.as_array().filter(|items| !items.is_empty());
    items.is_some_and(|items| items.iter().all(|item| item.get_ref().is_table()))
}

/// The place as a comment; no file name can end it early.
fn comment(sources: &Sources, span: Span) -> String {
    format!("# {}", sources.name(span).replace(char::is_control, "?"))
}

fn value_text(out: &mut String, value: &DeValue<'_>) {
    let _ = match value {
        DeValue::String(text) => write!(out, "{}", quoted(text)),
        DeValue::Integer(number) => write!(out, "{number}"),
        DeValue::Float(number) => write!(out, "{number}"),
        DeValue::Boolean(switch) => write!(out, "{switch}"),
        DeValue::Datetime(time) => write!(out, "{time}"),
        DeValue::Array(entries) => {
            out.push('[');
            for (index, entry) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                value_text(out, entry.get_ref());
            }
            write!(out, "]")
        }
        DeValue::Table(table) => {
            out.push_str("{ ");
            for (index, (key, value)) in in_order(table).into_iter().enumerate() {
                let _ = write!(out, "{}{} = ", if index == 0 { "" } else { ", " }, key_text(key));
                value_text(out, value.get_ref());
            }
            write!(out, " }}")
        }
    };
}

fn key_text(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { quoted(key) }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
