//! Removes flows that are over from the conntrack maps. Imports `bpf_abi`, `kernel`, `kinds` (names and
//! pins), and the status it reports to.
//!
//! The programs give each entry the second in which it ends, by a clock that goes on while no daemon runs,
//! and put that off with each packet. So nothing needs to be known to tell what is over, a restart changes
//! nothing, and there is no scan at the start: an entry that is over takes up room, no more, and a full map
//! makes room by itself, as do the maps of fragments, which are left alone here.
//!
//! A packet may put an entry's end off between the look and the removal. So each entry is read once more,
//! then taken out in one step with its value (under the lock of its bucket), and put back if that value
//! goes on, unless the flow's next packet made another one by then. What is left are a few microseconds in
//! which a flow that woke up after its end can be met as a new one, as it would have been one moment later.
//!
//! A thread of its own, that works for 5 ms and sleeps for 45: a scan of the largest map takes a
//! tenth of a CPU, and holds up nothing.

mod interval;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::control::Status;
use crate::bpf_abi::{CILIUM_CT_ANY4, CILIUM_CT_ANY6, CILIUM_CT4, CILIUM_CT6, CtValue};
use crate::kernel::bpf_map::{Batch, Map};
use crate::kernel::{KernelError, clock, pins};

/// The maps that are collected.
const MAPS: [&str; 4] = [CILIUM_CT4, CILIUM_CT_ANY4, CILIUM_CT6, CILIUM_CT_ANY6];

/// Entries that are read at a time.
const BATCH_ENTRIES: usize = 512;
/// Work without a pause.
const SLICE: Duration = Duration::from_millis(5);
/// Sleep after a slice.
const PAUSE: Duration = Duration::from_millis(45);

/// What collections came to since the daemon's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collections {
    pub runs: u64,
    /// Flows that the last run found going on.
    pub entries: u64,
    /// Flows that the last run removed, and all runs.
    pub deleted: u64,
    pub deleted_total: u64,
    /// Flows that a packet revived just before they were removed; all runs.
    pub revived_total: u64,
    /// Maps that could not be collected; all runs.
    pub errors_total: u64,
    /// The last run, its pauses included.
    pub last_ms: u64,
    /// From the last run to the next.
    pub interval_s: u64,
}

impl Collections {
    fn add(&mut self, run: &Run, wait: Duration) {
        self.runs += 1;
        self.entries = run.entries;
        self.deleted = run.deleted;
        self.deleted_total += run.deleted;
        self.revived_total += run.revived;
        self.errors_total += run.errors;
        self.last_ms = run.took.as_millis() as u64;
        self.interval_s = wait.as_secs();
    }
}

/// One collection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    pub entries: u64,
    pub deleted: u64,
    pub revived: u64,
    pub errors: u64,
    /// The part of a map's size that was deleted, of the map where it was largest.
    pub part_deleted: f64,
    pub took: Duration,
}

/// The collector's name among the controllers.
const CONTROLLER: &str = "conntrack-gc";

/// Starts the thread. `fixed`: the wait between collections, where the operator chose it.
///
/// # Errors
/// No thread can be had.
pub fn start(
    bpf_root: &Path,
    fixed: Option<Duration>,
    status: Arc<Mutex<Status>>,
) -> Result<(), KernelError> {
    let bpf_root: PathBuf = bpf_root.into();
    let mut wait = fixed.unwrap_or(interval::FIRST);
    let set = |status: &Mutex<Status>, change: &dyn Fn(&mut Collections)| {
        change(&mut status.lock().unwrap_or_else(PoisonError::into_inner).conntrack_gc);
    };
    set(&status, &|collections| collections.interval_s = wait.as_secs());
    let report = |status: &Mutex<Status>, error| {
        let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
        status.controllers.insert(CONTROLLER.into(), error);
    };
    report(&status, None);
    let work = move || {
        loop {
            thread::sleep(wait);
            let run = collect(&bpf_root);
            wait = fixed.unwrap_or_else(|| interval::next(wait, run.part_deleted));
            debug!(entries = run.entries, deleted = run.deleted, "conntrack collected");
            set(&status, &|collections| collections.add(&run, wait));
            let error = (run.errors > 0).then(|| format!("{} maps can't be read", run.errors));
            report(&status, error);
        }
    };
    let thread = thread::Builder::new().name("conntrack-gc".into()).spawn(work);
    let failed = |source| KernelError::File {
        operation: "start a thread for",
        path: "the conntrack maps".into(),
        source,
    };
    thread.map(drop).map_err(failed)
}

/// Goes through all maps once. A map that isn't there, or can't be read, is passed over.
pub fn collect(bpf_root: &Path) -> Run {
    let begin = Instant::now();
    let mut run = Run::default();
    let mut slice = Instant::now();
    for name in MAPS {
        let before = run.deleted;
        match collect_map(&pins::map(bpf_root, name), &mut run, &mut slice) {
            Ok(max_entries) => {
                let part = (run.deleted - before) as f64 / f64::from(max_entries.max(1));
                run.part_deleted = run.part_deleted.max(part);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                run.errors += 1;
                warn!("conntrack map {name} can't be collected: {error}");
            }
        }
    }
    run.took = begin.elapsed();
    run
}

/// Goes through a map once, and returns its size.
fn collect_map(pin: &Path, run: &mut Run, slice: &mut Instant) -> io::Result<u32> {
    let map = Map::open(pin)?;
    for batch in map.walk(BATCH_ENTRIES) {
        collect_batch(&map, &batch?, run, slice)?;
    }
    Ok(map.shape().max_entries)
}

fn collect_batch(map: &Map, batch: &Batch, run: &mut Run, slice: &mut Instant) -> io::Result<()> {
    let now = clock::monotonic_seconds();
    for (key, value) in batch.iter() {
        if !is_over(value, now) {
            run.entries += 1;
            continue;
        }
        match remove(map, key, now)? {
            Removal::Done => run.deleted += 1,
            Removal::Revived => run.revived += 1,
            Removal::Gone => {}
        }
        breathe(slice);
    }
    breathe(slice);
    Ok(())
}

/// Sleeps if the slice is used up.
fn breathe(slice: &mut Instant) {
    if slice.elapsed() >= SLICE {
        thread::sleep(PAUSE);
        *slice = Instant::now();
    }
}

/// What became of an entry that was over when it was read.
#[derive(Debug, PartialEq, Eq)]
enum Removal {
    Done,
    /// A packet put its end off: it is in the map.
    Revived,
    /// Somebody else removed it.
    Gone,
}

/// Removes an entry that is over; one that isn't any more stays.
fn remove(map: &Map, key: &[u8], now: u32) -> io::Result<Removal> {
    match map.lookup(key)? {
        None => return Ok(Removal::Gone),
        Some(value) if !is_over(&value, now) => return Ok(Removal::Revived),
        Some(_) => {}
    }
    let Some(value) = map.take(key)? else { return Ok(Removal::Gone) };
    if is_over(&value, now) {
        return Ok(Removal::Done);
    }
    map.insert_new(key, &value)?;
    Ok(Removal::Revived)
}

/// Whether a flow ended before this second. What isn't the value of a flow is left alone.
fn is_over(value: &[u8], now: u32) -> bool {
    value.try_into().is_ok_and(|bytes| CtValue::from_bytes(bytes).lifetime < now)
}
