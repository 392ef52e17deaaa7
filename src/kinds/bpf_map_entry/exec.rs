//! Entries in the kernel: listing, writing, removing, in batches. The only file of this kind that may
//! import `kernel`.

mod undo;

use std::collections::BTreeMap;
use std::io;

use super::{BpfMapEntry, Key, Seen, c_text, is_managed, text};
use crate::apply::{Apply, ExecError};
use crate::bpf_abi::MapKind;
use crate::kernel::bpf_map::Map;
use crate::kernel::lock::WriterScope;
use crate::kernel::{Kernel, KernelError};
use crate::kinds::bpf_map::{MapName, exec::open};
use crate::kinds::{Change, Desired, bpf_old_map};
use crate::observe::{Observe, Round};

impl Observe for BpfMapEntry {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let mut seen = BTreeMap::new();
        for map in MapName::all().filter(|map| is_managed(*map)) {
            let Some(open) = round.map(map)? else { continue };
            // A map that will be made anew is made without its entries.
            let layout = open.shape().into();
            if desired.bpf_maps.get(&map).is_some_and(|wanted| wanted.spec != layout) {
                continue;
            }
            let entries = open.entries().map_err(|e| failed("read the entries of", map, e))?;
            for (key, value) in entries {
                // An array's entries can't be removed: zero stands for absent.
                if is_array(map) && value.iter().all(|byte| *byte == 0) {
                    continue;
                }
                seen.insert(Key { map, key }, Seen { value });
            }
        }
        Ok(seen)
    }
}

/// Entries that `flush` removes at a time.
const FLUSH_ENTRIES: usize = 4096;

/// Keys and values as bytes.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Every entry of a map, for people to look at; of a per-CPU map the values of all CPUs in a row.
///
/// # Errors
/// The map isn't there or can't be read.
pub fn dump(kernel: &Kernel, map: MapName) -> Result<Entries, KernelError> {
    let missing = || failed("open", map, io::Error::from_raw_os_error(libc::ENOENT));
    let open = open(kernel, map)?.ok_or_else(missing)?;
    open.entries().map_err(|source| failed("read the entries of", map, source))
}

/// Removes every entry of a map that programs fill, and of maps that it takes the place of. Returns how many
/// there were.
///
/// # Errors
/// The map can't be read or written.
pub fn flush(_scope: &WriterScope, kernel: &mut Kernel, map: MapName) -> Result<u64, KernelError> {
    let mut removed = 0;
    for open in bpf_old_map::exec::old_maps(kernel, map)?.iter().chain(&open(kernel, map)?) {
        for batch in open.walk(FLUSH_ENTRIES) {
            let batch = batch.map_err(|source| failed("read the entries of", map, source))?;
            let keys: Vec<&[u8]> = batch.iter().map(|(key, _)| key).collect();
            kernel.writes +=
                open.delete(&keys).map_err(|source| failed("remove from", map, source))?;
            removed += keys.len() as u64;
        }
    }
    Ok(removed)
}

/// The records in `ciliate_before`, as text.
///
/// # Errors
/// The map is there and can't be read.
pub fn records(kernel: &Kernel) -> Result<BTreeMap<String, String>, KernelError> {
    let map = MapName::BEFORE;
    let Some(open) = open(kernel, map)? else { return Ok(BTreeMap::new()) };
    let entries = open.entries().map_err(|e| failed("read the entries of", map, e))?;
    Ok(entries.into_iter().map(|(key, value)| (c_text(&key), c_text(&value))).collect())
}

fn is_array(map: MapName) -> bool {
    map.def().kind == MapKind::Array
}

fn failed(operation: &'static str, map: MapName, source: io::Error) -> KernelError {
    KernelError::Bpf { operation, object: format!("map {map}"), source }
}

