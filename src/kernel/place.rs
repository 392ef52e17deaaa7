//! What stands where a pin of ours is, or would be. Imports `super::{bpf, pins}`.
//!
//! Anybody may put things below `<paths.bpf>`: a directory or a symbolic link in the place of a pin, a pin of
//! another object. None of that is ours, so it is no reason to fail: it is told apart, and left alone.

use std::fs::{self, FileType};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{KernelError, bpf, pins};

/// `BPF_LINK_TYPE_CGROUP` (linux/bpf.h).
const LINK_CGROUP: u32 = 3;
/// `BPF_LINK_TYPE_XDP`.
const LINK_XDP: u32 = 6;
/// `BPF_LINK_TYPE_TCX`.
const LINK_TCX: u32 = 11;

/// What a pin is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinned {
    Map,
    Program,
    TcxLink,
    CgroupLink,
    XdpLink,
    OtherLink,
}

impl Pinned {
    /// What an open object is. The names are those of its anonymous inode (kernel/bpf/syscall.c).
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn of(object: impl AsFd) -> io::Result<Self> {
        let fd = object.as_fd().as_raw_fd();
        let name = fs::read_link(format!("/proc/self/fd/{fd}"))?;
        Ok(match name.to_string_lossy().as_ref() {
            "anon_inode:bpf-map" => Self::Map,
            "anon_inode:bpf-prog" => Self::Program,
            _ => match bpf::link_type(object)? {
                LINK_TCX => Self::TcxLink,
                LINK_CGROUP => Self::CgroupLink,
                LINK_XDP => Self::XdpLink,
                _ => Self::OtherLink,
            },
        })
    }

    fn text(self) -> &'static str {
        match self {
            Self::Map => "a map",
            Self::Program => "a program",
            Self::TcxLink => "a link to a device",
            Self::CgroupLink => "a link to a control group",
            Self::XdpLink => "a link to a driver",
            Self::OtherLink => "a link of another kind",
        }
    }
}

/// What stands at a place.
#[derive(Debug)]
pub enum Place {
    Nothing,
    /// A pin of the object that belongs there.
    Ours(OwnedFd),
    Foreign(Foreign),
}

/// Something that is no pin of ours: itself at the place, or in the place of one of its folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    pub path: PathBuf,
    /// What it is, as `a directory`.
    pub what: &'static str,
}

impl From<Foreign> for KernelError {
    fn from(Foreign { path, what }: Foreign) -> Self {
        KernelError::PinTaken { path, what }
    }
}

/// Looks at the place of a pin below `root`.
///
/// # Errors
/// It can't be looked at, or what is pinned there can't be opened.
pub fn look(root: &Path, pin: &Path, object: Pinned) -> Result<Place, KernelError> {
    let mut path = root.to_path_buf();
    let mut names = pin.strip_prefix(root).unwrap_or(pin).components().peekable();
    while let Some(name) = names.next() {
        path.push(name);
        let Some(file_type) = file_type(&path)? else { return Ok(Place::Nothing) };
        let is_last = names.peek().is_none();
        if file_type.is_file() && is_last {
            return look_at_file(path, object);
        }
        if !file_type.is_dir() || is_last {
            return Ok(Place::Foreign(Foreign { path, what: text(file_type) }));
        }
    }
    Ok(Place::Nothing)
}

/// A pin of ours, if there is one.
///
/// # Errors
/// As for [`look`].
pub fn open(root: &Path, pin: &Path, object: Pinned) -> Result<Option<OwnedFd>, KernelError> {
    Ok(match look(root, pin, object)? {
        Place::Ours(fd) => Some(fd),
        Place::Nothing | Place::Foreign(_) => None,
    })
}

/// The pin of ours that has to be there.
///
/// # Errors
/// It isn't there, something else is, or it can't be opened.
pub fn find(root: &Path, pin: &Path, object: Pinned) -> Result<OwnedFd, KernelError> {
    match look(root, pin, object)? {
        Place::Ours(fd) => Ok(fd),
        Place::Foreign(foreign) => Err(foreign.into()),
        Place::Nothing => Err(KernelError::File {
            operation: "find the pin",
            path: pin.into(),
            source: io::ErrorKind::NotFound.into(),
        }),
    }
}

fn look_at_file(path: PathBuf, object: Pinned) -> Result<Place, KernelError> {
    let failed = |path: &Path, source| KernelError::Bpf {
        operation: "open the pin",
        object: path.display().to_string(),
        source,
    };
    let fd = match bpf::obj_get(&path) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::Nothing),
        // A file of another file system is no pin.
        Err(_) if pins::check_place(path.parent().unwrap_or(&path)).is_err() => {
            return Ok(Place::Foreign(Foreign { path, what: "a file" }));
        }
        Err(source) => return Err(failed(&path, source)),
    };
    let found = Pinned::of(&fd).map_err(|source| failed(&path, source))?;
    Ok(match found == object {
        true => Place::Ours(fd),
        false => Place::Foreign(Foreign { path, what: found.text() }),
    })
}

/// What a path is, if it is there; of a symbolic link not what it leads to.
///
/// # Errors
/// It can't be looked at.
pub(super) fn file_type(path: &Path) -> Result<Option<FileType>, KernelError> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.file_type())),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(source) => Err(KernelError::File { operation: "look at", path: path.into(), source }),
    }
}

fn text(file_type: FileType) -> &'static str {
    match file_type {
        _ if file_type.is_dir() => "a directory",
        _ if file_type.is_symlink() => "a symbolic link",
        // In the place of a folder.
        _ if file_type.is_file() => "a file or a pin",
        _ => "a special file",
    }
}
