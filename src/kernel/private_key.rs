//! The file with this node's WireGuard private key: where it is, reading it, making it.
//!
//! Imports the parent module and `net`. The key leaves this module for the kernel only: it has no text form
//! outside, is not printed by `{:?}`, and its memory is overwritten when it is dropped. x25519-dalek tells the
//! public key that belongs to it; the kernel would as well, but only where it has WireGuard.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::rand::{GetRandomFlags, getrandom};
use x25519_dalek::StaticSecret;

use super::{KernelError, lock};
use crate::net::{KEY_BYTES, KeyError, PublicKey, key_bytes, key_text};

/// Name of the file, below `<paths.state>` and as a credential of systemd.
const FILE_NAME: &str = "wireguard.key";
/// Where systemd has the credentials of our unit (systemd.exec(5)), also for commands that it doesn't start.
const CREDENTIALS: &str = "/run/credentials/ciliated.service";
/// The file that says that we made the folder.
const MARK: &str = "made-by-ciliate";
/// A file with one key is no longer.
const FILE_BYTES_MAX: u64 = 128;

/// A private key.
pub struct PrivateKey(StaticSecret);

impl PrivateKey {
    /// The key that others are given.
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }

    /// The key itself, for the kernel.
    pub(super) fn bytes(&self) -> [u8; KEY_BYTES] {
        self.0.to_bytes()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// Why a file can't serve as the private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    #[error(
        "others than its owner may read this private key (mode {mode:04o}); make that impossible with `chmod 600`, and if somebody may have read it, make a new one with `ciliate wireguard rotate`"
    )]
    Readable { mode: u32 },
    #[error("it belongs to user {uid}, who may read it; make it root's with `chown root`")]
    NotRoots { uid: u32 },
    #[error(
        "it is not a plain file; private-key-file of [encryption] names a file with a key in base64"
    )]
    NotAFile,
    #[error("it holds no private key: {0}; `ciliate wireguard rotate` makes a new one")]
    NoKey(KeyError),
    #[error(
        "it is a credential of systemd; put a new key where LoadCredential= of ciliated.service has it from, and restart the service"
    )]
    Credential,
    #[error("it is longer than a key in base64; `ciliate wireguard rotate` makes a new one")]
    TooLong,
}

/// Where the key is: where the configuration says, else a credential that systemd has for the service, else
/// below `<paths.state>`.
pub fn place(configured: Option<&Path>, state: &Path) -> PathBuf {
    if let Some(path) = configured {
        return path.to_path_buf();
    }
    let credential = Path::new(CREDENTIALS).join(FILE_NAME);
    if credential.is_file() { credential } else { own_place(state) }
}

/// Where the key is that we make for ourselves, and `destroy` removes.
pub fn own_place(state: &Path) -> PathBuf {
    state.join(FILE_NAME)
}

/// Reads the key; `None` where there is no such file.
///
/// # Errors
/// The file can't be read, others may read it, or it holds no key.
pub fn read(path: &Path) -> Result<Option<PrivateKey>, KernelError> {
    let failed = |source| KernelError::File { operation: "read", path: path.into(), source };
    let refused = |problem| KernelError::PrivateKey { path: path.into(), problem };
    // A pipe would keep us waiting.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(refused(KeyProblem::NotAFile));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(refused(KeyProblem::Readable { mode }));
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own {
        return Err(refused(KeyProblem::NotRoots { uid: metadata.uid() }));
    }
    let mut text = zeroed_text();
    (&file).take(FILE_BYTES_MAX + 1).read_to_string(&mut text.0).map_err(failed)?;
    if text.0.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(KeyProblem::TooLong));
    }
    let bytes = key_bytes(text.0.trim()).map_err(|error| refused(KeyProblem::NoKey(error)))?;
    Ok(Some(PrivateKey(StaticSecret::from(bytes))))
}

/// Text that is overwritten when it is dropped.
struct SecretText(String);

fn zeroed_text() -> SecretText {
    SecretText(String::with_capacity(FILE_BYTES_MAX as usize + 1))
}

impl Drop for SecretText {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.iter_mut().for_each(|byte| *byte = std::hint::black_box(0));
        std::hint::black_box(&bytes);
    }
}

