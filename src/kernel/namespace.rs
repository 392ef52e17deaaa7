//! Network namespaces that ciliate makes: empty files in a folder, each with a namespace mounted on it,
//! as `ip netns` has them below /run/netns.
//!
//! The mount is what keeps a namespace alive. It is made in the mount namespace that the process is in:
//! a service with a mount namespace of its own would hide it from commands outside.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Mode, OFlags, fstatfs};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::netns::{self, NSFS_MAGIC};

/// What is at a place for a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A network namespace; device and inode tell which.
    Network(netns::Identity),
    /// A namespace of another kind.
    OtherNamespace,
    /// An empty file: nothing is mounted on it.
    Empty,
    /// Something that nobody makes a namespace of, in a word.
    Foreign(&'static str),
}

/// More mounts than this are not stacked on one file.
const STACKED_MAX: usize = 64;

/// What is at a path; `None` if nothing is.
///
/// # Errors
/// It can't be looked at.
pub fn look(path: &Path) -> io::Result<Option<Place>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(place) => File::from(place),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if fstatfs(&place)?.f_type as u64 == NSFS_MAGIC {
        let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
        return match netns::is_of_network(&file) {
            true => {
                let identity = netns::identity(&file).map_err(io::Error::other)?;
                Ok(Some(Place::Network(identity)))
            }
            false => Ok(Some(Place::OtherNamespace)),
        };
    }
    let metadata = place.metadata()?;
    let kind = metadata.file_type();
    Ok(Some(match metadata.len() {
        0 if kind.is_file() => Place::Empty,
        _ if kind.is_file() => Place::Foreign("a file with something in it"),
        _ if kind.is_dir() => Place::Foreign("a folder"),
        _ if kind.is_symlink() => Place::Foreign("a symbolic link"),
        _ if kind.is_socket() => Place::Foreign("a socket"),
        _ => Place::Foreign("a special file"),
    }))
}

/// The paths in a folder of namespaces, and what is there; none where there is no folder.
///
/// # Errors
/// The folder can't be read.
pub fn list(folder: &Path) -> io::Result<Vec<(PathBuf, Place)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(place) = look(&path)? {
            found.push((path, place));
        }
    }
    Ok(found)
}

/// Makes a namespace and mounts it at a path, where nothing or an empty file is.
///
/// # Errors
/// A step fails. What is there then is nothing, or an empty file.
pub fn make(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    }
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    let path = path.to_path_buf();
    let job = move || -> io::Result<()> {
        // SAFETY: the flag changes nothing but this thread's network namespace; its table of files, the
        // one thing the function asks about, stays that of the process.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(mount_bind("/proc/thread-self/ns/net", &path)?)
    };
    // A thread of its own: it ends in the new namespace, and that lives on by the mount.
    let thread = thread::Builder::new().name("unshare".into()).spawn(job)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes it ended")))
}

/// Takes away every mount of a namespace at a path, then the file, then its folder if that is empty.
/// What isn't there, or isn't a namespace or an empty file, is left alone.
///
/// # Errors
/// A step fails.
pub fn remove(path: &Path) -> io::Result<()> {
    for _ in 0..STACKED_MAX {
        match look(path)? {
            Some(Place::Network(_) | Place::OtherNamespace) => {
                unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
            }
            Some(Place::Empty) => {
                fs::remove_file(path)?;
                break;
            }
            Some(Place::Foreign(_)) | None => return Ok(()),
        }
    }
    if let Some(folder) = path.parent() {
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}
