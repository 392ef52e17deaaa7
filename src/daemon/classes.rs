//! Classes of messages in the journal: for each a target in the log, and the id that leads `journalctl -x`
//! to the text about it in `systemd/ciliate.catalog`. Imports nothing.
//!
//! An id, once published, keeps its meaning; a class that is no more takes its id with it.

/// The daemon has started.
pub const STARTED: &str = "ciliate::started";
/// A configuration that differs from the one before is in force.
pub const CONFIGURED: &str = "ciliate::configured";
/// A configuration is refused.
pub const REFUSED: &str = "ciliate::refused";
/// An object was made, changed or removed.
pub const CHANGED: &str = "ciliate::changed";
/// All is as configured, after it wasn't.
pub const CONVERGED: &str = "ciliate::converged";
/// Something is not as configured, and stays so for now.
pub const PROBLEM: &str = "ciliate::problem";
/// A round could not be done at all.
pub const FAILED: &str = "ciliate::failed";
/// A backend was found dead.
pub const DEAD: &str = "ciliate::dead";
/// A backend that was found dead is alive again.
pub const ALIVE: &str = "ciliate::alive";
/// The daemon ends.
pub const STOPPING: &str = "ciliate::stopping";

/// Every class with its `MESSAGE_ID`.
pub const CLASSES: &[(&str, &str)] = &[
    (STARTED, "d1086ca4128548978ce9f9fdda182af1"),
    (CONFIGURED, "0677d462f7ed466d85fa0551a6b731e8"),
    (REFUSED, "102300bf8d55448ba6f40e712a74dbcd"),
    (CHANGED, "fa669637e31f4825887a5689c4c026ec"),
    (CONVERGED, "5ecdc9b8032d4e5284e662f56946c911"),
    (PROBLEM, "0d7c5520d6c546a1bb1aace528dafc31"),
    (FAILED, "1baef9bd49d84f4e99f68b7e53b651da"),
    (DEAD, "e40b5ad2800e45cba2eeee217f2be870"),
    (ALIVE, "f2da2caaee194c84a8e20090d8681c72"),
    (STOPPING, "237a6bd149084a489abe85ac76f4e36c"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_in_the_catalog() {
        let catalog = include_str!("../../systemd/ciliate.catalog");
        let written: Vec<&str> =
            catalog.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        let ids: Vec<&str> = CLASSES.iter().map(|(_, id)| *id).collect();
        assert_eq!(written, ids);
    }
}
