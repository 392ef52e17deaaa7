//! Listening to the programs: a ring of one's own in a slot of `ciliate_events`, read until the reader is
//! told to end or the node's maps go away.
//!
//! Imports `kernel` and `bpf_abi`. What the records mean is [`monitor`](crate::monitor)'s; where they
//! are shown is the command line's. Needs no daemon: readers share the slots among themselves, see
//! [`slots`].

pub mod slots;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bpf_abi::{MONITOR_SLOTS, MonitorFilter};
use crate::kernel::KernelError;
use crate::kernel::ring::{self, Ring};
use slots::{Maps, Slot};

pub use crate::kernel::ring::{Ready, online_cpus};

/// Why there is nothing to listen to.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("this node is not set up, there is no {pin}; run `ciliate apply` first")]
    NotApplied { pin: PathBuf },
    #[error("{pin} is of another version of ciliate; run `ciliate apply` with this one")]
    OtherVersion { pin: PathBuf },
    #[error(
        "all {MONITOR_SLOTS} readers that there can be are there; end one of these processes: {pids}"
    )]
    Full { pids: String },
    #[error("make a ring of {bytes} bytes")]
    Ring { bytes: u32, source: io::Error },
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Why a reader that works has to end all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The maps are gone or others: the node was destroyed, or made anew.
    Maps,
    /// The file that says that this reader lives was removed, so others take it for dead.
    Slot,
}

/// A reader: its ring, and its slot. Dropped, it gives the slot back.
pub struct Listener {
    ring: Ring,
    slot: Slot,
    maps: Maps,
    /// Events lost on each CPU, as far as they were reported.
    reported: Vec<u64>,
}

impl Listener {
    /// Takes a slot and listens from now on.
    ///
    /// # Errors
    /// The node was not applied, or all slots are taken.
    pub fn start(
        bpf: &Path,
        runtime: &Path,
        filter: MonitorFilter,
        ring_bytes: u32,
    ) -> Result<Self, ListenError> {
        let maps = Maps::open(bpf)?;
        let ring = Ring::create("ciliate_ring", ring_bytes)
            .map_err(|source| ListenError::Ring { bytes: ring_bytes, source })?;
        let (slot, reported) = slots::take(&maps, runtime, &ring, filter)?;
        Ok(Self { ring, slot, maps, reported })
    }

    /// Takes the next record, if there is one.
    pub fn next<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.ring.next(read)
    }

    /// Waits for a record, but no longer than `patience`.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn wait(
        &self,
        stop: impl AsFd,
        output: impl AsFd,
        patience: Duration,
    ) -> io::Result<Ready> {
        ring::wait(&self.ring, stop, output, patience)
    }

    /// How many events found no room since the last call, by CPU.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn lost(&mut self) -> Result<Vec<(usize, u64)>, ListenError> {
        let now = self.maps.lost(self.slot.number())?;
        let fresh = |(cpu, (now, before)): (usize, (&u64, &u64))| {
            let count = now.wrapping_sub(*before);
            (count > 0).then_some((cpu, count))
        };
        let lost = now.iter().zip(&self.reported).enumerate().filter_map(fresh).collect();
        self.reported = now;
        Ok(lost)
    }

    /// What this reader has lost that it can't do without; `None` as long as all is well.
    pub fn check(&self) -> Option<Lost> {
        if !self.maps.are_pinned() {
            Some(Lost::Maps)
        } else if !self.slot.is_ours() {
            Some(Lost::Slot)
        } else {
            None
        }
    }

    /// Gives the slot back, and says what went wrong with that.
    ///
    /// # Errors
    /// The kernel's answer. The next reader frees the slot.
    pub fn stop(mut self) -> Result<(), ListenError> {
        self.slot.free(&self.maps)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nobody is there to be told; the next reader frees the slot.
        let _ = self.slot.free(&self.maps);
    }
}
