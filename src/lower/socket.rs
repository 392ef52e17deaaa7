//! Services in the sockets of this host's processes: programs, and the control group that they are attached to. Pure.

use super::{Lowering, program, want};
use crate::kinds::cgroup_link::{self, Attach, CgroupLink};
use crate::kinds::{BlockedReason, Origin};

/// The object of these programs.
pub const OBJECT: &str = "bpf_sock";

/// Adds programs and their attachments.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    if !lowering.intent.balances_sockets() {
        return;
    }
    let Some((cgroup, cgroup_id)) = lowering.facts.cgroup.clone() else {
        let path = lowering.intent.paths.cgroup.display().to_string();
        lowering.block(Origin::Node, BlockedReason::CgroupMissing { path });
        return;
    };
    for (attach, name) in Attach::ALL {
        let program = program::load(lowering, name);
        let spec = cgroup_link::Spec { program, attach, cgroup: cgroup.clone(), cgroup_id };
        let key = cgroup_link::Key { program: name.into() };
        want::<CgroupLink>(&mut lowering.desired.cgroup_links, key, spec, &Origin::Node);
    }
}
