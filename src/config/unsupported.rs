//! What the configuration has names for and this version does not do yet.
//!
//! Kept apart from the schema, so that editors don't offer it and yet nobody has to guess why a key of
//! the documentation is refused. Pure; imports nothing of this crate.

/// A section, key or value that is refused, by its path.
struct Unsupported {
    /// `section`, `section.key` or `section.key=value`.
    path: &'static str,
    /// What to do instead.
    help: &'static str,
}

const UNSUPPORTED: &[Unsupported] = &[Unsupported {
    path: "masquerade.mode=bpf",
    help: "set `mode = \"nftables\"`, or \"off\" if the network routes the node's CIDRs",
}];

/// What to do instead of a section, a key or a value
/// (`masquerade.mode=bpf`), if it is one of those this version refuses.
pub(super) fn instead_of(path: &str) -> Option<&'static str> {
    UNSUPPORTED.iter().find(|unsupported| unsupported.path == path).map(|found| found.help)
}
