//! ciliate
pub mod net;
