//! TOML text → a tree in which every key and value knows its place among all files.
//!
//! Pure; imports only its siblings.

use std::mem;
use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::span::{Source, Span};

/// Most syntax errors reported for one file: after that many it is not TOML at all.
const ERRORS_MAX: usize = 20;

/// Parses one file.
///
/// # Errors
/// All syntax errors, up to a limit.
pub(super) fn parse(source: &Source) -> Result<DeTable<'_>, Vec<Diagnostic>> {
    let (tree, errors) = DeTable::parse_recoverable(source.text());
    if errors.is_empty() {
        return Ok(shifted_table(tree.into_inner(), source.base()));
    }
    let mut problems: Vec<Diagnostic> = Vec::new();
    for error in errors.iter().take(ERRORS_MAX) {
        let local = error.span().unwrap_or(0..0);
        let span = Span::from(local.start + source.base()..local.end + source.base());
        // After an error the parser may complain again about the same text.
        if problems
            .iter()
            .any(|earlier| earlier.span.end >= span.start && earlier.span.start <= span.end)
        {
            continue;
        }
        problems.push(explain(error.message(), span, &source.text()[source.local(span)]));
    }
    problems.sort_by_key(|problem| problem.span.start);
    Err(problems)
}

/// Puts the parser's words into an operator's.
fn explain(message: &str, span: Span, text: &str) -> Diagnostic {
    let what = message.split(", expected").next().unwrap_or(message);
    let problem = |message: &str, help: &str| Diagnostic::new(span, message).help(help);
    match what {
        "duplicate key" => problem(
            &format!("`{}` is written twice in this file", text.trim_matches(['"', '\''])),
            "keep one of the two; if this is a second section of the same name, join them",
        ),
        "string values must be quoted" => problem(
            "this is neither a number, true, false, nor a quoted text",
            &format!("put text in quotes: \"{text}\""),
        ),
        "unclosed array" => problem("this list is not closed", "close it with `]`"),
        "unclosed table" | "unclosed array table" => {
            problem("this section header is not closed", "write `[section]` or `[[section]]`")
        }
        "unclosed inline table" => problem("this inline table is not closed", "close it with `}`"),
        "missing comma between array elements" => {
            problem("a comma is missing before this", "separate the entries of a list with `,`")
        }
        "missing assignment between key-value pairs" | "key with no value" => {
            problem("this key has no value", "write `key = value`")
        }
        "missing value for key" | "missing value" => {
            problem("the value is missing", "write `key = value`, or remove the line")
        }
        "invalid basic string" | "invalid literal string" | "unclosed string" => problem(
            "this text is not closed",
            "close it with the quote it begins with, on the same line",
        ),
        "cannot recurse further; max recursion depth met" => {
            problem("this is nested too deeply", "nothing in a configuration is nested this deeply")
        }
        _ => Diagnostic::new(span, format!("this is not TOML: {message}")),
    }
}

fn shift<T>(value: Spanned<T>, base: usize) -> Spanned<T> {
    let Range { start, end } = value.span();
    Spanned::new(start + base..end + base, value.into_inner())
}

fn shifted_table(table: DeTable<'_>, base: usize) -> DeTable<'_> {
    let shifted = |(key, value)| (shift(key, base), shifted_value(value, base));
    table.into_iter().map(shifted).collect()
}

fn shifted_value(value: Spanned<DeValue<'_>>, base: usize) -> Spanned<DeValue<'_>> {
    let range = value.span();
    let value = match value.into_inner() {
        DeValue::Array(mut array) => {
            for element in array.iter_mut() {
                let empty = Spanned::new(0..0, DeValue::Boolean(false));
                *element = shifted_value(mem::replace(element, empty), base);
            }
            DeValue::Array(array)
        }
        DeValue::Table(table) => DeValue::Table(shifted_table(table, base)),
        scalar => scalar,
    };
    Spanned::new(range.start + base..range.end + base, value)
}
