//! Whole nodes on this machine's kernel: the program `ciliate` in throw-away network namespaces, with a
//! wire between them, endpoints, an outside, and real packets.
//!
//! Needs root. Each test makes a [`lab::Lab`] of its own; when that goes, it runs `ciliate destroy` on
//! every node, and anything that is then left or missing fails the test. May use all of the library: the
//! tests compare what the engine predicted with what the kernel has.

mod adversary;
mod ahead;
mod allocation;
mod backend_states;
mod backends;
mod blocked;
mod busy;
mod capture;
mod carrier;
mod checks;
mod conntrack;
mod crash;
mod daemon;
mod elsewhere;
mod encryption_missing;
mod events;
mod facts;
mod fleet;
mod flood;
mod flows;
mod foreign;
#[path = "../bpf/frames.rs"]
#[allow(dead_code, reason = "what the bpf tier builds packets with; not all of it is needed here")]
mod frames;
mod frozen;
mod geneve;
mod health;
mod hitless;
mod host_routing;
mod intruders;
mod journal;
mod kubernetes;
mod l3_device;
mod lab;
mod maglev;
mod main_job;
mod manager;
mod misled;
mod monitor;
mod nat;
mod node;
mod node_port;
mod notrack;
mod occupied;
mod offload;
mod one_writer;
mod overlay;
mod overlay_switch;
mod overlay_wire;
mod points;
mod purge;
mod put_back;
mod quiet;
mod reader;
mod reload;
mod repair;
mod residue;
mod sabotage;
mod saved_plan;
mod services;
mod silent;
mod snapshot;
mod sockets;
mod space;
mod traffic;
mod tunnel_past_host;
#[path = "../bpf/wire.rs"]
#[allow(dead_code, reason = "here it only sends")]
mod wire;
mod wireguard;
