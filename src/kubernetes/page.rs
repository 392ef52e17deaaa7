//! A file's text, and its name. `toml` quotes; what is written around the values is too little to describe it by
//! types first. Pure; imports nothing.

use std::fmt::Write;

use serde::Serialize;
use sha2::{Digest, Sha256};
use toml::Value;

/// First words of every file: a file that begins otherwise is somebody else's.
pub const MARK: &str = "# Written by ciliate-kubernetes, which replaces and removes this file.\n";
/// What the names of all files begin with.
pub const PREFIX: &str = "kubernetes-";
/// Longest name of a node, peer or endpoint.
const NAME_BYTES_MAX: usize = 63;
/// Leaves room in a file name of 255 bytes for what is around it.
const FILE_BYTES_MAX: usize = 200;
const DIGEST_CHARS: usize = 16;

/// A file that is being made.
#[derive(Debug)]
pub struct Page {
    source: String,
    tables: String,
    /// What of the object is not here, and why.
    pub left_out: Vec<String>,
}

impl Page {
    /// One that comes from an object.
    pub fn of(source: impl Into<String>) -> Self {
        Self { source: source.into(), tables: String::new(), left_out: Vec::new() }
    }

    /// Begins a table, like `[[peer]]`.
    pub fn table(&mut self, header: &str) {
        self.tables += &format!("\n{header}\n");
    }

    /// A text, a number, or a list of such.
    pub fn put(&mut self, key: &str, value: impl Serialize) {
        let value = Value::try_from(value).map_err(|error| format!("{key}: {error}"));
        let written = value.map(|value| _ = writeln!(self.tables, "{key} = {value}"));
        self.allows(written);
    }

    /// A list, unless it is empty.
    pub fn list(&mut self, key: &str, values: &[impl Serialize]) {
        if !values.is_empty() {
            self.put(key, values);
        }
    }

    /// Whether something went well; if not, that is noted.
    pub fn allows<T>(&mut self, result: Result<T, String>) -> bool {
        result.map_err(|why| self.left_out.push(why)).is_ok()
    }

    /// The whole text.
    pub fn text(self) -> String {
        let mut text = format!("{MARK}# From: {}\n", self.source);
        for line in self.left_out {
            let _ = writeln!(text, "{LEFT_OUT}{line}");
        }
        text + &self.tables
    }
}

/// What a line of a file begins with that says what is not in it.
pub const LEFT_OUT: &str = "# Left out: ";

/// The name of a file of a group. Neither namespaces nor services have a dot in their names.
pub fn file(group: &str, name: &str) -> String {
    format!("{PREFIX}{group}-{}.toml", limited(&name.replace('/', "."), FILE_BYTES_MAX))
}

/// The group of a file.
pub fn group(file: &str) -> &str {
    let rest = file.strip_prefix(PREFIX).unwrap_or_default();
    rest.split_once('-').map_or("", |(group, _)| group)
}

/// A name as it is, or its beginning and a digest of it.
pub fn short(name: &str) -> String {
    limited(name, NAME_BYTES_MAX)
}

fn limited(name: &str, bytes_max: usize) -> String {
    if name.len() <= bytes_max {
        return name.to_owned();
    }
    let digest: String =
        Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let kept = name.floor_char_boundary(bytes_max - DIGEST_CHARS - 1);
    format!("{}-{}", &name[..kept], &digest[..DIGEST_CHARS])
}
