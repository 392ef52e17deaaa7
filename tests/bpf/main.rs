//! The BPF programs on this machine's kernel: that they load, that their maps are what user space
//! thinks they are, and what they do to packets, by `BPF_PROG_TEST_RUN`.
//!
//! Needs root; every test works in network and mount namespaces of its own and leaves nothing behind.
//! What these tests do not show: where a redirect ends (the kernel only tells that there is one) and
//! what a real device does with the packet. That is for the netns tier.

mod abi;
mod arp;
mod btf;
mod differential;
mod frames;
mod from_container;
mod from_host;
mod lab;
mod model;
mod neighbour;
mod sandbox;
mod time_exceeded;
mod truncated;
mod wire;
mod world;
