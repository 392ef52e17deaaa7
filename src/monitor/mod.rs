//! What the programs say: the bytes in a ring of events to typed events, and those to lines of text and of
//! JSON, as `cilium monitor` prints them.
//!
//! Pure: bytes and names in, text out; no I/O. Imports `bpf_abi` (the records), `intent` (the names of
//! identities), `net` and `plan` (the version of our JSON).

mod connection;
mod debug;
mod icmp;
pub mod json;
mod layers;
mod packet;
mod record;
mod selection;
pub mod text;
mod words;

#[cfg(test)]
mod fixtures;

pub use packet::Packet;
pub use record::{Body, Capture, Debug, Drop, Event, Identities, RecordError, Trace, decode};
pub use selection::Selection;

/// Pages of a ring for each CPU, and bytes in a page: Cilium's, and what the banner says.
pub const PAGES_PER_CPU: u32 = 64;
/// See [`PAGES_PER_CPU`].
pub const PAGE_BYTES: u32 = 4096;
/// The smallest ring, in bytes.
const RING_BYTES_MIN: u32 = 1 << 20;
/// The largest, in bytes: the kernel takes rings of more, but their memory is always in use.
const RING_BYTES_MAX: u32 = 1 << 28;

/// Size of a reader's ring in bytes, a power of two as the kernel asks for.
pub fn ring_bytes(cpus: usize) -> u32 {
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    let wanted = PAGES_PER_CPU.saturating_mul(PAGE_BYTES).saturating_mul(cpus);
    wanted.clamp(RING_BYTES_MIN, RING_BYTES_MAX).next_power_of_two()
}
