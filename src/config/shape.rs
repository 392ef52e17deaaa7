//! Does a tree have the shape of a configuration file: known keys, values of the right kind?
//!
//! Checks against the published schema, so the two can't disagree. Serde would report only the first
//! mistake, in Rust's words; this finds all of them in one pass, and takes what is wrong out of the
//! tree, so that the rest can be read. Pure; imports only its siblings.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use serde_json::{Map, Value};
use serde_spanned::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::schema::schema;
use super::span::Span;
use super::suggest::nearest;
use super::unsupported::instead_of;

/// The shape trees have to fit.
#[derive(Debug)]
pub(super) struct Shape {
    schema: &'static Value,
}

static SCHEMA: LazyLock<Value> = LazyLock::new(schema);

impl Shape {
    /// The shape of a configuration file.
    pub(super) fn of_document() -> Self {
        Self { schema: &SCHEMA }
    }

    /// Returns what fits of a file's tree; adds what doesn't to `problems`, and its path to `lost`.
    pub(super) fn fit<'i>(
        &self,
        tree: DeTable<'i>,
        problems: &mut Vec<Diagnostic>,
        lost: &mut BTreeSet<String>,
    ) -> DeTable<'i> {
        let mut fit = Fit { top: properties(self.schema), problems, lost };
        fit.table(self.schema, tree, &Place::Top)
    }
}

/// The table a key is in.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Top,
    Section(&'a str),
    Item(&'a str),
    /// A table inside one of the others.
    Inner(&'a str),
}

impl Place<'_> {
    /// The path of a key in this table, as `unsupported` writes it.
    fn path(&self, key: &str) -> String {
        match self {
            Self::Top => key.to_owned(),
            Self::Section(name) | Self::Item(name) | Self::Inner(name) => format!("{name}.{key}"),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => f.write_str("a configuration file"),
            Self::Section(name) => write!(f, "[{name}]"),
            Self::Item(name) => write!(f, "[[{name}]]"),
            Self::Inner(name) => write!(f, "`{name}`"),
        }
    }
}

/// One pass over one file.
struct Fit<'a> {
    top: Option<&'a Map<String, Value>>,
    problems: &'a mut Vec<Diagnostic>,
    /// What has been taken out, and the known keys that unknown ones were probably meant to be.
    lost: &'a mut BTreeSet<String>,
}

