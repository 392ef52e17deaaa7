//! ciliate
pub mod bpf_abi;
pub mod bpf_objects;
pub mod config;
pub mod intent;
pub mod net;
