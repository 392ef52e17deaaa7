//! Frontends in the kernel: listing, and in `write` making, changing, removing. Only this file and that may
//! import `kernel`.

mod write;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::{
    Frontend, Head, Key, LbService, Pieces, Slot, State, map, reverse_nat_map, source_range_map,
};
use crate::apply::{Apply, ExecError};
use crate::bpf_abi::{
    CILIATE_MAGLEV_INDEX, CILIUM_LB_AFFINITY_MATCH, LB_AFFINITY_MASK, LB_ALGORITHM_SHIFT, LB_MAPS,
    Lb4ReverseNat, Lb4SourceRange, Lb6ReverseNat, Lb6SourceRange, LbAffinityMatch, LbValue,
};
use crate::kernel::{Kernel, KernelError};
use crate::kinds::bpf_map::{MapName, exec::open};
use crate::kinds::{Change, Desired, Observed, SeenMap};
use crate::observe::{Observe, Round};

/// Entries that are read by one call.
const READ_ENTRIES: usize = 8192;

/// Bits of a source range's key before the address.
const RANGE_STATIC_BITS: u32 = 32;

fn failed(operation: &'static str, map: MapName, source: io::Error) -> KernelError {
    KernelError::Bpf { operation, object: format!("map {map}"), source }
}

/// All frontends, read once in a round.
///
/// # Errors
/// A map can't be read.
pub fn read<'r>(round: &'r mut Round<'_>) -> Result<&'r SeenMap<LbService>, KernelError> {
    if round.lb_services.is_none() {
        round.lb_services = Some(dump(round.kernel)?);
    }
    Ok(round.lb_services.get_or_insert_default())
}

/// The same, for people to look at.
///
/// # Errors
/// A map can't be read.
pub fn dump(kernel: &Kernel) -> Result<SeenMap<LbService>, KernelError> {
    Ok(pieces(kernel)?.join())
}

/// Calls `take` with every entry of a map that is there.
fn each(
    kernel: &Kernel,
    map: MapName,
    mut take: impl FnMut(&[u8], &[u8]) -> Option<()>,
) -> Result<(), KernelError> {
    let Some(open) = open(kernel, map)? else { return Ok(()) };
    for batch in open.walk(READ_ENTRIES) {
        let batch = batch.map_err(|error| failed("read the entries of", map, error))?;
        for (key, value) in batch.iter() {
            // What makes no sense is none of ours.
            let _ = take(key, value);
        }
    }
    Ok(())
}

fn pieces(kernel: &Kernel) -> Result<Pieces, KernelError> {
    let mut pieces = Pieces::default();
    for ipv6 in [false, true] {
        each(kernel, map(ipv6), |key, value| {
            let (frontend, number) = Frontend::of_bytes(key)?;
            let value = LbValue::from_bytes(value.try_into().ok()?);
            match number {
                0 => pieces.heads.push((frontend, head(&value))),
                _ => pieces.slots.push((frontend, slot(number, &value))),
            }
            Some(())
        })?;
        each(kernel, reverse_nat_map(ipv6), |key, value| {
            let id = u16::from_ne_bytes(key.try_into().ok()?);
            pieces.reverse_nat.insert((id, ipv6), reverse_nat(value)?);
            Some(())
        })?;
        each(kernel, source_range_map(ipv6), |key, _| {
            let (id, range) = source_range(key)?;
            pieces.source_ranges.entry((id, ipv6)).or_default().push(range);
            Some(())
        })?;
    }
    each(kernel, MapName::of_abi(CILIUM_LB_AFFINITY_MATCH), |key, _| {
        let key = LbAffinityMatch::from_bytes(key.try_into().ok()?);
        pieces.kept.entry(key.rev_nat).or_default().push(key.backend_id);
        Some(())
    })?;
    each(kernel, MapName::of_abi(CILIATE_MAGLEV_INDEX), |key, value| {
        let id = u16::try_from(u32::from_ne_bytes(key.try_into().ok()?)).ok()?;
        let table = u32::from_ne_bytes(value.try_into().ok()?);
        // No table has this number: as good as absent.
        if table != 0 {
            pieces.tables.insert(id, table);
        }
        Some(())
    })?;
    Ok(pieces)
}

fn head(value: &LbValue) -> Head {
    Head {
        id: value.rev_nat,
        algorithm: (value.backend_id >> LB_ALGORITHM_SHIFT) as u8,
        affinity_s: value.backend_id & LB_AFFINITY_MASK,
        count: value.count,
        quarantined: value.quarantined,
        flags: value.flags,
        flags2: value.flags2,
    }
}

fn slot(number: u16, value: &LbValue) -> Slot {
    let (backend, id) = (value.backend_id, value.rev_nat);
    let rest = (value.count, value.flags, value.flags2, value.quarantined);
    Slot { number, backend, id, strange: rest != (0, 0, 0, 0) }
}

fn reverse_nat(value: &[u8]) -> Option<SocketAddr> {
    let (address, port_be): (IpAddr, _) = match value.len() {
        6 => {
            let value = Lb4ReverseNat::from_bytes(value.try_into().ok()?);
            (value.address_be.into(), value.port_be)
        }
        _ => {
            let value = Lb6ReverseNat::from_bytes(value.try_into().ok()?);
            (value.address_be.into(), value.port_be)
        }
    };
    Some(SocketAddr::new(address, u16::from_be_bytes(port_be)))
}

fn source_range(key: &[u8]) -> Option<(u16, IpNet)> {
    let (id, prefix_len, address): (_, _, IpAddr) = match key.len() {
        12 => {
            let key = Lb4SourceRange::from_bytes(key.try_into().ok()?);
            (key.rev_nat, key.prefix_len, key.address_be.into())
        }
        _ => {
            let key = Lb6SourceRange::from_bytes(key.try_into().ok()?);
            (key.rev_nat, key.prefix_len, key.address_be.into())
        }
    };
    let bits = u8::try_from(prefix_len.checked_sub(RANGE_STATIC_BITS)?).ok()?;
    Some((id, IpNet::new(address, bits).ok()?))
}

impl Observe for LbService {
    fn list(
        round: &mut Round<'_>,
        desired: &Desired,
    ) -> Result<BTreeMap<Key, Arc<State>>, KernelError> {
        read(round)?;
        let found = round.lb_services.take().unwrap_or_default();
        let mut observed = Observed { lb_services: found, ..Observed::default() };
        for name in LB_MAPS {
            let map = MapName::of_abi(name);
            // A map that will be made anew is made without its entries.
            if round.is_made_anew(map, desired)? {
                super::lose(map, &mut observed);
            }
        }
        Ok(observed.lb_services)
    }
}

impl Apply for LbService {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        write::exec(kernel, changes)
    }
}
