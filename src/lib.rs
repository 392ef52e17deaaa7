#![doc = include_str!("ARCHITECTURE.md")]

// In the order of the flow.
pub mod config;

pub mod intent;

pub mod lower;

pub mod kinds;

pub mod observe;

pub mod plan;

pub mod apply;

pub mod report;

pub mod engine;

pub mod cli;

pub mod daemon;

// What they stand on.
pub mod kernel;

pub mod bpf_abi;

pub mod bpf_objects;

pub mod net;
