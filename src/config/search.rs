//! Which files are read, and in which order.
//!
//! The rules are in the module documentation of `config`. Reads directories, nothing else; imports
//! nothing of this crate but `load`'s error.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::load::{FileError, Trouble, limits};

/// Where configuration is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Search {
    /// A main file and directories of drop-ins.
    System {
        main: PathBuf,
        /// The lowest first: of two files with the same name the later directory's is read. The last
        /// is the administrator's, and the only one that is read after the main file.
        drop_ins: Vec<PathBuf>,
    },
    /// `--config PATH`: one file, or a directory whose `*.toml` are read in the order of their names.
    Path(PathBuf),
}

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In reading order.
    pub files: Vec<PathBuf>,
    pub errors: Vec<FileError>,
}

impl Search {
    /// `/etc/ciliate/ciliate.toml` and the three `conf.d`.
    pub fn system() -> Self {
        Self::under(Path::new("/"))
    }

    /// The same below another root directory: an image that is being built, or a test.
    pub fn under(root: &Path) -> Self {
        let drop_ins = ["usr/lib/ciliate/conf.d", "run/ciliate/conf.d", "etc/ciliate/conf.d"];
        Self::System {
            main: root.join("etc/ciliate/ciliate.toml"),
            drop_ins: drop_ins.iter().map(|dir| root.join(dir)).collect(),
        }
    }

    /// `--config PATH`.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self::Path(path.into())
    }

    /// The directories a change in which can change the document: the ones that hold files, and the
    /// parent of each, where it is created, moved away or put back. Some may not exist. Watch them
    /// without recursion and never a file: a watch on a file ends with the first atomic rename.
    pub fn watch_directories(&self) -> BTreeSet<PathBuf> {
        let parent = |path: &Path| match path.parent() {
            Some(parent) if parent == Path::new("") => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => path.to_owned(),
        };
        match self {
            Self::System { main, drop_ins } => {
                let parents = drop_ins.iter().map(|dir| parent(dir));
                drop_ins.iter().cloned().chain(parents).chain([parent(main)]).collect()
            }
            Self::Path(path) => [parent(path), path.clone()]
                .into_iter()
                // The path may be a file: then only its directory is of use.
                .filter(|dir| !dir.is_file())
                .collect(),
        }
    }

    /// The same search by absolute paths.
    ///
    /// # Errors
    /// The working directory can't be told.
    pub fn absolute(&self) -> io::Result<Self> {
        Ok(match self {
            Self::System { main, drop_ins } => Self::System {
                main: std::path::absolute(main)?,
                drop_ins: drop_ins.iter().map(std::path::absolute).collect::<io::Result<_>>()?,
            },
            Self::Path(path) => Self::Path(std::path::absolute(path)?),
        })
    }

    /// Whether a file of this path is, or would be, read.
    pub fn reads(&self, path: &Path) -> bool {
        let in_one_of = |dirs: &[PathBuf]| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            is_configuration(&name) && dirs.iter().any(|dir| path.parent() == Some(dir))
        };
        match self {
            Self::System { main, drop_ins } => path == main || in_one_of(drop_ins),
            Self::Path(named) => path == named || in_one_of(std::slice::from_ref(named)),
        }
    }

    /// Whether there is no configuration at all in the system's places: none was written yet, or all of it is gone.
    pub fn finds_nothing(&self) -> bool {
        let listing = self.list();
        matches!(self, Self::System { .. }) && listing.files.is_empty() && listing.errors.is_empty()
    }

    /// Where links among the files lead, wherever that is: each link on the way, and the file at its end.
    /// ConfigMaps swap one of those, and administrators write behind them. In the watched directories by their
    /// watched names as well.
    pub fn link_names(&self) -> BTreeSet<PathBuf> {
        let files = self.list().files.into_iter().filter(|path| path.is_symlink());
        let steps: BTreeSet<PathBuf> = files.flat_map(|path| link_steps(&path)).collect();
        let mut names = BTreeSet::new();
        for dir in self.watch_directories() {
            let Ok(real) = dir.canonicalize() else { continue };
            let here = steps.iter().filter(|step| step.parent() == Some(&real));
            names.extend(here.filter_map(|step| Some(dir.join(step.file_name()?))));
        }
        names.extend(steps);
        names
    }

    /// Lists the files to read.
    pub(super) fn list(&self) -> Listing {
        let mut listing = Listing::default();
        match self {
            Self::System { main, drop_ins } => {
                let mut by_name = BTreeMap::new();
                for dir in drop_ins {
                    by_name.extend(names(dir, true, &mut listing.errors));
                }
                let files = by_name.into_values().filter(|path| !is_mask(path));
                let own = |path: &PathBuf| path.parent() == drop_ins.last().map(PathBuf::as_path);
                let (administrator, others): (Vec<_>, Vec<_>) = files.partition(own);
                listing.files = others;
                if main.symlink_metadata().is_ok() {
                    listing.files.push(main.clone());
                }
                listing.files.extend(administrator);
            }
            Self::Path(path) if path.is_dir() => {
                listing.files.extend(names(path, false, &mut listing.errors).into_values());
            }
            Self::Path(path) => listing.files.push(path.clone()),
        }
        if let Some(excess) = listing.files.get(limits::FILES_MAX) {
            listing.errors.push(FileError::new(excess, Trouble::TooMany));
            listing.files.clear();
        }
        listing
    }
}

