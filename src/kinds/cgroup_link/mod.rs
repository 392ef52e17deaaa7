//! Programs attached to a control group, beside those of others: BPF links pinned at
//! `<paths.bpf>/cgroup/<program>`.
//!
//! Ownership: the pin. A program is swapped by `BPF_LINK_UPDATE`: a socket meets the old program or the new
//! one. Pure but for `exec.rs`.

pub mod exec;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Field, Kind, ObjectKey, bpf_program};

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct CgroupLink;

/// What of a socket the program sees. The discriminants are `enum bpf_attach_type` (linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u32)]
pub enum Attach {
    Connect4 = 10,
    Connect6 = 11,
    PostBind4 = 12,
    PostBind6 = 13,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Recvmsg4 = 19,
    Recvmsg6 = 20,
    Getpeername4 = 29,
    Getpeername6 = 30,
    Release = 34,
}

impl Attach {
    /// All of them, with the names of their programs.
    pub const ALL: [(Attach, &'static str); 11] = [
        (Attach::Connect4, "cil_sock4_connect"),
        (Attach::Connect6, "cil_sock6_connect"),
        (Attach::PostBind4, "cil_sock4_post_bind"),
        (Attach::PostBind6, "cil_sock6_post_bind"),
        (Attach::Sendmsg4, "cil_sock4_sendmsg"),
        (Attach::Sendmsg6, "cil_sock6_sendmsg"),
        (Attach::Recvmsg4, "cil_sock4_recvmsg"),
        (Attach::Recvmsg6, "cil_sock6_recvmsg"),
        (Attach::Getpeername4, "cil_sock4_getpeername"),
        (Attach::Getpeername6, "cil_sock6_getpeername"),
        (Attach::Release, "cil_sock_release"),
    ];
}

/// One attachment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub program: Arc<str>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub program: bpf_program::Key,
    pub attach: Attach,
    /// The group's folder.
    pub cgroup: Arc<str>,
    /// What tells the group from another one that gets the folder after it.
    pub cgroup_id: u64,
}

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which of our pinned programs runs; `None`: one that is pinned no more.
    pub program: Option<bpf_program::Key>,
    /// 0: the group is gone, only the pin is left.
    pub cgroup_id: u64,
}

impl Kind for CgroupLink {
    type Key = Key;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "cgroup-link";
    const REMOVED_LATE: bool = true;

    fn realise(_key: &Key, spec: &Spec) -> Seen {
        Seen { program: Some(spec.program.clone()), cgroup_id: spec.cgroup_id }
    }

    fn fields(_key: &Key, spec: &Spec, seen: &Seen) -> Vec<Field> {
        [
            Field::immutable("cgroup", &seen.cgroup_id, &spec.cgroup_id),
            spec.program.differs(seen.program.as_ref()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn describe_spec(_key: &Key, spec: &Spec) -> String {
        format!("to {} program {}", spec.cgroup, spec.program.digest)
    }

    fn describe_seen(_key: &Key, _seen: &Seen) -> String {
        String::new()
    }

    fn needs(_key: &Key, spec: &Spec) -> Vec<ObjectKey> {
        vec![ObjectKey::BpfProgram(spec.program.clone())]
    }
}
