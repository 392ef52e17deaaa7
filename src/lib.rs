//! ciliate
pub mod config;
pub mod net;
