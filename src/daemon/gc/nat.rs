//! Which entries of the NAT maps are over. Imports `bpf_abi`, and maps of `kernel` to ask for flows.
//!
//! Each flow has two: of what is sent, and of what comes back. Both tell its flow, so each is judged by itself, and
//! both come to the same. A client's goes when conntrack's entry has: that one is put off by answers too, while NAT
//! notes only when the client was last heard of. Where conntrack doesn't know the flow, it may have given up the entry
//! for want of room, and the next packet makes another one: so the flow has to have been silent for a while.
//!
//! With direct return there is one entry, at the backend's node, of the answer.
//!
//! The node's own flows are unknown to conntrack: they keep their ports as long as the programs let them.

use std::io;

use crate::bpf_abi::{
    CT_FLAG_IN, Ct4Key, Ct6Key, CtValue, SNAT_DSR, SNAT_FLAG_IN, Snat4Value, Snat6Value,
};
use crate::kernel::bpf_map::Map;

const TCP: u8 = 6;

/// Seconds for which an entry stays whose flow conntrack doesn't know.
const SILENT: u64 = 60;
/// Seconds after its last packet in which the node's own flow keeps its port: `ct_lifetime_tcp` and
/// `ct_lifetime_other` of the programs.
const OWN_TCP: u64 = 8000;
const OWN_OTHER: u64 = 60;

/// What of an entry says whether it is over.
struct Entry {
    protocol: u8,
    /// Of a client outside; else of the node itself.
    client: bool,
    last_used: u64,
    /// Key of its flow in a conntrack map.
    flow: Vec<u8>,
}

/// An [`Entry`], from key and value of either family: their fields have the same names.
macro_rules! entry {
    ($key:expr, $value:expr) => {{
        let (k, v) = ($key, $value);
        let mut flow = k;
        (flow.daddr_be, flow.saddr_be, flow.flags) = (k.saddr_be, k.daddr_be, 0);
        if v.needs_ct == SNAT_DSR {
            // The key is of an answer, from a backend of this node.
            flow = k;
            (flow.sport_be, flow.dport_be, flow.flags) = (k.dport_be, k.sport_be, CT_FLAG_IN);
        } else if k.flags & SNAT_FLAG_IN != 0 {
            (flow.daddr_be, flow.sport_be) = (v.address_be, v.port_be);
            (flow.saddr_be, flow.dport_be) = (k.saddr_be, k.sport_be);
        }
        let (client, flow) = (v.needs_ct != 0, flow.to_bytes().to_vec());
        Entry { protocol: k.protocol, client, last_used: v.last_used, flow }
    }};
}

impl Entry {
    /// `None` for bytes of another size.
    fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        if let Ok(key) = key.try_into() {
            let value = Snat4Value::from_bytes(value.try_into().ok()?);
            return Some(entry!(Ct4Key::from_bytes(key), value));
        }
        let key = Ct6Key::from_bytes(key.try_into().ok()?);
        Some(entry!(key, Snat6Value::from_bytes(value.try_into().ok()?)))
    }

    /// Whether it goes on for its age alone.
    fn is_young(&self, now: u64) -> bool {
        let lifetime = match (self.client, self.protocol) {
            (true, _) => SILENT,
            (false, TCP) => OWN_TCP,
            (false, _) => OWN_OTHER,
        };
        self.last_used + lifetime >= now
    }
}

/// The conntrack maps of a family.
pub(super) struct Flows {
    pub tcp: Map,
    pub any: Map,
}

impl Flows {
    /// Whether an entry's flow is over. What isn't an entry is left alone.
    pub(super) fn is_over(&self, key: &[u8], value: &[u8], now: u32) -> io::Result<bool> {
        let Some(entry) = Entry::read(key, value) else { return Ok(false) };
        if entry.is_young(now.into()) {
            return Ok(false);
        }
        if !entry.client {
            return Ok(true);
        }
        let map = if entry.protocol == TCP { &self.tcp } else { &self.any };
        let flow = map.lookup(&entry.flow)?;
        let goes_on = |bytes: Vec<u8>| {
            bytes[..].try_into().is_ok_and(|b| CtValue::from_bytes(b).lifetime >= now)
        };
        Ok(!flow.is_some_and(goes_on))
    }
}
