//! Who is behind an address: the ipcache, and the node's own entries of the endpoint map. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Lowering, host_prefix, want};
use crate::bpf_abi::{
    CILIUM_IPCACHE, CILIUM_LXC, ENDPOINT_FLAG_HOST, EndpointKey, EndpointValue, IpcacheKey,
    IpcacheValue,
};
use crate::intent::Identity;
use crate::kinds::bpf_map::MapName;
use crate::kinds::bpf_map_entry::{self, BpfMapEntry};
use crate::kinds::{Desired, Origin};

/// Says which identity a prefix has.
pub(super) fn ipcache(desired: &mut Desired, prefix: IpNet, identity: Identity, origin: &Origin) {
    let key = IpcacheKey::new(prefix.addr(), prefix.prefix_len());
    let key =
        bpf_map_entry::Key { map: MapName::of_abi(CILIUM_IPCACHE), key: key.to_bytes().to_vec() };
    let value = IpcacheValue::new(identity.number()).to_bytes().to_vec();
    let spec = bpf_map_entry::Spec { value, link: None };
    want::<BpfMapEntry>(&mut desired.bpf_map_entries, key, spec, origin);
}

/// Adds what is known of the node, its peers and the rest of the world.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let (ipv4, ipv6) = (lowering.node.ipv4, lowering.node.ipv6);
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
    for peer in lowering.intent.peers.values() {
        for address in &peer.addresses {
            let origin = Origin::Peer(peer.name.clone());
            ipcache(desired, host_prefix(*address), Identity::REMOTE_NODE, &origin);
        }
    }
    // Both families in use: two worlds.
    let both = ipv4 && ipv6;
    let world = |of_family: Identity| if both { of_family } else { Identity::WORLD };
    if ipv4 {
        let all = IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0);
        ipcache(desired, all, world(Identity::WORLD_IPV4), &Origin::Node);
    }
    if ipv6 {
        let all = IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0);
        ipcache(desired, all, world(Identity::WORLD_IPV6), &Origin::Node);
    }
}
