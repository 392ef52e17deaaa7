//! Endpoints: a veth each, the addresses and routes in the namespace, the map entries. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::identity::ipcache;
use super::node::{end, ifname};
use super::program::{Attachment, FROM_CONTAINER, attach};
use super::{Lowering, host_prefix, mac, want};
use crate::bpf_abi::{
    CILIATE_DEVICE, CILIUM_LXC, DeviceKey, DeviceValue, EndpointKey, EndpointValue,
};
use crate::intent::{Endpoint, Identity};
use crate::kinds::address::{self, Address};
use crate::kinds::bpf_link::Hook;
use crate::kinds::bpf_map::MapName;
use crate::kinds::bpf_map_entry::{self, BpfMapEntry, hex};
use crate::kinds::link::{self, Link};
use crate::kinds::route::{self, Route, Scope};
use crate::kinds::{BlockedReason, Desired, Origin};
use crate::net::{IfName, Mac, Netns};

/// The host's end of an endpoint's veth: `lxc` and the first 12 digits of the SHA-256 of the attachment,
/// as Cilium names it. The attachment is the namespace and the device in it, whatever the endpoint is
/// called: an endpoint that is given another name keeps its veth.
pub fn lxc_name(netns: &Netns, device: &IfName) -> IfName {
    let digest = Sha256::digest(format!("{netns}:{device}"));
    ifname(&format!("lxc{}", hex(&digest[..6])))
}

/// What an endpoint's objects follow from.
pub(super) struct Wiring {
    /// The host's end of its veth.
    pub lxc: IfName,
    pub netns: Netns,
    /// The device in the namespace.
    pub ifname: IfName,
    /// Ethernet addresses of the two, the namespace's first.
    pub macs: (Mac, Mac),
    pub identity: Identity,
    /// What the devices are for, as their alias says it.
    pub purpose: String,
    pub origin: Origin,
}

impl Wiring {
    fn of(endpoint: &Endpoint) -> Self {
        Self {
            lxc: lxc_name(&endpoint.netns, &endpoint.ifname),
            netns: endpoint.netns.clone(),
            ifname: endpoint.ifname,
            macs: (mac::of_endpoint(&endpoint.name), mac::of_lxc(&endpoint.name)),
            identity: endpoint.identity,
            purpose: format!("endpoint {}", endpoint.name),
            origin: Origin::Endpoint(endpoint.name.clone()),
        }
    }
}

/// Adds the endpoints' objects.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    for endpoint in lowering.intent.endpoints.values() {
        let wiring = Wiring::of(endpoint);
        match lowering.facts.namespaces.get(&endpoint.name) {
            Some(Err(problem)) => {
                let netns = endpoint.netns.to_string();
                let reason = BlockedReason::NetnsUnusable { netns, problem: problem.to_string() };
                lowering.block(wiring.origin.clone(), reason);
                keep(lowering, &wiring);
            }
            _ => match lowering.allocation.addresses(endpoint) {
                Ok(addresses) => wire(lowering, &wiring, &addresses),
                Err(reason) => lowering.block(wiring.origin.clone(), reason),
            },
        }
    }
}

/// An endpoint whose namespace can't be seen: nothing new is made, and what is there stays, since
/// processes may still live in the namespace. Its record stays in any case, so that it gets the same
/// numbers again.
fn keep(lowering: &mut Lowering<'_>, wiring: &Wiring) {
    let Some((ifindex, value)) = lowering.allocation.record(wiring.macs.0) else { return };
    let there = lowering.facts.links.get(&wiring.lxc).is_some_and(|link| link.ifindex == ifindex);
    if !there {
        device_entry(&mut lowering.desired, ifindex, &value, None, &wiring.origin);
        return;
    }
    let addresses = [IpAddr::from(value.ipv4_be), IpAddr::from(value.ipv6_be)];
    let addresses: Vec<IpAddr> =
        addresses.into_iter().filter(|address| !address.is_unspecified()).collect();
    host_side(lowering, wiring, ifindex, &addresses, value.endpoint_id, None);
}

/// Adds everything that an endpoint with these addresses needs.
pub(super) fn wire(lowering: &mut Lowering<'_>, wiring: &Wiring, addresses: &[IpAddr]) {
    let Some(id) = lowering.allocation.endpoint_id(wiring.macs.0) else {
        return lowering.block(wiring.origin.clone(), BlockedReason::NoFreeEndpointId);
    };
    let ifindex = lowering.allocation.ifindex(wiring.lxc, Some(wiring.macs.0));
    let peer = link::Peer {
        netns: wiring.netns.clone(),
        ifname: wiring.ifname,
        ifindex: None,
        end: end(wiring.macs.0, lowering.node.mtu_bytes, true, &wiring.purpose),
    };
    host_side(lowering, wiring, ifindex, addresses, id, Some(peer));
    for address in addresses {
        namespace_side(lowering, wiring, *address);
    }
}

