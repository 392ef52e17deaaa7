//! Reads the files of a [`Search`] and makes one [`Document`] of them.
//!
//! The only file of `config` that reads configuration files; imports only its siblings.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde_spanned::Spanned;

use super::diagnostic::Diagnostic;
use super::document::{Paths, Root, Service};
use super::kept::{self, Kept};
use super::merge;
use super::search::{Search, is_null};
use super::shape::Shape;
use super::span::{Source, Sources, Span};
use super::syntax;

/// Limits on what is read, so that a wrong path costs neither memory nor time.
pub mod limits {
    /// Largest configuration file. 100 000 CIDRs take less than 3 MiB.
    pub const FILE_BYTES_MAX: u64 = 16 << 20;
    /// Largest sum of all configuration files.
    pub const DOCUMENT_BYTES_MAX: u64 = 256 << 20;
    /// Most configuration files: one for each endpoint and peer there can be.
    pub const FILES_MAX: usize = 65_536;
}

/// The merged configuration: every value with its place, and everything that is wrong so far.
#[derive(Debug, Default)]
pub struct Document {
    sources: Sources,
    root: Root,
    problems: Vec<Diagnostic>,
    whole: bool,
    /// Paths of keys that were taken out because something is wrong with them.
    lost: BTreeSet<String>,
}

/// A configuration file that can't be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{trouble}")]
pub(super) struct FileError {
    path: PathBuf,
    trouble: Trouble,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("no configuration here")]
    Absent,
    #[error("can't read this: {}", reason(.0))]
    Unreadable(io::Error),
    #[error("this is {0}, not a file")]
    NotAFile(&'static str),
    #[error("this file is larger than {} MiB", limits::FILE_BYTES_MAX >> 20)]
    TooLarge,
    #[error("with this file the configuration is larger than {} MiB", limits::DOCUMENT_BYTES_MAX >> 20)]
    AllTooLarge,
    #[error(
        "this is the first file too many: a configuration has at most {} files",
        limits::FILES_MAX
    )]
    TooMany,
}

/// What the system says, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

impl FileError {
    pub(super) fn new(path: &Path, trouble: Trouble) -> Self {
        Self { path: path.to_owned(), trouble }
    }

    fn help(&self) -> &'static str {
        match self.trouble {
            Trouble::Absent => "create it, or name another file or directory with `--config PATH`",
            Trouble::Unreadable(ref error) if error.kind() == io::ErrorKind::NotFound => {
                "create it, or name another file or directory with `--config PATH`; \
                 a link has to point to a file that exists"
            }
            Trouble::Unreadable(_) => "check its owner and mode: ciliate has to be able to read it",
            Trouble::NotAFile(_) => {
                "name a file or a directory; in a directory of configuration only regular files, and links \
                 to them or to /dev/null, may end in .toml"
            }
            Trouble::TooLarge => "divide it into several files: their `[[…]]` tables are joined",
            Trouble::AllTooLarge | Trouble::TooMany => {
                "check that this directory holds only configuration"
            }
        }
    }

    /// Makes it a diagnostic of an empty file of that name.
    fn diagnostic(&self, sources: &mut Sources) -> Diagnostic {
        let span = sources.add(&self.path, String::new()).span();
        Diagnostic::new(span, self.to_string()).help(self.help())
    }
}

/// The files of a configuration, read and not parsed.
#[derive(Debug, Default)]
pub struct Files {
    sources: Sources,
    problems: Vec<Diagnostic>,
    /// This is no configuration: to parse what has been read would only take time.
    too_large: bool,
}

impl Files {
    /// Reads. Never fails: what is wrong is among the [`Document::problems`].
    pub fn read(search: &Search) -> Self {
        let listing = search.list();
        let mut files = Self::default();
        for error in &listing.errors {
            files.problems.push(error.diagnostic(&mut files.sources));
        }
        if listing.files.is_empty() && listing.errors.is_empty() {
            let path = match search {
                Search::System { main, .. } => main,
                Search::Path(path) => path,
            };
            let absent = FileError::new(path, Trouble::Absent);
            files.problems.push(absent.diagnostic(&mut files.sources));
        }
        let mut left_bytes = limits::DOCUMENT_BYTES_MAX;
        for path in &listing.files {
            match read(path, &mut left_bytes) {
                Ok(bytes) => files.problems.extend(add(&mut files.sources, path, bytes)),
                Err(error) => {
                    files.problems.push(error.diagnostic(&mut files.sources));
                    if matches!(error.trouble, Trouble::AllTooLarge) {
                        files.too_large = true;
                        return files;
                    }
                }
            }
        }
        files
    }