impl Apply for BpfMapEntry {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let mut results: Vec<Result<(), ExecError>> = changes.iter().map(|_| Ok(())).collect();
        let mut start = 0;
        for batch in changes.chunk_by(|a, b| a.key.map == b.key.map) {
            let map = batch[0].key.map;
            let range = start..start + batch.len();
            start += batch.len();
            match open(kernel, map) {
                Ok(Some(open)) => exec_map(kernel, map, &open, batch, &mut results[range]),
                // Gone with its entries: there is nothing to remove.
                Ok(None) if batch.iter().all(|change| change.spec().is_none()) => {}
                Ok(None) => {
                    let error = ExecError::refused(format!("map {map}"), "no such map");
                    results[range].iter_mut().for_each(|result| *result = Err(error.clone()));
                }
                Err(error) => {
                    let error = ExecError::from(error);
                    results[range].iter_mut().for_each(|result| *result = Err(error.clone()));
                }
            }
        }
        results
    }
}

/// Refuses changes of records that are not what the plan expects. What they hold nothing else knows; other
/// entries follow from the configuration, so that the one to write is right whatever was there.
fn compare(
    map: MapName,
    open: &Map,
    batch: &[&Change<BpfMapEntry>],
    results: &mut [Result<(), ExecError>],
) {
    let found: BTreeMap<_, _> = match open.entries() {
        Ok(entries) => entries.into_iter().collect(),
        Err(source) => {
            let error = ExecError::from(failed("read the entries of", map, source));
            results.iter_mut().for_each(|result| *result = Err(error.clone()));
            return;
        }
    };
    for (change, result) in batch.iter().zip(results) {
        let found = found.get(&change.key.key);
        let expected = change.expects().map(|seen| &seen.value);
        let wanted = change.spec().map(|spec| &spec.value);
        if found != expected && found != wanted {
            let show = |value: Option<&Vec<u8>>| match value {
                Some(value) => text::value(map, value),
                None => "no such record".into(),
            };
            *result = Err(ExecError::refused(show(expected), show(found)));
        }
    }
}

fn exec_map(
    kernel: &mut Kernel,
    map: MapName,
    open: &Map,
    batch: &[&Change<BpfMapEntry>],
    results: &mut [Result<(), ExecError>],
) {
    let zero = vec![0; open.shape().value_size as usize];
    if map == MapName::BEFORE {
        compare(map, open, batch, results);
    }
    let due = |index: &usize| results[*index].is_ok();
    let all = batch.iter().enumerate().filter(|(index, _)| due(index));
    let writes = all.filter_map(|(index, change)| match change.spec() {
        Some(spec) => Some((index, (change.key.key.as_slice(), spec.value.as_slice()))),
        None if is_array(map) => Some((index, (change.key.key.as_slice(), zero.as_slice()))),
        None => None,
    });
    let (order, entries): (Vec<usize>, Vec<_>) = writes.unzip();
    kernel.writes += 1;
    // After a failure one by one, so that each entry that can't be written says why.
    if let Err((done, _)) = open.update(&entries) {
        for (index, (key, value)) in order.into_iter().zip(entries).skip(done) {
            kernel.writes += 1;
            results[index] = open
                .update_one(key, value)
                .map_err(|source| failed("write to", map, source).into());
        }
    }
    if is_array(map) {
        return;
    }
    let mut removals: Vec<(usize, &[u8])> = batch
        .iter()
        .enumerate()
        .filter(|(index, change)| results[*index].is_ok() && change.spec().is_none())
        .map(|(index, change)| (index, change.key.key.as_slice()))
        .collect();
    if map == MapName::BEFORE {
        // Without its record a change is there for good.
        let names = undo::names(kernel);
        removals.retain(|(index, key)| {
            let undone = |names| undo::undone(kernel, names, key, batch[*index].expects());
            results[*index] = names.as_ref().map_err(Clone::clone).and_then(undone);
            results[*index].is_ok()
        });
    }
    if removals.is_empty() {
        return;
    }
    let keys: Vec<&[u8]> = removals.iter().map(|(_, key)| *key).collect();
    match open.delete(&keys) {
        Ok(calls) => kernel.writes += calls,
        Err(source) => {
            let error = ExecError::from(failed("remove from", map, source));
            removals.iter().for_each(|(index, _)| results[*index] = Err(error.clone()));
        }
    }
}
