//! Configuration files as an operator writes them: bad ones and what is said about them, good ones
//! and what becomes of them.
//!
//! No kernel, no root. Fixtures are in `tests/config/`; `UPDATE_EXPECT=1` rewrites what is expected.

#[path = "config/bad_inputs.rs"]
mod bad_inputs;
