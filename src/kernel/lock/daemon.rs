//! The lock of a daemon: held as long as it lives, so that one that is stopped, stuck or flooded with questions is
//! known to be there. `destroy` holds it while it works, so that no daemon begins beside it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{failed, is_at, lock, make_runtime};
use crate::kernel::KernelError;

/// How long a process that ends may take to let go, and one that begins to write its pid.
const BRIEF: Duration = Duration::from_millis(200);

/// Proof that no other daemon works on the node.
#[derive(Debug)]
pub struct DaemonLock {
    file: File,
    path: PathBuf,
}

/// Where the lock of a node's daemon is.
pub fn path(runtime: &Path) -> PathBuf {
    runtime.join("daemon.lock")
}

/// The pid of the daemon that has the lock, of a lock that is held. `None` if it isn't a daemon.
pub fn holder(runtime: &Path) -> Option<i32> {
    std::fs::read_to_string(path(runtime)).ok()?.trim().parse().ok()
}

impl DaemonLock {
    /// Takes it for a daemon, whose pid the file then has. A `destroy` that has it is waited for.
    ///
    /// # Errors
    /// [`KernelError::Locked`] at once when another daemon has it, or when it is still taken after `patience`.
    pub fn of_daemon(runtime: &Path, patience: Duration) -> Result<Self, KernelError> {
        Self::take(runtime, patience, &format!("{}\n", std::process::id()))
    }

    /// Takes it for somebody who needs to be without a daemon.
    ///
    /// # Errors
    /// As above.
    pub fn without_daemon(runtime: &Path, patience: Duration) -> Result<Self, KernelError> {
        Self::take(runtime, patience, "")
    }

    fn take(runtime: &Path, patience: Duration, text: &str) -> Result<Self, KernelError> {
        let path = path(runtime);
        let make: &dyn Fn() -> Result<(), KernelError> = &|| make_runtime(runtime);
        let file = match lock(&path, BRIEF.min(patience), Some(make)) {
            Err(KernelError::Locked { .. }) if holder(runtime).is_none() => {
                lock(&path, patience, Some(make))?
            }
            outcome => outcome?,
        };
        let written = file.set_len(0).and_then(|()| file.write_all_at(text.as_bytes(), 0));
        written.map_err(|source| failed("write to", &path, source))?;
        Ok(Self { file, path })
    }

    /// Whether others still meet it.
    pub fn is_there(&self) -> bool {
        is_at(&self.file, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_known_by_its_lock() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = parent.path().join("runtime");
        let is_taken = || {
            let taken = DaemonLock::without_daemon(&runtime, Duration::ZERO);
            matches!(taken, Err(KernelError::Locked { .. }))
        };
        let daemon = DaemonLock::of_daemon(&runtime, Duration::ZERO).unwrap();
        assert!(is_taken() && daemon.is_there());
        assert_eq!(holder(&runtime), Some(std::process::id().cast_signed()));
        drop(daemon);
        // Of one that has ended the pid is still there.
        let destroy = DaemonLock::without_daemon(&runtime, Duration::ZERO).unwrap();
        assert!(is_taken());
        assert_eq!(holder(&runtime), None);
        std::fs::remove_file(path(&runtime)).unwrap();
        assert!(!destroy.is_there() && !is_taken());
    }
}