impl Fit<'_> {
    fn table<'i>(&mut self, schema: &Value, table: DeTable<'i>, place: &Place<'_>) -> DeTable<'i> {
        let mut kept = DeTable::new();
        for (key, value) in table {
            let known = properties(schema).and_then(|known| known.get(key.get_ref().as_ref()));
            let value = match known
                .or_else(|| schema.get("additionalProperties").filter(|s| s.is_object()))
            {
                Some(schema) => self.value(schema, &key, value, place),
                None => {
                    self.unknown(schema, &key, &value, place);
                    None
                }
            };
            match value {
                Some(value) => {
                    kept.insert(key, value);
                }
                None => {
                    self.lost.insert(place.path(key.get_ref()));
                }
            }
        }
        kept
    }

    fn value<'i>(
        &mut self,
        schema: &Value,
        key: &Spanned<impl AsRef<str>>,
        value: Spanned<DeValue<'i>>,
        place: &Place<'_>,
    ) -> Option<Spanned<DeValue<'i>>> {
        let name = key.get_ref().as_ref();
        let range = value.span();
        let respan = |inner| Some(Spanned::new(range.clone(), inner));
        let kind = Kind::of(schema);
        match (kind, value.into_inner()) {
            (Kind::Table, DeValue::Table(table)) => {
                let place = if matches!(place, Place::Top) {
                    Place::Section(name)
                } else {
                    Place::Inner(name)
                };
                respan(DeValue::Table(self.table(schema, table, &place)))
            }
            (Kind::Tables, DeValue::Array(array)) => {
                let name = &place.path(name);
                let items =
                    array.into_iter().filter_map(|item| self.item(&schema["items"], name, item));
                respan(DeValue::Array(items.collect()))
            }
            (Kind::List, DeValue::Array(array)) => {
                let entries = array.into_iter().filter_map(|entry| {
                    let fitting = self.entry(&schema["items"], name, entry);
                    if fitting.is_none() {
                        self.lost.insert(place.path(name));
                    }
                    fitting
                });
                respan(DeValue::Array(entries.collect()))
            }
            (Kind::Choice, DeValue::String(text)) => {
                let fits = self.choice(schema, name, &text, range.clone().into(), place);
                if fits { respan(DeValue::String(text)) } else { None }
            }
            (Kind::Number, DeValue::Integer(number)) => {
                if !fits_in_64_bits(&number) {
                    let message = format!("`{name}` can't be a number this large");
                    let problem = Diagnostic::new(range, message);
                    self.problems.push(problem.help(bounds(schema)));
                    return None;
                }
                respan(DeValue::Integer(number))
            }
            (Kind::Text, value @ DeValue::String(_))
            | (Kind::Switch, value @ DeValue::Boolean(_)) => respan(value),
            (_, value) => {
                self.problems.push(wrong(schema, key, &value, range.into(), place));
                None
            }
        }
    }

    /// One entry of a list: text, a number, or where the list may have both, a table instead of text.
    fn entry<'i>(
        &mut self,
        schema: &Value,
        list: &str,
        entry: Spanned<DeValue<'i>>,
    ) -> Option<Spanned<DeValue<'i>>> {
        let span = entry.span();
        let (wanted, fits, help) = match (Kind::of(schema), entry.get_ref(), table_form(schema)) {
            (_, DeValue::Table(_), Some(schema)) => {
                let DeValue::Table(table) = entry.into_inner() else { return None };
                return self.keys(schema, &Place::Inner(list), span, table);
            }
            (Kind::Number, value, _) => {
                let fits = value.as_integer().is_some_and(|number| fits_in_64_bits(number));
                ("a number", fits, bounds(schema))
            }
            (_, value, form) => {
                let is_nested = matches!(value, DeValue::Array(_) | DeValue::Table(_));
                let help = if is_nested { String::new() } else { "put it in quotes".to_owned() };
                let wanted = if form.is_some() { "text or a table" } else { "text" };
                (wanted, matches!(value, DeValue::String(_)), help)
            }
        };
        if fits {
            return Some(entry);
        }
        let message = format!("every entry of `{list}` has to be {wanted}");
        let problem = Diagnostic::new(span, message).label(called(entry.get_ref()));
        self.problems.push(if help.is_empty() { problem } else { problem.help(help) });
        None
    }

    /// One table of a `[[…]]`.
    fn item<'i>(
        &mut self,
        schema: &Value,
        name: &str,
        item: Spanned<DeValue<'i>>,
    ) -> Option<Spanned<DeValue<'i>>> {
        let span = item.span();
        let DeValue::Table(table) = item.into_inner() else {
            let problem = Diagnostic::new(span, format!("every `{name}` is a table"));
            self.problems.push(problem.help(format!("write [[{name}]], and the keys below it")));
            return None;
        };
        self.keys(schema, &Place::Item(name), span, table)
    }

    /// The keys of one of several tables: what lacks a required one is left out as a whole.
    fn keys<'i>(
        &mut self,
        schema: &Value,
        place: &Place<'_>,
        span: Range<usize>,
        table: DeTable<'i>,
    ) -> Option<Spanned<DeValue<'i>>> {
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        // A key that is there, or was meant, is not reported as missing too.
        let meant = |wanted: &str| {
            let known = || properties(schema).into_iter().flat_map(Map::keys).map(String::as_str);
            table.keys().any(|key| {
                let key = key.get_ref().as_ref();
                key == wanted
                    || (known().all(|k| k != key) && nearest(key, known()) == Some(wanted))
            })
        };
        let missing: Vec<&str> =
            required.filter_map(Value::as_str).filter(|wanted| !meant(wanted)).collect();
        for wanted in &missing {
            let example = match Kind::of(&schema["properties"][*wanted]) {
                Kind::List => format!("{wanted} = [\"…\"]"),
                _ => format!("{wanted} = \"…\""),
            };
            let what = match place {
                Place::Inner(list) => format!("this table of `{list}`"),
                place => format!("this {place}"),
            };
            let problem = Diagnostic::new(span.clone(), format!("{what} has no `{wanted}`"));
            self.problems.push(problem.help(format!("add `{example}`")));
        }
        let table = self.table(schema, table, place);
        let all_there = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let complete = all_there.filter_map(Value::as_str).all(|key| table.contains_key(key));
        complete.then(|| Spanned::new(span, DeValue::Table(table)))
    }

    fn choice(
        &mut self,
        schema: &Value,
        key: &str,
        text: &str,
        span: Span,
        place: &Place<'_>,
    ) -> bool {
        let choices = choices(schema);
        if choices.contains(&text) {
            return true;
        }
        let message = match instead_of(&format!("{}={text}", place.path(key))) {
            Some(help) => {
                let message = format!(
                    "{key} = \"{text}\" of {place} is not supported by this version of ciliate"
                );
                Diagnostic::new(span, message).help(help)
            }
            None => {
                let problem =
                    Diagnostic::new(span, format!("`{key}` of {place} can't be \"{text}\""));
                match (nearest(text, choices.iter().copied()), choices.as_slice()) {
                    (Some(near), _) => problem.help(format!("did you mean \"{near}\"?")),
                    (None, [only]) => problem.help(format!("it can only be \"{only}\"")),
                    (None, _) => problem.help(format!("it can be {}", either(&choices))),
                }
            }
        };
        self.problems.push(message);
        false
    }

    fn unknown(
        &mut self,
        schema: &Value,
        key: &Spanned<impl AsRef<str>>,
        value: &Spanned<DeValue<'_>>,
        place: &Place<'_>,
    ) {
        let name = key.get_ref().as_ref();
        let written = match (place, value.get_ref()) {
            (Place::Top, DeValue::Table(_)) => format!("section [{name}]"),
            (Place::Top, DeValue::Array(_)) => format!("section [[{name}]]"),
            _ => format!("key `{name}`"),
        };
        if let Some(help) = instead_of(&place.path(name)) {
            let message = format!("{written} is not supported by this version of ciliate");
            self.problems.push(Diagnostic::new(key, message).help(help));
            return;
        }
        let message = match place {
            Place::Top if written.starts_with("key") => {
                format!("unknown {written} outside any section")
            }
            Place::Top => format!("unknown {written}"),
            _ => format!("unknown {written} in {place}"),
        };
        let known = properties(schema).into_iter().flat_map(Map::keys).map(String::as_str);
        let known: Vec<&str> = known.collect();
        let near = nearest(name, known.iter().copied());
        let help = match (self.homes(name), near) {
            (homes, None) if !homes.is_empty() => {
                format!("`{name}` belongs in {}", homes.join(" or "))
            }
            (_, Some(near)) if matches!(place, Place::Top) => {
                format!("did you mean {}?", self.header(near))
            }
            (_, Some(near)) => {
                self.lost.insert(place.path(near));
                format!("did you mean `{near}`?")
            }
            (_, None) if matches!(place, Place::Top) => {
                let headers: Vec<_> = known.iter().map(|known| self.header(known)).collect();
                format!("the sections are {}", headers.join(", "))
            }
            (_, None) => {
                let keys: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
                format!("the keys of {place} are {}", keys.join(", "))
            }
        };
        self.problems.push(Diagnostic::new(key, message).help(help));
    }

    /// The sections that know a key.
    fn homes(&self, key: &str) -> Vec<String> {
        let knows = |schema: &Value| {
            let table = if schema.get("items").is_some() { &schema["items"] } else { schema };
            properties(table).is_some_and(|known| known.contains_key(key))
        };
        let sections = self.top.into_iter().flatten();
        sections.filter(|(_, schema)| knows(schema)).map(|(name, _)| self.header(name)).collect()
    }

    /// How a section is written.
    fn header(&self, section: &str) -> String {
        match self.top.and_then(|top| top.get(section)).map(Kind::of) {
            Some(Kind::Tables) => format!("[[{section}]]"),
            _ => format!("[{section}]"),
        }
    }
}

