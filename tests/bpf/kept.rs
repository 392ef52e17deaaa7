//! What conntrack keeps in its maps, read as user space reads it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::maps::HashMap;
use ciliate::bpf_abi::*;

use crate::flows::{Flow, Flows};
use crate::lab::Lab;

/// Seconds of the clock that lifetimes are of.
pub fn now() -> u32 {
    rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec as u32
}

fn flow(ends: [(IpAddr, [u8; 2]); 2], protocol: u8, flags: u8) -> Flow {
    let [from, to] = ends.map(|(address, port)| (address, u16::from_be_bytes(port)));
    let (inward, related) = (flags & CT_FLAG_IN != 0, flags & CT_FLAG_RELATED != 0);
    assert_eq!(flags & !(CT_FLAG_IN | CT_FLAG_RELATED), 0, "flags of an entry");
    Flow { from, to, protocol, inward, related }
}

/// All entries. The side that began a flow has, in a key, the place of a destination and the port of a
/// source.
pub fn flows(lab: &mut Lab) -> BTreeMap<Flow, CtValue> {
    let mut found = BTreeMap::new();
    for (name, tcp) in [(CILIUM_CT4, true), (CILIUM_CT_ANY4, false)] {
        let map: HashMap<_, [u8; 14], [u8; 56]> = lab.map(name).try_into().expect("hash");
        for entry in &map {
            let (key, value) = entry.expect("read an entry");
            let key = Ct4Key::from_bytes(&key);
            assert_eq!(tcp, key.protocol == 6, "{key:?} in {name}");
            let ends = [
                (IpAddr::from(key.daddr_be), key.sport_be),
                (IpAddr::from(key.saddr_be), key.dport_be),
            ];
            found.insert(flow(ends, key.protocol, key.flags), CtValue::from_bytes(&value));
        }
    }
    for (name, tcp) in [(CILIUM_CT6, true), (CILIUM_CT_ANY6, false)] {
        let map: HashMap<_, [u8; 38], [u8; 56]> = lab.map(name).try_into().expect("hash");
        for entry in &map {
            let (key, value) = entry.expect("read an entry");
            let key = Ct6Key::from_bytes(&key);
            assert_eq!(tcp, key.protocol == 6, "{key:?} in {name}");
            let ends = [
                (IpAddr::from(key.daddr_be), key.sport_be),
                (IpAddr::from(key.saddr_be), key.dport_be),
            ];
            found.insert(flow(ends, key.protocol, key.flags), CtValue::from_bytes(&value));
        }
    }
    found
}

/// The maps hold what the model holds. Times are between `begin` and now, as far as a clock that ticks
/// can tell.
pub fn assert_flows(lab: &mut Lab, model: &Flows, begin: u32) {
    let (found, end) = (flows(lab), now());
    let keys = |extra: &Flow| format!("{extra:?}");
    for flow in model.entries.keys() {
        assert!(found.contains_key(flow), "missing: {}", keys(flow));
    }
    for (flow, value) in &found {
        let Some(entry) = model.entries.get(flow) else { panic!("unexpected: {}", keys(flow)) };
        let seen = (value.bits, value.tx_flags, value.rx_flags, value.source_identity);
        let expected = (entry.bits, entry.tx_flags, entry.rx_flags, entry.identity);
        assert_eq!(seen, expected, "{flow:?}");
        let last = value.lifetime - entry.life.seconds();
        assert!((begin.saturating_sub(1)..=end).contains(&last), "{flow:?}: {value:?}, {entry:?}");
        let others = (value.reserved0, value.backend_id, value.rev_nat, value.reserved1);
        assert_eq!((others, value.packets, value.bytes), ((0, 0, 0, 0), 0, 0), "{flow:?}");
    }
}
