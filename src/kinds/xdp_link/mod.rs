//! Programs attached to devices at the driver (XDP): BPF links pinned at `<paths.bpf>/xdp/<ifindex>`. A device has
//! one such program. Where the driver can't, and that will do, the kernel runs it itself, a little later: *generic*.
//!
//! Ownership: the pin. A program is swapped by `BPF_LINK_UPDATE`: a frame meets the old program or the new one.
//! Which of the two ways the kernel takes is known once it has been asked: a prediction says the driver. Pure but for
//! `exec.rs`.

pub mod exec;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BlockedReason, Field, Kind, ObjectKey, bpf_program};
use crate::net::IfName;

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct XdpLink;

/// Who runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The device's driver, on what it has received.
    Native,
    /// The kernel, on what it has made of that.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
        })
    }
}

/// One attachment. By number: it stays when the device is renamed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub ifindex: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ifindex {}", self.ifindex)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub program: bpf_program::Key,
    /// The device's name, for messages.
    pub ifname: IfName,
    /// Where the driver can't, the kernel may.
    pub or_generic: bool,
}

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which of our pinned programs runs; `None`: one that is pinned no more, or is not ours.
    pub program: Option<bpf_program::Key>,
    /// `None`: it is attached nowhere, only the pin is left.
    pub mode: Option<Mode>,
    /// The program of somebody else is there. It stays.
    pub foreign: Option<IfName>,
}

impl Kind for XdpLink {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "xdp-link";
    const REMOVED_LATE: bool = true;

    fn realise(_key: &Key, spec: &Spec) -> Seen {
        Seen { program: Some(spec.program.clone()), mode: Some(Mode::Native), foreign: None }
    }

    fn owned(seen: &Seen) -> bool {
        seen.foreign.is_none()
    }

    fn in_the_way(key: &Key, seen: &Seen) -> BlockedReason {
        let ifname = seen.foreign.map_or_else(|| key.to_string(), |ifname| ifname.to_string());
        BlockedReason::XdpTaken { ifname }
    }

    fn fields(_key: &Key, spec: &Spec, seen: &Seen) -> Vec<Field> {
        let mode = seen.mode.map_or_else(|| "none".to_owned(), |mode| mode.to_string());
        let serves = seen.mode == Some(Mode::Generic) && spec.or_generic;
        let wanted = if serves { Mode::Generic } else { Mode::Native };
        [
            Field::immutable("mode", &mode, &wanted.to_string()),
            spec.program.differs(seen.program.as_ref()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn describe_spec(_key: &Key, spec: &Spec) -> String {
        let or = if spec.or_generic { " or generic" } else { "" };
        format!("{} native{or} program {}", spec.ifname, spec.program.digest)
    }

    fn describe_seen(_key: &Key, seen: &Seen) -> String {
        seen.mode.map_or_else(String::new, |mode| mode.to_string())
    }

    fn needs(_key: &Key, spec: &Spec) -> Vec<ObjectKey> {
        vec![ObjectKey::BpfProgram(spec.program.clone())]
    }
}
