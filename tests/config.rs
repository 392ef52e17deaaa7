//! Configuration files as an operator writes them: bad ones and what is said about them, good ones
//! and what becomes of them.
//!
//! No kernel, no root. Fixtures are in `tests/config/`; `UPDATE_EXPECT=1` rewrites what is expected.

#[path = "config/amended.rs"]
mod amended;
#[path = "config/bad_inputs.rs"]
mod bad_inputs;
#[path = "config/good_inputs.rs"]
mod good_inputs;
#[path = "config/hostile.rs"]
mod hostile;
#[path = "config/published_schema.rs"]
mod published_schema;
#[path = "config/scale.rs"]
mod scale;
#[path = "config/scratch.rs"]
mod scratch;
#[path = "config/search_path.rs"]
mod search_path;
