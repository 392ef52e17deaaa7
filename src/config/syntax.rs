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
    let is_unclosed_list =
        |message: &str| message.split(", expected").next() == Some("unclosed array");
    let unclosed_list = errors.iter().any(|error| is_unclosed_list(error.message()));
    let mut found: Vec<_> = errors
        .iter()
        .map(|error| Fault::new(source, error.message(), error.span().unwrap_or(0..0)))
        .collect();
    found.sort_by_key(|fault| fault.at.start);
    let mut problems: Vec<Diagnostic> = Vec::new();
    for fault in found.iter().take(ERRORS_MAX) {
        let (problem, is_last) = fault.explain(tree.get_ref(), unclosed_list);
        // After an error the parser may complain again about the same text.
        let again = problems.last().is_some_and(|last| last.span.end >= problem.span.start);
        if !again {
            problems.push(problem);
        }
        if is_last {
            break;
        }
    }
    Err(problems)
}

/// What can be made out of a file that may not be valid: a section by itself, by its `[header]`; or, where it has none
/// or is not valid either, all that the parser takes.
pub(super) fn recovered<'t>(source: &'t Source, header: &str) -> DeTable<'t> {
    let place = section(source.text(), header);
    let part = place
        .and_then(|place| parse_part(&source.text()[place.clone()], source.base() + place.start));
    part.unwrap_or_else(|| {
        let (tree, _) = DeTable::parse_recoverable(source.text());
        shifted_table(tree.into_inner(), source.base())
    })
}

/// The lines from a header to the next one, whatever is around them.
fn section(text: &str, header: &str) -> Option<Range<usize>> {
    let mut begin = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let is_header = line.trim_start().starts_with('[');
        match begin {
            Some(begin) if is_header => return Some(begin..at),
            None if line.split('#').next().is_some_and(|line| line.trim() == header) => {
                begin = Some(at);
            }
            _ => {}
        }
        at += line.len();
    }
    begin.map(|begin| begin..at)
}

/// Parses a part of a file that begins at `base`; `None` where it is not valid by itself.
pub(super) fn parse_part(text: &str, base: usize) -> Option<DeTable<'_>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    errors.is_empty().then(|| shifted_table(tree.into_inner(), base))
}

/// What the parser complains about, with the text around it.
struct Fault<'a> {
    source: &'a Source,
    /// In the file's text.
    at: Range<usize>,
    /// The parser's words, without the list of what it would have taken.
    what: &'a str,
    message: &'a str,
}

impl<'a> Fault<'a> {
    fn new(source: &'a Source, message: &'a str, at: Range<usize>) -> Self {
        let at = source.local(Span::from(at.start + source.base()..at.end + source.base()));
        let what = message.split(", expected").next().unwrap_or(message);
        Self { source, at, what, message }
    }

