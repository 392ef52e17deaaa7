//! Who is behind an address: the ipcache, and the node's own entries of the endpoint map. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::overlay::far_end;
use super::{Lowering, Node, encryption, host_prefix, want, want_all};
use crate::bpf_abi::{
    CILIUM_IPCACHE, CILIUM_LXC, ENDPOINT_FLAG_HOST, EndpointKey, EndpointValue,
    IPCACHE_FLAG_ENDPOINTS, IPCACHE_KEY_WIREGUARD, IpcacheKey, IpcacheValue,
};
use crate::intent::{Identity, Peer};
use crate::kinds::bpf_map::MapName;
use crate::kinds::bpf_map_entry::{self, BpfMapEntry};
use crate::kinds::{Origin, Wanted};

/// An entry of a map, and who asks for it.
type Entry = (bpf_map_entry::Key, Wanted<bpf_map_entry::Spec>);

/// How packets get to a prefix.
#[derive(Clone, Copy)]
enum Way {
    /// By the host's stack, or not at all.
    Stack,
    /// By route, past the host's stack.
    Direct,
    /// Through the tunnel that ends there.
    Tunnel(IpAddr),
}

/// What says which identity a prefix has, and how packets get there. `crypt`: whether they are encrypted, and
/// whether the prefix is of endpoints, of which nothing leaves in plain text.
fn entry(
    prefix: IpNet,
    (identity, way): (Identity, Way),
    crypt: (bool, bool),
    origin: &Origin,
) -> Entry {
    let key = IpcacheKey::new(prefix.addr(), prefix.prefix_len());
    let key =
        bpf_map_entry::Key { map: MapName::of_abi(CILIUM_IPCACHE), key: key.to_bytes().to_vec() };
    let mut value = match way {
        Way::Stack => IpcacheValue::new(identity.number()),
        Way::Direct => IpcacheValue::direct(identity.number()),
        Way::Tunnel(address) => IpcacheValue::behind_tunnel(identity.number(), address),
    };
    if crypt.0 {
        value.key = IPCACHE_KEY_WIREGUARD;
    }
    if crypt.1 {
        value.flags |= IPCACHE_FLAG_ENDPOINTS;
    }
    let spec = bpf_map_entry::Spec::of(&value.to_bytes());
    (key, Wanted { spec, origin: origin.clone() })
}

/// Says which identity a prefix has that no peer is behind.
pub(super) fn ipcache(
    lowering: &mut Lowering<'_>,
    prefix: IpNet,
    identity: Identity,
    origin: &Origin,
) {
    let crypt = (false, encryption::keeps_in(lowering, &prefix));
    let (key, Wanted { spec, origin }) = entry(prefix, (identity, Way::Stack), crypt, origin);
    want::<BpfMapEntry>(&mut lowering.desired.bpf_map_entries, key, spec, &origin);
}

/// Adds what is known of the node, its peers and the rest of the world.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let own: Vec<IpAddr> =
        lowering.intent.node.routers.iter().chain(&lowering.node.addresses).copied().collect();
    for address in own {
        ipcache(lowering, host_prefix(address), Identity::HOST, &Origin::Node);
        let value = EndpointValue {
            flags: ENDPOINT_FLAG_HOST,
            identity: Identity::HOST.number(),
            ..EndpointValue::default()
        };
        let key = bpf_map_entry::Key {
            map: MapName::of_abi(CILIUM_LXC),
            key: EndpointKey::new(address).to_bytes().to_vec(),
        };
        let spec = bpf_map_entry::Spec::of(&value.to_bytes());
        want::<BpfMapEntry>(&mut lowering.desired.bpf_map_entries, key, spec, &Origin::Node);
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
            ipcache(lowering, all, world, &Origin::Node);
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

/// Says which identity a CIDR of this node has, where no endpoint has the address.
pub(super) fn own_cidr(lowering: &mut Lowering<'_>, cidr: IpNet) {
    let world = world(&lowering.node, &cidr);
    ipcache(lowering, cidr, world, &Origin::Node);
}

/// A peer: its own addresses, which no tunnel leads to, and what is behind its end of the tunnel.
fn lower_peer(lowering: &Lowering<'_>, peer: &Peer, entries: &mut Vec<Entry>) {
    let origin = Origin::Peer(peer.name.clone());
    let node = &lowering.node;
    let of_node = encryption::of_prefix(lowering, peer, true);
    for address in &peer.addresses {
        let way = (Identity::REMOTE_NODE, Way::Stack);
        entries.push(entry(host_prefix(*address), way, of_node, &origin));
    }
    let crypt = encryption::of_prefix(lowering, peer, false);
    let mut add =
        |prefix, identity, way| entries.push(entry(prefix, (identity, way), crypt, &origin));
    let way = match node.tunnel.map(|tunnel| far_end(lowering.facts, peer, tunnel)) {
        // What is sent there for clients is answered by that node, if it is one.
        None if lowering.intent.routing.past_host
            || lowering.intent.load_balancing.direct_return =>
        {
            Way::Direct
        }
        None => Way::Stack,
        Some(Ok(far_end)) => Way::Tunnel(far_end),
        // Out of reach: `overlay` says why.
        Some(Err(_)) => return,
    };
    let in_use = |v6: bool| if v6 { node.ipv6 } else { node.ipv4 };
    for router in peer.routers.iter().filter(|router| in_use(router.is_ipv6())) {
        add(host_prefix(*router), Identity::REMOTE_NODE, way);
    }
    for health in peer.health_addresses.iter().filter(|health| in_use(health.is_ipv6())) {
        add(host_prefix(*health), Identity::HEALTH, way);
    }
    for endpoint in &peer.endpoints {
        for address in endpoint.addresses.iter().filter(|address| in_use(address.is_ipv6())) {
            add(host_prefix(*address), endpoint.identity, way);
        }
    }
    // Where the stack takes them, that a CIDR is of the world goes without saying.
    if let (Way::Stack, (false, false)) = (way, crypt) {
        return;
    }
    for cidr in peer.cidrs.iter().filter(|cidr| in_use(cidr.addr().is_ipv6())) {
        add(*cidr, world(node, cidr), way);
    }
}
