//! What the datapath programs cost: nanoseconds of one run by `BPF_PROG_TEST_RUN`, path by path, and the
//! programs' sizes. `make bench` runs it; it needs root, and works in a namespace of its own.
//!
//! Absolute times on a shared machine mean little: each is the best of [`ROUNDS`], in which the paths take
//! turns, and the first line, an empty path, is what a test run itself costs.

#![allow(dead_code, reason = "the lab of the bpf tier, which uses more of it")]

#[path = "../tests/bpf/flows.rs"]
mod flows;
#[path = "../tests/bpf/frames.rs"]
mod frames;
#[path = "../tests/bpf/lab.rs"]
mod lab;
#[path = "../tests/bpf/model.rs"]
mod model;
#[path = "../tests/bpf/sandbox.rs"]
mod sandbox;
#[path = "../tests/bpf/service_world.rs"]
mod service_world;
#[path = "../tests/bpf/world.rs"]
mod world;

use std::time::Duration;

use aya::programs::{TestRun, TestRunOptions};
use ciliate::bpf_abi::MARK_MAGIC_HOST;
use ciliate::bpf_objects::OBJECTS;

use crate::frames::*;
use crate::lab::{CONTEXT_LEN, Lab, context, context_by_tunnel};
use crate::service_world::*;
use crate::world::*;

const ROUNDS: usize = 40;
/// Of one frame in a row; fewer than it has hops.
const REPEAT: u32 = 200;

/// A frame and the way it takes.
struct Run {
    /// `None` for `cil_from_overlay` with a tunnel key.
    program: Option<&'static str>,
    context: [u8; CONTEXT_LEN],
    frame: Vec<u8>,
}

impl Run {
    fn new(program: &'static str, ifindex: u32, mark: u32, frame: Vec<u8>) -> Self {
        Self { program: Some(program), context: context(ifindex, mark), frame }
    }

    fn by_tunnel(id: u32, frame: Vec<u8>) -> Self {
        Self { program: None, context: context_by_tunnel(id, false), frame }
    }

    fn time(&self, lab: &Lab) -> Duration {
        let program = match self.program {
            Some(name) => lab.program(name),
            None => lab.program_by_tunnel(),
        };
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(&self.context),
            repeat: REPEAT,
            ..TestRunOptions::new()
        };
        program.test_run(options).expect("test run").duration
    }
}

/// Instructions as the kernel has them, instructions the verifier walked, bytes of machine code.
fn size(lab: &Lab, name: &str) -> [u32; 3] {
    let info = lab.loaded(name).info().expect("information");
    let translated = info.size_translated().map_or(0, |bytes| bytes / 8);
    [translated, info.verified_instruction_count().unwrap_or(0), info.size_jitted()]
}

fn tcp_paths(lab: &Lab) -> Vec<(&'static str, Run)> {
    let (a, host) = (lab.sandbox.lxc_a, lab.sandbox.cilium_host);
    let v4 = |source, destination| {
        let segment = tcp(TCP_ACK, b"");
        ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4_of(TCP, source, destination, 255, &segment))
    };
    let v6 = |source, destination| {
        let segment = tcp(TCP_ACK, b"");
        ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6_with(source, destination, 255, TCP, &segment))
    };
    let lxc = |frame| Run::new("cil_from_container", a, 0, frame);
    let from_host = |frame| Run::new("cil_from_host", host, MARK_MAGIC_HOST, frame);
    vec![
        ("nothing (cil_to_overlay)", Run::new("cil_to_overlay", 1, 0x400, v4(A4, B4))),
        ("endpoint to endpoint, IPv4", lxc(v4(A4, B4))),
        ("endpoint to endpoint, IPv6", lxc(v6(A6, B6))),
        ("endpoint to stack, IPv4", lxc(v4(A4, WORLD4))),
        ("endpoint to stack, IPv6", lxc(v6(A6, WORLD6))),
        ("endpoint to tunnel, IPv4", lxc(v4(A4, REMOTE4))),
        ("endpoint to tunnel, IPv6", lxc(v6(A6, REMOTE6))),
        ("tunnel to endpoint, IPv4", Run::by_tunnel(40_000, v4(REMOTE4, B4))),
        ("tunnel to endpoint, IPv6", Run::by_tunnel(40_000, v6(REMOTE6, B6))),
        ("host to endpoint, IPv4", from_host(v4(ROUTER4, B4))),
        ("host to endpoint, IPv6", from_host(v6(ROUTER6, B6))),
        ("host to tunnel, IPv4", from_host(v4(ROUTER4, REMOTE4))),
        ("underlay", Run::new("cil_from_netdev", 1, 0, v4(REMOTE4, B4))),
        ("into the host", Run::new("cil_to_host", host, 0, v4(B4, ROUTER4))),
    ]
}

/// On a node with services: what is for one, its answer, and what is not.
fn service_paths(lab: &Lab) -> Vec<(&'static str, Run)> {
    let (a, b) = (lab.sandbox.lxc_a, lab.sandbox.lxc_b);
    let segment = |from, to| tcp_between(from, to, TCP_ACK, b"");
    let v4 = |source, destination, segment: Vec<u8>| {
        ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4_of(TCP, source, destination, 255, &segment))
    };
    let v6 = |source, destination, segment: Vec<u8>| {
        ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6_with(source, destination, 255, TCP, &segment))
    };
    let lxc = |ifindex, frame| Run::new("cil_from_container", ifindex, 0, frame);
    vec![
        ("no service, IPv4", lxc(a, v4(A4, B4, segment(40_000, 80)))),
        ("no service, IPv6", lxc(a, v6(A6, B6, segment(40_000, 80)))),
        ("to a service, IPv4", lxc(a, v4(A4, VIP4, segment(40_000, 80)))),
        ("to a service, IPv6", lxc(a, v6(A6, VIP6, segment(40_000, 80)))),
        ("from a service, IPv4", lxc(b, v4(B4, A4, segment(1000, 40_000)))),
        ("from a service, IPv6", lxc(b, v6(B6, A6, segment(1000, 40_000)))),
    ]
}

/// The best of all rounds, path by path.
fn measure(lab: &Lab, paths: &[(&'static str, Run)]) {
    let mut best = vec![Duration::MAX; paths.len()];
    for _ in 0..ROUNDS {
        for (index, (_, run)) in paths.iter().enumerate() {
            best[index] = best[index].min(run.time(lab));
        }
    }
    for ((name, _), time) in paths.iter().zip(best) {
        println!("{name:<28} {:>12}", time.as_nanos());
    }
}

fn main() {
    lab::run(|lab| {
        println!("{:<28} {:>12} {:>12} {:>8}", "program", "instructions", "verified", "jited");
        for object in OBJECTS {
            for name in object.programs {
                let size = size(lab, name);
                let [translated, verified, jited] = size.map(|number| number.to_string());
                println!("{name:<28} {translated:>12} {verified:>12} {jited:>8}");
            }
        }
        lab.add_tunnel();
        println!("\n{:<28} {:>12}", "path, TCP", "ns");
        measure(lab, &tcp_paths(lab));
        add_services(lab);
        let mut world = lab.world.clone();
        for ends in [ENDS4, ENDS6] {
            let backends = vec![u32::from(ends.base) + TO_B];
            world.services.get_mut(&(ends.vip, 80, TCP)).expect("a service").backends = backends;
        }
        lab.describe(world);
        println!("\n{:<28} {:>12}", "with services", "ns");
        measure(lab, &service_paths(lab));
    });
}
