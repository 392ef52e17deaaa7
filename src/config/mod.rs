//! TOML files → [`Document`]: which files, in which order, and what each key says.
//!
//! Imports `net` only. `load` is the one function here that reads files (the directories of a search
//! path are its argument); everything else is pure. A document keeps, for every key, the place it
//! was written at, so that every later complaint can show it.