    fn line_before(&self) -> &'a str {
        self.source.text()[..self.at.start].rsplit('\n').next().unwrap_or("")
    }

    fn line_after(&self) -> &'a str {
        self.source.text()[self.at.start..].lines().next().unwrap_or("")
    }

    /// The word that begins where the parser stopped.
    fn word(&self) -> &'a str {
        let ends = |c: char| c.is_whitespace() || ",]}#=".contains(c);
        self.line_after().split(ends).next().unwrap_or("")
    }

    fn diagnostic(&self, length: usize, message: impl Into<String>) -> Diagnostic {
        let start = self.at.start + self.source.base();
        Diagnostic::new(start..start + length, message)
    }

    /// Puts the parser's words into an operator's. True if what follows is no more than a consequence.
    fn explain(&self, tree: &DeTable<'_>, unclosed_list: bool) -> (Diagnostic, bool) {
        let text = &self.source.text()[self.at.clone()];
        let problem = |message: &str, help: &str| self.diagnostic(text.len(), message).help(help);
        let begins_line = self.line_before().trim().is_empty();
        if self
            .line_after()
            .chars()
            .chain(text.chars())
            .any(|c| c.is_control() && !"\t\r\n".contains(c))
        {
            return (
                problem("this is not text", "a configuration file is a text file, in TOML"),
                true,
            );
        }
        if text.starts_with(':') || self.line_before().trim_end().ends_with(':') {
            let help = "this is TOML, not YAML: sections are written [section], keys `key = value`";
            return (problem("a key is not followed by `:`", help), true);
        }
        if unclosed_list
            && begins_line
            && (self.what.contains("comma") || self.what.contains("array"))
        {
            let problem = self.diagnostic(self.word().len(), "the list before this is not closed");
            return (problem.help("close it with `]`"), true);
        }
        let problem = match self.what {
            "duplicate key" => self.duplicate(tree),
            _ => self.reword(text),
        };
        (problem, false)
    }

    /// For each of the parser's phrases one of ours.
    fn reword(&self, text: &str) -> Diagnostic {
        let problem = |message: &str, help: &str| self.diagnostic(text.len(), message).help(help);
        match self.what {
            "missing comma between array elements" => {
                problem("a comma is missing before this", "separate the entries of a list with `,`")
            }
            "unclosed array" => problem("this list is not closed", "close it with `]`"),
            "unclosed inline table" => {
                problem("this inline table is not closed", "close it with `}`")
            }
            "unclosed table" | "unclosed array table" => {
                problem("this section header is not closed", "write [section] or [[section]]")
            }
            "missing assignment between key-value pairs" | "key with no value" => {
                problem("this key has no value", "write `key = value`")
            }
            "invalid basic string" | "invalid literal string" => problem(
                "this text is not closed",
                "close it with the quote it begins with, on the same line",
            ),
            "cannot recurse further; max recursion depth met" => problem(
                "this is nested too deeply",
                "nothing in a configuration is nested this deeply",
            ),
            _ if self.line_before().trim_end().ends_with('=') && self.word().is_empty() => {
                problem("the value is missing", "write `key = value`, or remove the line")
            }
            _ if self.is_bare_text() => {
                let word = self.word();
                self.diagnostic(word.len(), format!("`{word}` is not a value"))
                    .help(format!("put text in quotes: \"{word}\""))
            }
            _ => self.diagnostic(text.len(), format!("this is not TOML: {}", self.message)),
        }
    }

    /// True for a word in the place of a value that can only be text.
    fn is_bare_text(&self) -> bool {
        let before = self.line_before().trim_end();
        before.ends_with(['=', ',', '['])
            && self.word().starts_with(|c: char| c.is_alphanumeric() || c == '/')
    }

    /// The name in the first header of a section.
    fn first_header(&self, name: &str) -> Option<Range<usize>> {
        let before = &self.source.text()[..self.at.start];
        let header = format!("[{name}]");
        let at = before.match_indices(&header).map(|(at, _)| at + 1).find(|at| {
            before[..at - 1].rsplit('\n').next().is_some_and(|line| line.trim().is_empty())
        })?;
        Some(at..at + name.len())
    }

    fn duplicate(&self, tree: &DeTable<'_>) -> Diagnostic {
        let text = &self.source.text()[self.at.clone()];
        let name = text.trim_matches(['"', '\'']);
        let is_section = self.line_before().trim_start().starts_with('[');
        let message = match is_section {
            true => format!("section [{name}] is written twice in this file"),
            false => format!("`{name}` is written twice in this section"),
        };
        let help =
            if is_section { "put the keys of both into one" } else { "remove one of the two" };
        let problem = self.diagnostic(text.len(), message).help(help);
        let first = match is_section {
            // The tree has only the place of the second header.
            true => self.first_header(name),
            false => first_of(tree, name, self.at.start),
        };
        match first {
            Some(at) => problem.related(
                at.start + self.source.base()..at.end + self.source.base(),
                "the first one",
            ),
            None => problem,
        }
    }
}

/// The place of the last key of a name before an offset: of a key that is there twice, the first.
fn first_of(table: &DeTable<'_>, name: &str, before: usize) -> Option<Range<usize>> {
    let own = table.get_key_value(name).map(|(key, _)| key.span()).filter(|at| at.start < before);
    let inner = table.values().filter_map(|value| match value.get_ref() {
        DeValue::Table(table) => first_of(table, name, before),
        DeValue::Array(items) => {
            let tables = items.iter().filter_map(|item| item.get_ref().as_table());
            tables.filter_map(|table| first_of(table, name, before)).max_by_key(|at| at.start)
        }
        _ => None,
    });
    own.into_iter().chain(inner).max_by_key(|at| at.start)
}

fn shift<T>(value: Spanned<T>, base: usize) -> Spanned<T> {
    let Range { start, end } = value.span();
    Spanned::new(start + base..end + base, value.into_inner())
}

fn shifted_table(table: DeTable<'_>, base: usize) -> DeTable<'_> {
    if base == 0 {
        return table;
    }
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
