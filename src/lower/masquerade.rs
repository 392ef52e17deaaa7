//! Masquerade: endpoints reach what lies outside by the node's address. Pure.

use ipnet::IpNet;

use super::{Lowering, host_prefix, want};
use crate::intent::Masquerade;
use crate::kinds::Origin;
use crate::kinds::nftables::{self, Nftables, masquerade};

/// Adds the table.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let intent = lowering.intent;
    if intent.masquerade != Masquerade::Nftables || intent.node.cidrs.is_empty() {
        return;
    }
    let mut direct: Vec<IpNet> = intent.node.cidrs.clone();
    direct.extend(&intent.routing.native_cidrs);
    for peer in intent.peers.values() {
        direct.extend(&peer.cidrs);
        // The peer has a route back to our CIDRs.
        direct.extend(peer.addresses.iter().copied().map(host_prefix));
    }
    let table = masquerade(&intent.node.cidrs, &direct);
    want::<Nftables>(&mut lowering.desired.nftables, nftables::Key, table, &Origin::Masquerade);
}
