//! The folder of files: the only file that writes.
//!
//! Each file is written beside its place, synced and renamed, so that whoever reads sees the old one or the
//! new one, whole, whenever this process ends. What is not to be written again is not touched. Files that
//! are not marked as ours are never changed. Imports `page`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::page::{LEFT_OUT, MARK, PREFIX, Wanted, group};

const TEMPORARY: &str = ".kubernetes-";

/// A file that can't be written, removed or read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("can't {operation} {}: {source}: check the directory's owner, mode and space", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("another ciliate-kubernetes writes into {}: stop it", .0.display())]
    Taken(PathBuf),
    #[error("{} is in the way: this program did not write it, or can't read it: rename or remove it", .0.display())]
    Foreign(PathBuf),
}

/// The folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held while it is ours: two would write one temporary file, and whoever is the first would publish half of it.
    lock: File,
    /// Our files, and what is in those that this process has looked at.
    known: BTreeMap<String, String>,
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
        let (folder, mut known) = (path.into(), BTreeMap::new());
        fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        let lock = File::open(&folder).map_err(failed("open", &folder))?;
        lock.try_lock().map_err(|_| FolderError::Taken(folder.clone()))?;
        for entry in fs::read_dir(&folder).map_err(failed("read", &folder))? {
            let path = entry.map_err(failed("read", &folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(TEMPORARY) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            } else if name.starts_with(PREFIX) && matches!(ours(&path), Ok(Some(_))) {
                known.insert(name, String::new());
            }
        }
        Ok(Self { path: folder, lock, known })
    }

    /// How many files of ours there are, and how much is left out in them.
    pub fn count(&self) -> (usize, usize) {
        (self.known.len(), self.known.values().map(|text| text.matches(LEFT_OUT).count()).sum())
    }

    /// Makes the files what they should be: first removes what should not be, since a name that is used again or
    /// an address that has moved must not be there twice, then writes what differs. Goes on after a failure; what
    /// failed is tried again by the next `sync`.
    pub fn sync(&mut self, wanted: Wanted) -> (Done, Vec<FolderError>) {
        let (mut done, mut errors) = (Done::default(), Vec::new());
        let gone = self.known.keys().filter(|name| !wanted.files.contains_key(*name));
        let gone = gone.filter(|name| wanted.groups.contains(group(name)));
        for name in gone.cloned().collect::<Vec<_>>() {
            let path = self.path.join(&name);
            if ours(&path).is_ok_and(|found| found.is_some())
                && let Err(error) = fs::remove_file(&path)
            {
                errors.push(failed("remove", &path)(error));
            } else {
                self.known.remove(&name);
                done.removed += 1;
            }
        }
        for (name, text) in wanted.files.into_iter().filter_map(|(name, text)| Some((name, text?)))
        {
            if wanted.afresh || self.known.get(&name) != Some(&text) {
                let result = self.put(name, text).map(|new| done.written += usize::from(new));
                errors.extend(result.err());
            }
        }
        if done != Done::default() {
            errors.extend(self.lock.sync_all().map_err(failed("sync", &self.path)).err());
        }
        (done, errors)
    }

    /// True if the file was written.
    fn put(&mut self, name: String, text: String) -> Result<bool, FolderError> {
        let path = self.path.join(&name);
        let differs = ours(&path)?.is_none_or(|found| found != text);
        if differs {
            let beside = self.path.join(format!("{TEMPORARY}{}", &name[PREFIX.len()..]));
            let written = File::create(&beside).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                fs::rename(&beside, &path)
            });
            let written = written.inspect_err(|_| _ = fs::remove_file(&beside));
            written.map_err(failed("write", &path))?;
        }
        self.known.insert(name, text);
        Ok(differs)
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { operation, path, source }
}

/// The text of a file that bears our mark; `None` if there is no file.
fn ours(path: &Path) -> Result<Option<String>, FolderError> {
    match fs::read_to_string(path) {
        Ok(text) if text.starts_with(MARK) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Ok(_) | Err(_) => Err(FolderError::Foreign(path.to_owned())),
    }
}
