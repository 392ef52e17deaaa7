//! The one-writer rule as a value: whoever changes the kernel shows a [`WriterScope`].

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::KernelError;

/// How often a lock that is taken is tried again.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(20);

/// Proof that this process alone changes the node. Dropped, the next may.
#[derive(Debug)]
pub struct WriterScope {
    _file: File,
}

/// Where the lock of a node is.
pub fn path(runtime: &Path) -> PathBuf {
    runtime.join("lock")
}

/// Makes the runtime folder, closed to everybody but root and its group.
///
/// # Errors
/// It can't be made.
pub fn make_folder(runtime: &Path) -> Result<(), KernelError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(runtime)
        .map_err(|source| KernelError::File { operation: "create", path: runtime.into(), source })
}

impl WriterScope {
    /// Takes the lock in the node's runtime folder, which is made if it is missing.
    ///
    /// # Errors
    /// [`KernelError::Locked`] when another process still has it after `patience`.
    pub fn take(runtime: &Path, patience: Duration) -> Result<Self, KernelError> {
        make_folder(runtime)?;
        let path = path(runtime);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            // Whoever can open the file can hold the lock.
            .mode(0o600)
            .open(&path);
        let file = file.map_err(|source| KernelError::File {
            operation: "open",
            path: path.clone(),
            source,
        })?;
        let begin = Instant::now();
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if begin.elapsed() >= patience {
                return Err(KernelError::Locked { path });
            }
            thread::sleep(ATTEMPT_INTERVAL.min(patience));
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn nobody_else_can_open_the_lock() {
        let name = format!("ciliate-lock-{}/runtime", std::process::id());
        let runtime = std::env::temp_dir().join(name);
        let scope = WriterScope::take(&runtime, Duration::ZERO).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path(&runtime)) & 0o077, 0);
        assert_eq!(mode(&runtime) & 0o027, 0);
        let second = WriterScope::take(&runtime, Duration::ZERO);
        assert!(matches!(second, Err(KernelError::Locked { .. })), "{second:?}");
        drop(scope);
        assert!(WriterScope::take(&runtime, Duration::ZERO).is_ok());
        std::fs::remove_dir_all(runtime.parent().unwrap()).unwrap();
    }
}
