//! IPv4 and IPv6: what one object has of a family, another needs too.
//!
//! Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Diagnostic, Span};
use crate::intent::address::family_of_cidr;
use crate::intent::draft::{At, Draft, DraftPeer, Problems};
use crate::intent::limits::{MTU_BYTES_MIN, MTU_BYTES_MIN_IPV6};
use crate::intent::{Encryption, RoutingMode, Underlay};

pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    if !draft.routing.way_known {
        return;
    }
    if let RoutingMode::Tunnel(_) = draft.routing.value.mode {
        direct_routes(draft, problems);
        if let Some(underlay) = draft.underlay() {
            own_end(draft, underlay, problems);
            draft.peers.iter().for_each(|peer| far_end(draft, peer, underlay, problems));
        }
    } else if draft.routing.value.auto_direct_node_routes {
        draft.peers.iter().for_each(|peer| reachable(peer, problems));
    }
    mtu(draft, problems);
}

/// There is one way to a peer: through the tunnel, or by a route.
fn direct_routes(draft: &Draft, problems: &mut Problems) {
    let Some(span) = draft.routing.auto_direct else { return };
    let message = "auto-direct-node-routes is for mode = \"native\", and the mode is \"tunnel\"";
    problems.push(Diagnostic::new(span, message).help(
        "write mode = \"native\" below [routing] to reach the peers by routes, or remove this to \
         reach them through the tunnel",
    ));
}

/// This node's address that tunnels begin at, where the file has the addresses.
fn own_end(draft: &Draft, underlay: Underlay, problems: &mut Problems) {
    let addresses = &draft.node.addresses;
    let Some(written) = &draft.routing.underlay else { return };
    if addresses.is_empty() || addresses.iter().any(|address| underlay.includes(&address.value)) {
        return;
    }
    let family = underlay.name();
    let message = format!("tunnels lead to {family} addresses, and this node has none");
    let mut problem = Diagnostic::new(written.span, message);
    if let Some(other) = addresses.first() {
        problem = problem.related(other.span, "its only address");
    }
    problems.push(problem.help(format!(
        "add its {family} address to `addresses` of [node], or choose the other family on every node"
    )));
}

/// A peer's address that a tunnel leads to.
fn far_end(draft: &Draft, peer: &DraftPeer, underlay: Underlay, problems: &mut Problems) {
    let has_one = peer.addresses.iter().any(|address| underlay.includes(&address.value));
    if has_one || !peer.addresses_complete || peer.addresses.is_empty() {
        return;
    }
    let (name, family) = (&peer.name.value, underlay.name());
    let message = format!("tunnels lead to {family} addresses, and peer `{name}` has none");
    let mut problem = Diagnostic::new(peer.addresses[0].span, message).label("its only address");
    if let Some(written) = &draft.routing.underlay {
        problem = problem.related(written.span, "the family is chosen here");
    }
    problems.push(problem.help(format!(
        "add the peer's {family} address to its `addresses`, or choose the other family with \
         `underlay-protocol` of [routing], on every node"
    )));
}

/// A direct route leads through an address of the CIDR's own family.
fn reachable(peer: &DraftPeer, problems: &mut Problems) {
    for is_ipv4 in [true, false] {
        let cidr = peer.cidrs.iter().find(|cidr| cidr.value.addr().is_ipv4() == is_ipv4);
        let via = peer.addresses.iter().any(|address| address.value.is_ipv4() == is_ipv4);
        let (Some(cidr), false, true) = (cidr, via, peer.addresses_complete) else { continue };
        let family = family_of_cidr(&cidr.value);
        let message = format!(
            "peer `{}` has the {family} CIDR {}, but no {family} address to route it through",
            peer.name.value, cidr.value
        );
        let mut problem = Diagnostic::new(cidr.span, message);
        if let Some(other) = peer.addresses.first() {
            problem = problem.related(other.span, "its only address");
        }
        problems.push(problem.help(format!(
            "add the peer's {family} address to its `addresses`, or set auto-direct-node-routes = false \
             if the network routes this CIDR"
        )));
    }
}

/// An MTU that leaves less than IP asks for, of the underlay or inside the tunnel.
fn mtu(draft: &Draft, problems: &mut Problems) {
    let Some(mtu) = draft.routing.mtu_bytes.as_ref() else { return };
    let encrypting = draft.encryption.value.is_some();
    let overhead = if encrypting { Encryption::OVERHEAD_BYTES } else { 0 };
    let overhead = overhead
        + match draft.routing.value.mode {
            RoutingMode::Native => 0,
            // The larger one where the family isn't known.
            RoutingMode::Tunnel(_) => draft.underlay().unwrap_or(Underlay::Ipv6).overhead_bytes(),
        };
    let inside = draft.node.cidrs.iter().find(|cidr| !cidr.value.addr().is_ipv4());
    let (family, smallest, cause) = match (first_ipv6(draft), inside) {
        (_, Some(cidr)) => {
            ("IPv6", MTU_BYTES_MIN_IPV6 + overhead, Some((cidr.value.to_string(), cidr.span)))
        }
        (Some(cause), None) => ("IPv6", MTU_BYTES_MIN_IPV6, Some(cause)),
        (None, None) => ("IPv4", MTU_BYTES_MIN + overhead, None),
    };
    if mtu.value >= smallest {
        return;
    }
    let through = match (overhead > 0, encrypting) {
        (false, _) => "",
        (true, false) => " in a tunnel",
        (true, true) => " that is encrypted",
    };
    let message = format!("an MTU of {} is too small for {family}{through}", mtu.value);
    let mut problem = Diagnostic::new(mtu.span, message);
    let mut help = format!("with {family}{through} the MTU is at least {smallest}");
    if let Some((what, span)) = cause {
        problem = problem.related(span, format!("{what} is IPv6"));
        help += "; or remove the IPv6 addresses and CIDRs";
    }
    problems.push(problem.help(help));
}

/// The first thing in the configuration that needs IPv6.
fn first_ipv6(draft: &Draft) -> Option<(String, Span)> {
    let cidr = |cidr: &At<IpNet>| (cidr.value.to_string(), cidr.span, cidr.value.addr().is_ipv4());
    let address =
        |address: &At<IpAddr>| (address.value.to_string(), address.span, address.value.is_ipv4());
    let node = draft.node.cidrs.iter().map(cidr).chain(draft.node.addresses.iter().map(address));
    let peers = draft
        .peers
        .iter()
        .flat_map(|peer| peer.cidrs.iter().map(cidr).chain(peer.addresses.iter().map(address)));
    let ipv6 = node.chain(peers).filter(|(.., is_ipv4)| !is_ipv4);
    ipv6.map(|(text, span, _)| (text, span)).min_by_key(|(_, span)| *span)
}
