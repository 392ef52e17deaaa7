//! One identity stands for one set of labels.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::config::Diagnostic;
use crate::intent::Identity;
use crate::intent::draft::{Draft, Problems, Role};

/// An endpoint of this node or, with the peer's name, of a peer.
#[derive(Debug, Clone, Copy)]
struct Bearer<'a> {
    name: &'a str,
    peer: Option<&'a str>,
    role: &'a Role,
}

impl fmt::Display for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            None => write!(f, "`{}`", self.name),
            Some(peer) => write!(f, "`{}` of peer `{peer}`", self.name),
        }
    }
}

fn bearers(draft: &Draft) -> impl Iterator<Item = Bearer<'_>> {
    let own = draft.endpoints.iter().map(|endpoint| Bearer {
        name: &endpoint.name.value,
        peer: None,
        role: &endpoint.role,
    });
    let of_peers = draft.peers.iter().flat_map(|peer| {
        peer.endpoints.iter().map(|endpoint| Bearer {
            name: &endpoint.name.value,
            peer: Some(&peer.name.value),
            role: &endpoint.role,
        })
    });
    own.chain(of_peers)
}

/// Where one of two endpoints with the same number had it derived, it got into the other's by chance,
/// and with it the other's rights. Where both were given the number, the operator has said so.
pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    let mut first: BTreeMap<Identity, Bearer<'_>> = BTreeMap::new();
    for bearer in bearers(draft) {
        let earlier = *first.entry(bearer.role.identity.value).or_insert(bearer);
        let by_chance = earlier.role.derived || bearer.role.derived;
        if earlier.role.labels != bearer.role.labels && by_chance {
            problems.push(collision(draft, earlier, bearer));
        }
    }
}

fn collision(draft: &Draft, earlier: Bearer<'_>, later: Bearer<'_>) -> Diagnostic {
    let number = later.role.identity.value;
    let message = format!(
        "endpoints {earlier} and {later} have different labels and the same identity {number}"
    );
    let said = |role: &Role| match role.derived {
        true => format!("{number} is derived from these labels"),
        false => format!("{number} is given here"),
    };
    let taken: BTreeSet<_> =
        bearers(draft).map(|bearer| bearer.role.identity.value.number()).collect();
    let free = (Identity::LABELS_MIN..=Identity::LABELS_MAX).find(|number| !taken.contains(number));
    Diagnostic::new(later.role.identity.span, message)
        .label(said(later.role))
        .related(earlier.role.identity.span, said(earlier.role))
        .help(format!(
            "give one of them another number, the same on every node: identity = {}",
            free.unwrap_or(Identity::LABELS_MIN)
        ))
}
