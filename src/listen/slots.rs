//! Who reads which slot of `ciliate_events`, without anybody who hands them out.
//!
//! A reader locks the file `<paths.runtime>/monitor/<slot>` for as long as it lives. A slot that is in use
//! by the map and whose file nobody locks was left by a reader that was killed: it is free, and whoever
//! comes by may empty it. Changes of the map are made under the lock of `<paths.runtime>/monitor/lock`.
//! The last reader takes the folder with it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ListenError;
use crate::bpf_abi::{
    CILIATE_EVENTS, CILIATE_LOST, CILIATE_MONITOR, MAPS, MONITOR_SLOTS, MonitorFilter, MonitorValue,
};
use crate::kernel::bpf_map::{Map, MapShape};
use crate::kernel::place::{self, Pinned, Place};
use crate::kernel::ring::Ring;
use crate::kernel::{KernelError, lock, pins};

/// How long to wait for another reader that takes or frees a slot; that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The maps of a node that readers need.
pub struct Maps {
    root: PathBuf,
    monitor: Map,
    events: Map,
    lost: Map,
}

impl Maps {
    /// Opens the pins.
    ///
    /// # Errors
    /// The node was not applied, or by another version.
    pub fn open(root: &Path) -> Result<Self, ListenError> {
        let [monitor, events, lost] = [CILIATE_MONITOR, CILIATE_EVENTS, CILIATE_LOST];
        Ok(Self {
            root: root.into(),
            monitor: open(root, monitor)?,
            events: open(root, events)?,
            lost: open(root, lost)?,
        })
    }

    /// Whether these are still the node's maps.
    pub fn are_pinned(&self) -> bool {
        let is = |map: &Map, name| {
            Map::open(&pins::map(&self.root, name)).is_ok_and(|pinned| pinned.id() == map.id())
        };
        is(&self.monitor, CILIATE_MONITOR) && is(&self.events, CILIATE_EVENTS)
    }

    /// Events that found no room in a slot's ring, by CPU.
    pub(super) fn lost(&self, slot: u32) -> Result<Vec<u64>, ListenError> {
        let values = self.lost.lookup(&slot.to_ne_bytes());
        let values = values.map_err(|source| failed("read", CILIATE_LOST, source))?;
        let (words, _) = values.as_deref().unwrap_or_default().as_chunks();
        Ok(words.iter().map(|word| u64::from_ne_bytes(*word)).collect())
    }

    fn read(&self) -> Result<MonitorValue, ListenError> {
        let value = self.monitor.lookup(&0_u32.to_ne_bytes());
        let value = value.map_err(|source| failed("read", CILIATE_MONITOR, source))?;
        let bytes = value.as_deref().and_then(<[u8]>::first_chunk);
        Ok(bytes.map_or_else(MonitorValue::default, MonitorValue::from_bytes))
    }

    fn write(&self, value: &MonitorValue) -> Result<(), ListenError> {
        self.monitor
            .update_one(&0_u32.to_ne_bytes(), &value.to_bytes())
            .map_err(|source| failed("write to", CILIATE_MONITOR, source))
    }

    /// Nobody listens in a slot any more: first the programs are told, then the ring goes.
    fn empty(&self, slot: u32) -> Result<(), ListenError> {
        let value = with(self.read()?, slot, None);
        self.write(&value)?;
        self.events
            .delete(&[&slot.to_ne_bytes()])
            .map_err(|source| failed("remove from", CILIATE_EVENTS, source))?;
        Ok(())
    }
}

fn open(root: &Path, name: &'static str) -> Result<Map, ListenError> {
    let pin = pins::map(root, name);
    let map = match place::look(root, &pin, Pinned::Map)? {
        Place::Nothing => return Err(ListenError::NotApplied { pin }),
        Place::Foreign(foreign) => return Err(KernelError::from(foreign).into()),
        Place::Ours(fd) => Map::of(fd).map_err(|source| failed("open", name, source))?,
    };
    let fits = MAPS.iter().find(|def| def.name == name).is_some_and(|def| {
        map.shape()
            == MapShape {
                map_type: def.kind.number(),
                key_size: def.key_size,
                value_size: def.value_size,
                max_entries: def.max_entries,
                flags: def.flags,
            }
    });
    if fits { Ok(map) } else { Err(ListenError::OtherVersion { pin }) }
}

