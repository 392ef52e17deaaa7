//! How fast packets are from one endpoint to another: ratios to a raw veth pair, beside what plain kernel
//! routing, a plain kernel VXLAN, and the smallest BPF programs do between the same namespaces in the same run.
//!
//! `make bench` runs it; it needs root, `ip`, `bridge`, `nsenter`, `sysctl` and `nft`, and works in network
//! namespaces of its own. A name limits it to the paths that have it in theirs.

#[allow(dead_code, reason = "shared with other benches")]
mod bench {
    pub mod paths;
    pub mod ratios;
    pub mod traffic;
}

use bench::paths::{ACROSS, Lab, RAW, SAME_NODE, VXLAN};
use bench::ratios::measure;

const ROUNDS: usize = 60;

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP bench: needs root");
        return;
    }
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let lab = Lab::new(&[RAW, SAME_NODE, ACROSS, VXLAN]);
    measure(&lab, &only.unwrap_or_default(), ROUNDS);
}
