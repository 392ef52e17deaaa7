//! Old maps in the kernel: keeping one, copying its entries, letting go of it. The only file of this kind
//! that may import `kernel`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::carry::{Ends, Room, Rule, carried};
use super::{BpfOldMap, Seen};
use crate::apply::{Apply, ExecError};
use crate::kernel::bpf_map::Map;
use crate::kernel::{Kernel, KernelError, clock, grace, pins};
use crate::kinds::bpf_map::{MapName, exec::open};
use crate::kinds::{Change, Desired, bpf_link};
use crate::observe::{Observe, Round};

/// Entries that are copied at a time.
const BATCH_ENTRIES: usize = 4096;

impl Observe for BpfOldMap {
    fn list(
        round: &mut Round<'_>,
        _desired: &Desired,
    ) -> Result<BTreeMap<MapName, Seen>, KernelError> {
        let found = pinned(round.kernel)?;
        Ok(found.into_iter().map(|(map, _)| (map, Seen)).collect())
    }
}

/// The pins of old maps: `<name>-old`, `<name>-old2`, …
fn pinned(kernel: &Kernel) -> Result<Vec<(MapName, PathBuf)>, KernelError> {
    let folder = pins::map(kernel.bpf_root(), "");
    let mut found = Vec::new();
    for pin in pins::list(&folder)? {
        let Some((name, number)) = pin.split_once("-old") else { continue };
        if let (Ok(map), true) = (name.parse(), number.bytes().all(|byte| byte.is_ascii_digit())) {
            found.push((map, folder.join(&pin)));
        }
    }
    Ok(found)
}

/// The old maps of a name.
///
/// # Errors
/// A pin can't be read.
pub fn old_maps(kernel: &Kernel, map: MapName) -> Result<Vec<Map>, KernelError> {
    let pins = pinned(kernel)?.into_iter().filter(|(of, _)| *of == map);
    pins.map(|(_, pin)| Map::open(&pin).map_err(|source| failed("open the old", map, source)))
        .collect()
}

/// Ids of all our maps, the old ones too.
///
/// # Errors
/// A pin can't be read.
pub fn ids(kernel: &Kernel) -> Result<BTreeSet<u32>, KernelError> {
    let mut ids = BTreeSet::new();
    for map in MapName::all() {
        ids.extend(open(kernel, map)?.map(|map| map.id()));
    }
    for (map, pin) in pinned(kernel)? {
        ids.insert(Map::open(&pin).map_err(|source| failed("open the old", map, source))?.id());
    }
    Ok(ids)
}

fn failed(operation: &'static str, map: MapName, source: io::Error) -> KernelError {
    KernelError::Bpf { operation, object: format!("map {map}"), source }
}

/// Keeps a map that another is about to take the place of.
///
/// # Errors
/// It can't be pinned.
pub fn keep(kernel: &Kernel, map: MapName, old: &Map) -> Result<(), KernelError> {
    // Kept already by a run that was killed.
    if old_maps(kernel, map)?.iter().any(|kept| kept.id() == old.id()) {
        return Ok(());
    }
    let taken = pinned(kernel)?;
    let names = (1..).map(|n| if n == 1 { format!("{map}-old") } else { format!("{map}-old{n}") });
    let mut paths = names.map(|name| pins::map(kernel.bpf_root(), &name));
    let free = paths.find(|path| taken.iter().all(|(_, pin)| pin != path));
    free.map_or(Ok(()), |pin| old.pin(&pin).map_err(|source| failed("keep the old", map, source)))
}

/// Copies what is worth it from one map to another, which may be in use. Returns the number of calls that
/// wrote. Maps of other records have nothing in common.
///
/// # Errors
/// The kernel's answer; what was copied so far stays.
pub fn copy(kernel: &Kernel, map: MapName, from: &Map, to: &Map) -> Result<u64, KernelError> {
    let (old, new) = (from.shape(), to.shape());
    if (old.key_size, old.value_size) != (new.key_size, new.value_size) {
        return Ok(0);
    }
    let result = copy_entries(kernel, Rule::of(map), from, to);
    result.map_err(|source| failed("copy the entries of", map, source))
}

fn copy_entries(kernel: &Kernel, rule: Rule, from: &Map, to: &Map) -> io::Result<u64> {
    let now = clock::monotonic_seconds();
    let mut room = Room::plenty();
    if rule == Rule::Flows && to.shape().max_entries < from.shape().max_entries {
        let mut ends = Ends::default();
        for batch in from.walk(BATCH_ENTRIES) {
            batch?.iter().for_each(|(_, value)| ends.add(value, now));
        }
        room = ends.with_room(to.shape().max_entries);
    }
    let mut writes = 0;
    for batch in from.walk(BATCH_ENTRIES) {
        kernel.beat();
        for (key, value) in batch?.iter() {
            let (admitted, there) = (room.admits(value), to.lookup(key)?);
            if there.is_none() && !admitted {
                continue;
            }
            let Some(wanted) = carried(rule, value, there.as_deref(), now) else { continue };
            writes += 1;
            let written = match there {
                // A program may have made it meanwhile: then its entry is the newer one.
                None => to.insert_new(key, &wanted).map(drop),
                // Removed meanwhile: then it stays so.
                Some(_) => to.replace(key, &wanted).map(drop),
            };
            match written {
                // Full: what is left doesn't fit.
                Err(error) if error.raw_os_error() == Some(libc::E2BIG) => return Ok(writes),
                other => other?,
            }
        }
    }
    Ok(writes)
}

impl Apply for BpfOldMap {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let users = bpf_link::exec::maps_in_use(kernel).map_err(ExecError::from);
        // What is no longer attached may still be at work on a packet.
        grace::wait();
        let change = |change: &&Change<Self>| match (change.spec(), &users) {
            // Never planned.
            (Some(_), _) => Err(ExecError::refused("a removal", "something else")),
            (None, Err(error)) => Err(error.clone()),
            (None, Ok(users)) => Ok(let_go(kernel, change.key, users)?),
        };
        changes.iter().map(change).collect()
    }
}

/// Carries over what was written since the map was copied, and removes the pins.
fn let_go(
    kernel: &mut Kernel,
    map: MapName,
    users: &BTreeMap<u32, bpf_link::Key>,
) -> Result<(), KernelError> {
    let old = old_maps(kernel, map)?;
    if let Some(user) = old.iter().find_map(|old| users.get(&old.id())) {
        return Err(KernelError::InUse { object: format!("old map {map}"), by: user.to_string() });
    }
    if let Some(new) = open(kernel, map)? {
        for old in &old {
            kernel.writes += copy(kernel, map, old, &new)?;
        }
    }
    for (_, pin) in pinned(kernel)?.into_iter().filter(|(of, _)| *of == map) {
        kernel.writes += 1;
        pins::remove(kernel.bpf_root(), &pin)?;
    }
    Ok(())
}