fn failed(operation: &'static str, name: &str, source: io::Error) -> ListenError {
    KernelError::Bpf { operation, object: format!("map {name}"), source }.into()
}

/// The value with a slot's filter, or without: what anybody wants is worked out anew.
fn with(mut value: MonitorValue, slot: u32, filter: Option<MonitorFilter>) -> MonitorValue {
    let bit = 1 << slot;
    value.readers = if filter.is_some() { value.readers | bit } else { value.readers & !bit };
    let (filters, _) = value.filters.as_chunks_mut();
    if let Some(place) = filters.get_mut(slot as usize) {
        *place = filter.unwrap_or_default().to_bytes();
    }
    value.types = 0;
    for (number, filter) in filters.iter().enumerate() {
        if value.readers & 1 << number != 0 {
            value.types |= MonitorFilter::from_bytes(filter).types;
        }
    }
    value
}

/// A slot that is ours as long as its file is locked.
pub struct Slot {
    number: u32,
    folder: PathBuf,
    /// `None` once it is given back.
    file: Option<File>,
}

impl Slot {
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether others can still see that this slot is in use.
    pub(super) fn is_ours(&self) -> bool {
        let path = path(&self.folder, self.number);
        self.file.as_ref().is_some_and(|file| lock::is_at(file, &path))
    }

    /// Gives the slot back. A second time it does nothing.
    pub(super) fn free(&mut self, maps: &Maps) -> Result<(), ListenError> {
        if self.file.is_none() {
            return Ok(());
        }
        let _held = match lock::hold(&lock_path(&self.folder), PATIENCE) {
            // The node was destroyed.
            Err(_) if !self.folder.exists() => return Ok(()),
            other => other?,
        };
        // If others took this reader for dead, they did it all already.
        let ours = self.is_ours();
        let Some(file) = self.file.take().filter(|_| ours) else { return Ok(()) };
        let emptied = maps.empty(self.number);
        drop(file);
        remove_file(&path(&self.folder, self.number))?;
        remove_folder_if_unused(&self.folder);
        emptied
    }
}

fn folder(runtime: &Path) -> PathBuf {
    runtime.join("monitor")
}

fn lock_path(folder: &Path) -> PathBuf {
    folder.join("lock")
}

fn path(folder: &Path, slot: u32) -> PathBuf {
    folder.join(slot.to_string())
}

