//! The one-writer rule as a value: whoever changes the kernel shows a [`WriterScope`]. And locks on other
//! files: held as long as the file is open, so they end with the process.

pub mod daemon;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

use super::KernelError;

/// How often a lock that is taken is tried again.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(20);

/// Proof that this process alone changes the node. Dropped, the next may.
#[derive(Debug)]
pub struct WriterScope {
    _file: File,
    was_ours: bool,
}

/// What a process writes into the lock of a node when it takes it: no other writes the same.
static NAME: LazyLock<String> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{} {}\n", std::process::id(), since.as_nanos())
});

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

/// The file in a runtime folder that says that we made the folder. It goes with it: on a machine that
/// starts anew, both are gone.
fn mark(runtime: &Path) -> PathBuf {
    runtime.join("made-by-ciliate")
}

/// Makes the runtime folder, unless somebody else has, as systemd does with a unit's `RuntimeDirectory=`.
///
/// # Errors
/// It can't be made.
pub fn make_runtime(runtime: &Path) -> Result<(), KernelError> {
    if runtime.is_dir() {
        return Ok(());
    }
    make_folder(runtime)?;
    match write_mark(runtime) {
        // Removed again by a `destroy` that ends just now: whoever wants the lock tries once more.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(|source| failed("create", &mark(runtime), source)),
    }
}

fn write_mark(runtime: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600).open(mark(runtime)).map(drop)
}

/// Removes what is ours of the runtime folder once the rest of it is gone, and the folder if we made it. Whoever
/// calls this holds the locks.
pub fn remove_runtime(runtime: &Path) {
    let _ = std::fs::remove_file(path(runtime));
    let _ = std::fs::remove_file(daemon::path(runtime));
    // Somebody else's files in it keep it. So does the next of us, who is there already and removes it then.
    if std::fs::remove_file(mark(runtime)).is_ok()
        && std::fs::remove_dir(runtime).is_err()
        && (path(runtime).exists() || daemon::path(runtime).exists())
    {
        let _ = write_mark(runtime);
    }
}

impl WriterScope {
    /// Takes the lock in the node's runtime folder, which is made if it is missing.
    ///
    /// # Errors
    /// [`KernelError::Locked`] when another process still has it after `patience`.
    pub fn take(runtime: &Path, patience: Duration) -> Result<Self, KernelError> {
        let file = lock(&path(runtime), patience, Some(&|| make_runtime(runtime)))?;
        let was_ours = sign(&file).map_err(|source| failed("write to", &path(runtime), source))?;
        Ok(Self { _file: file, was_ours })
    }

    /// Whether nobody else has had it since this process had it last.
    pub fn was_ours(&self) -> bool {
        self.was_ours
    }
}

/// Writes this process's name into a file, and says whether it was there.
fn sign(file: &File) -> io::Result<bool> {
    let mut before = vec![0; NAME.len() + 1];
    let length = file.read_at(&mut before, 0)?;
    let was_ours = before[..length] == *NAME.as_bytes();
    if !was_ours {
        file.set_len(0)?;
        file.write_all_at(NAME.as_bytes(), 0)?;
    }
    Ok(was_ours)
}

/// Locks a file against other processes, and makes it if it is missing. Its folder has to be there: nobody is
/// waited for who might make it.
///
/// # Errors
/// [`KernelError::Locked`] when another process still has it after `patience`; it can't be made.
pub fn hold(path: &Path, patience: Duration) -> Result<File, KernelError> {
    lock(path, patience, None)
}

/// The same for a file in a folder that is made as often as others remove it.
///
/// # Errors
/// As above; the folder can't be made.
pub fn hold_in(folder: &Path, path: &Path, patience: Duration) -> Result<File, KernelError> {
    lock(path, patience, Some(&|| make_folder(folder)))
}

