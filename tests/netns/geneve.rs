//! What needs a kernel with Geneve (`CONFIG_GENEVE`), which many don't have. `.config/nextest.toml` leaves
//! this module out, and nextest counts it as skipped; it is run by name, as `netns geneve::`, where such a
//! kernel is. Where it is run without one, it fails.

use std::process::Command;

use crate::lab::{DUAL, V4, V6};
use crate::{overlay, overlay_switch, overlay_wire};

#[track_caller]
fn demand_geneve() {
    let script = "ip link add type geneve external";
    let tried = Command::new("unshare").args(["--net", "sh", "-c", script]).output();
    let tried = tried.expect("run unshare");
    let error = String::from_utf8_lossy(&tried.stderr);
    assert!(tried.status.success(), "this kernel has no Geneve (CONFIG_GENEVE): {error}");
}

#[test]
fn both_in_ipv4() {
    demand_geneve();
    overlay::traffic(DUAL, V4, overlay::GENEVE);
}

#[test]
fn both_in_ipv6() {
    demand_geneve();
    overlay::traffic(DUAL, V6, overlay::GENEVE);
}

#[test]
fn both_in_ipv4_past_the_hosts() {
    demand_geneve();
    overlay::traffic(DUAL, V4, "tunnel-protocol = \"geneve\"\nhost-routing = \"bpf\"\n");
}

#[test]
fn by_hand_over_ipv4() {
    demand_geneve();
    overlay_wire::both_ways(V4, overlay_wire::GENEVE, "");
}

#[test]
fn to_it_and_back() {
    demand_geneve();
    overlay_switch::to_geneve_and_back();
}
