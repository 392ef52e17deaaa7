//! The services of a [`World`], written into the maps as the agent would.

use std::net::IpAddr;

use aya::maps::{HashMap, MapData};
use ciliate::bpf_abi::*;

use super::Lab;
use crate::model::World;
use crate::model::services::Backend;

fn insert<K: aya::Pod, V: aya::Pod>(lab: &mut Lab, name: &str, key: K, value: V) {
    let mut map: HashMap<&mut MapData, K, V> = lab.map(name).try_into().expect("hash");
    map.insert(key, value, 0).expect(name);
}

/// An entry of a frontend.
fn slot(lab: &mut Lab, to: (IpAddr, u16, u8), scope: u8, slot: u16, value: LbValue) {
    let (port_be, protocol) = (to.1.to_be_bytes(), to.2);
    match to.0 {
        IpAddr::V4(address) => {
            let address_be = address.octets();
            let key = Lb4Key { address_be, port_be, slot, protocol, scope, pad: [0; 2] };
            insert(lab, CILIUM_LB4_SERVICES, key.to_bytes(), value.to_bytes());
        }
        IpAddr::V6(address) => {
            let address_be = address.octets();
            let key = Lb6Key { address_be, port_be, slot, protocol, scope, pad: [0; 2] };
            insert(lab, CILIUM_LB6_SERVICES, key.to_bytes(), value.to_bytes());
        }
    }
}

fn backend(lab: &mut Lab, id: u32, backend: Backend) {
    let (port_be, state) = (backend.port.to_be_bytes(), backend.state);
    match backend.address {
        IpAddr::V4(address) => {
            let address_be = address.octets();
            let value = Lb4Backend { address_be, port_be, state, ..Default::default() };
            insert(lab, CILIUM_LB4_BACKENDS, id.to_ne_bytes(), value.to_bytes());
        }
        IpAddr::V6(address) => {
            let address_be = address.octets();
            let value = Lb6Backend { address_be, port_be, state, ..Default::default() };
            insert(lab, CILIUM_LB6_BACKENDS, id.to_ne_bytes(), value.to_bytes());
        }
    }
}

fn reverse(lab: &mut Lab, rev_nat: u16, address: IpAddr, port: u16) {
    let port_be = port.to_be_bytes();
    match address {
        IpAddr::V4(address) => {
            let value = Lb4ReverseNat { address_be: address.octets(), port_be };
            insert(lab, CILIUM_LB4_REVERSE_NAT, rev_nat.to_ne_bytes(), value.to_bytes());
        }
        IpAddr::V6(address) => {
            let value = Lb6ReverseNat { address_be: address.octets(), port_be };
            insert(lab, CILIUM_LB6_REVERSE_NAT, rev_nat.to_ne_bytes(), value.to_bytes());
        }
    }
}

/// Backends first, frontends last.
pub fn describe(lab: &mut Lab, world: &World) {
    for (id, value) in &world.backends {
        backend(lab, *id, *value);
    }
    for (to, frontend) in &world.services {
        reverse(lab, frontend.rev_nat, to.0, to.1);
        let scopes =
            [(LB_SCOPE_INT, frontend.internal.as_ref()), (LB_SCOPE_EXT, Some(&frontend.backends))];
        for (scope, ids) in scopes {
            let Some(ids) = ids else { continue };
            for (index, id) in ids.iter().enumerate() {
                let value = LbValue { backend_id: *id, ..LbValue::default() };
                slot(lab, *to, scope, index as u16 + 1, value);
                let allowed =
                    LbAffinityMatch { backend_id: *id, rev_nat: frontend.rev_nat, pad: 0 };
                insert(lab, CILIUM_LB_AFFINITY_MATCH, allowed.to_bytes(), 1_u8);
            }
            let two = if frontend.internal.is_some() { SERVICE_FLAG2_TWO_SCOPES } else { 0 };
            let value = LbValue {
                backend_id: LB_ALGORITHM_RANDOM << LB_ALGORITHM_SHIFT | frontend.affinity_s,
                count: ids.len() as u16,
                rev_nat: frontend.rev_nat,
                flags: frontend.flags,
                flags2: frontend.flags2 | two,
                quarantined: 0,
            };
            slot(lab, *to, scope, 0, value);
        }
    }
}

/// Takes a backend away, as the agent does once nothing refers to it any more.
pub fn remove_backend(lab: &mut Lab, id: u32) {
    for name in [CILIUM_LB4_BACKENDS, CILIUM_LB6_BACKENDS] {
        let (key, len) = (id.to_ne_bytes(), name.contains("lb4"));
        if len {
            let mut map: HashMap<_, [u8; 4], [u8; 12]> = lab.map(name).try_into().expect("hash");
            let _ = map.remove(&key);
        } else {
            let mut map: HashMap<_, [u8; 4], [u8; 24]> = lab.map(name).try_into().expect("hash");
            let _ = map.remove(&key);
        }
    }
    lab.world.backends.remove(&id);
}

/// Says when the client was last seen at any service.
pub fn age_affinity(lab: &mut Lab, client: IpAddr, last_used: u64) {
    let aged = |bytes: &[u8; 16]| {
        LbAffinityValue { last_used, ..LbAffinityValue::from_bytes(bytes) }.to_bytes()
    };
    if client.is_ipv4() {
        let mut map: HashMap<_, [u8; 16], [u8; 16]> =
            lab.map(CILIUM_LB4_AFFINITY).try_into().expect("hash");
        for (key, value) in map.iter().map(|entry| entry.expect("an entry")).collect::<Vec<_>>() {
            map.insert(key, aged(&value), 0).expect("set a time");
        }
    } else {
        let mut map: HashMap<_, [u8; 24], [u8; 16]> =
            lab.map(CILIUM_LB6_AFFINITY).try_into().expect("hash");
        for (key, value) in map.iter().map(|entry| entry.expect("an entry")).collect::<Vec<_>>() {
            map.insert(key, aged(&value), 0).expect("set a time");
        }
    }
}

/// Clients of the service are not kept at that backend any more.
pub fn forbid_affinity(lab: &mut Lab, rev_nat: u16, backend_id: u32) {
    let key = LbAffinityMatch { backend_id, rev_nat, pad: 0 };
    let mut map: HashMap<_, [u8; 8], u8> =
        lab.map(CILIUM_LB_AFFINITY_MATCH).try_into().expect("hash");
    map.remove(&key.to_bytes()).expect("it was allowed");
}

/// How a frontend's backends are chosen from now on, until it is described anew.
pub fn set_algorithm(lab: &mut Lab, to: (IpAddr, u16, u8), algorithm: u32) {
    let frontend = lab.world.services[&to].clone();
    let value = LbValue {
        backend_id: algorithm << LB_ALGORITHM_SHIFT | frontend.affinity_s,
        count: frontend.backends.len() as u16,
        rev_nat: frontend.rev_nat,
        flags: frontend.flags,
        flags2: frontend.flags2,
        quarantined: 0,
    };
    slot(lab, to, LB_SCOPE_EXT, 0, value);
}
