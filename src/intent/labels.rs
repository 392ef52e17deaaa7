//! Labels, and the identity that is derived from them or given beside them: of this node's endpoints
//! and of its peers'.
//!
//! Pure.

use std::collections::BTreeMap;

use serde_spanned::Spanned;

use super::draft::{At, Problems, Role};
use super::{Identity, identity_of_labels, limits};
use crate::config::{Diagnostic, Span};

type Labels = BTreeMap<Spanned<String>, Spanned<String>>;

/// Reads labels and identity; the place of a table without labels is where it begins.
pub(super) fn role(
    labels: Option<&Spanned<Labels>>,
    identity: Option<&Spanned<i64>>,
    table: Span,
    problems: &mut Problems,
) -> Option<Role> {
    let place = labels.map_or(table, Span::from);
    let labels = labels.map(|labels| read_labels(labels, problems)).unwrap_or_default();
    let (identity, derived) = match identity {
        Some(number) => (explicit_identity(number, problems)?, false),
        None => (At { value: identity_of_labels(&labels), span: place }, true),
    };
    Some(Role { labels, identity, derived })
}

fn read_labels(written: &Spanned<Labels>, problems: &mut Problems) -> BTreeMap<String, String> {
    let labels = written.get_ref();
    if labels.len() > limits::LABELS_MAX {
        let problem = Diagnostic::new(written, format!("too many labels: {}", labels.len()));
        problems
            .push(problem.help(format!("an endpoint has at most {} labels", limits::LABELS_MAX)));
    }
    for (key, value) in labels {
        problems.extend(label_key(key));
        problems.extend(label_value(key.get_ref(), value));
    }
    labels.iter().map(|(key, value)| (key.get_ref().clone(), value.get_ref().clone())).collect()
}

fn label_key(key: &Spanned<String>) -> Option<Diagnostic> {
    let text = key.get_ref();
    // `=` and `;` separate labels in the text that identities are derived from, `,` on command lines.
    let bad = |c: &char| !c.is_ascii_graphic() || "=;,".contains(*c);
    if text.is_empty() {
        return Some(
            Diagnostic::new(key, "a label's key can't be empty")
                .help("write labels = { key = \"value\" }"),
        );
    }
    if text.len() > limits::LABEL_KEY_BYTES_MAX {
        let problem =
            Diagnostic::new(key, format!("this label's key is too long: {} bytes", text.len()));
        return Some(problem.help(format!("it has at most {} bytes", limits::LABEL_KEY_BYTES_MAX)));
    }
    if let Some(c) = text.chars().find(bad) {
        let problem = Diagnostic::new(key, format!("a label's key can't have {c:?} in it"));
        return Some(
            problem.help("keys are made of ASCII letters, digits and punctuation except = ; ,"),
        );
    }
    let reserved = text.starts_with("reserved:");
    reserved.then(|| {
        Diagnostic::new(key, format!("label `{text}` is reserved")).help(
            "ciliate itself gives labels that begin with `reserved:`; use another source, or none",
        )
    })
}

fn label_value(key: &str, value: &Spanned<String>) -> Option<Diagnostic> {
    let text = value.get_ref();
    if text.len() > limits::LABEL_VALUE_BYTES_MAX {
        let problem = Diagnostic::new(
            value,
            format!("the value of label `{key}` is too long: {} bytes", text.len()),
        );
        return Some(
            problem.help(format!("it has at most {} bytes", limits::LABEL_VALUE_BYTES_MAX)),
        );
    }
    let bad = text.chars().find(|c| !c.is_ascii_graphic() || ";,".contains(*c))?;
    let problem =
        Diagnostic::new(value, format!("the value of label `{key}` can't have {bad:?} in it"));
    Some(problem.help("values are made of ASCII letters, digits and punctuation except ; ,"))
}

/// An identity the operator chose.
fn explicit_identity(written: &Spanned<i64>, problems: &mut Problems) -> Option<At<Identity>> {
    let value = *written.get_ref();
    let range = i64::from(Identity::USER_MIN)..=i64::from(Identity::LABELS_MAX);
    let identity = u32::try_from(value).ok().and_then(Identity::new);
    if let Some(identity) = identity.filter(|_| range.contains(&value)) {
        return Some(At { value: identity, span: written.into() });
    }
    let problem = Diagnostic::new(written, format!("`identity` can't be {value}"));
    let label = match identity {
        Some(identity) if value < i64::from(Identity::USER_MIN) => match identity.name() {
            Some(name) => format!("{value} is reserved for `{name}`"),
            None => format!("numbers below {} are reserved", Identity::USER_MIN),
        },
        _ => String::new(),
    };
    problems.push(problem.label(label).help(
        "choose a number from 256 to 65535, or from 128 to 255, or leave it out to have it derived from \
         the labels",
    ));
    None
}
