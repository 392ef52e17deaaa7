//! One thing that is wrong with the configuration, and where.
//!
//! Every message is written for the operator who has to mend the file: `message` says what is wrong,
//! `label` stands under the caret, `help` says what to do. Pure; imports nothing of this crate but
//! spans.

use serde::Serialize;

use super::span::{Sources, Span};

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub span: Span,
    /// What is wrong, as one sentence without a full stop.
    pub message: String,
    /// What stands under the caret; may be empty.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Other places that matter, and why.
    pub related: Vec<(Span, String)>,
}

impl Diagnostic {
    /// A diagnostic with nothing but a place and a message.
    pub fn new(span: impl Into<Span>, message: impl Into<String>) -> Self {
        let (span, message) = (span.into(), message.into());
        Self { span, message, label: String::new(), help: None, related: Vec::new() }
    }

    /// Sets the text under the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another place that matters.
    #[must_use]
    pub fn related(mut self, span: impl Into<Span>, why: impl Into<String>) -> Self {
        self.related.push((span.into(), why.into()));
        self
    }
}

/// A place in a file, with a message: the form for `-o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    pub message: String,
}

/// A [`Diagnostic`] whose places are files, lines and columns: the form for `-o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Located {
    #[serde(flatten)]
    pub place: Place,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Place>,
}

/// Finds the places of diagnostics.
pub fn locate(sources: &Sources, diagnostics: &[Diagnostic]) -> Vec<Located> {
    let place = |span: Span, message: &str| {
        let at = sources.resolve(span);
        Place {
            file: at.map_or_else(String::new, |at| at.source.path().display().to_string()),
            line: at.map_or(1, |at| at.line),
            column: at.map_or(1, |at| at.column),
            message: message.to_owned(),
        }
    };
    let located = |diagnostic: &Diagnostic| Located {
        place: place(diagnostic.span, &diagnostic.message),
        label: diagnostic.label.clone(),
        help: diagnostic.help.clone(),
        related: diagnostic.related.iter().map(|(span, why)| place(*span, why)).collect(),
    };
    diagnostics.iter().map(located).collect()
}
