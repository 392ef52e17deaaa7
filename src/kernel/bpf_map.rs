//! BPF maps: made, opened, read and written, in batches where the kernel can.
//!
//! A [`Map`] knows its sizes from the kernel, so no call can be given a buffer of another size.

mod element;
mod packed;
mod walk;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

pub use walk::{Batch, Walk};

use super::bpf::{Attr, NAME_LEN, call, call_fd, command, info, obj_get, obj_pin, u32_at};
use super::place::Pinned;

/// Entries in one batch call.
const BATCH_ENTRIES_MAX: usize = 4096;
/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
const ARRAY_OF_MAPS: u32 = 12;
/// What an array of maps is made to hold: rings of events (`BPF_MAP_TYPE_RINGBUF`), of any size.
const RING_PROTOTYPE: MapShape =
    MapShape { map_type: 27, key_size: 0, value_size: 0, max_entries: 4096, flags: 0 };
/// `BPF_MAP_TYPE_PERCPU_HASH`, `…_PERCPU_ARRAY`, `…_LRU_PERCPU_HASH`.
const PER_CPU_TYPES: [u32; 3] = [5, 6, 10];

/// What a map is made with. Sizes in bytes; `map_type` is `enum bpf_map_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapShape {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

/// A map: its descriptor, and what the kernel says of it.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    id: u32,
    shape: MapShape,
    /// Bytes of what is under a key: of all CPUs, where each has a value of its own.
    value_bytes: usize,
}

impl Map {
    /// Opens a pinned map.
    ///
    /// # Errors
    /// Nothing is pinned there, or it is no map.
    pub fn open(pin: &Path) -> io::Result<Self> {
        let fd = obj_get(pin)?;
        match Pinned::of(&fd)? {
            Pinned::Map => Self::of(fd),
            _ => Err(io::Error::other("what is pinned there is no map")),
        }
    }

    /// Makes a map. Of the name the kernel keeps 15 bytes.
    ///
    /// # Errors
    /// The kernel doesn't know the type, or has no memory for it.
    pub fn create(name: &str, shape: MapShape) -> io::Result<Self> {
        // Looked at while the outer map is made, and not kept.
        let prototype = (shape.map_type == ARRAY_OF_MAPS)
            .then(|| Self::create("prototype", RING_PROTOTYPE))
            .transpose()?;
        let mut attr = Attr::new()
            .u32(0, shape.map_type)
            .u32(4, shape.key_size)
            .u32(8, shape.value_size)
            .u32(12, shape.max_entries)
            .u32(16, shape.flags)
            .u32(20, prototype.as_ref().map_or(0, |map| map.fd.as_raw_fd() as u32))
            .text(28, &name[..name.len().min(NAME_LEN - 1)]);
        // SAFETY: MAP_CREATE reads no addresses from these fields and returns a new descriptor.
        Self::of(unsafe { call_fd(command::MAP_CREATE, &mut attr)? })
    }

    /// Takes the descriptor of a map, and reads its properties (`struct bpf_map_info`).
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn of(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: the bytes hold no address.
        let bytes = unsafe { info(&fd, [0u8; 40])? };
        let field = |offset| u32_at(&bytes, offset);
        let shape = MapShape {
            map_type: field(0),
            key_size: field(8),
            value_size: field(12),
            max_entries: field(16),
            flags: field(20),
        };
        let value_bytes = if PER_CPU_TYPES.contains(&shape.map_type) {
            possible_cpus()? * (shape.value_size as usize).next_multiple_of(8)
        } else {
            shape.value_size as usize
        };
        Ok(Self { fd, id: field(4), shape, value_bytes })
    }

    /// The id, which tells maps apart for as long as the machine runs.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What it was made with.
    pub fn shape(&self) -> MapShape {
        self.shape
    }

    /// Pins the map.
    ///
    /// # Errors
    /// The path exists, its folder doesn't, or it isn't on a BPF file system.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        obj_pin(&self.fd, path)
    }

    /// All entries; values of all CPUs in a row where each CPU has its own.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn entries(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::new();
        for batch in self.walk(BATCH_ENTRIES_MAX) {
            entries.extend(batch?.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        }
        Ok(entries)
    }

    /// Writes entries, many in one system call, and returns the number of calls.
    ///
    /// # Errors
    /// The kernel's answer to the first that failed, with the number written before it.
    pub fn update(&self, entries: &[(&[u8], &[u8])]) -> Result<u64, (usize, io::Error)> {
        let mut calls = 0;
        for (index, chunk) in entries.chunks(BATCH_ENTRIES_MAX).enumerate() {
            let base = index * BATCH_ENTRIES_MAX;
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for (key, value) in chunk {
                self.check(key, value).map_err(|error| (base, error))?;
                keys.extend_from_slice(key);
                values.extend_from_slice(value);
            }
            let written = self.update_packed(&keys, &values);
            calls += written.map_err(|(done, error)| (base + done, error))?;
        }
        Ok(calls)
    }

    /// Writes one entry.
    ///
    /// # Errors
    /// The map is full, or the sizes don't fit.
    pub fn update_one(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key, value)?;
        let mut attr = Attr::new()
            .fd(0, self.fd.as_fd())
            .u64(8, key.as_ptr() as u64)
            .u64(16, value.as_ptr() as u64);
        // SAFETY: both have the map's sizes (checked above).
        unsafe { call(command::MAP_UPDATE_ELEM, &mut attr).map(drop) }
    }

    /// Removes entries and returns the number of calls; one that is not there is no error.
    ///
    /// # Errors
    /// The sizes don't fit, or the kernel's answer.
    pub fn delete(&self, keys: &[&[u8]]) -> io::Result<u64> {
        let mut calls = 0;
        for chunk in keys.chunks(BATCH_ENTRIES_MAX) {
            let mut bytes = Vec::with_capacity(chunk.len() * self.shape.key_size as usize);
            for key in chunk {
                check_size(key, self.shape.key_size)?;
                bytes.extend_from_slice(key);
            }
            calls += self.delete_packed(&bytes)?;
        }
        Ok(calls)
    }

    fn delete_each(&self, keys: &[&[u8]]) -> io::Result<u64> {
        for key in keys {
            check_size(key, self.shape.key_size)?;
            let mut attr = Attr::new().fd(0, self.fd.as_fd()).u64(8, key.as_ptr() as u64);
            // SAFETY: `key` has the map's key size (checked above).
            match unsafe { call(command::MAP_DELETE_ELEM, &mut attr) } {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                _ => {}
            }
        }
        Ok(keys.len() as u64)
    }

    fn check(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        check_size(key, self.shape.key_size)?;
        if value.len() == self.value_bytes {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }
}

fn check_size(bytes: &[u8], size: u32) -> io::Result<()> {
    if bytes.len() == size as usize { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// How many values a per-CPU map has under each key.
fn possible_cpus() -> io::Result<usize> {
    // "0-3" or "0": the kernel numbers possible CPUs without gaps.
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
