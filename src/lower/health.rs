//! The health endpoint: a namespace of our own, wired like any endpoint's, for the other nodes to probe
//! what the way to an endpoint here is like. Pure.

use super::endpoint::{Wiring, wire};
use super::node::ifname;
use super::{Lowering, mac, want};
use crate::intent::Identity;
use crate::kinds::netns::{self, Netns};
use crate::kinds::{BlockedReason, Origin};

/// The host's end of the health endpoint's veth, and the other, as Cilium names them.
pub const LXC_HEALTH: &str = "lxc_health";
const CILIUM: &str = "cilium";

/// Adds the health endpoint's objects.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let addresses = &lowering.intent.node.health_addresses;
    if addresses.is_empty() {
        return;
    }
    let netns = lowering.intent.paths.health_netns();
    if let Some(problem) = &lowering.facts.health {
        // Not asked for, what is there goes; made in the next round, it is one of its own.
        let (netns, problem) = (netns.to_string(), problem.to_string());
        lowering.block(Origin::Health, BlockedReason::NetnsUnusable { netns, problem });
        return;
    }
    let namespaces = &mut lowering.desired.namespaces;
    want::<Netns>(namespaces, netns.clone(), netns::Spec, &Origin::Health);
    let wiring = Wiring {
        lxc: ifname(LXC_HEALTH),
        netns,
        ifname: ifname(CILIUM),
        macs: mac::of_health(),
        identity: Identity::HEALTH,
        purpose: "health".to_owned(),
        origin: Origin::Health,
    };
    wire(lowering, &wiring, addresses);
}
