//! One entry of a map at a time. Imports [`super::super::bpf`].

use std::io;
use std::os::fd::AsFd;

use super::super::bpf::{Attr, call, command};
use super::{Map, check_size};

/// `BPF_NOEXIST` and `BPF_EXIST` (linux/bpf.h).
const NOEXIST: u64 = 1;
const EXIST: u64 = 2;

impl Map {
    /// The value under a key. To an LRU map this does not count as use of the entry.
    ///
    /// # Errors
    /// The key's size doesn't fit, or the kernel's answer.
    pub fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.read(command::MAP_LOOKUP_ELEM, key)
    }

    /// Removes an entry and returns what its value was at that moment (hashes: Linux 5.14).
    ///
    /// # Errors
    /// The key's size doesn't fit, or the kernel's answer.
    pub fn take(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.read(command::MAP_LOOKUP_AND_DELETE_ELEM, key)
    }

    fn read(&self, command: i32, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        check_size(key, self.shape.key_size)?;
        let mut value = vec![0; self.value_bytes];
        let mut attr = Attr::new()
            .fd(0, self.fd.as_fd())
            .u64(8, key.as_ptr() as u64)
            .u64(16, value.as_mut_ptr() as u64);
        // SAFETY: `key` has the map's key size (checked above), and `value` has room for what is under
        // one key.
        match unsafe { call(command, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes an entry unless there is one under the key, and says whether it did.
    ///
    /// # Errors
    /// The sizes don't fit, the map is full, or the kernel's answer.
    pub fn insert_new(&self, key: &[u8], value: &[u8]) -> io::Result<bool> {
        self.write(key, value, NOEXIST, libc::EEXIST)
    }

    /// Writes an entry if there is one under the key, and says whether it did.
    ///
    /// # Errors
    /// The sizes don't fit, or the kernel's answer.
    pub fn replace(&self, key: &[u8], value: &[u8]) -> io::Result<bool> {
        self.write(key, value, EXIST, libc::ENOENT)
    }

    /// Writes an entry; `false` where the kernel refuses with `refusal`.
    fn write(&self, key: &[u8], value: &[u8], flags: u64, refusal: i32) -> io::Result<bool> {
        self.check(key, value)?;
        let mut attr = Attr::new()
            .fd(0, self.fd.as_fd())
            .u64(8, key.as_ptr() as u64)
            .u64(16, value.as_ptr() as u64)
            .u64(24, flags);
        // SAFETY: both have the map's sizes (checked above).
        match unsafe { call(command::MAP_UPDATE_ELEM, &mut attr) } {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(refusal) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
