//! ciliate
pub mod net;
pub mod bpf_abi;
pub mod bpf_objects;
pub mod config;
pub mod intent;
pub mod lower;
pub mod kinds;
pub mod observe;
pub mod plan;
pub mod apply;
pub mod report;
pub mod kernel;
pub mod cli;
pub mod daemon;
pub mod engine;
