//! The tunnel: its device and the programs on it, what routes lead there, and which of a peer's addresses
//! is its end. Pure.
//!
//! The device is flow-based: the programs say with each packet where it goes (the ipcache), and the kernel
//! routes only what this host's own stack sends to a peer's CIDR.

use std::net::IpAddr;

use super::node::{end, ifname};
use super::program::{Attachment, attach};
use super::{CILIUM_HOST, Lowering, mac, routing, want, want_all};
use crate::facts::{Facts, NextHop};
use crate::intent::limits::{MTU_BYTES_MAX, MTU_BYTES_MIN, MTU_BYTES_MIN_IPV6};
use crate::intent::{Intent, Peer, RoutingMode, TunnelProtocol, Underlay};
use crate::kinds::bpf_link::{self, Hook};
use crate::kinds::link::{self, ALIAS_TUNNEL, Link, Protocol};
use crate::kinds::route::{self, Route, Scope, TABLE_MAIN};
use crate::kinds::{Blocked, BlockedReason, ObjectKey, Origin, Wanted};
use crate::net::{IfName, Mac, Netns};

/// The device of each protocol.
pub const CILIUM_VXLAN: &str = "cilium_vxlan";
pub const CILIUM_GENEVE: &str = "cilium_geneve";

/// The kernel's VXLAN takes the ports that it sends from out of these.
pub(super) const LOCAL_PORT_RANGE: &str = "net/ipv4/ip_local_port_range";

/// The tunnel with what the machine decides settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    pub protocol: Protocol,
    pub port: u16,
    pub underlay: Underlay,
    /// Whether the device can be had: nothing foreign has its name or port.
    pub usable: bool,
}

impl Tunnel {
    /// The tunnel's device.
    pub fn ifname(self) -> IfName {
        ifname(match self.protocol {
            Protocol::Vxlan => CILIUM_VXLAN,
            Protocol::Geneve => CILIUM_GENEVE,
        })
    }
}

/// The device of the tunnel as the programs know it; index and address are zero where it can't be had.
pub(super) struct Device {
    pub ifindex: u32,
    pub mac: Mac,
    pub port: u16,
    /// What it sends from, where programs are to do so too; else zero.
    pub sources: (u16, u16),
    /// The device, and the programs on it.
    pub objects: Vec<ObjectKey>,
}

/// Settles what the intent leaves to the machine, and says what is in the way.
pub(super) fn settle(
    intent: &Intent,
    facts: &Facts,
    addresses: &[IpAddr],
    blocked: &mut Vec<Blocked>,
) -> Option<Tunnel> {
    let RoutingMode::Tunnel(asked) = intent.routing.mode else { return None };
    let has = |underlay: Underlay| addresses.iter().any(|address| underlay.includes(address));
    let only_ipv6 = !has(Underlay::Ipv4) && has(Underlay::Ipv6);
    let found = if only_ipv6 { Underlay::Ipv6 } else { Underlay::Ipv4 };
    let underlay = asked.underlay.unwrap_or(found);
    let mut block = |reason| blocked.push(Blocked { origin: Origin::Routing, reason });
    if !addresses.is_empty() && !has(underlay) {
        block(BlockedReason::NodeWithoutUnderlay { family: underlay.name().into() });
    }
    let protocol = match asked.protocol {
        TunnelProtocol::Vxlan => Protocol::Vxlan,
        TunnelProtocol::Geneve => Protocol::Geneve,
    };
    let tunnel = Tunnel { protocol, port: asked.port, underlay, usable: true };
    let Some(reason) = in_the_way(facts, tunnel) else { return Some(tunnel) };
    block(reason);
    let Some(kept) = in_force(facts, tunnel) else {
        block(BlockedReason::NoTunnelYet);
        return Some(Tunnel { usable: false, ..tunnel });
    };
    let (ifname, port) = (kept.ifname().to_string(), kept.port);
    block(BlockedReason::TunnelKept { ifname, port });
    Some(kept)
}

