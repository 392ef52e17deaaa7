//! The BPF programs on this machine's kernel: that they load, that their maps are what user space
//! thinks they are, and what they do to packets, by `BPF_PROG_TEST_RUN`.
//!
//! Needs root; every test works in network and mount namespaces of its own and leaves nothing behind.
//! A test run shows that there is a redirect, not where it ends; `traffic` does, with pings between real
//! namespaces. Whole nodes and the way between them are for the netns tier.

mod abi;
mod arp;
mod btf;
mod conntrack;
mod control_group;
mod differential;
mod direct_return;
mod encryption;
mod events;
mod flows;
mod fragments;
mod frames;
mod from_container;
mod from_host;
mod fuzz;
mod host_routing;
mod kept;
mod lab;
mod listener;
mod model;
mod neighbour;
mod node_port;
mod random;
mod rare;
mod sandbox;
mod service_traffic;
mod service_world;
mod services;
mod sockets;
mod time_exceeded;
mod too_long;
mod traffic;
mod truncated;
mod tunnel;
mod tunnel_past_host;
mod vlan;
mod wire;
mod wire_format;
mod world;
mod xdp;
