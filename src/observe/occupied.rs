//! Which places of desired pins are occupied by something of others. Imports `kernel`, `kinds`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::Round;
use crate::kernel::place::{Pinned, Place, look};
use crate::kernel::{KernelError, pins};
use crate::kinds::bpf_link::Mode;
use crate::kinds::bpf_map::MapName;
use crate::kinds::occupied::Occupied;
use crate::kinds::{Desired, ObjectKey};

/// Looks at the place of each pin that is desired, but for those that the round has found in theirs.
///
/// # Errors
/// One can't be looked at.
pub(super) fn read(
    round: &mut Round<'_>,
    desired: &Desired,
) -> Result<BTreeMap<ObjectKey, Occupied>, KernelError> {
    let programs = round.programs()?;
    let programs: BTreeSet<_> = programs.iter().map(|(key, _)| key).collect();
    let mut maps: Vec<&MapName> = Vec::new();
    for key in desired.bpf_maps.keys() {
        maps.extend(round.map(*key)?.is_none().then_some(key));
    }
    let root = round.kernel.bpf_root();
    let mut occupied = BTreeMap::new();
    let mut add = |pin: PathBuf, object, key: ObjectKey| -> Result<(), KernelError> {
        if let Place::Foreign(found) = look(root, &pin, object)? {
            let path = found.path.display().to_string();
            occupied.insert(key, Occupied { path, what: found.what.into() });
        }
        Ok(())
    };
    for key in maps {
        add(pins::map(root, key.def().name), Pinned::Map, ObjectKey::BpfMap(*key))?;
    }
    for key in desired.bpf_programs.keys().filter(|key| !programs.contains(key)) {
        let pin = pins::program(root, &key.digest, &key.name);
        add(pin, Pinned::Program, ObjectKey::BpfProgram(key.clone()))?;
    }
    // A filter has no pin.
    let links = desired.bpf_links.iter().filter(|(_, wanted)| wanted.spec.mode == Mode::Tcx);
    for (key, _) in links {
        let pin = pins::link(root, key.ifname.as_str(), &key.program);
        add(pin, Pinned::TcxLink, ObjectKey::BpfLink(key.clone()))?;
    }
    for key in desired.cgroup_links.keys() {
        let pin = pins::cgroup_link(root, &key.program);
        add(pin, Pinned::CgroupLink, ObjectKey::CgroupLink(key.clone()))?;
    }
    for key in desired.xdp_links.keys() {
        let pin = pins::xdp_link(root, key.ifindex);
        add(pin, Pinned::XdpLink, ObjectKey::XdpLink(key.clone()))?;
    }
    Ok(occupied)
}
