//! Control groups of version 2.
//!
//! Imports its siblings only.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use super::KernelError;

/// `CGROUP2_SUPER_MAGIC` (linux/magic.h).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Where version 2 is beside version 1, below the folder that has both.
const BESIDE_V1: &str = "unified";

/// The group at a folder, and its number; on a machine with both versions that of version 2 below it. `None`:
/// there is none.
///
/// # Errors
/// The folder is there and can't be read.
pub fn find(folder: &Path) -> Result<Option<(PathBuf, u64)>, KernelError> {
    for path in [folder.to_path_buf(), folder.join(BESIDE_V1)] {
        if !statfs(&path).is_ok_and(|fs| fs.f_type as u64 == CGROUP2_MAGIC) {
            continue;
        }
        match fs::metadata(&path) {
            Ok(metadata) => return Ok(Some((path, metadata.ino()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(KernelError::File { operation: "read", path, source }),
        }
    }
    Ok(None)
}
