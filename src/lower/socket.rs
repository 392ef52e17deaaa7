//! Services in the sockets of this host's processes: programs, and the control group that they are attached to. Pure.

use super::{Lowering, program, want};
use crate::bpf_objects::OBJECTS;
use crate::kinds::bpf_program::{self, BpfProgram};
use crate::kinds::cgroup_link::{self, Attach, CgroupLink};
use crate::kinds::{BlockedReason, Origin};

/// The object of these programs.
pub const OBJECT: &str = "bpf_sock";

/// Adds programs and their attachments.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    if !lowering.intent.balances_sockets() {
        return;
    }
    let Some(object) = OBJECTS.iter().find(|object| object.name == OBJECT) else { return };
    let Some((cgroup, cgroup_id)) = lowering.facts.cgroup.clone() else {
        let path = lowering.intent.paths.cgroup.display().to_string();
        lowering.block(Origin::Node, BlockedReason::CgroupMissing { path });
        return;
    };
    let globals = globals(lowering);
    let digest = program::digest_with(object, &globals);
    for (attach, name) in Attach::ALL {
        let key = bpf_program::Key { name: name.into(), digest: digest.clone() };
        let (object, maps) = (OBJECT.into(), program::maps_of(name));
        let spec = bpf_program::Spec { object, maps, globals: globals.clone() };
        want::<BpfProgram>(&mut lowering.desired.bpf_programs, key.clone(), spec, &Origin::Node);
        let spec = cgroup_link::Spec { program: key, attach, cgroup: cgroup.clone(), cgroup_id };
        let key = cgroup_link::Key { program: name.into() };
        want::<CgroupLink>(&mut lowering.desired.cgroup_links, key, spec, &Origin::Node);
    }
}

/// Read-only numbers of the programs.
fn globals(lowering: &Lowering<'_>) -> bpf_program::Globals {
    let ports = &lowering.intent.load_balancing.node_ports;
    let cookie = lowering.facts.netns.rsplit_once("cookie ");
    let cookie = cookie.and_then(|(_, number)| number.parse().ok()).unwrap_or(0);
    [
        ("host_netns_cookie".into(), cookie),
        ("node_port_max".into(), u64::from(*ports.end())),
        ("node_port_min".into(), u64::from(*ports.start())),
    ]
    .into()
}
