//! The entries of a map, a batch at a time (Linux 5.6), so that a large one can be read in slices.
//! Imports [`super::super::bpf`].

use std::io;
use std::os::fd::AsFd;

use super::super::bpf::{Attr, call, command};
use super::{BATCH_ENTRIES_MAX, Map};

/// Entries that were read by one system call.
#[derive(Debug)]
pub struct Batch {
    key_size: usize,
    value_size: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Batch {
    /// Keys and values; of a per-CPU map the values of all CPUs in a row.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.keys.chunks_exact(self.key_size).zip(self.values.chunks_exact(self.value_size))
    }
}

/// A walk through a map. An entry that is there all the time is met once; one that comes or goes meanwhile
/// may or may not be met.
#[derive(Debug)]
pub struct Walk<'m> {
    map: &'m Map,
    /// Entries that one call may return.
    room: usize,
    /// Where the next batch begins: a bucket number for hashes, a key for tries and arrays.
    cursor: Option<Vec<u8>>,
    done: bool,
}

impl Map {
    /// Walks through the map, `room` entries at a time. A call that fails ends the walk.
    pub fn walk(&self, room: usize) -> Walk<'_> {
        Walk { map: self, room: room.max(1), cursor: None, done: false }
    }
}

impl Iterator for Walk<'_> {
    type Item = io::Result<Batch>;

    fn next(&mut self) -> Option<io::Result<Batch>> {
        while !self.done {
            let (key_size, value_size) = (self.map.shape.key_size as usize, self.map.value_bytes);
            let mut keys = vec![0; self.room * key_size];
            let mut values = vec![0; self.room * value_size];
            let mut after = vec![0u8; key_size.max(8)];
            let mut attr = Attr::new()
                .u64(0, self.cursor.as_ref().map_or(0, |c| c.as_ptr() as u64))
                .u64(8, after.as_mut_ptr() as u64)
                .u64(16, keys.as_mut_ptr() as u64)
                .u64(24, values.as_mut_ptr() as u64)
                .u32(32, self.room as u32)
                .fd(36, self.map.fd.as_fd());
            // SAFETY: `keys` and `values` have room for the `room` entries that are asked for, and both
            // cursors have at least 8 bytes and at least the key's size.
            let result = unsafe { call(command::MAP_LOOKUP_BATCH, &mut attr) };
            match result.map_err(|error| (error.raw_os_error(), error)) {
                Ok(_) => {}
                Err((Some(libc::ENOENT), _)) => self.done = true,
                // One bucket has more entries than there was room for.
                Err((Some(libc::ENOSPC), _))
                    if self.room < self.map.shape.max_entries as usize + BATCH_ENTRIES_MAX =>
                {
                    self.room *= 2;
                    continue;
                }
                Err((_, error)) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
            let count = (attr.read_u32(32) as usize).min(self.room);
            keys.truncate(count * key_size);
            values.truncate(count * value_size);
            self.cursor = Some(after);
            if count > 0 {
                return Some(Ok(Batch { key_size, value_size, keys, values }));
            }
        }
        None
    }
}
