//! Records in `ciliate_before`: what was changed on things that aren't ours, and what it was. Pure.

use crate::kinds::bpf_map::{BEFORE_TEXT_BYTES, MapName};
use crate::kinds::{Desired, ObjectKey, Origin, bpf_map_entry, bpf_map_entry::BpfMapEntry};

/// Text in the room a key or a value of the map has. Longer text is cut; paths and values that we
/// record are shorter.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes()[..text.len().min(BEFORE_TEXT_BYTES - 1)].to_vec();
    bytes.resize(BEFORE_TEXT_BYTES, 0);
    bytes
}

fn key(what: &str) -> bpf_map_entry::Key {
    bpf_map_entry::Key { map: MapName::BEFORE, key: bytes(what) }
}

/// The object that a record is.
pub fn object(what: &str) -> ObjectKey {
    ObjectKey::BpfMapEntry(key(what))
}

/// Asks for a record.
pub fn keep(desired: &mut Desired, what: &str, was: &str, origin: &Origin) {
    let spec = bpf_map_entry::Spec::of(&bytes(was));
    super::want::<BpfMapEntry>(&mut desired.bpf_map_entries, key(what), spec, origin);
}
