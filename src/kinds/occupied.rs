//! Places of pins that are occupied: what others have put there is never touched, so that what it is in the place of
//! can't be had. Pure; imports the closed types.

use std::collections::BTreeSet;

use super::{Blocked, BlockedReason, Desired, ObjectKey, Observed, Origin};

/// Something that is no pin of ours: in the place of one, or of a folder of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupied {
    pub path: String,
    /// What it is, as `a directory`.
    pub what: String,
}

/// Says once of each occupied place that it is, and that what belongs there can't be had.
pub(super) fn block(
    desired: &Desired,
    observed: &Observed,
    blocked: &mut Vec<Blocked>,
    unavailable: &mut BTreeSet<ObjectKey>,
) {
    let mut said = BTreeSet::new();
    for (object, occupied) in &observed.occupied {
        let Some(origin) = origin(desired, object) else { continue };
        unavailable.insert(object.clone());
        let Occupied { path, what } = occupied.clone();
        // Of a folder, for whatever belongs into it.
        if said.insert(path.clone()) {
            let reason = BlockedReason::PinTaken { path, what };
            blocked.push(Blocked { origin: origin.clone(), reason });
        }
    }
}

/// Who asks for an object that has a pin.
fn origin<'d>(desired: &'d Desired, object: &ObjectKey) -> Option<&'d Origin> {
    match object {
        ObjectKey::BpfMap(key) => desired.bpf_maps.get(key).map(|wanted| &wanted.origin),
        ObjectKey::BpfProgram(key) => desired.bpf_programs.get(key).map(|wanted| &wanted.origin),
        ObjectKey::BpfLink(key) => desired.bpf_links.get(key).map(|wanted| &wanted.origin),
        ObjectKey::CgroupLink(key) => desired.cgroup_links.get(key).map(|wanted| &wanted.origin),
        ObjectKey::XdpLink(key) => desired.xdp_links.get(key).map(|wanted| &wanted.origin),
        _ => None,
    }
}
