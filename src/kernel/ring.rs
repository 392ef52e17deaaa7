//! Rings of events (`BPF_MAP_TYPE_RINGBUF`, Linux 5.8), and waiting for them.
//!
//! The shared memory of a ring is read by aya. Imports nothing of this crate.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use aya::maps::{Map, MapData, RingBuf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// `BPF_MAP_TYPE_RINGBUF`.
const RINGBUF: u32 = 27;

/// A ring, with its memory mapped.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    /// Makes a ring; its size is a power of two and a multiple of a page.
    ///
    /// # Errors
    /// The kernel has no memory for it, or no rings.
    pub fn create(name: &str, bytes: u32) -> io::Result<Self> {
        let failed = |error: aya::maps::MapError| io::Error::other(super::chain(&error));
        let definition = aya_obj::Map::new_from_params(RINGBUF, 0, 0, bytes, 0);
        let data = MapData::create(definition, name, None).map_err(failed)?;
        RingBuf::try_from(Map::RingBuf(data)).map(Self).map_err(failed)
    }

    /// Takes the next record, if there is one, and gives its room back when `read` is done with it.
    pub fn next<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.0.next().map(|record| read(&record))
    }

    /// The descriptor, as a map of maps takes it.
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// There is something in the ring, or nothing happened for as long as was asked.
    Look,
    /// Something can be read from `stop`.
    Stop,
    /// Nobody reads `output` any more.
    Closed,
}

/// Waits for a record, but no longer than `patience`.
///
/// # Errors
/// The kernel's answer.
pub fn wait(
    ring: &Ring,
    stop: impl AsFd,
    output: impl AsFd,
    patience: Duration,
) -> io::Result<Ready> {
    let mut ready = [
        PollFd::new(&stop, PollFlags::IN),
        // Errors are reported whether they are asked for or not: a pipe without a reader is one.
        PollFd::new(&output, PollFlags::empty()),
        PollFd::new(ring, PollFlags::IN),
    ];
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut ready, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let [stop, output, _] = ready.map(|descriptor| !descriptor.revents().is_empty());
    Ok(match (stop, output) {
        (true, _) => Ready::Stop,
        (false, true) => Ready::Closed,
        (false, false) => Ready::Look,
    })
}

/// How many CPUs work at present.
///
/// # Errors
/// /sys is not mounted.
pub fn online_cpus() -> io::Result<usize> {
    // "0-3,8": ranges and single numbers.
    let text = fs::read_to_string("/sys/devices/system/cpu/online")?;
    let count = text.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<usize>().ok();
        Some((number(last)? + 1).saturating_sub(number(first)?))
    });
    count.sum::<Option<usize>>().ok_or_else(|| io::ErrorKind::InvalidData.into())
}
