//! The folder of pins: `<paths.bpf>/maps`, `programs/<digest>`, `links/<device>`.
//!
//! A BPF file system takes no dots in names (`bpf_lookup`, kernel/bpf/inode.c), so a dot in a device
//! name is written as `%2e`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use super::KernelError;

/// `BPF_FS_MAGIC` (linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

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

/// The names in a folder, sorted; empty if it isn't there.
///
/// # Errors
/// It is there and can't be read.
pub fn list(folder: &Path) -> Result<Vec<String>, KernelError> {
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

/// Removes a pin, then its folders up to and including `root` as far as they are empty.
///
/// # Errors
/// The pin is there and can't be removed.
pub fn remove(root: &Path, pin: &Path) -> Result<(), KernelError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(KernelError::File { operation: "remove", path: pin.into(), source: error });
        }
        _ => {}
    }
    for folder in pin.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
        // Not empty, or the mount point itself: it stays.
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}

/// Puts a pin in the place of another in one step.
///
/// # Errors
/// The file system refuses.
pub fn rename(from: &Path, to: &Path) -> Result<(), KernelError> {
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
    let mut folders = vec![root.join("maps"), root.join("cgroup")];
    for parent in ["programs", "links"] {
        let parent = root.join(parent);
        folders.extend(list(&parent)?.into_iter().map(|name| parent.join(name)));
        folders.push(parent);
    }
    for folder in &folders {
        for name in list(folder)?.iter().filter(|name| name.ends_with("-new")) {
            remove(root, &folder.join(name))?;
        }
        let _ = fs::remove_dir(folder);
    }
    let _ = fs::remove_dir(root);
    Ok(())
}
