//! The node itself: `cilium_host` and `cilium_net`, the router addresses, the routes to the node's own
//! CIDRs, the programs on the underlay. Pure.

use std::net::IpAddr;

use super::program::{Attachment, attach};
use super::{CILIUM_HOST, CILIUM_NET, Lowering, before, host_prefix, mac, overlay, want};
use crate::bpf_abi::{
    NODE_FLAG_DSR, NODE_FLAG_GENEVE, NODE_FLAG_HOST_ROUTING, NODE_FLAG_NO_BACKEND_DROP,
    NODE_FLAG_NODE_PORT, NODE_FLAG_SERVICES, NODE_FLAG_TWO_WORLDS, NodeValue,
};
use crate::intent::NoBackend;
use crate::kinds::address::{self, Address};
use crate::kinds::bpf_link::{Hook, Mode};
use crate::kinds::bpf_map_entry::{self, BpfMapEntry};
use crate::kinds::link::{self, End, Link, Protocol};
use crate::kinds::route::{self, Route, Scope};
use crate::kinds::{Origin, owner, record};
use crate::net::{IfName, Netns};

/// A name that is known to be good.
pub(super) fn ifname(name: &str) -> IfName {
    name.parse().unwrap_or_else(|_| unreachable!("{name} is an interface name"))
}

/// What our devices have in common.
pub(super) fn end(mac: crate::net::Mac, mtu_bytes: u32, arp: bool, purpose: &str) -> End {
    let alias = format!("{} {purpose}", owner::LINK_ALIAS_PREFIX);
    End { mac, mtu_bytes, up: true, arp, alias, grouped: true, enslaved: false, promiscuous: false }
}

/// Adds the node's objects.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    if lowering.intent.node.cidrs.is_empty() {
        return;
    }
    let (host, net) = (ifname(CILIUM_HOST), ifname(CILIUM_NET));
    let host_index = lowering.allocation.ifindex(host, None);
    let net_index = lowering.allocation.ifindex(net, None);
    let (host_mac, net_mac) = (mac::derive(CILIUM_HOST, ""), mac::derive(CILIUM_NET, ""));
    let mtu = lowering.node.mtu_bytes;
    let peer = link::Peer {
        netns: Netns::HOST,
        ifname: net,
        ifindex: Some(net_index),
        end: end(net_mac, mtu, false, "router"),
    };
    let form = link::Form::Veth { peer: Some(peer) };
    let spec = link::Spec { ifindex: host_index, end: end(host_mac, mtu, false, "router"), form };
    want::<Link>(&mut lowering.desired.links, host, spec, &Origin::Node);
    for router in lowering.intent.node.routers.clone() {
        lower_router(lowering, host, router);
    }
    let tunnel = overlay::device(lowering);
    let router = |v6: bool| {
        lowering.intent.node.routers.iter().copied().find(|router| router.is_ipv6() == v6)
    };
    let mut value = NodeValue {
        host_ifindex: host_index,
        net_ifindex: net_index,
        host_mac: host_mac.0,
        net_mac: net_mac.0,
        flags: flags(lowering),
        ..NodeValue::default()
    };
    if let Some(tunnel) = &tunnel {
        (value.tunnel_ifindex, value.tunnel_mac) = (tunnel.ifindex, tunnel.mac.0);
        value.tunnel_port_be = tunnel.port.to_be_bytes();
        (value.tunnel_source_min, value.tunnel_source_max) = tunnel.sources;
        value.tunnel_mtu = u16::try_from(lowering.node.route_mtu_bytes).unwrap_or(u16::MAX);
    }
    if let Some(IpAddr::V4(v4)) = router(false) {
        value.router_ipv4_be = v4.octets();
    }
    if let Some(IpAddr::V6(v6)) = router(true) {
        value.router_ipv6_be = v6.octets();
    }
    let leads_to = tunnel.map_or_else(Vec::new, |tunnel| tunnel.objects);
    let value = value.to_bytes().to_vec();
    let spec = bpf_map_entry::Spec { value, link: Some(host), leads_to };
    let entries = &mut lowering.desired.bpf_map_entries;
    want::<BpfMapEntry>(entries, bpf_map_entry::node(), spec, &Origin::Node);
    lower_programs(lowering, (host, host_index), (net, net_index));
}