/// The tunnel that there is, which goes on in place of one that can't be had.
fn in_force(facts: &Facts, asked: Tunnel) -> Option<Tunnel> {
    let there = |protocol| {
        let tunnel = Tunnel { protocol, ..asked };
        let link = facts.links.get(&tunnel.ifname()).filter(|link| link.owned())?;
        let port = link.tunnel.filter(|_| link.kind == protocol.kind())?.port;
        Some(Tunnel { port, ..tunnel })
    };
    [Protocol::Vxlan, Protocol::Geneve].into_iter().find_map(there)
}

/// Something foreign that has the name of the device, or its UDP port. The kernel shares a port between
/// devices of one kind only, and not with a flow-based one.
fn in_the_way(facts: &Facts, tunnel: Tunnel) -> Option<BlockedReason> {
    let foreign = |link: &&link::LinkInfo| !link.owned();
    let device = tunnel.ifname();
    if facts.links.get(&device).filter(foreign).is_some() {
        return Some(BlockedReason::Foreign { object: ObjectKey::Link(device).to_string() });
    }
    let has_port = |link: &&link::LinkInfo| {
        let there = link.tunnel.filter(|there| there.port == tunnel.port);
        there.is_some_and(|there| link.end.up || there.flow_based)
    };
    let other = facts.links.values().filter(foreign).find(has_port)?;
    Some(BlockedReason::TunnelPortTaken { port: tunnel.port, ifname: other.ifname.to_string() })
}

/// MTU of routes that may lead into the tunnel; `mtu_bytes` is that of the underlay. Only routes have it:
/// devices keep the underlay's, so that it can change without touching them.
pub(super) fn route_mtu_bytes(
    tunnel: Option<Tunnel>,
    mtu_bytes: u32,
    ipv6: bool,
    blocked: &mut Vec<Blocked>,
) -> u32 {
    let Some(tunnel) = tunnel else { return mtu_bytes };
    let left = mtu_bytes.saturating_sub(tunnel.underlay.overhead_bytes()).max(MTU_BYTES_MIN);
    if ipv6 && left < MTU_BYTES_MIN_IPV6 {
        let reason = BlockedReason::TunnelMtu { mtu_bytes, left_bytes: left };
        blocked.push(Blocked { origin: Origin::Routing, reason });
    }
    left
}

/// Adds the device and the programs on it, or that it can't be had.
pub(super) fn device(lowering: &mut Lowering<'_>) -> Option<Device> {
    let tunnel = lowering.node.tunnel?;
    let device = tunnel.ifname();
    if !tunnel.usable {
        lowering.desired.unavailable.insert(ObjectKey::Link(device));
        let objects = vec![ObjectKey::Link(device)];
        return Some(Device { ifindex: 0, mac: Mac([0; 6]), port: 0, sources: (0, 0), objects });
    }
    let ifindex = lowering.allocation.ifindex(device, None);
    // Another one on each node: the kernel drops what comes with the address of the device it comes to.
    let node = lowering.intent.node.name.as_deref().unwrap_or(&lowering.facts.hostname);
    let mac = mac::derive(device.as_str(), node);
    let mtu_bytes = lowering.node.mtu_bytes.min(MTU_BYTES_MAX - tunnel.underlay.overhead_bytes());
    let form = link::Form::Tunnel { protocol: tunnel.protocol, port: tunnel.port };
    let spec = link::Spec { ifindex, end: end(mac, mtu_bytes, true, ALIAS_TUNNEL), form };
    want::<Link>(&mut lowering.desired.links, device, spec, &Origin::Routing);
    let mut objects = vec![ObjectKey::Link(device)];
    for (program, hook) in [("cil_from_overlay", Hook::Ingress), ("cil_to_overlay", Hook::Egress)] {
        let (link, qdisc_ours) = (Some(device), false);
        let at = Attachment { ifname: device, ifindex, hook, link, qdisc_ours };
        attach(lowering, program, at, &Origin::Routing);
        let program = program.into();
        objects.push(ObjectKey::BpfLink(bpf_link::Key { ifname: device, hook, program }));
    }
    let sources = sources(lowering, tunnel);
    Some(Device { ifindex, mac, port: tunnel.port, sources, objects })
}

