//! Programs attached to devices: TCX links pinned at `<paths.bpf>/links/<device>/<program>` where the
//! kernel has them (6.6), else one clsact filter at preference 1, handle 1. A qdisc `ingress` that is there
//! serves as well, for ingress: a device has one of the two.
//!
//! Ownership: the pin; for a filter, that the program it runs is one of our pinned programs, or uses one of
//! our pinned maps, by id.
//! A program is swapped by `BPF_LINK_UPDATE` (or by replacing the filter in place): packets meet the
//! old program or the new one, never none.
//!
//! Pure but for `exec.rs`.

pub mod exec;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BlockedReason, Field, Kind, ObjectKey, bpf_program};
use crate::net::IfName;

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct BpfLink;

/// Where in the device's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    Ingress,
    Egress,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        })
    }
}

/// How it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Tcx,
    Clsact,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Tcx => "tcx",
            Mode::Clsact => "clsact",
        })
    }
}

/// One attachment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub ifname: IfName,
    pub hook: Hook,
    pub program: Arc<str>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.ifname, self.hook, self.program)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub program: bpf_program::Key,
    pub mode: Mode,
    pub ifindex: u32,
    /// The link object the device belongs to, when it is ours.
    pub link: Option<IfName>,
    /// Clsact: the qdisc was added by us to a device that isn't ours, and goes with the filter.
    pub qdisc_ours: bool,
}

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which of our pinned programs runs; `None`: one that is pinned no more.
    pub program: Option<bpf_program::Key>,
    pub mode: Mode,
    /// 0: the device is gone, only the pin is left.
    pub ifindex: u32,
    /// Attached in the other mode as well.
    pub twice: bool,
    /// Clsact: the qdisc goes with the filter.
    pub qdisc_ours: bool,
    /// Clsact is wanted, and this is in our way. It stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Obstacle>,
    /// TCX: the pin is where another device's is to be, since somebody renamed this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_as: Option<IfName>,
}

/// What of others keeps our filter from its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// A filter, at our place or beside it where the kernel takes no other.
    Filter,
    /// A qdisc `ingress`, which has no egress: the kernel takes filters for that, and runs them on ingress.
    IngressQdisc,
}

impl Seen {
    /// The device is gone. A filter goes with it; the pin of a TCX link stays, and what it pins is
    /// attached nowhere.
    pub fn lose_device(&mut self) {
        self.ifindex = 0;
        if self.twice {
            (self.mode, self.twice, self.qdisc_ours) = (Mode::Tcx, false, false);
        }
    }

    /// Whether a file holds the attachment, so that something stays when the device goes.
    pub fn pinned(&self) -> bool {
        self.mode == Mode::Tcx
    }
}

impl Kind for BpfLink {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "bpf-link";
    // After their devices: filters go with those, and the pin of a TCX link whose device is gone is removed
    // in no time. The grace period is not spared: the kernel waits for one while each device with a TCX
    // program goes (`tcx_uninstall`), one after the other within the one message that removes them all. So
    // 200 endpoints take 2.8 s to remove by TCX and 0.1 s by clsact.
    const REMOVED_LATE: bool = true;

    fn realise(_key: &Key, spec: &Spec) -> Seen {
        Seen {
            program: Some(spec.program.clone()),
            mode: spec.mode,
            ifindex: spec.ifindex,
            twice: false,
            qdisc_ours: spec.qdisc_ours,
            foreign: None,
            pinned_as: None,
        }
    }

    fn owned(seen: &Seen) -> bool {
        seen.foreign.is_none()
    }

    fn in_the_way(key: &Key, seen: &Seen) -> BlockedReason {
        let (ifname, hook) = (key.ifname.to_string(), key.hook.to_string());
        match seen.foreign {
            Some(Obstacle::IngressQdisc) => BlockedReason::IngressQdisc { ifname },
            _ => BlockedReason::FilterTaken { ifname, hook },
        }
    }

    fn fields(key: &Key, spec: &Spec, seen: &Seen) -> Vec<Field> {
        [
            Field::immutable("mode", &seen.mode, &spec.mode),
            Field::immutable("ifindex", &seen.ifindex, &spec.ifindex),
            Field::immutable("attached twice", &seen.twice, &false),
            spec.program.differs(seen.program.as_ref()),
            Field::differs("pinned as", &seen.pinned_as.unwrap_or(key.ifname), &key.ifname),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn describe_spec(_key: &Key, spec: &Spec) -> String {
        format!("{} program {}", spec.mode, spec.program.digest)
    }

    fn describe_seen(_key: &Key, seen: &Seen) -> String {
        seen.mode.to_string()
    }

    fn needs(_key: &Key, spec: &Spec) -> Vec<ObjectKey> {
        let mut needs = vec![ObjectKey::BpfProgram(spec.program.clone())];
        needs.extend(spec.link.map(ObjectKey::Link));
        needs
    }

    /// The attachment of a device that was to go first, and is still there.
    fn outlives<'a>(
        key: &Key,
        seen: &Seen,
        failed: &'a BTreeSet<ObjectKey>,
    ) -> Option<&'a ObjectKey> {
        if seen.ifindex == 0 { failed.get(&ObjectKey::Link(key.ifname)) } else { None }
    }
}
