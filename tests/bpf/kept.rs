//! What conntrack keeps in its maps, read as user space reads it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::maps::{HashMap, Map, MapData};
use ciliate::bpf_abi::*;

use crate::flows::{Flow, Flows, Taken};
use crate::lab::Lab;

/// Seconds of the clock that lifetimes are of.
pub fn now() -> u32 {
    rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec as u32
}

fn flow(ends: [(IpAddr, [u8; 2]); 2], protocol: u8, flags: u8) -> Flow {
    let [from, to] = ends.map(|(address, port)| (address, u16::from_be_bytes(port)));
    let (inward, related) = (flags & CT_FLAG_IN != 0, flags & CT_FLAG_RELATED != 0);
    let service = flags & CT_FLAG_SERVICE != 0;
    let known = CT_FLAG_IN | CT_FLAG_RELATED | CT_FLAG_SERVICE;
    assert_eq!(flags & !known, 0, "flags of an entry");
    Flow { from, to, protocol, inward, related, service }
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
        let through = (value.rev_nat, value.backend_id, value.reserved1);
        let expected = (entry.rev_nat, u64::from(entry.backend), u16::from(entry.affinity));
        assert_eq!(through, expected, "{flow:?}");
        assert_eq!((value.reserved0, value.packets, value.bytes), (0, 0, 0), "{flow:?}");
    }
}

fn pinned(lab: &Lab, name: &str) -> Map {
    let map = MapData::from_pin(lab.sandbox.pins.join(name)).expect(name);
    Map::LruHashMap(map)
}

/// Reads which backend the programs keep a flow at.
pub fn taken(lab: &Lab) -> Taken {
    let v4 = [CILIUM_CT4, CILIUM_CT_ANY4]
        .map(|name| HashMap::<_, [u8; 14], [u8; 56]>::try_from(pinned(lab, name)).expect("hash"));
    let v6 = [CILIUM_CT6, CILIUM_CT_ANY6]
        .map(|name| HashMap::<_, [u8; 38], [u8; 56]>::try_from(pinned(lab, name)).expect("hash"));
    Box::new(move |flow| {
        let map = usize::from(flow.protocol != 6);
        let (dport_be, sport_be) = (flow.to.1.to_be_bytes(), flow.from.1.to_be_bytes());
        let (protocol, flags) = (flow.protocol, CT_FLAG_SERVICE);
        let value = match (flow.from.0, flow.to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let (daddr_be, saddr_be) = (from.octets(), to.octets());
                let key = Ct4Key { daddr_be, saddr_be, dport_be, sport_be, protocol, flags };
                v4[map].get(&key.to_bytes(), 0)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let (daddr_be, saddr_be) = (from.octets(), to.octets());
                let key = Ct6Key { daddr_be, saddr_be, dport_be, sport_be, protocol, flags };
                v6[map].get(&key.to_bytes(), 0)
            }
            _ => return None,
        };
        Some(CtValue::from_bytes(&value.ok()?).backend_id as u32)
    })
}

/// Takes seconds off the lifetimes of all flows of TCP of the address's family.
pub fn make_older(lab: &mut Lab, of: IpAddr, seconds: u32) {
    let older = |bytes: &[u8; 56]| {
        let value = CtValue::from_bytes(bytes);
        CtValue { lifetime: value.lifetime - seconds, ..value }.to_bytes()
    };
    if of.is_ipv4() {
        let mut map: HashMap<_, [u8; 14], [u8; 56]> = lab.map(CILIUM_CT4).try_into().expect("hash");
        for (key, value) in map.iter().map(|entry| entry.expect("an entry")).collect::<Vec<_>>() {
            map.insert(key, older(&value), 0).expect("set a lifetime");
        }
    } else {
        let mut map: HashMap<_, [u8; 38], [u8; 56]> = lab.map(CILIUM_CT6).try_into().expect("hash");
        for (key, value) in map.iter().map(|entry| entry.expect("an entry")).collect::<Vec<_>>() {
            map.insert(key, older(&value), 0).expect("set a lifetime");
        }
    }
}
