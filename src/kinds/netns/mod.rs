//! Network namespaces that ciliate makes for itself: today that of the health endpoint. Those of other
//! endpoints belong to whoever made them.
//!
//! Ownership: a namespace mounted on a file in `<paths.runtime>/netns`, or an empty file there, which is
//! what is left when somebody is killed between making the file and mounting.
//!
//! Pure but for `exec.rs`.

pub mod exec;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Field, Kind, Observed};
use crate::net;

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Netns;

/// What is at the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A network namespace of its own.
    Apart,
    /// The namespace of the node: what is meant for the one apart would be done to the node.
    Node,
    /// A namespace of another kind.
    OtherKind,
    /// An empty file.
    Empty,
    /// Something else, which isn't ours.
    Foreign,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Apart => "a network namespace of its own",
            State::Node => "the node's network namespace",
            State::OtherKind => "a namespace of another kind",
            State::Empty => "an empty file",
            State::Foreign => "something else",
        })
    }
}

/// Nothing beyond the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec;

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub state: State,
}

impl Kind for Netns {
    type Key = net::Netns;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "netns";

    fn realise(_key: &net::Netns, _spec: &Spec) -> Seen {
        Seen { state: State::Apart }
    }

    fn fields(_key: &net::Netns, _spec: &Spec, seen: &Seen) -> Vec<Field> {
        Field::immutable("holds", &seen.state, &State::Apart).into_iter().collect()
    }

    fn owned(seen: &Seen) -> bool {
        seen.state != State::Foreign
    }

    fn describe_spec(_key: &net::Netns, _spec: &Spec) -> String {
        String::new()
    }

    fn describe_seen(_key: &net::Netns, seen: &Seen) -> String {
        match seen.state {
            State::Apart => String::new(),
            other => format!("({other})"),
        }
    }

    /// What is in the namespace isn't seen at the path any more. The links that lead there are other
    /// objects, named by their ends on the host.
    fn cascade(key: &net::Netns, _gone: &Seen, observed: &mut Observed) {
        observed.addresses.retain(|k, _| k.netns != *key);
        observed.routes.retain(|k, _| k.netns != *key);
        observed.sysctls.retain(|k, _| k.netns != *key);
        for link in observed.links.values_mut().filter(|link| link.owned) {
            link.peer.take_if(|peer| peer.netns == *key);
        }
    }
}
