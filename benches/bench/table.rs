//! Medians and ratios as lines of text.

use std::time::Duration;

/// The times of each contestant, in the order in which they were first heard of.
#[derive(Default)]
pub struct Times {
    all: Vec<(String, Vec<Duration>)>,
}

impl Times {
    pub fn add(&mut self, name: &str, time: Duration) {
        match self.all.iter_mut().find(|(n, _)| n == name) {
            Some((_, times)) => times.push(time),
            None => self.all.push((name.into(), vec![time])),
        }
    }

    /// Prints a line for each contestant, with its ratio to `baseline`.
    pub fn print(&self, scenario: &str, baseline: &str) {
        let median = |times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1000.0
        };
        let base = self.all.iter().find(|(name, _)| name == baseline);
        let base = base.map_or(1.0, |(_, times)| median(times));
        for (name, times) in &self.all {
            let ms = median(times);
            println!("{scenario:<24} {name:<22} {ms:>10.1} {:>8.2}", ms / base);
        }
    }
}

pub fn heading() -> String {
    format!("{:<24} {:<22} {:>10} {:>8}", "scenario", "who", "ms", "ratio")
}

pub fn legend() -> &'static str {
    "ratio: to raw netlink in batches (routes), to ip -batch without programs and map entries (endpoints),\n\
     to the slots alone in batched map updates (services).\n\
     cold: configuration read, planned, applied, and verified by a second look.  no-op: one look that finds nothing to do."
}

/// `VmHWM` of /proc/self/status.
pub fn peak_rss_mb() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}