/// The ports that the kernel's device sends from, one for each flow.
fn sources(lowering: &Lowering<'_>, tunnel: Tunnel) -> (u16, u16) {
    match tunnel.protocol {
        _ if !lowering.intent.routing.past_host => (0, 0),
        Protocol::Geneve => (1, u16::MAX),
        Protocol::Vxlan => {
            let range = lowering.facts.sysctls.get(LOCAL_PORT_RANGE);
            range.and_then(|range| port_range(range)).unwrap_or((0, 0))
        }
    }
}

/// Reads `ip_local_port_range`: two numbers.
fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut ports = text.split_whitespace().map(str::parse);
    Some((ports.next()?.ok()?, ports.next()?.ok()?))
}

/// Adds a route to each of the peers' CIDRs, for what this host's own stack sends there.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let Some(tunnel) = lowering.node.tunnel else { return };
    let table = lowering.intent.routing.table.unwrap_or(TABLE_MAIN);
    let mut routes = Vec::new();
    for peer in lowering.intent.peers.values() {
        match far_end(lowering.facts, peer, tunnel) {
            Ok(_) => lower_peer(lowering, peer, table, &mut routes),
            Err(reason) => lowering.block(Origin::Peer(peer.name.clone()), reason),
        }
    }
    want_all::<Route>(&mut lowering.desired.routes, routes);
    routing::rules(lowering, table);
}

fn lower_peer(
    lowering: &mut Lowering<'_>,
    peer: &Peer,
    table: u32,
    routes: &mut Vec<(route::Key, Wanted<route::Spec>)>,
) {
    let (origin, dev) = (Origin::Peer(peer.name.clone()), ifname(CILIUM_HOST));
    for address in &peer.addresses {
        if let Some(NextHop::OnLink(underlay)) = lowering.facts.next_hops.get(address) {
            routing::neighbour(lowering, peer, *underlay, *address, &origin);
        }
    }
    let mtu_bytes = Some(lowering.node.route_mtu_bytes);
    for cidr in &peer.cidrs {
        let same_family = |router: &&IpAddr| router.is_ipv6() == cidr.addr().is_ipv6();
        // A node without an address of the family has nobody who could send there.
        let Some(router) = lowering.intent.node.routers.iter().copied().find(|r| same_family(&r))
        else {
            continue;
        };
        let (via, src) = (router.is_ipv4().then_some(router), Some(router));
        let route = route::Way { via, dev: Some(dev), src, scope: Scope::Universe, mtu_bytes };
        let spec = route::Spec { route, link: Some(dev) };
        let key = route::Key::in_table(Netns::HOST, table, *cidr);
        routes.push((key, Wanted { spec, origin: origin.clone() }));
    }
}

/// The peer's address that the tunnel leads to.
///
/// # Errors
/// It has none, or it is one of this host.
pub(super) fn far_end(facts: &Facts, peer: &Peer, tunnel: Tunnel) -> Result<IpAddr, BlockedReason> {
    let address = peer.addresses.iter().find(|address| tunnel.underlay.includes(address));
    let Some(address) = address else {
        let family = tunnel.underlay.name().into();
        return Err(BlockedReason::PeerWithoutUnderlay { family });
    };
    match facts.next_hops.get(address) {
        Some(NextHop::Local) => Err(BlockedReason::PeerIsLocal { address: address.to_string() }),
        _ => Ok(*address),
    }
}

#[cfg(test)]
mod tests {
    use super::port_range;

    #[test]
    fn two_numbers_are_a_range() {
        assert_eq!(port_range("32768\t60999"), Some((32_768, 60_999)));
        assert_eq!(port_range("32768"), None);
        assert_eq!(port_range("1 99999"), None);
    }
}
