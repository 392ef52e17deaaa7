//! What of ours misleads the look at the machine, and so the plan: somebody made or altered it, and the way to a
//! peer goes by it. It is removed first, and then everything is planned anew; or a peer's routes would be
//! taken away for a reason that is gone the moment after.

use std::net::IpAddr;

use super::Plan;
use crate::kinds::{Action, Blocked, BlockedReason, ObjectKey, Op, Origin};
use crate::net::Netns;

impl Plan {
    /// If removing something may change how one of these addresses is reached, leaves only that in the plan, and
    /// says so of the rest. `addresses` are those of peers that can't be reached as they should.
    pub fn unmislead(&mut self, addresses: &[IpAddr]) {
        if addresses.is_empty() || !self.ops.iter().any(|op| misleads(op, addresses)) {
            return;
        }
        self.ops.retain(|op| misleads(op, addresses));
        self.blocked.retain(|blocked| !is_of_way(&blocked.reason));
        let objects: Vec<ObjectKey> = self.ops.iter().map(Op::object).collect();
        let said = objects.into_iter().map(|object| Blocked {
            origin: Origin::Routing,
            reason: BlockedReason::Misled { object: object.to_string() },
        });
        self.blocked.extend(said);
        self.blocked.sort();
    }

    /// Whether the ops may change what the machine says of itself beyond what was predicted: then it has to be
    /// asked again. Additions don't: they are made from what it says.
    pub fn changes_facts(&self) -> bool {
        self.ops.iter().any(|op| match op {
            Op::Link(change) => !matches!(change.action, Action::Create { .. }),
            Op::Address(change) => !matches!(change.action, Action::Create { .. }),
            Op::Route(change) => !matches!(change.action, Action::Create { .. }),
            Op::Rule(change) => !matches!(change.action, Action::Create { .. }),
            // What is put back.
            Op::Sysctl(change) => change.origin == Origin::Leftover,
            _ => false,
        })
    }
}

fn misleads(op: &Op, addresses: &[IpAddr]) -> bool {
    match op {
        Op::Route(change) => {
            matches!(change.action, Action::Delete { .. })
                && change.key.netns == Netns::HOST
                && addresses.iter().any(|address| change.key.dst.contains(address))
        }
        Op::Rule(change) => {
            matches!(change.action, Action::Delete { .. }) && change.key.other.is_some()
        }
        Op::Address(change) => {
            matches!(change.action, Action::Delete { .. })
                && change.key.netns == Netns::HOST
                && addresses.iter().any(|address| change.key.address.contains(address))
        }
        _ => false,
    }
}

/// Whether the reason is what the kernel says of the way to a peer.
fn is_of_way(reason: &BlockedReason) -> bool {
    matches!(
        reason,
        BlockedReason::PeerNotOnLink { .. }
            | BlockedReason::PeerUnreachable { .. }
            | BlockedReason::PeerIsLocal { .. }
    )
}
