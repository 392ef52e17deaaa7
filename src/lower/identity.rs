//! Who is behind an address: the ipcache, and the node's own entries of the endpoint map. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::overlay::far_end;
use super::{Lowering, Node, host_prefix, want, want_all};
use crate::bpf_abi::{
    CILIUM_IPCACHE, CILIUM_LXC, ENDPOINT_FLAG_HOST, EndpointKey, EndpointValue, IpcacheKey,
    IpcacheValue,
};
use crate::intent::{Identity, Peer};
use crate::kinds::bpf_map::MapName;
use crate::kinds::bpf_map_entry::{self, BpfMapEntry};
use crate::kinds::{Desired, Origin, Wanted};

/// An entry of a map, and who asks for it.
type Entry = (bpf_map_entry::Key, Wanted<bpf_map_entry::Spec>);

/// What says which identity a prefix has, and which tunnel endpoint it is behind.
fn entry(
    prefix: IpNet,
    (identity, tunnel_endpoint): (Identity, Option<IpAddr>),
    origin: &Origin,
) -> Entry {
    let key = IpcacheKey::new(prefix.addr(), prefix.prefix_len());
    let key =
        bpf_map_entry::Key { map: MapName::of_abi(CILIUM_IPCACHE), key: key.to_bytes().to_vec() };
    let value = match tunnel_endpoint {
        None => IpcacheValue::new(identity.number()),
        Some(address) => IpcacheValue::behind_tunnel(identity.number(), address),
    };
    let spec = bpf_map_entry::Spec { value: value.to_bytes().to_vec(), link: None };
    (key, Wanted { spec, origin: origin.clone() })
}

/// Says which identity a prefix of this node has.
pub(super) fn ipcache(desired: &mut Desired, prefix: IpNet, identity: Identity, origin: &Origin) {
    let (key, Wanted { spec, origin }) = entry(prefix, (identity, None), origin);
    want::<BpfMapEntry>(&mut desired.bpf_map_entries, key, spec, &origin);
}

/// Adds what is known of the node, its peers and the rest of the world.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let own: Vec<IpAddr> =
        lowering.intent.node.routers.iter().chain(&lowering.node.addresses).copied().collect();
    let desired = &mut lowering.desired;
    for address in own {
        ipcache(desired, host_prefix(address), Identity::HOST, &Origin::Node);
        let value = EndpointValue {
            flags: ENDPOINT_FLAG_HOST,
            identity: Identity::HOST.number(),
            ..EndpointValue::default()
        };
        let key = bpf_map_entry::Key {
            map: MapName::of_abi(CILIUM_LXC),
            key: EndpointKey::new(address).to_bytes().to_vec(),
        };
        let spec = bpf_map_entry::Spec { value: value.to_bytes().to_vec(), link: None };
        want::<BpfMapEntry>(&mut desired.bpf_map_entries, key, spec, &Origin::Node);
    }
    let mut entries = Vec::new();
    for peer in lowering.intent.peers.values() {
        lower_peer(lowering, peer, &mut entries);
    }
    want_all::<BpfMapEntry>(&mut lowering.desired.bpf_map_entries, entries);
    for (active, all) in [
        (lowering.node.ipv4, IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0)),
        (lowering.node.ipv6, IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0)),
    ] {
        if active {
            let world = world(&lowering.node, &all);
            ipcache(&mut lowering.desired, all, world, &Origin::Node);
        }
    }
}

/// What nothing else is known about. With both families in use there are two worlds.
fn world(node: &Node, prefix: &IpNet) -> Identity {
    match (node.ipv4 && node.ipv6, prefix) {
        (false, _) => Identity::WORLD,
        (true, IpNet::V4(_)) => Identity::WORLD_IPV4,
        (true, IpNet::V6(_)) => Identity::WORLD_IPV6,
    }
}

/// A peer: its own addresses, which no tunnel leads to, and what is behind its end of the tunnel.
fn lower_peer(lowering: &Lowering<'_>, peer: &Peer, entries: &mut Vec<Entry>) {
    let origin = Origin::Peer(peer.name.clone());
    let node = &lowering.node;
    let mut add =
        |prefix, identity, far_end| entries.push(entry(prefix, (identity, far_end), &origin));
    for address in &peer.addresses {
        add(host_prefix(*address), Identity::REMOTE_NODE, None);
    }
    let far_end = match node.tunnel.map(|tunnel| far_end(lowering.facts, peer, tunnel)) {
        None => None,
        Some(Ok(far_end)) => Some(far_end),
        // Out of reach: `overlay` says why.
        Some(Err(_)) => return,
    };
    let in_use = |v6: bool| if v6 { node.ipv6 } else { node.ipv4 };
    for router in peer.routers.iter().filter(|router| in_use(router.is_ipv6())) {
        add(host_prefix(*router), Identity::REMOTE_NODE, far_end);
    }
    for health in peer.health_addresses.iter().filter(|health| in_use(health.is_ipv6())) {
        add(host_prefix(*health), Identity::HEALTH, far_end);
    }
    for endpoint in &peer.endpoints {
        for address in endpoint.addresses.iter().filter(|address| in_use(address.is_ipv6())) {
            add(host_prefix(*address), endpoint.identity, far_end);
        }
    }
    // Without a tunnel, that a CIDR is of the world goes without saying.
    for cidr in peer.cidrs.iter().filter(|cidr| far_end.is_some() && in_use(cidr.addr().is_ipv6()))
    {
        add(*cidr, world(node, cidr), far_end);
    }
}
