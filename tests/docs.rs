//! The documentation says what is true: examples are run, tables are compared with the code, names of
//! tests and files are looked up.
//!
//! `UPDATE_EXPECT=1` rewrites the generated part of `config/README.md`. `examples` needs root.

#[path = "docs/architecture.rs"]
mod architecture;
#[path = "docs/config.rs"]
mod config;
#[path = "docs/error_types.rs"]
mod error_types;
#[path = "docs/errors.rs"]
mod errors;
#[path = "docs/examples.rs"]
mod examples;
#[path = "docs/json.rs"]
mod json;
#[path = "docs/pages.rs"]
mod pages;
#[path = "docs/text.rs"]
mod text;