    /// Texts that were read elsewhere, in order.
    pub fn of_texts<P: Into<PathBuf>>(texts: impl IntoIterator<Item = (P, String)>) -> Self {
        let mut files = Self::default();
        for (path, text) in texts {
            files.sources.add(path, text);
        }
        files
    }

    /// Parses and merges them.
    pub fn document(self) -> Document {
        let Self { sources, problems, too_large } = self;
        if too_large {
            return Document { sources, problems, ..Document::default() };
        }
        Document::of_sources(sources, problems)
    }

    /// What is kept of a document without problems, and what has to be read beside it; `None` if that has problems.
    pub fn beside(&self, before: &Document) -> Option<(Kept, Document)> {
        let (kept, rest) = Kept::between(&before.sources, &self.sources);
        let rest = Document::of_sources(rest, self.problems.clone());
        rest.problems.is_empty().then_some((kept, rest))
    }

    /// The texts alone.
    pub fn texts(self) -> Document {
        Document { sources: self.sources, ..Document::default() }
    }
}

impl Document {
    /// Reads and merges. Never fails: what is wrong is in [`Document::problems`].
    pub fn load(search: &Search) -> Self {
        Files::read(search).document()
    }

    /// Merges texts that were read elsewhere, in order.
    pub fn of_texts<P: Into<PathBuf>>(files: impl IntoIterator<Item = (P, String)>) -> Self {
        Files::of_texts(files).document()
    }

    fn of_sources(sources: Sources, mut problems: Vec<Diagnostic>) -> Self {
        let mut whole = problems.is_empty();
        // A file that could only be read in part is not parsed: its end is not the operator's mistake.
        let partial: BTreeSet<_> = problems
            .iter()
            .filter_map(|problem| sources.source(problem.span))
            .map(Source::base)
            .collect();
        let shape = Shape::of_document();
        let mut lost = BTreeSet::new();
        let mut services = Vec::new();
        let mut rests = Sources::default();
        // Tables of services by themselves, as there may be tens of thousands: the tree of all of them at once takes
        // many times the memory of the text.
        for source in sources.iter() {
            let apart = if partial.contains(&source.base()) { None } else { apart(source, &shape) };
            let (found, rest) =
                apart.unwrap_or_else(|| (Part::default(), source.text().to_owned()));
            services.extend(found.services);
            problems.extend(found.problems);
            lost.extend(found.lost);
            rests.add(source.path(), rest);
        }
        let mut merged = merge::Merged::default();
        for source in rests.iter().filter(|source| !partial.contains(&source.base())) {
            match syntax::parse(source) {
                Ok(tree) => merged.add(shape.fit(tree, &mut problems, &mut lost)),
                Err(errors) => {
                    whole = false;
                    problems.extend(errors);
                }
            }
        }
        let mut root = merged.read().unwrap_or_else(|problem| {
            problems.push(problem);
            Root::default()
        });
        root.service.extend(services);
        root.service.sort_by_key(|service| service.span().start);
        problems.sort_by_key(|problem| problem.span.start);
        Self { sources, root, problems, whole, lost }
    }

    /// The files.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The values.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Lets go of all but the texts, which messages quote: the values take ten times as much.
    #[must_use]
    pub fn texts_only(self) -> Self {
        Self { root: Root::default(), ..self }
    }

    /// What is wrong with the files, the TOML and the shape of the tables, in file order.
    pub fn problems(&self) -> &[Diagnostic] {
        &self.problems
    }

