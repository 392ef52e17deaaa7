//! What has to wait when a tunnel is to take the place of native routing: until the node's entry names the
//! tunnel's device, which that itself waits for, packets get to the peers as before. Pure; imports the
//! kinds only.

use super::bpf_map_entry::{self, BpfMapEntry};
use super::{Kind, ObjectKey, SeenMap, WantedMap};
use crate::bpf_abi::NodeValue;

/// What an object has to do with the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Nothing.
    None,
    /// Packets get into the tunnel by it.
    Way,
    /// It is there with native routing as well, and not the same then.
    Form,
}

/// What the objects of a tunnel wait for.
pub fn entry() -> ObjectKey {
    ObjectKey::BpfMapEntry(bpf_map_entry::node())
}

/// Whether a tunnel is asked for on a node that is in force without one. A node that is not in force at all
/// has nothing to keep; where another tunnel is in force, the ways into it stay the same.
pub fn opens(wanted: &WantedMap<BpfMapEntry>, seen: &SeenMap<BpfMapEntry>) -> bool {
    let node = bpf_map_entry::node();
    let (Some(wanted), Some(seen)) = (wanted.get(&node), seen.get(&node)) else { return false };
    has_tunnel(&seen.value) == Some(false) && has_tunnel(&wanted.spec.value) == Some(true)
}

/// The entry has the tunnel's MTU even where its device can't be had.
fn has_tunnel(value: &[u8]) -> Option<bool> {
    Some(NodeValue::from_bytes(value.try_into().ok()?).tunnel_mtu != 0)
}

/// Whether a change of the object waits for the tunnel: one that is made anew only if it is a way into it.
pub(super) fn waits<K: Kind>(key: &K::Key, spec: &K::Spec, is_there: bool) -> bool {
    match K::tunnel(key, spec) {
        Part::None => false,
        Part::Way => true,
        Part::Form => is_there,
    }
}
