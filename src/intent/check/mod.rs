//! What can only be judged by looking at several objects at once.
//!
//! Every check reads the [`Draft`] and adds diagnostics; none depends on another, so all complaints
//! appear at once. Pure.

mod addresses;
mod encryption;
mod families;
mod identities;
mod names;
mod networks;
mod services;

use super::draft::{Draft, Problems};
pub(super) use services::fit;

/// Runs all checks.
pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    names::check(draft, problems);
    networks::check(draft, problems);
    addresses::check(draft, problems);
    families::check(draft, problems);
    identities::check(draft, problems);
    services::check(draft, problems);
    encryption::check(draft, problems);
}