    /// True if every file could be read and parsed. If not, nothing should be concluded from what is
    /// missing in the document.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// True if a key (`node.cidrs`, `endpoint.netns`) is, or may be, absent from the document only because
    /// what was written there is among the [`Document::problems`]: its absence is then not worth a
    /// complaint of its own. What a file that can't be used would have brought to a section is such a thing; the
    /// tables of `[[peer]]` and `[[endpoint]]` are in one file each.
    pub fn has_lost(&self, path: &str) -> bool {
        let in_one_file = ["peer.", "endpoint."].iter().any(|table| path.starts_with(table));
        self.lost.contains(path) || !(self.whole || in_one_file)
    }

    /// The `[paths]` as far as they can be made out of files that may not be valid: enough to ask whoever is there, and
    /// not to change anything by.
    pub fn rough_paths(&self) -> Option<Spanned<Paths>> {
        let shape = Shape::of_document();
        let mut merged = merge::Merged::default();
        for source in self.sources.iter() {
            let tree = syntax::recovered(source, "[paths]").into_iter();
            let tree = tree.filter(|(key, _)| key.get_ref() == "paths").collect();
            merged.add(shape.fit(tree, &mut Vec::new(), &mut BTreeSet::new()));
        }
        merged.read().ok()?.paths
    }

    /// The start of the first file: where to point for something that is written nowhere.
    pub fn beginning(&self) -> Span {
        let start = self.sources.iter().next().map_or(0, Source::base);
        Span { start, end: start }
    }
}

/// What was read of some tables.
#[derive(Default)]
struct Part {
    services: Vec<Spanned<Service>>,
    problems: Vec<Diagnostic>,
    lost: BTreeSet<String>,
}

/// Reads a file's tables of services, as far as they are by themselves, and gives the text without them; `None` where
/// the file has to be read as a whole, because what is wrong with it shows only so.
fn apart(source: &Source, shape: &Shape) -> Option<(Part, String)> {
    let (places, rest) = kept::apart(source.text());
    let mut part = Part::default();
    // What is wrong in between may make other things of the tables.
    if places.is_empty() || syntax::parse_part(&rest, source.base()).is_none() {
        return None;
    }
    for place in places {
        let tree = syntax::parse_part(&source.text()[place.clone()], source.base() + place.start)?;
        let mut merged = merge::Merged::default();
        merged.add(shape.fit(tree, &mut part.problems, &mut part.lost));
        part.services.extend(merged.read().ok()?.service);
    }
    Some((part, rest))
}

/// Reads one file, within what is left of the limit for all.
fn read(path: &Path, left_bytes: &mut u64) -> Result<Vec<u8>, FileError> {
    let fail = |trouble| FileError::new(path, trouble);
    let unreadable = |error| fail(Trouble::Unreadable(error));
    // The type is asked before opening: to open a FIFO or a device can block or do something.
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if is_null(&found) {
        return Ok(Vec::new());
    }
    if !found.is_file() {
        return Err(fail(Trouble::NotAFile(kind(&found))));
    }
    let mut bytes = Vec::with_capacity(found.len().min(limits::FILE_BYTES_MAX) as usize);
    let file = File::open(path).map_err(unreadable)?;
    file.take(limits::FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let length = bytes.len() as u64;
    if length > limits::FILE_BYTES_MAX {
        return Err(fail(Trouble::TooLarge));
    }
    *left_bytes = left_bytes.checked_sub(length).ok_or_else(|| fail(Trouble::AllTooLarge))?;
    Ok(bytes)
}

fn kind(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

/// Adds a file's text; if it is not UTF-8, only what comes before the first wrong byte.
fn add(sources: &mut Sources, path: &Path, bytes: Vec<u8>) -> Option<Diagnostic> {
    let error = match String::from_utf8(bytes) {
        Ok(text) => {
            sources.add(path, text);
            return None;
        }
        Err(error) => error,
    };
    let end = error.utf8_error().valid_up_to();
    let valid = String::from_utf8_lossy(&error.as_bytes()[..end]).into_owned();
    let end = sources.add(path, valid).span().end;
    let problem = Diagnostic::new(Span { start: end, end }, "this file is not UTF-8 text");
    Some(problem.label("not UTF-8 from here on").help("save it as UTF-8"))
}