/// The veth, the map entries and the program.
fn host_side(
    lowering: &mut Lowering<'_>,
    wiring: &Wiring,
    ifindex: u32,
    addresses: &[IpAddr],
    endpoint_id: u16,
    peer: Option<link::Peer>,
) {
    let Wiring { lxc, identity, origin, .. } = wiring;
    let (lxc, (mac, node_mac)) = (*lxc, wiring.macs);
    let host_end = end(node_mac, lowering.node.mtu_bytes, true, &wiring.purpose);
    let spec = link::Spec { ifindex, end: host_end, form: link::Form::Veth { peer } };
    want::<Link>(&mut lowering.desired.links, lxc, spec, origin);

    let mut device = DeviceValue {
        endpoint_id,
        identity: identity.number(),
        mac: mac.0,
        node_mac: node_mac.0,
        ..DeviceValue::default()
    };
    for address in addresses {
        match address {
            IpAddr::V4(v4) => device.ipv4_be = v4.octets(),
            IpAddr::V6(v6) => device.ipv6_be = v6.octets(),
        }
        let value = EndpointValue {
            ifindex,
            endpoint_id,
            mac: mac.0,
            node_mac: node_mac.0,
            identity: identity.number(),
            ..EndpointValue::default()
        };
        let key = bpf_map_entry::Key {
            map: MapName::of_abi(CILIUM_LXC),
            key: EndpointKey::new(*address).to_bytes().to_vec(),
        };
        let spec =
            bpf_map_entry::Spec { link: Some(lxc), ..bpf_map_entry::Spec::of(&value.to_bytes()) };
        want::<BpfMapEntry>(&mut lowering.desired.bpf_map_entries, key, spec, origin);
        ipcache(lowering, host_prefix(*address), *identity, origin);
    }
    device_entry(&mut lowering.desired, ifindex, &device, Some(lxc), origin);
    let at = Attachment {
        ifname: lxc,
        ifindex,
        hook: Hook::Ingress,
        link: Some(lxc),
        qdisc_ours: false,
    };
    attach(lowering, FROM_CONTAINER, at, origin);
}

fn device_entry(
    desired: &mut Desired,
    ifindex: u32,
    value: &DeviceValue,
    link: Option<IfName>,
    origin: &Origin,
) {
    let key = bpf_map_entry::Key {
        map: MapName::of_abi(CILIATE_DEVICE),
        key: DeviceKey::new(ifindex).to_bytes().to_vec(),
    };
    let spec = bpf_map_entry::Spec { link, ..bpf_map_entry::Spec::of(&value.to_bytes()) };
    want::<BpfMapEntry>(&mut desired.bpf_map_entries, key, spec, origin);
}

/// One family in the namespace: the address, the router on the link, and everything else through it.
fn namespace_side(lowering: &mut Lowering<'_>, wiring: &Wiring, address: IpAddr) {
    let v6 = address.is_ipv6();
    let router = lowering.intent.node.routers.iter().copied().find(|r| r.is_ipv6() == v6);
    let Some(router) = router else { return };
    let mtu_bytes = lowering.node.route_mtu_bytes;
    let desired = &mut lowering.desired;
    let Wiring { lxc, netns, ifname: dev, origin, .. } = wiring;
    let (lxc, dev) = (*lxc, *dev);
    let key = address::Key { netns: netns.clone(), ifname: dev, address: host_prefix(address) };
    want::<Address>(&mut desired.addresses, key, address::Spec { link: lxc }, origin);
    let mut route = |dst, via, scope, mtu_bytes| {
        let route = route::Way { via, dev: Some(dev), src: None, scope, mtu_bytes };
        let spec = route::Spec { route, link: Some(lxc) };
        want::<Route>(&mut desired.routes, route::Key::main(netns.clone(), dst), spec, origin);
    };
    let on_link = if v6 { Scope::Universe } else { Scope::Link };
    route(host_prefix(router), None, on_link, None);
    let everything = if v6 { "::/0" } else { "0.0.0.0/0" };
    let everything: IpNet = everything.parse().unwrap_or_else(|_| host_prefix(router));
    route(everything, Some(router), Scope::Universe, Some(mtu_bytes));
}
