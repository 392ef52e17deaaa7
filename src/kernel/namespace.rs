//! Network namespaces that ciliate makes: empty files in a folder, each with a namespace mounted on it,
//! as `ip netns` has them below /run/netns.
//!
//! The mount is what keeps a namespace alive. A service that systemd locks in has mounts of its own, which
//! nobody outside sees and which end with it; so the mount is made among those of process 1, from where it
//! comes to be seen in the service too.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Mode, OFlags, fstatfs};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

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
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(path)?;
    // A thread of its own: it ends in the new namespace, and that lives on by the open file.
    let namespace = in_a_thread(|| {
        // SAFETY: the flag changes nothing but this thread's network namespace; its table of files, the
        // one thing the function asks about, stays that of the process.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        File::open("/proc/thread-self/ns/net")
    })?;
    let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    in_a_thread(|| match goes_to_mounts_of_process_1(path, &file)? {
        true => Ok(mount_bind(&source, path)?),
        false => Ok(()),
    })?;
    // They may be the same mounts, or not be seen here.
    match look(path)? {
        Some(Place::Network(_)) => Ok(()),
        _ => Ok(mount_bind(&source, path)?),
    }
}

fn in_a_thread<T: Send>(job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("unshare".into()).spawn_scoped(scope, job)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes it ended")))
    })
}

/// Takes this thread, for good, to the mounts of process 1, if it has others and may. Says whether the path
/// leads to the same file there: in a container or a test it need not.
fn goes_to_mounts_of_process_1(path: &Path, file: &File) -> io::Result<bool> {
    let own = fs::metadata("/proc/thread-self/ns/mnt")?;
    let Ok(mounts) = File::open("/proc/1/ns/mnt") else { return Ok(false) };
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    if same(&own, &mounts.metadata()?) {
        return Ok(false);
    }
    // SAFETY: the flag gives this thread a working directory and a root of its own, which a change of
    // mounts demands; its table of files stays that of the process.
    unsafe { unshare_unsafe(UnshareFlags::FS) }?;
    if move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount)).is_err() {
        return Ok(false);
    }
    let there = fs::symlink_metadata(path);
    Ok(there.is_ok_and(|there| file.metadata().is_ok_and(|here| same(&here, &there))))
}

/// Takes away every mount of a namespace at a path, then the file, then its folder if that is empty. What
/// is mounted there among the mounts of other processes goes with the file.
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
