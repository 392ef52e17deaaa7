//! The folder of files: the only file that writes.
//!
//! Each file is written beside its place, synced and renamed, so that whoever reads sees the old one or the
//! new one, whole, whenever this process ends. What is not to be written again is not touched. Files that
//! are not marked as ours are never changed. Imports `mapping`, `page`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::mapping::Wanted;
use crate::page::{LEFT_OUT, MARK, PREFIX, group};

const TEMPORARY: &str = ".kubernetes-";

/// A file that can't be written, removed or read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("can't {operation} {}: {source}: check the directory's owner, mode and space", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is in the way: this program did not write it, rename or remove it", .0.display())]
    Foreign(PathBuf),
}

/// The folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Our files, and how much is left out in those that this process has looked at.
    known: BTreeMap<String, usize>,
}

/// How many files were written and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    pub written: usize,
    pub removed: usize,
}

impl Folder {
    /// Opens the folder, and makes it if it isn't there. What a crash left half written is removed.
    ///
    /// # Errors
    /// It can't be made or read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FolderError> {
        let mut folder = Self { path: path.into(), known: BTreeMap::new() };
        let path = &folder.path;
        fs::create_dir_all(path).map_err(failed("make", path))?;
        for entry in fs::read_dir(path).map_err(failed("read", path))? {
            let path = entry.map_err(failed("read", path))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(TEMPORARY) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            } else if name.starts_with(PREFIX) && matches!(ours(&path), Ok(Some(_))) {
                folder.known.insert(name, 0);
            }
        }
        Ok(folder)
    }

    /// How many files of ours there are, and how much is left out in them.
    pub fn count(&self) -> (usize, usize) {
        (self.known.len(), self.known.values().sum())
    }

    /// Makes the files what they should be: first removes what should not be, since a name that is used again or
    /// an address that has moved must not be there twice, then writes what differs. Goes on after a failure; what
    /// failed is tried again by the next `sync`.
    pub fn sync(&mut self, wanted: Wanted) -> (Done, Vec<FolderError>) {
        let (mut done, mut errors) = (Done::default(), Vec::new());
        let is_gone = |name: &&String| {
            wanted.groups.contains(group(name)) && !wanted.files.contains_key(*name)
        };
        let gone: Vec<_> = self.known.keys().filter(is_gone).cloned().collect();
        let mut files: Vec<_> = gone.into_iter().map(|name| (name, None)).collect();
        files.extend(wanted.files);
        files.sort_by_key(|(_, text)| text.is_some());
        for (name, text) in files {
            let result = match text {
                Some(text) => self.put(name, &text).map(|new| done.written += usize::from(new)),
                None => self.remove(&name).map(|old| done.removed += usize::from(old)),
            };
            errors.extend(result.err());
        }
        if done != Done::default() {
            let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
            errors.extend(synced.map_err(failed("sync", &self.path)).err());
        }
        (done, errors)
    }

    /// True if there was such a file.
    fn remove(&mut self, name: &str) -> Result<bool, FolderError> {
        let path = self.path.join(name);
        if let Ok(Some(_)) = ours(&path) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(self.known.remove(name).is_some())
    }

    /// True if the file was written.
    fn put(&mut self, name: String, text: &str) -> Result<bool, FolderError> {
        let path = self.path.join(&name);
        let same = ours(&path)?.is_some_and(|found| found == text);
        if !same {
            let beside = self.path.join(format!("{TEMPORARY}{}", &name[PREFIX.len()..]));
            let written = File::create(&beside).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                fs::rename(&beside, &path)
            });
            written
                .map_err(failed("write", &path))
                .inspect_err(|_| _ = fs::remove_file(&beside))?;
        }
        self.known.insert(name, text.matches(LEFT_OUT).count());
        Ok(!same)
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { operation, path, source }
}

/// The text of a file that bears our mark; `None` if there is no file.
fn ours(path: &Path) -> Result<Option<String>, FolderError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(found) if found.is_file() => {}
        _ => return Err(FolderError::Foreign(path.to_owned())),
    }
    let text = fs::read(path).map_err(failed("read", path))?;
    let text = String::from_utf8(text).ok().filter(|text| text.starts_with(MARK));
    text.map(Some).ok_or_else(|| FolderError::Foreign(path.to_owned()))
}
