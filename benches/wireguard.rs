//! What encryption costs: packets through `cilium_wg0` beside those through a WireGuard device made by hand between
//! the same namespaces, and peers made by `ciliate apply` beside the same made by `wg syncconf`.
//!
//! It needs a kernel with WireGuard: `scripts/bench-wireguard.sh` runs it here if this one has it, else in a guest.

#[allow(dead_code, reason = "shared with other benches")]
mod bench {
    pub mod paths;
    pub mod ratios;
    pub mod traffic;
    pub mod tunnels;
}

use bench::paths::{Lab, RAW, WIREGUARD};
use bench::ratios::measure;

/// Fewer than of other paths: a guest without KVM takes its time, and its clock counts instructions.
const ROUNDS: usize = 15;

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP bench: needs root");
        return;
    }
    bench::tunnels::measure();
    measure(&Lab::new(&[RAW, WIREGUARD]), "", ROUNDS);
}