/// Makes a key where there is none. Another process may be faster; then its key stays.
///
/// # Errors
/// No random numbers, or the file can't be written.
pub fn make(path: &Path) -> Result<(), KernelError> {
    write(path, false)
}

/// Puts a new key in place of the one there is, and returns the public key that belongs to it. Whoever reads the
/// file meanwhile sees the one or the other.
///
/// # Errors
/// No random numbers, or the file can't be written, or is systemd's.
pub fn replace(path: &Path) -> Result<PublicKey, KernelError> {
    if path.starts_with(CREDENTIALS) {
        return Err(KernelError::PrivateKey { path: path.into(), problem: KeyProblem::Credential });
    }
    write(path, true)?;
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let read = read(path)?.ok_or_else(|| KernelError::File {
        operation: "read",
        path: path.into(),
        source: missing(),
    })?;
    Ok(read.public())
}

fn write(path: &Path, replace: bool) -> Result<(), KernelError> {
    let failed = |source| KernelError::File { operation: "write", path: path.into(), source };
    let mut bytes = [0; KEY_BYTES];
    fill(&mut bytes).map_err(failed)?;
    // The secret's bytes are clamped by whoever uses them, the kernel among them; `wg genkey` writes them so.
    bytes[0] &= 248;
    bytes[31] = bytes[31] & 127 | 64;
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        lock::make_folder(folder)?;
        File::create(folder.join(MARK)).map_err(failed)?;
    }
    let mut new = path.as_os_str().to_os_string();
    new.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(new);
    // What a process with our number left when it was killed.
    let _ = std::fs::remove_file(&new);
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
        let mut text = zeroed_text();
        text.0 += &key_text(&bytes);
        text.0.push('\n');
        file.write_all(text.0.as_bytes())?;
        file.sync_all()?;
        if replace {
            std::fs::rename(&new, path)?;
        } else {
            match std::fs::hard_link(&new, path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => std::fs::remove_file(&new)?,
            }
        }
        File::open(folder)?.sync_all()
    })();
    bytes.iter_mut().for_each(|byte| *byte = std::hint::black_box(0));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written.map_err(failed)
}

fn fill(bytes: &mut [u8; KEY_BYTES]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Removes the key that we made for ourselves, and the folder if we made that too and nothing else is in it.
///
/// # Errors
/// The file is there and can't be removed.
pub fn remove_own(state: &Path) -> Result<(), KernelError> {
    let path = own_place(state);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|source| KernelError::File { operation: "remove", path, source })?,
    }
    if std::fs::remove_file(state.join(MARK)).is_ok() {
        // Somebody else's files keep it.
        let _ = std::fs::remove_dir(state);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("wireguard");
        let path = own_place(&folder);
        assert!(read(&path).unwrap().is_none());
        make(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let first = read(&path).unwrap().unwrap();
        make(&path).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().public(), first.public());
        let second = replace(&path).unwrap();
        assert_ne!(second, first.public());
        assert_eq!(
            std::fs::read_dir(&folder).unwrap().count(),
            2,
            "the key, and whose folder it is"
        );
        assert_eq!(format!("{first:?}"), "PrivateKey");
        remove_own(&folder).unwrap();
        assert!(!folder.exists());
    }

    /// The pair of RFC 7748, section 6.1.
    #[test]
    fn the_public_key_belongs_to_the_private_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let public = read(&path).unwrap().unwrap().public();
        assert_eq!(public.to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }

    #[test]
    fn files_that_cannot_serve_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let problem = |text: &str, mode: u32| {
            let path = folder.path().join("key");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            match read(&path) {
                Err(KernelError::PrivateKey { problem, .. }) => problem,
                other => panic!("{other:?}"),
            }
        };
        let good = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        assert_eq!(problem(good, 0o640), KeyProblem::Readable { mode: 0o640 });
        assert_eq!(problem(good, 0o604), KeyProblem::Readable { mode: 0o604 });
        assert_eq!(problem("", 0o600), KeyProblem::NoKey(KeyError::Length(0)));
        assert_eq!(problem("secret", 0o600), KeyProblem::NoKey(KeyError::NotBase64));
        assert_eq!(problem(&good.repeat(9), 0o600), KeyProblem::TooLong);
        let found = read(folder.path());
        assert!(
            matches!(found, Err(KernelError::PrivateKey { problem: KeyProblem::NotAFile, .. })),
            "{found:?}"
        );
    }
}
