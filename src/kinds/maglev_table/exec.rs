//! Maglev tables in the kernel: listing, writing, removing. The only file of this kind that may import `kernel`.

use std::collections::BTreeMap;
use std::io;

use super::{Key, MAP, MaglevTable, Seen, fill};
use crate::apply::{Apply, ExecError};
use crate::kernel::bpf_map::Map;
use crate::kernel::{Kernel, KernelError};
use crate::kinds::bpf_map::exec::open;
use crate::kinds::{Change, Desired};
use crate::observe::{Observe, Round};

/// Tables that are read or written by one call.
const TABLES: usize = 64;

/// How often a table is tried again that the kernel has no memory for: it takes memory of that size from a store
/// that it fills up in the background.
const TRIES: usize = 16;

fn failed(operation: &'static str, source: io::Error) -> KernelError {
    KernelError::Bpf { operation, object: format!("map {MAP}"), source }
}

impl Observe for MaglevTable {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let mut seen = BTreeMap::new();
        if round.is_made_anew(MAP, desired)? {
            return Ok(seen);
        }
        let Some(open) = round.map(MAP)? else { return Ok(seen) };
        for batch in open.walk(TABLES) {
            let batch = batch.map_err(|error| failed("read the entries of", error))?;
            for (key, table) in batch.iter() {
                let Ok(key) = key.try_into().map(u32::from_ne_bytes) else { continue };
                let size = (table.len() / 4) as u32;
                seen.insert(Key(key), Seen { size, digest: fill::digest(table) });
            }
        }
        Ok(seen)
    }
}

impl Apply for MaglevTable {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let open = match open(kernel, MAP) {
            Ok(open) => open,
            Err(error) => return vec![Err(ExecError::from(error)); changes.len()],
        };
        let Some(open) = open else {
            // Gone with its entries: there is nothing to remove.
            let missing = || ExecError::refused(format!("map {MAP}"), "no such map");
            let result = |change: &&Change<Self>| change.spec().map_or(Ok(()), |_| Err(missing()));
            return changes.iter().map(result).collect();
        };
        let mut results: Vec<Result<(), ExecError>> = changes.iter().map(|_| Ok(())).collect();
        for (chunk, results) in changes.chunks(TABLES).zip(results.chunks_mut(TABLES)) {
            write(kernel, &open, chunk, results);
            kernel.beat();
        }
        let removed = changes.iter().filter(|change| change.spec().is_none());
        let removed: Vec<u8> = removed.flat_map(|change| change.key.0.to_ne_bytes()).collect();
        match open.delete_packed(&removed) {
            Ok(calls) => kernel.writes += calls,
            Err(error) => {
                let error = ExecError::from(failed("remove from", error));
                let gone = results.iter_mut().zip(changes).filter(|(_, c)| c.spec().is_none());
                gone.for_each(|(result, _)| *result = Err(error.clone()));
            }
        }
        results
    }
}

/// Writes a few tables: they are made here and not kept.
fn write(
    kernel: &mut Kernel,
    open: &Map,
    changes: &[&Change<MaglevTable>],
    results: &mut [Result<(), ExecError>],
) {
    let (mut indexes, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (index, change) in changes.iter().enumerate() {
        let Some(spec) = change.spec() else { continue };
        indexes.push(index);
        keys.extend_from_slice(&change.key.0.to_ne_bytes());
        values.extend_from_slice(&fill::bytes(&fill::fill(&spec.members, spec.size)));
    }
    let Some(bytes) = values.len().checked_div(indexes.len()) else { return };
    let done = match open.update_packed(&keys, &values) {
        Ok(calls) => {
            kernel.writes += calls;
            return;
        }
        Err((done, _)) => done,
    };
    // One by one, so that each that can't be written says why.
    for (at, index) in indexes.into_iter().enumerate().skip(done) {
        let (key, value) = (&keys[at * 4..][..4], &values[at * bytes..][..bytes]);
        kernel.writes += 1;
        results[index] = patient(|| open.update_one(key, value))
            .map_err(|error| failed("write to", error).into());
    }
}

/// Tries again while the kernel has no memory.
fn patient(mut write: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 1..TRIES {
        match write() {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => std::thread::yield_now(),
            other => return other,
        }
    }
    write()
}
