//! Services for clients outside at the drivers of the underlay's devices: the program and its attachments. Pure.

use super::{Lowering, program, want};
use crate::intent::Acceleration;
use crate::kinds::Origin;
use crate::kinds::xdp_link::{self, XdpLink};

/// The object of the program.
pub const OBJECT: &str = "bpf_xdp";

const PROGRAM: &str = "cil_xdp_entry";

/// Adds the program and its attachments.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    if !lowering.intent.accelerates() || lowering.intent.node.cidrs.is_empty() {
        return;
    }
    let program = program::load(lowering, PROGRAM);
    let or_generic = lowering.intent.load_balancing.acceleration == Acceleration::BestEffort;
    for (ifname, ifindex) in lowering.node.devices.clone() {
        let spec = xdp_link::Spec { program: program.clone(), ifname, or_generic };
        let key = xdp_link::Key { ifindex };
        want::<XdpLink>(&mut lowering.desired.xdp_links, key, spec, &Origin::Node);
    }
}
