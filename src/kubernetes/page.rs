//! Files: names and texts. Pure; imports nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sha2::{Digest, Sha256};

/// First words of every file: a file that begins otherwise is somebody else's.
pub const MARK: &str = "# Written by ciliate-kubernetes, which replaces and removes this file.\n";
/// What a line of a file begins with that says what is not in it.
pub const LEFT_OUT: &str = "# Left out: ";
/// What the names of all files begin with.
pub const PREFIX: &str = "kubernetes-";
/// Longest name of a node, peer or endpoint.
const NAME_BYTES_MAX: usize = 63;
/// Leaves room in a file name of 255 bytes for what is around it.
const FILE_BYTES_MAX: usize = 200;
/// A dash and 16 digits.
const DIGEST_BYTES: usize = 17;

/// Texts by the files' names; none for one that stays what it was.
pub type Files = BTreeMap<String, Option<String>>;

/// What there should be.
#[derive(Debug, Default)]
pub struct Wanted {
    pub files: Files,
    /// Groups of files of which all are here. Other files of other groups stay as they are.
    pub groups: BTreeSet<&'static str>,
    /// Whether the files themselves are to be looked at, and not what is remembered of them.
    pub afresh: bool,
}

/// A file's text: the object it comes from, what of that is not there and why, and tables by their key.
pub fn text(source: &str, left_out: &[String], tables: Option<(&str, impl Serialize)>) -> String {
    let left_out: String = left_out.iter().map(|line| format!("{LEFT_OUT}{line}\n")).collect();
    let tables = toml::to_string(&BTreeMap::from_iter(tables));
    let tables = tables.unwrap_or_else(|error| format!("{LEFT_OUT}all of it: {error}\n"));
    format!("{MARK}# From: {source}\n{left_out}\n{tables}")
}

/// True, unless there is a reason to leave it out, which is noted.
pub fn allowed(why: Option<String>, left_out: &mut Vec<String>) -> bool {
    let allowed = why.is_none();
    left_out.extend(why);
    allowed
}

/// The name of a file of a group. Neither namespaces nor services have a dot in their names.
pub fn file(group: &str, name: &str) -> String {
    format!("{PREFIX}{group}-{}.toml", limited(&name.replace('/', "."), FILE_BYTES_MAX))
}

/// The group of a file.
pub fn group(file: &str) -> &str {
    let rest = file.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
    rest.map_or("", |(group, _)| group)
}

/// A name as it is, or its beginning and a digest of it.
pub fn short(name: &str) -> String {
    limited(name, NAME_BYTES_MAX)
}

fn limited(name: &str, bytes_max: usize) -> String {
    if name.len() <= bytes_max {
        return name.to_owned();
    }
    let kept = name.floor_char_boundary(bytes_max - DIGEST_BYTES);
    format!("{}-{:016x}", &name[..kept], digest(name))
}

/// The first eight bytes of its SHA-256.
pub fn digest(text: &str) -> u64 {
    let bytes = Sha256::digest(text.as_bytes());
    bytes.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
