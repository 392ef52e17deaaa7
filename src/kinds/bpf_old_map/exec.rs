//! Old maps in the kernel: keeping one, copying its entries, letting go of it. The only file of this kind
//! that may import `kernel`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::carry::{Ends, Room, Rule, carried};
use super::{BpfOldMap, Seen};
use crate::apply::{Apply, ExecError};
use crate::kernel::bpf_map::Map;
use crate::kernel::place::{self, Pinned};
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
        Ok(found.into_iter().map(|(map, ..)| (map, Seen)).collect())
    }
}

/// The pins of old maps: `<name>-old`, `<name>-old2`, …
fn pinned(kernel: &Kernel) -> Result<Vec<(MapName, PathBuf, Map)>, KernelError> {
    let folder = pins::map(kernel.bpf_root(), "");
    let mut found = Vec::new();
    for pin in pins::list(&folder)? {
        let Some((name, number)) = pin.split_once("-old") else { continue };
        let Ok(map) = name.parse::<MapName>() else { continue };
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let pin = folder.join(&pin);
        if let Some(fd) = place::open(kernel.bpf_root(), &pin, Pinned::Map)? {
            let old = Map::of(fd).map_err(|source| failed("open the old", map, source))?;
            found.push((map, pin, old));
        }
    }
    Ok(found)
}

/// The old maps of a name.
///
/// # Errors
/// A pin can't be read.
pub fn old_maps(kernel: &Kernel, map: MapName) -> Result<Vec<Map>, KernelError> {
    let pins = pinned(kernel)?.into_iter().filter(|(of, ..)| *of == map);
    Ok(pins.map(|(.., old)| old).collect())
}

/// Ids of all our maps, the old ones too.
///
/// # Errors
/// A pin can't be read.
pub fn ids(kernel: &Kernel) -> Result<BTreeSet<u32>, KernelError> {
    let mut ids: BTreeSet<u32> = pinned(kernel)?.iter().map(|(.., old)| old.id()).collect();
    for map in MapName::all() {
        ids.extend(open(kernel, map)?.map(|map| map.id()));
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
    // By others too.
    let taken = pins::list(&pins::map(kernel.bpf_root(), ""))?;
    let mut names =
        (1..).map(|n| if n == 1 { format!("{map}-old") } else { format!("{map}-old{n}") });
    let free = names.find(|name| !taken.contains(name));
    let Some(pin) = free.map(|name| pins::map(kernel.bpf_root(), &name)) else { return Ok(()) };
    old.pin(&pin).map_err(|source| failed("keep the old", map, source))
}

/// Fills a map that nobody uses yet. Returns the number of calls that wrote. Maps of other records have
/// nothing in common.
///
/// # Errors
/// The kernel's answer; what was copied so far stays.
pub fn fill(kernel: &Kernel, map: MapName, from: &Map, to: &Map) -> Result<u64, KernelError> {
    let result =
        if of_one_record(from, to) { fill_entries(kernel, Rule::of(map), from, to) } else { Ok(0) };
    result.map_err(|source| failed("copy the entries of", map, source))
}

/// The same for a map that has entries, and may be in use.
///
/// # Errors
/// The kernel's answer; what was copied so far stays.
pub fn carry_over(kernel: &Kernel, map: MapName, from: &Map, to: &Map) -> Result<u64, KernelError> {
    let result = if of_one_record(from, to) {
        carry_entries(kernel, Rule::of(map), from, to)
    } else {
        Ok(0)
    };
    result.map_err(|source| failed("copy the entries of", map, source))
}

fn of_one_record(a: &Map, b: &Map) -> bool {
    let (a, b) = (a.shape(), b.shape());
    (a.key_size, a.value_size) == (b.key_size, b.value_size)
}

fn is_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::E2BIG)
}

/// Room in `to` for what is in `from`.
fn room(rule: Rule, from: &Map, to: &Map, now: u32) -> io::Result<Room> {
    let max_entries = to.shape().max_entries;
    if !rule.knows_ranks() || max_entries >= from.shape().max_entries {
        return Ok(Room::plenty(rule));
    }
    let mut ends = Ends::new(rule);
    for batch in from.walk(BATCH_ENTRIES) {
        batch?.iter().for_each(|(_, value)| ends.add(value, now));
    }
    Ok(ends.with_room(max_entries))
}

fn fill_entries(kernel: &Kernel, rule: Rule, from: &Map, to: &Map) -> io::Result<u64> {
    let now = clock::monotonic_seconds();
    let mut room = room(rule, from, to, now)?;
    let mut writes = 0;
    for batch in from.walk(BATCH_ENTRIES) {
        kernel.beat();
        let batch = batch?;
        let chosen = batch.iter().filter(|(_, value)| carried(rule, value, None, now).is_some());
        let chosen: Vec<_> = chosen.filter(|(_, value)| room.admits(value)).collect();
        match to.update(&chosen) {
            Ok(calls) => writes += calls,
            Err((_, error)) if is_full(&error) => return Ok(writes + 1),
            Err((_, error)) => return Err(error),
        }
    }
    Ok(writes)
}

fn carry_entries(kernel: &Kernel, rule: Rule, from: &Map, to: &Map) -> io::Result<u64> {
    let now = clock::monotonic_seconds();
    let mut room = room(rule, from, to, now)?;
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
                None => to.insert_new(key, &wanted),
                // Removed meanwhile: then it stays so.
                Some(_) => to.replace(key, &wanted),
            };
            match written {
                Err(error) if is_full(&error) => return Ok(writes),
                other => drop(other?),
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
    users: &BTreeMap<u32, String>,
) -> Result<(), KernelError> {
    let old = old_maps(kernel, map)?;
    if let Some(user) = old.iter().find_map(|old| users.get(&old.id())) {
        return Err(KernelError::InUse { object: format!("old map {map}"), by: user.clone() });
    }
    if let Some(new) = open(kernel, map)? {
        for old in &old {
            kernel.writes += carry_over(kernel, map, old, &new)?;
        }
    }
    for (_, pin, _) in pinned(kernel)?.into_iter().filter(|(of, ..)| *of == map) {
        kernel.writes += 1;
        pins::remove(kernel.bpf_root(), &pin, Pinned::Map)?;
    }
    Ok(())
}
