//! The clock by which the BPF programs say when something ends (`bpf_ktime_get_ns`): `CLOCK_MONOTONIC` of
//! the machine, whatever time namespace this process is in.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// Seconds of the machine's monotonic clock.
pub fn monotonic_seconds() -> u32 {
    let offset = fs::read_to_string("/proc/self/timens_offsets").map_or(0, |text| offset(&text));
    // Fits for 136 years after boot.
    (clock_gettime(ClockId::Monotonic).tv_sec - offset).max(0) as u32
}

/// Seconds by which this process's monotonic clock is ahead (time_namespaces(7)), rounded up: what lives by
/// the clock of the machine must not look expired.
fn offset(text: &str) -> i64 {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("monotonic"));
    let mut numbers = line.into_iter().flat_map(str::split_whitespace);
    let mut next = || numbers.next().and_then(|word| word.parse::<i64>().ok()).unwrap_or(0);
    next() + i64::from(next() > 0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn offsets_of_time_namespaces() {
        let text = "monotonic           0         0\nboottime            0         0\n";
        assert_eq!(super::offset(text), 0);
        let text = "monotonic      172800         0\nboottime       604800         0\n";
        assert_eq!(super::offset(text), 172_800);
        assert_eq!(super::offset("monotonic -60 0\n"), -60);
        assert_eq!(super::offset("monotonic 60 1\n"), 61);
        assert_eq!(super::offset(""), 0);
    }
}
