//! Names and namespaces that must not be used twice.
//!
//! Pure.

use std::collections::BTreeMap;

use crate::config::{Diagnostic, Span};
use crate::intent::draft::{At, Draft, Problems};
use crate::intent::paths::cleaned;

pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    unique("peers", draft.peers.iter().map(|peer| &peer.name), problems);
    unique("endpoints", draft.endpoints.iter().map(|endpoint| &endpoint.name), problems);
    unique("services", draft.services.iter().map(|service| &service.name), problems);
    for peer in &draft.peers {
        let what = format!("endpoints of peer `{}`", peer.name.value);
        let names = peer.endpoints.iter().map(|endpoint| &endpoint.name);
        unique(&what, names, problems);
    }
    this_node(draft, problems);
    namespaces(draft, problems);
}

fn unique<'a>(
    what: &str,
    names: impl Iterator<Item = &'a At<std::sync::Arc<str>>>,
    problems: &mut Problems,
) {
    let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
    for name in names {
        if let Some(earlier) = seen.get(&*name.value) {
            let problem =
                Diagnostic::new(name.span, format!("there are two {what} named `{}`", name.value));
            problems.push(
                problem
                    .related(*earlier, "the first one")
                    .help("rename or remove one of them; the tables of all files are joined"),
            );
        } else {
            seen.insert(&name.value, name.span);
        }
    }
}

fn this_node(draft: &Draft, problems: &mut Problems) {
    let Some(own) = &draft.node.name else { return };
    for peer in draft.peers.iter().filter(|peer| peer.name.value == own.value) {
        let problem = Diagnostic::new(peer.name.span, format!("peer `{}` is this node", own.value));
        problems.push(
            problem
                .related(own.span, "the name of this node")
                .help("a node's own configuration lists only the others: remove this [[peer]]"),
        );
    }
}

/// One endpoint in a namespace: each brings a default route, and its device says whose packets they are.
fn namespaces(draft: &Draft, problems: &mut Problems) {
    let mut seen = BTreeMap::new();
    let health = cleaned(draft.paths.health_netns().path().unwrap_or_default());
    for endpoint in &draft.endpoints {
        let Some(netns) = &endpoint.netns else { continue };
        let path = cleaned(netns.value.path().unwrap_or_default());
        if path == health {
            let message = format!(
                "endpoint `{}` can't be in the namespace of the health endpoint",
                endpoint.name.value
            );
            let help = "ciliate makes that one for itself: give the endpoint one of its own";
            problems.push(Diagnostic::new(netns.span, message).help(help));
            continue;
        }
        let earlier = seen.entry(path).or_insert(endpoint);
        // A duplicate name has been complained about, and is probably the same table twice.
        if std::ptr::eq(*earlier, endpoint) || earlier.name.value == endpoint.name.value {
            continue;
        }
        let message = format!(
            "endpoints `{}` and `{}` are the same namespace",
            earlier.name.value, endpoint.name.value
        );
        let problem = Diagnostic::new(netns.span, message);
        let earlier = earlier.netns.as_ref().map_or(earlier.span, |netns| netns.span);
        problems.push(
            problem
                .related(earlier, "the first one")
                .help("give each a namespace of its own, or remove one of them"),
        );
    }
}
