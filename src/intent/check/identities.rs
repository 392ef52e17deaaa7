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
/// and with it the other's rights. Where both were given the number, the operator has said so. There is
/// one complaint for each set of labels but the one that the number is derived from, in whichever order
/// the endpoints come.
pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    let mut by_number: BTreeMap<Identity, Vec<Bearer<'_>>> = BTreeMap::new();
    for bearer in bearers(draft) {
        by_number.entry(bearer.role.identity.value).or_default().push(bearer);
    }
    let taken: BTreeSet<u32> = by_number.keys().map(|number| number.number()).collect();
    let range = Identity::LABELS_MIN..=Identity::LABELS_MAX;
    let mut free = range.filter(|number| !taken.contains(number));
    for bearers in by_number.values() {
        let Some(anchor) = bearers.iter().position(|bearer| bearer.role.derived) else { continue };
        let mut seen = BTreeSet::from([&bearers[anchor].role.labels]);
        for (place, bearer) in bearers.iter().enumerate() {
            if seen.insert(&bearer.role.labels) {
                let (first, second) = (place.min(anchor), place.max(anchor));
                problems.push(collision(bearers[first], bearers[second], free.next()));
            }
        }
    }
}

fn collision(earlier: Bearer<'_>, later: Bearer<'_>, free: Option<u32>) -> Diagnostic {
    let number = later.role.identity.value;
    let message = format!(
        "endpoints {earlier} and {later} have different labels and the same identity {number}"
    );
    let said = |role: &Role| match role.derived {
        true => format!("{number} is derived from these labels"),
        false => format!("{number} is given here"),
    };
    let what = "give one of them, and whoever has the same labels, another number";
    Diagnostic::new(later.role.identity.span, message)
        .label(said(later.role))
        .related(earlier.role.identity.span, said(earlier.role))
        .help(match free {
            Some(free) => format!("{what}, the same on every node: identity = {free}"),
            None => format!("{what}; all up to {} are in use", Identity::LABELS_MAX),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Document;

    const NODE: &str = "[node]\naddresses = [\"192.0.2.1\"]\ncidrs = [\"10.0.0.0/16\"]\n\
        [routing]\nmode = \"native\"\n";
    /// What `app=cli` derives.
    const DERIVED: u32 = 47_027;

    fn endpoint(number: usize, (app, identity): (&str, Option<u32>)) -> String {
        let identity = identity.map_or(String::new(), |number| format!("identity = {number}\n"));
        format!(
            "[[endpoint]]\nname = \"e{number}\"\nnetns = \"/run/netns/e{number}\"\n\
             labels = {{ app = \"{app}\" }}\n{identity}"
        )
    }

    fn complaints(text: &str) -> Vec<Diagnostic> {
        let document = Document::of_texts([("x", text.to_string())]);
        crate::intent::read(&document).err().unwrap_or_default()
    }

    fn orders<T: Clone>(things: &[T]) -> Vec<Vec<T>> {
        if things.is_empty() {
            return vec![Vec::new()];
        }
        let mut all = Vec::new();
        for at in 0..things.len() {
            let mut rest = things.to_vec();
            let one = rest.remove(at);
            let rest = orders(&rest).into_iter();
            all.extend(rest.map(|order| [vec![one.clone()], order].concat()));
        }
        all
    }

    #[test]
    fn the_order_of_endpoints_says_nothing() {
        let derives = ("cli", None);
        let [given, other, third] = ["cli", "other", "third"].map(|app| (app, Some(DERIVED)));
        for (endpoints, expected) in [
            (vec![given, other, derives], 1),
            (vec![derives, other, third, given], 2),
            (vec![derives, other, other, derives], 1),
            (vec![given, other, third], 0),
            (vec![derives, derives, given], 0),
        ] {
            for order in orders(&endpoints) {
                let endpoints = order.iter().enumerate().map(|(n, role)| endpoint(n, *role));
                let found = complaints(&(NODE.to_owned() + &endpoints.collect::<String>()));
                assert_eq!(found.len(), expected, "{order:?}: {found:?}");
                assert!(found.iter().all(|d| d.message.contains("same identity 47027")));
            }
        }
    }

    #[test]
    fn every_complaint_suggests_another_free_number() {
        let mut text = NODE.to_owned() + &endpoint(0, ("cli", None));
        text +=
            "[[peer]]\nname = \"far\"\naddresses = [\"192.0.2.2\"]\ncidrs = [\"10.1.0.0/16\"]\n";
        for number in 0..3000 {
            let address = format!("10.1.{}.{}", 1 + number / 250, 1 + number % 250);
            // A third of them bear numbers that would be suggested first.
            let identity = if number % 3 == 0 { 256 + number } else { DERIVED };
            text += &format!(
                "[[peer.endpoint]]\nname = \"p{number}\"\naddresses = [\"{address}\"]\n\
                 labels = {{ app = \"p{number}\" }}\nidentity = {identity}\n"
            );
        }
        let found = complaints(&text);
        assert_eq!(found.len(), 2000, "{:?}", found.first());
        let number = |diagnostic: &Diagnostic| {
            let help = diagnostic.help.as_deref().unwrap_or_default();
            help.rsplit(' ').next().and_then(|number| number.parse::<u32>().ok()).unwrap_or(0)
        };
        let suggested: BTreeSet<u32> = found.iter().map(number).collect();
        assert_eq!(suggested.len(), found.len(), "one number twice");
        let in_use = |number: &u32| {
            let third = (256..3256).contains(number) && (number - 256).is_multiple_of(3);
            third || *number == DERIVED || *number < 256
        };
        assert!(!suggested.iter().any(in_use), "{suggested:?}");
    }
}