/// [`NodeValue::flags`].
fn flags(lowering: &Lowering<'_>) -> u32 {
    let mut flags = 0;
    if lowering.node.ipv4 && lowering.node.ipv6 {
        flags |= NODE_FLAG_TWO_WORLDS;
    }
    if lowering.node.tunnel.is_some_and(|tunnel| tunnel.protocol == Protocol::Geneve) {
        flags |= NODE_FLAG_GENEVE;
    }
    if lowering.intent.routing.past_host {
        flags |= NODE_FLAG_HOST_ROUTING;
    }
    if !lowering.intent.services.is_empty() {
        flags |= NODE_FLAG_SERVICES;
    }
    if lowering.intent.serves_outside() {
        flags |= NODE_FLAG_NODE_PORT;
    }
    if lowering.intent.load_balancing.direct_return && lowering.intent.serves_outside() {
        flags |= NODE_FLAG_DSR;
    }
    if lowering.intent.load_balancing.no_backend == NoBackend::Drop {
        flags |= NODE_FLAG_NO_BACKEND_DROP;
    }
    flags
}

/// The router's address, and the routes to the CIDR it is in.
fn lower_router(lowering: &mut Lowering<'_>, host: IfName, router: IpAddr) {
    let desired = &mut lowering.desired;
    let prefix = host_prefix(router);
    let key = address::Key { netns: Netns::HOST, ifname: host, address: prefix };
    want::<Address>(&mut desired.addresses, key, address::Spec { link: host }, &Origin::Node);
    let mut route = |dst, via: Option<IpAddr>, src: Option<IpAddr>, scope| {
        let route = route::Way { via, dev: Some(host), src, scope, mtu_bytes: None };
        let spec = route::Spec { route, link: Some(host) };
        let key = route::Key::main(Netns::HOST, dst);
        want::<Route>(&mut desired.routes, key, spec, &Origin::Node);
    };
    if router.is_ipv4() {
        // IPv6 needs no such route: `/128` comes with the address.
        route(prefix, None, None, Scope::Link);
    }
    for cidr in lowering.intent.node.cidrs.iter().filter(|cidr| cidr.contains(&router)) {
        let via = router.is_ipv4().then_some(router);
        route(*cidr, via, Some(router), Scope::Universe);
    }
}

/// The programs that don't belong to endpoints.
fn lower_programs(lowering: &mut Lowering<'_>, host: (IfName, u32), net: (IfName, u32)) {
    let mode = lowering.node.attach;
    let own = |(ifname, ifindex), hook| Attachment {
        ifname,
        ifindex,
        hook,
        link: Some(host.0),
        qdisc_ours: false,
    };
    let leaving = lowering.intent.serves_outside() || lowering.node.encryption.is_some();
    attach(lowering, "cil_from_host", own(host, Hook::Egress), &Origin::Node);
    attach(lowering, "cil_to_host", own(host, Hook::Ingress), &Origin::Node);
    attach(lowering, "cil_to_host", own(net, Hook::Ingress), &Origin::Node);
    for (ifname, ifindex) in lowering.node.devices.clone() {
        let record = record::of_clsact(ifindex);
        let recorded = lowering.facts.records().contains_key(record.as_str());
        // The `ingress` of others serves as well. Whoever put it there has taken ours away.
        let qdisc_ours = mode == Mode::Clsact
            && !lowering.facts.ingress.contains(&ifname)
            && (recorded || !lowering.facts.clsact.contains(&ifname));
        if qdisc_ours {
            before::keep(&mut lowering.desired, &record, "absent", &Origin::Node);
        }
        let at = Attachment { ifname, ifindex, hook: Hook::Ingress, link: None, qdisc_ours };
        attach(lowering, "cil_from_netdev", at, &Origin::Node);
        if leaving {
            let at = Attachment { ifname, ifindex, hook: Hook::Egress, link: None, qdisc_ours };
            attach(lowering, "cil_to_netdev", at, &Origin::Node);
        }
    }
}
