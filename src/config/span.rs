//! Places in configuration text.
//!
//! All files of a document share one space of offsets: a file's text begins at its `base`, and one
//! unused offset separates it from the next, so that the end of a file is not the start of another. A
//! [`Span`] is therefore enough to find file, line and column again.
//!
//! Pure; imports nothing of this crate.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_spanned::Spanned;
use sha2::{Digest, Sha256};

/// A range of bytes in [`Sources`]: `start` is the first, `end` is one past the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end.max(range.start) }
    }
}

impl<T> From<&Spanned<T>> for Span {
    fn from(value: &Spanned<T>) -> Self {
        value.span().into()
    }
}

/// One configuration file as it was read.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
    base: usize,
    /// Offset of each line's first byte, made when it is first asked for.
    line_starts: OnceLock<Vec<usize>>,
}

impl Source {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where its text begins in the space of all offsets.
    pub fn base(&self) -> usize {
        self.base
    }

    /// Span of the whole file.
    pub fn span(&self) -> Span {
        Span { start: self.base, end: self.base + self.text.len() }
    }

    /// The part of `span` that is in this file, as offsets into [`Source::text`] on character borders.
    pub fn local(&self, span: Span) -> Range<usize> {
        let into_text = |offset: usize| {
            let offset = offset.saturating_sub(self.base).min(self.text.len());
            self.text.floor_char_boundary(offset)
        };
        let start = into_text(span.start);
        start..into_text(span.end).max(start)
    }

    /// Offset in the text of the first byte of each line.
    pub fn line_starts(&self) -> &[usize] {
        self.line_starts.get_or_init(|| {
            let ends = self.text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
            std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect()
        })
    }

    /// Number, counted from 0, of the line that holds an offset of the text.
    pub fn line_of(&self, offset: usize) -> usize {
        self.line_starts().partition_point(|&start| start <= offset).saturating_sub(1)
    }
}

/// The files of a document, in the order in which they were read.
#[derive(Debug, Default)]
pub struct Sources {
    list: Vec<Source>,
}

/// What a span points at.
#[derive(Debug, Clone, Copy)]
pub struct Position<'a> {
    pub source: &'a Source,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The text itself.
    pub text: &'a str,
}

impl Sources {
    /// Adds a file and returns it.
    pub fn add(&mut self, path: impl Into<PathBuf>, text: String) -> &Source {
        let base = self.list.last().map_or(0, |last| last.span().end + 1);
        let line_starts = OnceLock::new();
        self.list.push(Source { path: path.into(), text, base, line_starts });
        &self.list[self.list.len() - 1]
    }

    /// The files, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Source> + Clone {
        self.list.iter()
    }

    /// The file that holds the start of a span; `None` only if there are no files.
    pub fn source(&self, span: Span) -> Option<&Source> {
        let after = self.list.partition_point(|source| source.base <= span.start);
        self.list.get(after.saturating_sub(1))
    }

    /// File, line, column and text of a span.
    pub fn resolve(&self, span: Span) -> Option<Position<'_>> {
        let source = self.source(span)?;
        let local = source.local(span);
        let line = source.line_of(local.start);
        let line_start = source.line_starts().get(line).copied().unwrap_or(0);
        let column = source.text[line_start..local.start].chars().count() + 1;
        Some(Position { source, line: line + 1, column, text: &source.text[local] })
    }

    /// `path:line` of a span, as comments and log lines name it.
    pub fn name(&self, span: Span) -> String {
        match self.resolve(span) {
            Some(at) => format!("{}:{}", at.source.path.display(), at.line),
            None => "(no file)".to_owned(),
        }
    }

    /// SHA-256 over names and texts: equal exactly if nothing was edited. The daemon compares it before
    /// it acts on a file notification.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for source in &self.list {
            for part in [source.path.as_os_str().as_encoded_bytes(), source.text.as_bytes()] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_across_files() {
        let mut sources = Sources::default();
        sources.add("a", "one\nzwölf x\n".to_owned());
        let base = sources.add("b", "y".to_owned()).base();
        let at = sources.resolve(Span { start: 11, end: 12 }).unwrap();
        assert_eq!((at.line, at.column, at.text), (2, 7, "x"));
        let at = sources.resolve(Span { start: base, end: base + 1 }).unwrap();
        assert_eq!((at.source.path().to_str().unwrap(), at.line, at.text), ("b", 1, "y"));
        // The end of the first file is still the first file.
        let at = sources.resolve(Span { start: base - 1, end: base - 1 }).unwrap();
        assert_eq!((at.source.path().to_str().unwrap(), at.line, at.column), ("a", 3, 1));
    }

    #[test]
    fn any_span_resolves_on_character_borders() {
        let mut sources = Sources::default();
        assert!(sources.resolve(Span::default()).is_none());
        sources.add("a", "ü".to_owned());
        for (start, end) in [(0, 1), (1, 2), (1, 9), (9, 3), (0, usize::MAX)] {
            assert!(sources.resolve(Span { start, end }).is_some());
        }
    }

    #[test]
    fn digest_sees_names_and_borders() {
        let digest = |files: &[(&str, &str)]| {
            let mut sources = Sources::default();
            for (path, text) in files {
                sources.add(*path, (*text).to_owned());
            }
            sources.digest()
        };
        assert_eq!(digest(&[("a", "x")]), digest(&[("a", "x")]));
        assert_ne!(digest(&[("a", "x")]), digest(&[("b", "x")]));
        assert_ne!(digest(&[("a", "xb")]), digest(&[("a", "x"), ("b", "")]));
    }
}