fn remove_file(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::File { operation: "remove", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

/// The caller holds the lock, so nobody is about to make a file in there.
fn remove_folder_if_unused(folder: &Path) {
    if (0..MONITOR_SLOTS).all(|slot| !path(folder, slot).exists()) {
        let _ = fs::remove_file(lock_path(folder));
        let _ = fs::remove_dir(folder);
    }
}

/// Takes a free slot for a ring. Returns the events that were lost in it before.
///
/// # Errors
/// There is none, or the maps went away meanwhile.
pub fn take(
    maps: &Maps,
    runtime: &Path,
    ring: &Ring,
    filter: MonitorFilter,
) -> Result<(Slot, Vec<u64>), ListenError> {
    let folder = folder(runtime);
    let _held = lock::hold_in(&folder, &lock_path(&folder), PATIENCE)?;
    let taken = take_locked(maps, &folder, ring, filter);
    if taken.is_err() {
        remove_folder_if_unused(&folder);
        if !maps.are_pinned() {
            // Destroyed just now: what this made again is not to be left.
            let _ = fs::remove_dir(runtime);
        }
    }
    taken
}

fn take_locked(
    maps: &Maps,
    folder: &Path,
    ring: &Ring,
    filter: MonitorFilter,
) -> Result<(Slot, Vec<u64>), ListenError> {
    if !maps.are_pinned() {
        return Err(ListenError::NotApplied { pin: pins::map(&maps.root, CILIATE_MONITOR) });
    }
    empty_dead(maps, folder)?;
    let used = maps.read()?.readers;
    let Some(number) = (0..MONITOR_SLOTS).find(|slot| used & 1 << slot == 0) else {
        let pids =
            (0..MONITOR_SLOTS).filter_map(|slot| fs::read_to_string(path(folder, slot)).ok());
        return Err(ListenError::Full { pids: pids.collect::<Vec<_>>().join(", ") });
    };
    let place = path(folder, number);
    let file = lock::hold(&place, PATIENCE)?;
    // For people, and for the complaint above.
    let _ = fs::write(&place, std::process::id().to_string());
    let began = begin(maps, number, ring, filter);
    if began.is_err() {
        remove_file(&place)?;
    }
    Ok((Slot { number, folder: folder.into(), file: Some(file) }, began?))
}

/// Puts the ring into its slot, then tells the programs. Returns what was lost in the slot before.
fn begin(
    maps: &Maps,
    slot: u32,
    ring: &Ring,
    filter: MonitorFilter,
) -> Result<Vec<u64>, ListenError> {
    maps.events
        .update_one(&slot.to_ne_bytes(), &ring.descriptor().to_ne_bytes())
        .map_err(|source| failed("write to", CILIATE_EVENTS, source))?;
    let lost = maps.lost(slot)?;
    maps.write(&with(maps.read()?, slot, Some(filter)))?;
    Ok(lost)
}

/// Empties the slots of readers that are no more. The caller holds the lock.
fn empty_dead(maps: &Maps, folder: &Path) -> Result<usize, ListenError> {
    let used = maps.read()?.readers;
    let mut dead = 0;
    for slot in 0..MONITOR_SLOTS {
        let file = path(folder, slot);
        if lock::is_held(&file)? {
            continue;
        }
        if used & 1 << slot != 0 {
            maps.empty(slot)?;
            dead += 1;
        }
        remove_file(&file)?;
    }
    Ok(dead)
}

/// How many slots are in use.
///
/// # Errors
/// The node was not applied, or the map can't be read.
pub fn readers(bpf: &Path) -> Result<u32, ListenError> {
    Ok(Maps::open(bpf)?.read()?.readers.count_ones())
}

/// Frees the slots of readers that were killed, and says how many those were. Where nobody listens this
/// is one look at a map.
///
/// # Errors
/// The maps or the files can't be read or written, or another process holds the lock.
pub fn sweep(bpf: &Path, runtime: &Path) -> Result<usize, ListenError> {
    let maps = match Maps::open(bpf) {
        Err(ListenError::NotApplied { .. }) => return Ok(0),
        other => other?,
    };
    let folder = folder(runtime);
    let used = maps.read()?.readers;
    let is_dead = |slot: u32| lock::is_held(&path(&folder, slot)).is_ok_and(|held| !held);
    if !(0..MONITOR_SLOTS).any(|slot| used & 1 << slot != 0 && is_dead(slot)) {
        return Ok(0);
    }
    let _held = lock::hold_in(&folder, &lock_path(&folder), Duration::ZERO)?;
    let dead = empty_dead(&maps, &folder);
    remove_folder_if_unused(&folder);
    dead
}

/// Removes the folder, when the maps are gone: readers that still live notice that themselves.
///
/// # Errors
/// A file can't be removed.
pub fn remove(runtime: &Path) -> Result<(), ListenError> {
    let folder = folder(runtime);
    if !folder.exists() {
        return Ok(());
    }
    let _held = lock::hold(&lock_path(&folder), PATIENCE)?;
    for slot in 0..MONITOR_SLOTS {
        remove_file(&path(&folder, slot))?;
    }
    remove_folder_if_unused(&folder);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(types: u32) -> Option<MonitorFilter> {
        Some(MonitorFilter { types, from: 7, ..MonitorFilter::default() })
    }

    #[test]
    fn types_are_those_that_anybody_wants() {
        let value = with(MonitorValue::default(), 0, filter(0b10));
        let value = with(value, 7, filter(0b10010));
        assert_eq!((value.readers, value.types), (0b1000_0001, 0b10010));
        let (filters, _) = value.filters.as_chunks::<12>();
        assert_eq!(MonitorFilter::from_bytes(&filters[7]).from, 7);
        let value = with(value, 7, None);
        assert_eq!((value.readers, value.types), (1, 0b10));
        assert_eq!(with(value, 0, None), MonitorValue::default());
    }

    #[test]
    fn a_filter_without_a_reader_counts_for_nothing() {
        let mut value = with(MonitorValue::default(), 3, filter(0b100));
        value.readers = 0;
        assert_eq!(with(value, 1, filter(0b10)).types, 0b10);
    }
}