/// What a value has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Table,
    Tables,
    /// A list of texts, of numbers, or of texts and tables.
    List,
    Choice,
    Text,
    Number,
    Switch,
}

impl Kind {
    fn of(schema: &Value) -> Self {
        match schema.get("type").and_then(Value::as_str) {
            _ if ["enum", "oneOf", "const"].iter().any(|key| schema.get(key).is_some()) => {
                Self::Choice
            }
            Some("object") => Self::Table,
            Some("array") if schema["items"]["type"] == "object" => Self::Tables,
            Some("array") => Self::List,
            Some("integer") => Self::Number,
            Some("boolean") => Self::Switch,
            _ => Self::Text,
        }
    }
}

/// The schema of a table, where a value may be that or text.
fn table_form(schema: &Value) -> Option<&Value> {
    let forms = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    forms.into_iter().find(|form| form["type"] == "object")
}

fn fits_in_64_bits(number: &DeInteger<'_>) -> bool {
    i64::from_str_radix(number.as_str(), number.radix()).is_ok()
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

/// The texts a value can be, if it is one of a few.
fn choices(schema: &Value) -> Vec<&str> {
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let described = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let described = described.flat_map(|branch| {
        let several = branch.get("enum").and_then(Value::as_array).into_iter().flatten();
        branch.get("const").into_iter().chain(several)
    });
    listed.chain(described).chain(schema.get("const")).filter_map(Value::as_str).collect()
}

fn either(choices: &[&str]) -> String {
    let quoted: Vec<_> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
    match quoted.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

/// The range of a number, as help.
fn bounds(schema: &Value) -> String {
    match (&schema["minimum"], &schema["maximum"]) {
        (Value::Number(min), Value::Number(max)) => format!("it is a number from {min} to {max}"),
        _ => String::new(),
    }
}

/// What stands under the caret of a value of the wrong kind.
fn called(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "this is text",
        DeValue::Integer(_) => "this is a number",
        DeValue::Float(_) => "this is a number with a fraction",
        DeValue::Boolean(_) => "this is true or false",
        DeValue::Datetime(_) => "this is a date or time",
        DeValue::Array(_) => "this is a list",
        DeValue::Table(_) => "this is a table",
    }
}

/// The diagnostic for a value of the wrong kind.
fn wrong(
    schema: &Value,
    key: &Spanned<impl AsRef<str>>,
    value: &DeValue<'_>,
    span: Span,
    place: &Place<'_>,
) -> Diagnostic {
    let name = key.get_ref().as_ref();
    let kind = Kind::of(schema);
    if matches!((place, kind), (Place::Top, _) | (_, Kind::Tables)) {
        let each = name;
        let name = place.path(name);
        let (message, help) = match (kind, value) {
            (Kind::Tables, DeValue::Table(_)) => (
                format!("[{name}] has to be written [[{name}]]"),
                format!("[[{name}]] stands once for each {each}; double the brackets"),
            ),
            (Kind::Tables, _) => (
                format!("`{name}` is a list of tables, not a value"),
                format!("write [[{name}]], and the keys below it"),
            ),
            (_, DeValue::Array(_)) => (
                format!("[[{name}]] has to be written [{name}]"),
                format!("there is only one {name}; write [{name}] once"),
            ),
            _ => (
                format!("`{name}` is a section, not a value"),
                format!("write [{name}], and the keys below it"),
            ),
        };
        return Diagnostic::new(key, message).help(help);
    }
    let (wanted, help) = match (kind, value) {
        (Kind::Number, DeValue::String(text)) if text.parse::<i64>().is_ok() => {
            ("a number", format!("remove the quotes: {name} = {text}"))
        }
        (Kind::Number, DeValue::Float(_)) => ("a whole number", bounds(schema)),
        (Kind::Number, _) => ("a number", bounds(schema)),
        (Kind::Switch, DeValue::String(text))
            if ["yes", "on", "true", "1"].contains(&text.to_lowercase().as_str()) =>
        {
            ("true or false", format!("write {name} = true"))
        }
        (Kind::Switch, DeValue::String(text))
            if ["no", "off", "false", "0"].contains(&text.to_lowercase().as_str()) =>
        {
            ("true or false", format!("write {name} = false"))
        }
        (Kind::Switch, _) => ("true or false", format!("write {name} = true or {name} = false")),
        (Kind::List, DeValue::String(text)) => {
            ("a list", format!("put it in brackets: {name} = [\"{}\"]", text.escape_debug()))
        }
        (Kind::List | Kind::Tables, _) => ("a list", format!("write {name} = [\"…\", \"…\"]")),
        (Kind::Table, _) => ("a table", format!("write {name} = {{ key = \"value\" }}")),
        (Kind::Text | Kind::Choice, DeValue::Array(array)) if array.len() == 1 => {
            ("text", "there can be only one: remove the brackets".to_owned())
        }
        (Kind::Text | Kind::Choice, DeValue::Array(_)) => {
            ("text", "there can be only one".to_owned())
        }
        (Kind::Text | Kind::Choice, DeValue::Table(_)) => ("text", format!("write {name} = \"…\"")),
        (Kind::Text | Kind::Choice, _) => ("text", "put it in quotes".to_owned()),
    };
    let problem = Diagnostic::new(span, format!("`{name}` of {place} has to be {wanted}"))
        .label(called(value));
    if help.is_empty() { problem } else { problem.help(help) }
}
