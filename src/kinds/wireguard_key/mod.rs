//! The file with this node's WireGuard private key, as far as a plan may know of it: whether it is there. It is
//! made where it is missing; what is in it appears in no plan, and no key is ever written over. Never removed by
//! a plan: a node that lost its key would be a stranger to its peers. `ciliate destroy` removes the one that we
//! made for ourselves, below `<paths.state>`.
//!
//! Pure but for `exec.rs`.

pub mod exec;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Field, Kind};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct WireguardKey;

/// The path.
pub type Key = Arc<str>;

/// A file of mode 0600 with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec;

/// It is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen;

impl Kind for WireguardKey {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "wireguard-key";
    const REMOVABLE: bool = false;

    fn realise(_key: &Key, _spec: &Spec) -> Seen {
        Seen
    }

    fn fields(_key: &Key, _spec: &Spec, _seen: &Seen) -> Vec<Field> {
        Vec::new()
    }

    fn describe_spec(_key: &Key, _spec: &Spec) -> String {
        String::new()
    }

    fn describe_seen(_key: &Key, _seen: &Seen) -> String {
        String::new()
    }
}
