//! Services for clients outside, at the underlay: what the node is there. Pure.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::{Lowering, want};
use crate::bpf_abi::UnderlayValue;
use crate::intent::limits;
use crate::kinds::Origin;
use crate::kinds::bpf_map_entry::{self, BpfMapEntry};

/// Fewer ports than this are too few for the flows of clients.
const PORTS_MIN: u16 = 4096;

/// Adds what the node is on its underlay.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    if !lowering.intent.serves_outside() {
        return;
    }
    let ports = ports(&lowering.intent.load_balancing.node_ports);
    let mut value = UnderlayValue {
        port_min: *ports.start(),
        port_max: *ports.end(),
        ..UnderlayValue::default()
    };
    for address in &lowering.node.addresses {
        match address {
            IpAddr::V4(v4) => value.ipv4_be = v4.octets(),
            IpAddr::V6(v6) => value.ipv6_be = v6.octets(),
        }
    }
    let spec = bpf_map_entry::Spec::of(&value.to_bytes());
    let entries = &mut lowering.desired.bpf_map_entries;
    want::<BpfMapEntry>(entries, bpf_map_entry::underlay(), spec, &Origin::Node);
}

/// What clients' flows go on from: the ports behind those of services, or those before.
fn ports(node_ports: &RangeInclusive<u16>) -> RangeInclusive<u16> {
    let (first, last) = (*node_ports.start(), *node_ports.end());
    if last <= u16::MAX - PORTS_MIN {
        return last + 1..=u16::MAX;
    }
    if first >= limits::PRIVILEGED_PORTS + PORTS_MIN {
        return limits::PRIVILEGED_PORTS..=first - 1;
    }
    // A flow is known by its backend as well: none is taken for a service's.
    limits::PRIVILEGED_PORTS..=u16::MAX
}

#[cfg(test)]
mod tests {
    use super::ports;

    #[test]
    fn flows_have_ports_of_their_own_where_there_are_enough() {
        assert_eq!(ports(&(30_000..=32_767)), 32_768..=65_535);
        assert_eq!(ports(&(40_000..=65_000)), 1024..=39_999);
        assert_eq!(ports(&(2000..=65_535)), 1024..=65_535);
        assert_eq!(ports(&(1..=61_439)), 61_440..=65_535);
    }
}