/// Whoever has a lock may remove its file, and the folder with it (`destroy` does both): then it is made
/// anew, and the lock on the file that is gone counts for nothing.
fn lock(
    path: &Path,
    patience: Duration,
    make_folder: Option<&dyn Fn() -> Result<(), KernelError>>,
) -> Result<File, KernelError> {
    let begin = Instant::now();
    loop {
        make_folder.map_or(Ok(()), |make| make())?;
        // Whoever can open the file can hold the lock.
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path);
        let patient = begin.elapsed() < patience;
        let removed_since = |error: &io::Error| {
            error.kind() == io::ErrorKind::NotFound && make_folder.is_some() && patient
        };
        let file = match file {
            Ok(file) => file,
            Err(error) if removed_since(&error) => continue,
            Err(source) => return Err(failed("open", path, source)),
        };
        match try_lock(file, path)? {
            Lock::Ours(file) => return Ok(file),
            Lock::Replaced => {}
            Lock::Theirs if patient => thread::sleep(ATTEMPT_INTERVAL.min(patience)),
            Lock::Theirs => return Err(KernelError::Locked { path: path.into() }),
        }
    }
}

/// Whether another process holds the lock of a file. One that isn't there nobody holds.
///
/// # Errors
/// It is there and can't be opened.
pub fn is_held(path: &Path) -> Result<bool, KernelError> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failed("open", path, source)),
        Ok(file) => Ok(flock(&file, FlockOperation::NonBlockingLockShared).is_err()),
    }
}

/// Whether a path still leads to an open file, and not to another one, or nowhere.
pub fn is_at(file: &File, path: &Path) -> bool {
    let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let (open, found) = (file.metadata().map(place), path.metadata().map(place));
    open.is_ok_and(|open| found.is_ok_and(|found| open == found))
}

enum Lock {
    Ours(File),
    Theirs,
    /// Locked, but whoever had it before removed the file: others lock another one.
    Replaced,
}

fn try_lock(file: File, path: &Path) -> Result<Lock, KernelError> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_at(&file, path) => Ok(Lock::Ours(file)),
        Ok(()) => Ok(Lock::Replaced),
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(Lock::Theirs),
        Err(error) => Err(failed("lock", path, error.into())),
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> KernelError {
    KernelError::File { operation, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn nobody_else_can_open_the_lock() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = parent.path().join("runtime");
        let scope = WriterScope::take(&runtime, Duration::ZERO).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path(&runtime)) & 0o077, 0);
        assert_eq!(mode(&runtime) & 0o027, 0);
        let second = WriterScope::take(&runtime, Duration::ZERO);
        assert!(matches!(second, Err(KernelError::Locked { .. })), "{second:?}");
        drop(scope);
        assert!(WriterScope::take(&runtime, Duration::ZERO).is_ok());
    }

    #[test]
    fn who_had_the_lock_last_is_known() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = parent.path().join("runtime");
        let was_ours = || WriterScope::take(&runtime, Duration::ZERO).unwrap().was_ours();
        assert_eq!([was_ours(), was_ours()], [false, true]);
        // Another has had it; its name may be longer, and begin as ours does.
        for name in ["1 2\n".to_owned(), format!("{}9\n", NAME.trim_end()), format!("{}0", *NAME)] {
            std::fs::write(path(&runtime), name).unwrap();
            assert_eq!([was_ours(), was_ours()], [false, true]);
        }
        // `destroy` removes it.
        std::fs::remove_file(path(&runtime)).unwrap();
        assert!(!was_ours());
    }

    /// Nobody makes the folder, so there is nothing to wait for.
    #[test]
    fn a_folder_that_is_gone_is_not_waited_for() {
        const AN_HOUR: Duration = Duration::from_secs(3600);
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("runtime");
        let held = hold(&path(&folder), AN_HOUR);
        assert!(matches!(held, Err(KernelError::File { .. })), "{held:?}");
        drop(hold_in(&folder, &path(&folder), AN_HOUR).unwrap());
    }

    /// As `destroy` removes it while others wait.
    #[test]
    fn a_lock_on_a_file_that_was_removed_counts_for_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = parent.path().join("runtime");
        for made_anew in [false, true] {
            let first = WriterScope::take(&runtime, Duration::ZERO).unwrap();
            let path = path(&runtime);
            let opened = File::open(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            drop(first);
            let second = made_anew.then(|| WriterScope::take(&runtime, Duration::ZERO).unwrap());
            let outcome = try_lock(opened, &path);
            assert!(matches!(outcome, Ok(Lock::Replaced)), "{made_anew}");
            // And whoever is told so gets the one that is there.
            drop(second);
            assert!(WriterScope::take(&runtime, Duration::ZERO).is_ok());
        }
    }
}
