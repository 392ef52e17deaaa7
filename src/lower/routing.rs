//! Peers: a route to each of their CIDRs through their node address, where that is on-link. Pure.

use std::net::IpAddr;

use super::{Lowering, want, want_all};
use crate::facts::NextHop;
use crate::intent::Peer;
use crate::kinds::neighbour::{self, Neighbour};
use crate::kinds::route::{self, Route, Scope, TABLE_MAIN};
use crate::kinds::rule::{self, Rule};
use crate::kinds::{BlockedReason, Origin, Wanted};
use crate::net::{IfName, Netns};

/// Adds the peers' objects.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let routing = &lowering.intent.routing;
    if !routing.auto_direct_node_routes {
        return;
    }
    let table = routing.table.unwrap_or(TABLE_MAIN);
    let mut peers: Vec<&Peer> = lowering.intent.peers.values().collect();
    // By their first CIDRs the routes are almost in order, and to sort a hundred thousand that are not takes time.
    peers.sort_by_key(|peer| peer.cidrs.first());
    let mut routes = Vec::new();
    for peer in peers {
        lower_peer(lowering, peer, table, &mut routes);
    }
    want_all::<Route>(&mut lowering.desired.routes, routes);
    rules(lowering, table);
}

/// Adds what leads to a table of our own.
pub(super) fn rules(lowering: &mut Lowering<'_>, table: u32) {
    if table == TABLE_MAIN {
        return;
    }
    let priority = lowering.intent.routing.rule_priority;
    for ipv6 in [false, true] {
        if if ipv6 { lowering.node.ipv6 } else { lowering.node.ipv4 } {
            let key = rule::Key { ipv6, priority, fwmark: None, table, other: None };
            want::<Rule>(&mut lowering.desired.rules, key, rule::Spec, &Origin::Routing);
        }
    }
}

/// Adds the fixed neighbour entry of a peer that is given an Ethernet address.
pub(super) fn neighbour(
    lowering: &mut Lowering<'_>,
    peer: &Peer,
    dev: IfName,
    address: IpAddr,
    origin: &Origin,
) {
    let Some(mac) = peer.mac else { return };
    let key = neighbour::Key { ifname: dev, address };
    want::<Neighbour>(&mut lowering.desired.neighbours, key, neighbour::Spec { mac }, origin);
}

fn lower_peer(
    lowering: &mut Lowering<'_>,
    peer: &Peer,
    table: u32,
    routes: &mut Vec<(route::Key, Wanted<route::Spec>)>,
) {
    let origin = Origin::Peer(peer.name.clone());
    let mut hops: Vec<(IpAddr, Option<IfName>)> = Vec::with_capacity(peer.addresses.len());
    for address in &peer.addresses {
        let found = device(lowering, *address);
        hops.push((*address, found.as_ref().ok().copied()));
        match found {
            Ok(dev) => neighbour(lowering, peer, dev, *address, &origin),
            Err(reason) => lowering.block(origin.clone(), reason),
        }
    }
    for cidr in &peer.cidrs {
        let same_family = |hop: &&(IpAddr, _)| hop.0.is_ipv6() == cidr.addr().is_ipv6();
        let Some((via, Some(dev))) = hops.iter().find(same_family) else { continue };
        let (via, dev) = (Some(*via), *dev);
        let route =
            route::Way { via, dev: Some(dev), src: None, scope: Scope::Universe, mtu_bytes: None };
        let key = route::Key::in_table(Netns::HOST, table, *cidr);
        let spec = route::Spec { route, link: None };
        routes.push((key, Wanted { spec, origin: origin.clone() }));
    }
}

/// The device through which a peer's address is on-link.
fn device(lowering: &Lowering<'_>, address: IpAddr) -> Result<IfName, BlockedReason> {
    let text = address.to_string();
    match lowering.facts.next_hops.get(&address) {
        Some(NextHop::OnLink(dev)) => Ok(*dev),
        Some(NextHop::Gateway { gateway, dev: _ }) if *gateway == address => {
            Err(BlockedReason::PeerUnreachable { address: text })
        }
        Some(NextHop::Gateway { gateway, .. }) => {
            Err(BlockedReason::PeerNotOnLink { address: text, gateway: gateway.to_string() })
        }
        Some(NextHop::Local) => Err(BlockedReason::PeerIsLocal { address: text }),
        Some(NextHop::Unreachable) | None => Err(BlockedReason::PeerUnreachable { address: text }),
    }
}
