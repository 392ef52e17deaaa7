//! The nftables table. Masquerade: endpoints reach what lies outside by the node's address. And the mark
//! that says which packets are the host's own, so that they are not taken for somebody else's who sends
//! from its address. And that conntrack leaves outer packets of the tunnel alone, which have no answers: to
//! other nodes all are sent to the tunnel's port, from ports of all kinds. Pure.

use ipnet::IpNet;

use super::{CILIUM_HOST, Lowering, host_prefix, want};
use crate::bpf_abi::{MARK_MAGIC_HOST, MARK_MAGIC_MASK};
use crate::intent::{Masquerade, RoutingMode};
use crate::kinds::Origin;
use crate::kinds::nftables::{self, Nftables, Table, from_router, mark_own, masquerade, notrack};

/// Adds the table. Without masquerade there is one only where the mark is seen by other nodes: in the
/// tunnel.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let masquerading = lowering.intent.masquerade == Masquerade::Nftables;
    let tunnel = lowering.node.tunnel;
    if lowering.intent.node.cidrs.is_empty() || !(masquerading || tunnel.is_some()) {
        return;
    }
    let mut table = if masquerading { translations(lowering) } else { Table::default() };
    mark_own(&mut table, CILIUM_HOST, (MARK_MAGIC_HOST, MARK_MAGIC_MASK));
    let asked = matches!(lowering.intent.routing.mode, RoutingMode::Tunnel(asked) if asked.notrack);
    if let Some(tunnel) = tunnel.filter(|_| asked) {
        notrack(&mut table, tunnel.port, &lowering.node.addresses);
    }
    want::<Nftables>(&mut lowering.desired.nftables, nftables::Key, table, &Origin::Masquerade);
}

fn translations(lowering: &Lowering<'_>) -> Table {
    let (intent, tunnel) = (lowering.intent, lowering.node.tunnel.is_some());
    let node = &intent.node;
    let mut direct: Vec<IpNet> = node.cidrs.clone();
    direct.extend(&intent.routing.native_cidrs);
    for peer in intent.peers.values() {
        direct.extend(&peer.cidrs);
        // With native routing the peer has a route back to our CIDRs. With a tunnel it answers by the
        // underlay, which knows nothing of them.
        if !tunnel {
            direct.extend(peer.addresses.iter().copied().map(host_prefix));
        }
    }
    let mut table = masquerade(&node.cidrs, &direct);
    if tunnel {
        from_router(&mut table, CILIUM_HOST, &node.cidrs, &node.routers);
    }
    table
}
