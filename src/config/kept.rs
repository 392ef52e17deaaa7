//! What new texts have in common with old ones: tables of `[[service]]` that stand there unchanged, and so need not
//! be read again. Pure; imports only its siblings.
//!
//! A table is kept if the lines from its header to the next `[[service]]`, or to the end of the file, are in both
//! texts, and are those of one service and nothing else. In the new text they are then blanked, so that what is left
//! of it is parsed as always and everything in it is at its place.
//!
//! Why that is the same as parsing all of it: in a text without quotes of three, a line that begins with
//! `[[service]]` is a header, or inside a list or an inline table that is not closed, which would not be valid. Of the
//! old text it is known that it is valid. In the new one a kept table stands before the header of another service or
//! before the end of the file: if something before it were not closed, that would show there too. The first service of
//! a file is always read, so that what can't stand beside it is seen.

use std::ops::Range;

use super::span::{Source, Sources, Span};

const HEADER: &str = "[[service]]";
/// What a line of a service may begin with, as the header of a table in it.
const INNER: &str = "[service.";

/// The tables that are kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// Tables in a row, by their old place.
    runs: Vec<Run>,
    count: usize,
}

#[derive(Debug, PartialEq)]
struct Run {
    before: Range<usize>,
    /// Where it begins now.
    now: usize,
}

/// The places of a text's tables of services that can be read by themselves, and the text without them, in which
/// everything else is at its place.
pub(super) fn apart(text: &str) -> (Vec<Range<usize>>, String) {
    if has_long_quotes(text) {
        return (Vec::new(), text.to_owned());
    }
    let tables = tables(text).into_iter().skip(1).filter(|table| table.plain);
    let places: Vec<Range<usize>> = tables.map(|table| table.lines).collect();
    let rest = without(text, &places);
    (places, rest)
}

/// A text with some of its lines blanked.
fn without(text: &str, lines: &[Range<usize>]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    lines.iter().for_each(|lines| bytes[lines.clone()].fill(b' '));
    // Whole lines were taken out of a text.
    String::from_utf8(bytes).unwrap_or_default()
}

impl Kept {
    /// What is kept of `before`, and the new texts without it.
    pub(super) fn between(before: &Sources, now: &Sources) -> (Self, Sources) {
        let (mut kept, mut rest) = (Self::default(), Sources::default());
        let mut earlier = before.iter();
        for source in now.iter() {
            // As a rule the files are the same ones.
            let mut same = earlier.clone();
            let found = same.find(|old| old.path() == source.path());
            let mut again = Vec::new();
            if let Some(old) = found {
                earlier = same;
                again = kept.of_file(old, source);
            }
            rest.add(source.path(), without(source.text(), &again));
        }
        kept.runs.sort_by_key(|run| run.before.start);
        (kept, rest)
    }

    /// How many tables are kept.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where something of a table is now that was at `span`; `None` if the table is not kept.
    pub fn moved(&self, span: Span) -> Option<Span> {
        let after = self.runs.partition_point(|run| run.before.start <= span.start);
        let run = self.runs[..after].last().filter(|run| span.start < run.before.end)?;
        let now = |offset: usize| offset - run.before.start + run.now;
        Some(Span { start: now(span.start), end: now(span.end) })
    }

    /// Finds what is kept of a file. Returns where that is in the new text.
    fn of_file(&mut self, before: &Source, now: &Source) -> Vec<Range<usize>> {
        let (old, new) = (before.text(), now.text());
        if has_long_quotes(new) {
            return Vec::new();
        }
        let (head, tail) = (common_start(old, new), common_end(old, new));
        // An old table is at most one of the new ones, though both ends may be alike for more than there is.
        let (mut blank, mut done) = (Vec::new(), 0);
        for table in tables(new).into_iter().skip(1).filter(|table| table.plain) {
            let Range { start, end } = table.lines;
            let was = if end <= head {
                start
            } else if start >= new.len() - tail {
                start + old.len() - new.len()
            } else {
                continue;
            };
            let was = was..was + (end - start);
            if was.start < done || !is_table(old, was.clone()) {
                continue;
            }
            done = was.end;
            self.count += 1;
            self.add(before.base() + was.start..before.base() + was.end, now.base() + start);
            blank.push(start..end);
        }
        blank
    }

    fn add(&mut self, before: Range<usize>, now: usize) {
        if let Some(last) = self.runs.last_mut()
            && last.before.end == before.start
            && last.now + last.before.len() == now
        {
            last.before.end = before.end;
            return;
        }
        self.runs.push(Run { before, now });
    }
}

