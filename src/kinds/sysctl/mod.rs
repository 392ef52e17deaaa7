//! Kernel settings under /proc/sys. They always exist, so there is nothing to own: a setting of a
//! device of ours goes with the device, and what a setting of the whole namespace was before ciliate
//! changed it is kept in the map `ciliate_before` and put back by `destroy`.
//!
//! Pure but for `exec.rs`.

pub mod exec;

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Field, Kind, ObjectKey, Observed};
use crate::net::{IfName, Netns};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Sysctl;

/// A file below /proc/sys, with slashes (`net/ipv4/conf/eth0.100/forwarding`: device names may have
/// dots).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub netns: Netns,
    pub path: Arc<str>,
}

impl Key {
    /// A setting of the process's own namespace.
    pub fn host(path: impl Into<Arc<str>>) -> Self {
        Self { netns: Netns::HOST, path: path.into() }
    }

    /// Whether the setting belongs to a device: `net/ipv{4,6}/conf/<device>/…`.
    pub fn is_of_device(&self, ifname: &IfName) -> bool {
        self.path.split('/').nth(3) == Some(ifname.as_str())
    }

    /// Settings that others undo or depend on: `accept_ra` has to be 2 before IPv6 forwarding is
    /// switched on, else the kernel drops the routes it learnt from routers (`rt6_purge_dflt_routers`);
    /// forwarding of `all` writes through to every device, so it comes before what it writes to.
    fn rank(&self) -> u8 {
        if self.path.ends_with("/accept_ra") {
            0
        } else if self.path.ends_with("/all/forwarding") {
            1
        } else {
            2
        }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.netns, self.rank(), &self.path).cmp(&(&other.netns, other.rank(), &other.path))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match self.netns.path() {
            None => Ok(()),
            Some(path) => write!(f, " netns {path}"),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub value: Arc<str>,
    /// What has to be there first: the link the setting belongs to, or the record of what it was.
    pub needs: Vec<ObjectKey>,
}

/// What the kernel has, without the line end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub value: Arc<str>,
}

impl Kind for Sysctl {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "sysctl";
    const REMOVABLE: bool = false;
    const WRITES_THROUGH: bool = true;

    fn realise(_key: &Key, spec: &Spec) -> Seen {
        Seen { value: spec.value.clone() }
    }

    fn fields(_key: &Key, spec: &Spec, seen: &Seen) -> Vec<Field> {
        Field::differs("value", &seen.value, &spec.value).into_iter().collect()
    }

    fn is_as_asked(_key: &Key, spec: &Spec, seen: &Seen) -> bool {
        spec.value == seen.value
    }

    fn describe_spec(_key: &Key, spec: &Spec) -> String {
        format!("= {}", spec.value)
    }

    fn describe_seen(_key: &Key, seen: &Seen) -> String {
        format!("= {}", seen.value)
    }

    /// Forwarding of `all` is written through to `default` and to every device; IPv4's also decides
    /// whether redirects are accepted (`inet_forward_change`, `addrconf_fixup_forwarding`).
    fn effects(key: &Key, spec: &Spec, observed: &mut Observed) {
        let Some(family) = key.path.strip_suffix("/all/forwarding") else { return };
        let redirects = format!("{family}/all/accept_redirects");
        let inverse = if &*spec.value == "0" { "1" } else { "0" };
        for (other, seen) in observed.sysctls.iter_mut().filter(|(k, _)| k.netns == key.netns) {
            if other.path.starts_with(family) && other.path.ends_with("/forwarding") {
                seen.value = spec.value.clone();
            } else if family.ends_with("ipv4/conf") && *other.path == *redirects {
                seen.value = inverse.into();
            }
        }
    }

    fn needs(_key: &Key, spec: &Spec) -> Vec<ObjectKey> {
        spec.needs.clone()
    }
}
