//! Diagnostics as text: the layout rustc made familiar, with `path:line:column`, source and caret.
//!
//! Pure; imports only its siblings. The terminal is not asked anything: colour is an argument.

use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet, renderer::DecorStyle,
};

use super::diagnostic::Diagnostic;
use super::span::{Source, Sources, Span};

/// Most diagnostics that are written out; the rest is counted. Nobody reads more at once.
pub const RENDERED_MAX: usize = 100;

/// Two places of one file are shown in one snippet if at most this many lines lie between them.
const SNIPPET_GAP_LINES: usize = 12;

/// A line longer than this is not shown: its place is named by column.
const LINE_BYTES_MAX: usize = 4096;

/// Columns before the renderer shortens a line.
const WIDTH_COLUMNS: usize = 120;

/// Writes diagnostics as text, separated by empty lines and followed by a count.
pub fn render(sources: &Sources, diagnostics: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(WIDTH_COLUMNS);
    let mut out = String::new();
    for diagnostic in diagnostics.iter().take(RENDERED_MAX) {
        out.push_str(&renderer.render(&report(sources, diagnostic)));
        out.push_str("\n\n");
    }
    match diagnostics.len() {
        0 => {}
        1 => out.push_str("1 problem\n"),
        n if n <= RENDERED_MAX => out.push_str(&format!("{n} problems\n")),
        n => out.push_str(&format!("{n} problems, the first {RENDERED_MAX} are shown\n")),
    }
    out
}

/// A place to show: span, text under it, and whether it is the main one.
type Mark<'a> = (Span, &'a str, bool);

fn report<'a>(sources: &'a Sources, diagnostic: &'a Diagnostic) -> Vec<Group<'a>> {
    let mut group = Group::with_title(Level::ERROR.primary_title(diagnostic.message.as_str()));
    let related = diagnostic.related.iter().map(|(span, why)| (*span, why.as_str(), false));
    let main = (diagnostic.span, diagnostic.label.as_str(), true);
    for marks in together(sources, std::iter::once(main).chain(related)) {
        let Some(source) = marks.first().and_then(|&(span, ..)| sources.source(span)) else {
            continue;
        };
        group = match snippet(source, &marks) {
            Some(snippet) => group.element(snippet),
            None => group.element(origin(sources, &marks[0])),
        };
    }
    let help = diagnostic.help.as_deref().map(|help| Level::HELP.message(help));
    vec![group.elements(help)]
}

/// Puts places that are near each other in one file together.
fn together<'a>(sources: &Sources, marks: impl Iterator<Item = Mark<'a>>) -> Vec<Vec<Mark<'a>>> {
    let mut groups: Vec<(usize, usize, Vec<Mark<'a>>)> = Vec::new();
    for mark in marks {
        let Some(source) = sources.source(mark.0) else { continue };
        let line = source.line_of(source.local(mark.0).start);
        let near = |&&mut (base, at, _): &&mut (usize, usize, Vec<Mark<'a>>)| {
            base == source.base() && at.abs_diff(line) <= SNIPPET_GAP_LINES
        };
        match groups.iter_mut().find(near) {
            Some((.., marks)) => marks.push(mark),
            None => groups.push((source.base(), line, vec![mark])),
        }
    }
    groups.into_iter().map(|(.., marks)| marks).collect()
}

/// Where a place is, without its text: for files that could not be read and for very long lines.
fn origin<'a>(sources: &'a Sources, &(span, ..): &Mark<'_>) -> Origin<'a> {
    let Some(at) = sources.resolve(span) else { return Origin::path("") };
    let origin = Origin::path(at.source.path().to_string_lossy());
    if at.source.text().is_empty() {
        return origin;
    }
    origin.line(at.line).char_column(at.column)
}

/// The lines around places of one file. Only these lines are given to the renderer: it would index the
/// whole of a 16 MiB file for each diagnostic.
fn snippet<'a>(source: &'a Source, marks: &[Mark<'a>]) -> Option<Snippet<'a, Annotation<'a>>> {
    let starts = source.line_starts();
    let text = source.text();
    let line_end = |line: usize| {
        let end = starts.get(line + 1).map_or(text.len(), |next| next - 1);
        // A span never covers the line break: neither `\n` nor `\r\n`.
        if text[..end].ends_with('\r') { end - 1 } else { end }
    };
    let first_line_of = |span: Span| {
        let local = source.local(span);
        let line = source.line_of(local.start);
        // Of a span of many lines only the first is shown: what is wrong begins there.
        (line, local.start.min(line_end(line))..local.end.min(line_end(line)))
    };
    let places: Vec<_> = marks.iter().map(|&(span, ..)| first_line_of(span)).collect();
    let first = places.iter().map(|(line, _)| *line).min()?;
    let last = places.iter().map(|(line, _)| *line).max()?;
    let window = starts[first]..line_end(last).max(starts[first]);
    let too_long =
        (first..=last).any(|line| line_end(line).saturating_sub(starts[line]) > LINE_BYTES_MAX);
    if text.is_empty() || too_long {
        return None;
    }
    let annotations = marks.iter().zip(places).map(|(&(_, label, main), (_, place))| {
        let kind = if main { AnnotationKind::Primary } else { AnnotationKind::Context };
        let start = place.start.max(window.start) - window.start;
        let end = place.end.max(place.start.max(window.start)) - window.start;
        let annotation = kind.span(start..end);
        if label.is_empty() { annotation } else { annotation.label(label) }
    });
    let annotations: Vec<_> = annotations.collect();
    Some(
        Snippet::source(&text[window])
            .line_start(first + 1)
            .path(source.path().to_string_lossy())
            .annotations(annotations),
    )
}
