//! Removes flows that are over from the conntrack maps, and then from the NAT maps. Imports `bpf_abi`, `kernel`,
//! `kinds` (names and pins), and the status it reports to.
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
//! NAT is left alone while there are old maps: programs may write to those what its entries are judged by.
//!
//! A thread of its own, that works for 5 ms and sleeps for 45: a scan of the largest map takes a
//! tenth of a CPU, and holds up nothing.

mod interval;
mod nat;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::control::Status;
use crate::bpf_abi::{
    CILIUM_CT_ANY4, CILIUM_CT_ANY6, CILIUM_CT4, CILIUM_CT6, CILIUM_SNAT4, CILIUM_SNAT6, CtValue,
};
use crate::kernel::bpf_map::{Batch, Map};
use crate::kernel::place::{self, Pinned};
use crate::kernel::{KernelError, clock, pins};

/// The maps that are collected.
const MAPS: [&str; 4] = [CILIUM_CT4, CILIUM_CT_ANY4, CILIUM_CT6, CILIUM_CT_ANY6];

/// NAT maps, with those that have their flows.
const NAT_MAPS: [(&str, &str, &str); 2] =
    [(CILIUM_SNAT4, CILIUM_CT4, CILIUM_CT_ANY4), (CILIUM_SNAT6, CILIUM_CT6, CILIUM_CT_ANY6)];

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
    /// Entries of NAT that the last run kept, and removed.
    #[serde(default)]
    pub nat_entries: u64,
    #[serde(default)]
    pub nat_deleted: u64,
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
        (self.nat_entries, self.nat_deleted) = (run.nat_entries, run.nat_deleted);
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
    /// The same of NAT.
    pub nat_entries: u64,
    pub nat_deleted: u64,
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
        let collected = collect_flows(bpf_root, name, &mut slice);
        run.note(name, collected, |run, sum| {
            run.entries += sum.entries;
            run.deleted += sum.deleted;
        });
    }
    for (name, tcp, any) in NAT_MAPS {
        let collected = collect_nat(bpf_root, [name, tcp, any], &mut slice);
        run.note(name, collected, |run, sum| {
            run.nat_entries += sum.entries;
            run.nat_deleted += sum.deleted;
        });
    }
    run.took = begin.elapsed();
    run
}

/// What came of one map.
#[derive(Debug, Default)]
struct Sum {
    entries: u64,
    deleted: u64,
    revived: u64,
    max_entries: u32,
}

impl Run {
    fn note(&mut self, name: &str, collected: io::Result<Sum>, add: impl Fn(&mut Self, &Sum)) {
        match collected {
            Ok(sum) => {
                let part = sum.deleted as f64 / f64::from(sum.max_entries.max(1));
                self.part_deleted = self.part_deleted.max(part);
                self.revived += sum.revived;
                add(self, &sum);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.errors += 1;
                warn!("map {name} can't be rid of what is over: {error}");
            }
        }
    }
}

/// A map of ours; whatever else is in its place is passed over.
fn open(root: &Path, name: &str) -> io::Result<Map> {
    let pin = place::open(root, &pins::map(root, name), Pinned::Map).map_err(io::Error::other)?;
    Map::of(pin.ok_or(io::ErrorKind::NotFound)?)
}

fn collect_flows(root: &Path, name: &str, slice: &mut Instant) -> io::Result<Sum> {
    collect_map(&open(root, name)?, slice, |_, value, now| Ok(is_over(value, now)))
}

fn collect_nat(root: &Path, [name, tcp, any]: [&str; 3], slice: &mut Instant) -> io::Result<Sum> {
    let pinned = pins::list(&pins::map(root, "")).map_err(io::Error::other)?;
    if pinned.iter().any(|pin| pin.contains("-old") && open(root, pin).is_ok()) {
        return Ok(Sum::default());
    }
    let flows = nat::Flows { tcp: open(root, tcp)?, any: open(root, any)? };
    collect_map(&open(root, name)?, slice, |key, value, now| flows.is_over(key, value, now))
}

/// Whether an entry is over in a second: by its key and its value.
trait Judge: Fn(&[u8], &[u8], u32) -> io::Result<bool> {}
impl<F: Fn(&[u8], &[u8], u32) -> io::Result<bool>> Judge for F {}

/// Goes through a map once.
fn collect_map(map: &Map, slice: &mut Instant, is_over: impl Judge) -> io::Result<Sum> {
    let mut sum = Sum { max_entries: map.shape().max_entries, ..Sum::default() };
    for batch in map.walk(BATCH_ENTRIES) {
        collect_batch(map, &batch?, &mut sum, slice, &is_over)?;
    }
    Ok(sum)
}

fn collect_batch(
    map: &Map,
    batch: &Batch,
    sum: &mut Sum,
    slice: &mut Instant,
    is_over: &impl Judge,
) -> io::Result<()> {
    let now = clock::monotonic_seconds();
    for (key, value) in batch.iter() {
        if !is_over(key, value, now)? {
            sum.entries += 1;
            continue;
        }
        match remove(map, key, now, is_over)? {
            Removal::Done => sum.deleted += 1,
            Removal::Revived => sum.revived += 1,
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
fn remove(map: &Map, key: &[u8], now: u32, is_over: &impl Judge) -> io::Result<Removal> {
    match map.lookup(key)? {
        None => return Ok(Removal::Gone),
        Some(value) if !is_over(key, &value, now)? => return Ok(Removal::Revived),
        Some(_) => {}
    }
    let Some(value) = map.take(key)? else { return Ok(Removal::Gone) };
    if is_over(key, &value, now)? {
        return Ok(Removal::Done);
    }
    map.insert_new(key, &value)?;
    Ok(Removal::Revived)
}

/// Whether a flow ended before this second. What isn't the value of a flow is left alone.
fn is_over(value: &[u8], now: u32) -> bool {
    value.try_into().is_ok_and(|bytes| CtValue::from_bytes(bytes).lifetime < now)
}
