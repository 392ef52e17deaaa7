#![doc = include_str!("README.md")]
#![forbid(unsafe_code)]

pub mod adapter;
mod endpoints;
pub mod folder;
pub mod mapping;
mod nodes;
mod objects;
pub mod page;
mod services;
pub mod settings;
pub mod status;
mod stores;
