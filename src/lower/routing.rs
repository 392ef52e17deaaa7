//! Peers: a route to each of their CIDRs through their node address, where that is on-link. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Lowering, want};
use crate::facts::NextHop;
use crate::intent::Peer;
use crate::kinds::neighbour::{self, Neighbour};
use crate::kinds::route::{self, Route, Scope, TABLE_MAIN};
use crate::kinds::rule::{self, Rule};
use crate::kinds::{BlockedReason, Origin};
use crate::net::{IfName, Netns};

/// Adds the peers' objects.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let routing = &lowering.intent.routing;
    if !routing.auto_direct_node_routes {
        return;
    }
    let table = routing.table.unwrap_or(TABLE_MAIN);
    for peer in lowering.intent.peers.values() {
        lower_peer(lowering, peer, table);
    }
    if table != TABLE_MAIN {
        let priority = lowering.intent.routing.rule_priority;
        for ipv6 in [false, true] {
            if if ipv6 { lowering.node.ipv6 } else { lowering.node.ipv4 } {
                let key = rule::Key { ipv6, priority, fwmark: None, table };
                want::<Rule>(&mut lowering.desired.rules, key, rule::Spec, &Origin::Routing);
            }
        }
    }
}

fn lower_peer(lowering: &mut Lowering<'_>, peer: &Peer, table: u32) {
    let origin = Origin::Peer(peer.name.clone());
    let mut refused = BTreeSet::new();
    for address in &peer.addresses {
        match device(lowering, *address) {
            Ok(dev) => {
                if let Some(mac) = peer.mac {
                    let key = neighbour::Key { ifname: dev, address: *address };
                    let spec = neighbour::Spec { mac };
                    want::<Neighbour>(&mut lowering.desired.neighbours, key, spec, &origin);
                }
            }
            Err(reason) => {
                refused.insert(*address);
                lowering.block(origin.clone(), reason);
            }
        }
    }
    for cidr in &peer.cidrs {
        let same_family = |address: &&IpAddr| address.is_ipv6() == cidr.addr().is_ipv6();
        let Some(via) = peer.addresses.iter().find(same_family) else { continue };
        if refused.contains(via) {
            continue;
        }
        let Ok(dev) = device(lowering, *via) else { continue };
        let route = route::Seen {
            via: Some(*via),
            dev,
            src: None,
            scope: Scope::Universe,
            mtu_bytes: None,
        };
        let key = route::Key::in_table(Netns::HOST, table, *cidr);
        let spec = route::Spec { route, link: None };
        want::<Route>(&mut lowering.desired.routes, key, spec, &origin);
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