/// Whether lines of the old text begin and end where a table of a service does.
fn is_table(old: &str, lines: Range<usize>) -> bool {
    let begins = lines.start == 0 || old.as_bytes()[lines.start - 1] == b'\n';
    begins && (lines.end == old.len() || old.as_bytes()[lines.end..].starts_with(HEADER.as_bytes()))
}

/// The lines from the header of a service to the next one.
struct Table {
    lines: Range<usize>,
    /// No other section is among them.
    plain: bool,
}

fn tables(text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let end = offset + line.len();
        if line.starts_with(HEADER) {
            tables.push(Table { lines: offset..end, plain: true });
        } else if let Some(table) = tables.last_mut() {
            table.lines.end = end;
            let is_header = line.trim_ascii_start().starts_with('[');
            table.plain &= !is_header || line.starts_with(INNER);
        }
        offset = end;
    }
    tables
}

/// Whether there is text of several lines, or what looks like it.
fn has_long_quotes(text: &str) -> bool {
    const AT_ONCE: usize = 4096;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 2 < bytes.len() {
        let end = (at + AT_ONCE).min(bytes.len() - 2);
        // Without a way out, so that the compiler looks at many at once.
        let same = |quote: u8, i: usize| {
            (bytes[i] == quote) & (bytes[i + 1] == quote) & (bytes[i + 2] == quote)
        };
        if (at..end).fold(false, |found, i| found | same(b'"', i) | same(b'\'', i)) {
            return true;
        }
        at = end;
    }
    false
}

/// Bytes that are compared at once.
const BLOCK: usize = 1024;

/// How many bytes two texts begin with alike.
fn common_start(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let blocks = one.chunks_exact(BLOCK).zip(other.chunks_exact(BLOCK));
    let whole = BLOCK * blocks.take_while(|(a, b)| a == b).count();
    whole + one[whole..].iter().zip(&other[whole..]).take_while(|(a, b)| a == b).count()
}

/// How many bytes two texts end with alike.
fn common_end(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let blocks = one.rchunks_exact(BLOCK).zip(other.rchunks_exact(BLOCK));
    let whole = BLOCK * blocks.take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[..one.len() - whole], &other[..other.len() - whole]);
    whole + one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept, as numbers of tables, and what is left to read.
    fn between(before: &str, now: &str) -> (usize, String) {
        let sources = |text: &str| {
            let mut sources = Sources::default();
            sources.add("x", text.to_owned());
            sources
        };
        let (kept, rest) = Kept::between(&sources(before), &sources(now));
        let text = rest.iter().next().map(|source| source.text().to_owned()).unwrap_or_default();
        assert_eq!(text.len(), now.len());
        let words: Vec<&str> = text.split_whitespace().collect();
        (kept.count(), words.join(" "))
    }

    #[test]
    fn what_is_the_same_is_kept_and_what_is_around_it_is_read() {
        let table = |name: &str| format!("[[service]]\nname=\"{name}\"\n");
        let text = |names: &str| names.split(' ').map(table).collect::<String>();
        let read = |names: &str| text(names).replace('\n', " ").trim().to_owned();
        let old = text("a b c d");
        for (new, count, rest) in [
            (text("a b c d"), 3, read("a")),
            (text("a b x c d"), 3, read("a x")),
            (text("a b c d x"), 3, read("a x")),
            (text("a c d"), 2, read("a")),
            (text("x a b c d"), 4, read("x")),
            (text("a b"), 1, read("a")),
            (text("a b2 c d"), 2, read("a b2")),
            // What comes after a table may be part of it.
            (
                text("a b") + "protocol=\"UDP\"\n" + &text("c d"),
                2,
                read("a b") + " protocol=\"UDP\"",
            ),
            // Another section among its lines.
            (text("a b") + "[node]\n" + &text("c d"), 2, read("a b") + " [node]"),
            (text("a b") + " [node]\n" + &text("c d"), 2, read("a b") + " [node]"),
            // Texts of several lines can hold anything.
            (text("a b c d") + "x=\"\"\"", 0, read("a b c d") + " x=\"\"\""),
        ] {
            assert_eq!(between(&old, &new), (count, rest), "{new}");
        }
        let inner = text("a b") + "[service.health-check]\n" + &text("c");
        assert_eq!(between(&inner, &inner), (2, read("a")));
        // What was no header is none.
        assert_eq!(between("[[service]]\n#[[service]]\n", "[[service]]\n\n[[service]]\n").0, 0);
    }

    #[test]
    fn places_move_along() {
        let kept = Kept { runs: vec![Run { before: 10..20, now: 13 }], count: 1 };
        let moved = |start| kept.moved(Span { start, end: start + 1 }).map(|span| span.start);
        assert_eq!([9, 10, 19, 20].map(moved), [None, Some(13), Some(22), None]);
    }
}
