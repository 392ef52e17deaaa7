//! Many entries in few system calls, from keys and values that lie one after the other: without an allocation
//! for each. Imports [`super::super::bpf`].

use std::io;
use std::os::fd::AsFd;

use super::super::bpf::{Attr, call, command};
use super::{BATCH_ENTRIES_MAX, Map};

/// Bytes of values in one call: the kernel walks through what it is given without a pause.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// How many entries of a batch that failed were written: what the kernel says, unless it refused the batch as a
/// whole, as it does with a map that is frozen. Then the count is still the one that it was given.
fn written(count: usize, given: usize) -> usize {
    if count < given { count } else { 0 }
}

impl Map {
    /// Writes entries, of an array too, and returns the number of calls.
    ///
    /// # Errors
    /// The kernel's answer to the first that failed, with the number written before it; or there are not as
    /// many values as keys.
    pub fn update_packed(&self, keys: &[u8], values: &[u8]) -> Result<u64, (usize, io::Error)> {
        let (key_size, value_size) = (self.shape.key_size as usize, self.value_bytes);
        let count = self.count(keys).map_err(|error| (0, error))?;
        if values.len() != count * value_size {
            return Err((0, io::ErrorKind::InvalidInput.into()));
        }
        let (mut done, mut calls) = (0, 0);
        while done < count {
            let most = (BATCH_BYTES_MAX / value_size.max(1)).clamp(1, BATCH_ENTRIES_MAX);
            let next = (done + most).min(count);
            let (keys, values) = (
                &keys[done * key_size..next * key_size],
                &values[done * value_size..next * value_size],
            );
            let mut attr = Attr::new()
                .u64(16, keys.as_ptr() as u64)
                .u64(24, values.as_ptr() as u64)
                .u32(32, (next - done) as u32)
                .fd(36, self.fd.as_fd());
            calls += 1;
            // SAFETY: `keys` and `values` hold `next - done` items of the map's sizes (sliced above).
            if let Err(error) = unsafe { call(command::MAP_UPDATE_BATCH, &mut attr) } {
                return Err((done + written(attr.read_u32(32) as usize, next - done), error));
            }
            done = next;
        }
        Ok(calls)
    }

    /// Removes entries and returns the number of calls; one that is not there is no error.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn delete_packed(&self, keys: &[u8]) -> io::Result<u64> {
        self.count(keys)?;
        let key_size = self.shape.key_size as usize;
        let mut calls = 0;
        for chunk in keys.chunks(BATCH_ENTRIES_MAX * key_size) {
            let mut attr = Attr::new()
                .u64(16, chunk.as_ptr() as u64)
                .u32(32, (chunk.len() / key_size) as u32)
                .fd(36, self.fd.as_fd());
            calls += 1;
            // SAFETY: `chunk` holds as many keys of the map's size as are said (checked above).
            if unsafe { call(command::MAP_DELETE_BATCH, &mut attr) }.is_err() {
                // The batch stops at the first key that is not there: take the rest one by one.
                let each: Vec<&[u8]> = chunk.chunks_exact(key_size).collect();
                calls += self.delete_each(&each)?;
            }
        }
        Ok(calls)
    }

    /// How many keys there are; they have to be whole.
    fn count(&self, keys: &[u8]) -> io::Result<usize> {
        let size = self.shape.key_size as usize;
        match keys.len().checked_rem(size) {
            Some(0) => Ok(keys.len() / size),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}
