//! One identity stands for one set of labels.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Diagnostic;
use crate::intent::Identity;
use crate::intent::draft::{Draft, DraftEndpoint, Problems};

/// Where one of two endpoints with the same number had it derived, it got into the other's by chance,
/// and with it the other's rights. Where both were given the number, the operator has said so.
pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    let mut first: BTreeMap<Identity, &DraftEndpoint> = BTreeMap::new();
    for endpoint in &draft.endpoints {
        let earlier = *first.entry(endpoint.identity.value).or_insert(endpoint);
        let by_chance = earlier.identity_is_derived || endpoint.identity_is_derived;
        if earlier.labels != endpoint.labels && by_chance {
            problems.push(collision(draft, earlier, endpoint));
        }
    }
}

fn collision(draft: &Draft, earlier: &DraftEndpoint, later: &DraftEndpoint) -> Diagnostic {
    let number = later.identity.value;
    let message = format!(
        "endpoints `{}` and `{}` have different labels and the same identity {number}",
        earlier.name.value, later.name.value
    );
    let said = |endpoint: &DraftEndpoint| match endpoint.identity_is_derived {
        true => format!("{number} is derived from these labels"),
        false => format!("{number} is given here"),
    };
    let taken: BTreeSet<_> =
        draft.endpoints.iter().map(|endpoint| endpoint.identity.value.number()).collect();
    let free = (Identity::LABELS_MIN..=Identity::LABELS_MAX).find(|number| !taken.contains(number));
    Diagnostic::new(later.identity.span, message)
        .label(said(later))
        .related(earlier.identity.span, said(earlier))
        .help(format!(
            "give one of them another number, the same on every node: identity = {}",
            free.unwrap_or(Identity::LABELS_MIN)
        ))
}
