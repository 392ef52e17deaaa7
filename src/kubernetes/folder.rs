//! The folder of files: the only file that writes.
//!
//! Each file is written beside its place, synced and renamed, so that whoever reads sees the old one or the
//! new one, whole, whenever this process ends. What is not to be written again is not touched. Files that
//! are not marked as ours are never changed. Imports `mapping`, `page`.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::mapping::Wanted;
use crate::page::{MARK, PREFIX, group};

const TEMPORARY: &str = ".kubernetes-";

/// A file that can't be written, removed or read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("can't {operation} {}: {source}: check the directory's owner, mode and space", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is in the way: this program did not write it, rename or remove it", .0.display())]
    Foreign(PathBuf),
}

/// What tells a file's content without reading it.
type Stamp = (u64, u64, i64, i64);

/// The folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Our files: how they were left, and their texts once this process knows them.
    known: BTreeMap<String, (Stamp, Option<String>)>,
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
            } else if name.starts_with(PREFIX) && is_ours(&path)? {
                folder.known.insert(name, (stamp(&path)?, None));
            }
        }
        Ok(folder)
    }

    /// How many files of ours there are.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Looks whether the files are as they were left. Those that are not are written again by the next `sync`.
    pub fn audit(&mut self) {
        let path = &self.path;
        self.known.retain(|name, known| stamp(&path.join(name)).is_ok_and(|now| now == known.0));
    }

    /// Makes the files what they should be: first removes what should not be, since a name that is used again or
    /// an address that has moved must not be there twice, then writes what differs. Goes on after a failure; what
    /// failed is tried again by the next `sync`.
    pub fn sync(&mut self, wanted: Wanted) -> (Done, Vec<FolderError>) {
        let (mut done, mut errors) = (Done::default(), Vec::new());
        let is_gone = |name: &&String| {
            !wanted.files.contains_key(*name) && wanted.groups.contains(group(name))
        };
        for name in self.known.keys().filter(is_gone).cloned().collect::<Vec<_>>() {
            match self.remove(&name) {
                Ok(()) => done.removed += 1,
                Err(error) => errors.push(error),
            }
        }
        for (name, text) in wanted.files {
            match self.put(name, text) {
                Ok(written) => done.written += usize::from(written),
                Err(error) => errors.push(error),
            }
        }
        if done != Done::default() {
            let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
            errors.extend(synced.map_err(failed("sync", &self.path)).err());
        }
        (done, errors)
    }

    fn remove(&mut self, name: &str) -> Result<(), FolderError> {
        let path = self.path.join(name);
        if is_ours(&path)? {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        self.known.remove(name);
        Ok(())
    }

    /// True if the file was written.
    fn put(&mut self, name: String, text: String) -> Result<bool, FolderError> {
        let known = self.known.get(&name);
        if known.is_some_and(|(_, known)| known.as_ref() == Some(&text)) {
            return Ok(false);
        }
        let path = self.path.join(&name);
        if path.symlink_metadata().is_ok() && !is_ours(&path)? {
            return Err(FolderError::Foreign(path));
        }
        let same = fs::read(&path).is_ok_and(|found| found == text.as_bytes());
        if !same {
            let beside = self.path.join(format!("{TEMPORARY}{}", &name[PREFIX.len()..]));
            let written = File::create(&beside).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            });
            let renamed = written.and_then(|()| fs::rename(&beside, &path));
            renamed
                .map_err(failed("write", &path))
                .inspect_err(|_| _ = fs::remove_file(&beside))?;
        }
        self.known.insert(name, (stamp(&path)?, Some(text)));
        Ok(!same)
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { operation, path, source }
}

fn stamp(path: &Path) -> Result<Stamp, FolderError> {
    let found: Metadata = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    Ok((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

/// Whether a file bears our mark. One that is gone is nobody's any more.
fn is_ours(path: &Path) -> Result<bool, FolderError> {
    if !fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
        return Ok(false);
    }
    let text = fs::read(path).map_err(failed("read", path))?;
    Ok(text.starts_with(MARK.as_bytes()))
}
