//! The folder of pins: `<paths.bpf>/maps`, `programs/<digest>`, `links/<device>`.
//!
//! A BPF file system takes no dots in names (`bpf_lookup`, kernel/bpf/inode.c), so a dot in a device
//! name is written as `%2e`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use super::KernelError;
use super::place::{Pinned, Place, file_type, look};

/// `BPF_FS_MAGIC` (linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The folders below `<paths.bpf>` that have others inside, one for each device or build, and what the pins in
/// those are of.
const NESTED: [(&str, Pinned); 2] = [("links", Pinned::TcxLink), ("programs", Pinned::Program)];
/// Those that have pins inside.
const FLAT: [(&str, Pinned); 3] =
    [("cgroup", Pinned::CgroupLink), ("xdp", Pinned::XdpLink), ("maps", Pinned::Map)];

/// The pin of a map.
pub fn map(root: &Path, name: &str) -> PathBuf {
    root.join("maps").join(name)
}

/// The pin of a program.
pub fn program(root: &Path, digest: &str, name: &str) -> PathBuf {
    root.join("programs").join(digest).join(name)
}

/// The pin of a link.
pub fn link(root: &Path, ifname: &str, program: &str) -> PathBuf {
    root.join("links").join(ifname.replace('.', "%2e")).join(program)
}

/// The pin of a link to a control group.
pub fn cgroup_link(root: &Path, program: &str) -> PathBuf {
    root.join("cgroup").join(program)
}

/// The pin of a link to a device's driver.
pub fn xdp_link(root: &Path, ifindex: u32) -> PathBuf {
    root.join("xdp").join(ifindex.to_string())
}

/// The device name in the folder name of a link's pin.
pub fn ifname_of(folder: &str) -> String {
    folder.replace("%2e", ".")
}

/// The names in a folder, sorted; empty if it isn't there, or is no folder but something of others.
///
/// # Errors
/// It is there and can't be read.
pub fn list(folder: &Path) -> Result<Vec<String>, KernelError> {
    if !file_type(folder)?.is_some_and(|found| found.is_dir()) {
        return Ok(Vec::new());
    }
    let failed = |source| KernelError::File { operation: "list", path: folder.into(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Whether a folder is, or would be, on a BPF file system.
///
/// # Errors
/// [`KernelError::NotBpffs`].
pub fn check_place(folder: &Path) -> Result<(), KernelError> {
    let existing = folder.ancestors().find(|path| path.is_dir()).unwrap_or(folder);
    match statfs(existing) {
        Ok(fs) if fs.f_type as u64 == BPF_FS_MAGIC => Ok(()),
        _ => Err(KernelError::NotBpffs { path: folder.into() }),
    }
}

/// Makes the folder of a pin, on a BPF file system or not at all.
///
/// # Errors
/// [`KernelError::NotBpffs`], or the folder can't be made.
pub fn make_folder_of(pin: &Path) -> Result<(), KernelError> {
    let Some(folder) = pin.parent() else { return Ok(()) };
    if folder.is_dir() {
        return Ok(());
    }
    check_place(folder)?;
    fs::create_dir_all(folder).map_err(|source| KernelError::File {
        operation: "create",
        path: folder.into(),
        source,
    })
}

/// Removes a pin of ours, then its folders up to and including `root` as far as they are empty. What is
/// there and isn't ours stays.
///
/// # Errors
/// The pin is there and can't be removed.
pub fn remove(root: &Path, pin: &Path, object: Pinned) -> Result<(), KernelError> {
    if let Place::Ours(_) = look(root, pin, object)? {
        unlink(pin)?;
    }
    for folder in pin.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
        // Not empty, or the mount point itself: it stays.
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}

/// Makes room for a pin: removes one of ours, and leaves its folders.
///
/// # Errors
/// Something is there that isn't ours, or it can't be removed.
pub fn clear(root: &Path, pin: &Path, object: Pinned) -> Result<(), KernelError> {
    match look(root, pin, object)? {
        Place::Nothing => Ok(()),
        Place::Ours(_) => unlink(pin),
        Place::Foreign(foreign) => Err(foreign.into()),
    }
}

fn unlink(pin: &Path) -> Result<(), KernelError> {
    match fs::remove_file(pin) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::File { operation: "remove", path: pin.into(), source })
        }
        _ => Ok(()),
    }
}

/// Puts a pin in the place of another of ours in one step.
///
/// # Errors
/// Something is there that isn't ours, or the file system refuses.
pub fn rename(root: &Path, from: &Path, to: &Path, object: Pinned) -> Result<(), KernelError> {
    if let Place::Foreign(foreign) = look(root, to, object)? {
        return Err(foreign.into());
    }
    fs::rename(from, to).map_err(|source| KernelError::File {
        operation: "rename",
        path: from.into(),
        source,
    })
}

/// Removes what a run that was killed may have left of ours: half-made pins, empty folders, and the
/// root itself unless it is a mount point.
///
/// # Errors
/// A pin is there and can't be removed.
pub fn sweep(root: &Path) -> Result<(), KernelError> {
    for (folder, object) in folders(root)? {
        for name in list(&folder)?.iter().filter(|name| name.ends_with("-new")) {
            remove(root, &folder.join(name), object)?;
        }
        let _ = fs::remove_dir(folder);
    }
    for (parent, _) in NESTED {
        let _ = fs::remove_dir(root.join(parent));
    }
    let _ = fs::remove_dir(root);
    Ok(())
}

/// The folders that pins are in, and what they are of.
fn folders(root: &Path) -> Result<Vec<(PathBuf, Pinned)>, KernelError> {
    let mut folders = FLAT.map(|(folder, object)| (root.join(folder), object)).to_vec();
    for (parent, object) in NESTED {
        let parent = root.join(parent);
        folders.extend(list(&parent)?.into_iter().map(|name| (parent.join(name), object)));
    }
    Ok(folders)
}

/// What others have put where our pins were, once those are gone.
///
/// # Errors
/// A folder can't be read.
pub fn left(root: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let mut left = Vec::new();
    let mut rest: Vec<_> =
        NESTED.iter().chain(&FLAT).map(|(folder, _)| root.join(folder)).collect();
    while let Some(path) = rest.pop() {
        let inside = list(&path)?;
        if inside.is_empty() && file_type(&path)?.is_some() {
            left.push(path);
            continue;
        }
        rest.extend(inside.into_iter().rev().map(|name| path.join(name)));
    }
    Ok(left)
}
