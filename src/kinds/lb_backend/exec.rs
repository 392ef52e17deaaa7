//! Backends in the kernel: listing, writing, removing. The only file of this kind that may import `kernel`.

use std::collections::BTreeMap;
use std::io;

use super::{Key, LbBackend, Seen, map};
use crate::apply::{Apply, ExecError};
use crate::bpf_abi::BackendId;
use crate::kernel::{Kernel, KernelError};
use crate::kinds::bpf_map::{MapName, exec::open};
use crate::kinds::{Change, Desired, SeenMap};
use crate::observe::{Observe, Round};

/// Entries that are read by one call.
const READ_ENTRIES: usize = 4096;

fn failed(operation: &'static str, map: MapName, source: io::Error) -> KernelError {
    KernelError::Bpf { operation, object: format!("map {map}"), source }
}

/// All backends, read once in a round.
///
/// # Errors
/// A map can't be read.
pub fn read<'r>(round: &'r mut Round<'_>) -> Result<&'r SeenMap<LbBackend>, KernelError> {
    if round.lb_backends.is_none() {
        round.lb_backends = Some(dump(round.kernel)?);
    }
    Ok(round.lb_backends.get_or_insert_default())
}

/// The same, for people to look at.
///
/// # Errors
/// A map can't be read.
pub fn dump(kernel: &Kernel) -> Result<SeenMap<LbBackend>, KernelError> {
    let mut found = Vec::new();
    for ipv6 in [false, true] {
        let Some(open) = open(kernel, map(ipv6))? else { continue };
        for batch in open.walk(READ_ENTRIES) {
            let batch = batch.map_err(|e| failed("read the entries of", map(ipv6), e))?;
            found.extend(batch.iter().filter_map(|(key, value)| {
                let id = BackendId::from_bytes(key.try_into().ok()?).id;
                Some((Key { id, ipv6 }, Seen::of_bytes(value)?))
            }));
        }
    }
    found.sort_unstable_by_key(|(key, _)| *key);
    Ok(found.into_iter().collect())
}

impl Observe for LbBackend {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        read(round)?;
        let mut seen = round.lb_backends.take().unwrap_or_default();
        // A map that will be made anew is made without its entries.
        for ipv6 in [false, true] {
            if round.is_made_anew(map(ipv6), desired)? {
                seen.retain(|key, _| key.ipv6 != ipv6);
            }
        }
        Ok(seen)
    }
}

impl Apply for LbBackend {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let mut results: Vec<Result<(), ExecError>> = changes.iter().map(|_| Ok(())).collect();
        for ipv6 in [false, true] {
            let of_map = changes.iter().enumerate().filter(|(_, change)| change.key.ipv6 == ipv6);
            let of_map: Vec<_> = of_map.map(|(index, change)| (index, *change)).collect();
            if of_map.is_empty() {
                continue;
            }
            if let Err(error) = exec_map(kernel, map(ipv6), &of_map, &mut results) {
                let error = ExecError::from(error);
                of_map.iter().for_each(|(index, _)| results[*index] = Err(error.clone()));
            }
        }
        results
    }
}

fn exec_map(
    kernel: &mut Kernel,
    map: MapName,
    changes: &[(usize, &Change<LbBackend>)],
    results: &mut [Result<(), ExecError>],
) -> Result<(), KernelError> {
    let is_removal = |change: &Change<LbBackend>| change.spec().is_none();
    let Some(open) = open(kernel, map)? else {
        // Gone with its entries: there is nothing to remove.
        for (index, _) in changes.iter().filter(|(_, change)| !is_removal(change)) {
            results[*index] = Err(ExecError::refused(format!("map {map}"), "no such map"));
        }
        return Ok(());
    };
    let key = |change: &Change<LbBackend>| BackendId { id: change.key.id }.to_bytes();
    let writes = changes.iter().filter_map(|(index, c)| Some((*index, key(c), c.spec()?.bytes())));
    let writes: Vec<_> = writes.collect();
    let keys: Vec<u8> = writes.iter().flat_map(|(_, key, _)| *key).collect();
    let values: Vec<u8> = writes.iter().flat_map(|(.., value)| value.iter().copied()).collect();
    match open.update_packed(&keys, &values) {
        Ok(calls) => kernel.writes += calls,
        // One by one, so that each that can't be written says why.
        Err((done, _)) => {
            for (index, key, value) in &writes[done..] {
                kernel.writes += 1;
                let written = open.update_one(key, value);
                results[*index] = written.map_err(|e| failed("write to", map, e).into());
            }
        }
    }
    let removed = changes.iter().filter(|(_, change)| is_removal(change));
    let removed: Vec<u8> = removed.flat_map(|(_, change)| key(change)).collect();
    kernel.writes += open.delete_packed(&removed).map_err(|e| failed("remove from", map, e))?;
    Ok(())
}