/// The configuration files of a directory by name. A directory may be absent only if `optional`.
fn names(dir: &Path, optional: bool, errors: &mut Vec<FileError>) -> BTreeMap<OsString, PathBuf> {
    let found = fs::read_dir(dir).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| (entry.file_name(), entry.path()))).collect()
    });
    match found {
        Ok(found) => {
            let found: Vec<(OsString, PathBuf)> = found;
            found
                .into_iter()
                .filter(|(name, _)| is_configuration(&name.to_string_lossy()))
                .collect()
        }
        Err(error) if optional && error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => {
            errors.push(FileError::new(dir, Trouble::Unreadable(error)));
            BTreeMap::new()
        }
    }
}

/// Every link on the way to a file, and the file at its end. Their directories are real ones, without a link.
fn link_steps(path: &Path) -> BTreeSet<PathBuf> {
    let mut steps = BTreeSet::new();
    let Ok(path) = std::path::absolute(path) else { return steps };
    let parts =
        |path: &Path| path.components().rev().map(|part| part.as_os_str().to_owned()).collect();
    let mut left: Vec<OsString> = parts(&path);
    let mut at = PathBuf::new();
    while let Some(part) = left.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        // An absolute target begins anew: to push its root replaces the path.
        at.push(part);
        if let Ok(target) = at.read_link() {
            // One that was met before is a circle.
            if !steps.insert(at.clone()) {
                return steps;
            }
            at.pop();
            let target: Vec<OsString> = parts(&target);
            left.extend(target);
        }
    }
    steps.insert(at);
    steps
}

/// True for names that are read: not hidden, not an editor's lock (`.#x`) or copy (`#x#`, `x~`).
fn is_configuration(name: &str) -> bool {
    name.ends_with(".toml") && !name.starts_with(['.', '#'])
}

/// True for a drop-in that stands for "none": an empty file or `/dev/null`.
fn is_mask(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| is_null(&found) || found.is_file() && found.len() == 0)
}

/// True for `/dev/null`, under whatever name.
pub(super) fn is_null(found: &fs::Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == libc::makedev(1, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn droppings_are_ignored() {
        for name in ["a.toml", "10-a.toml", "a.b.toml"] {
            assert!(is_configuration(name), "{name}");
        }
        for name in [
            ".a.toml",
            "a.toml~",
            ".#a.toml",
            "#a.toml#",
            "#a.toml",
            "a.toml.dpkg-old",
            "a",
            "..data",
        ] {
            assert!(!is_configuration(name), "{name}");
        }
    }

    /// A directory as a ConfigMap is mounted: a link to a link that is swapped.
    #[test]
    fn links_in_watched_directories_matter() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let dir = root.join("etc");
        fs::create_dir_all(dir.join("..2026")).unwrap();
        fs::write(dir.join("..2026/a.toml"), "").unwrap();
        symlink("..2026", dir.join("..data")).unwrap();
        symlink("..data/a.toml", dir.join("a.toml")).unwrap();
        symlink("target", dir.join("dangling.toml")).unwrap();
        symlink("circle.toml", dir.join("circle.toml")).unwrap();
        symlink(&dir, root.join("way")).unwrap();
        symlink(root.join("elsewhere/b.conf"), dir.join("b.toml")).unwrap();
        let way = root.join("way");
        let expected = ["..data", "a.toml", "b.toml", "circle.toml", "dangling.toml", "target"];
        let expected: BTreeSet<_> = expected.iter().map(|name| way.join(name)).collect();
        let names = Search::path(&way).link_names();
        let (inside, others): (BTreeSet<_>, BTreeSet<_>) =
            names.into_iter().partition(|path| path.parent() == Some(&way));
        assert_eq!(inside, expected);
        assert!(others.contains(&root.join("elsewhere/b.conf")), "{others:?}");
    }

    #[test]
    fn watches_directories_and_their_parents() {
        let dirs: Vec<_> = Search::system().watch_directories().into_iter().collect();
        let expected = [
            "/etc/ciliate",
            "/etc/ciliate/conf.d",
            "/run/ciliate",
            "/run/ciliate/conf.d",
            "/usr/lib/ciliate",
            "/usr/lib/ciliate/conf.d",
        ];
        assert_eq!(dirs, expected.map(PathBuf::from));
        let dirs: Vec<_> = Search::path("Cargo.toml").watch_directories().into_iter().collect();
        assert_eq!(dirs, [PathBuf::from(".")]);
    }
}
