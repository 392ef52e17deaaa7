#![doc = include_str!("ARCHITECTURE.md")]
// Of the library and the program only: a test may stop at what it doesn't expect.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what can go wrong is a value: one bad object must not stop the others"
)]
#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the library never prints; the command line writes to its output"
)]

// In the order of the flow.
pub mod config;

pub mod intent;

pub mod facts;

pub mod lower;

pub mod kinds;

pub mod observe;

pub mod plan;

pub mod apply;

pub mod report;

pub mod engine;

pub mod cli;

pub mod monitor;

pub mod listen;

pub mod daemon;

// What they stand on.
#[allow(unsafe_code, reason = "system calls: all of them are here, each with its proof")]
pub mod kernel;

pub mod bpf_abi;

pub mod bpf_objects;

pub mod net;
