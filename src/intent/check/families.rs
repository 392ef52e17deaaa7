//! IPv4 and IPv6: what one object has of a family, another needs too.
//!
//! Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Diagnostic, Span};
use crate::intent::address::family_of_cidr;
use crate::intent::draft::{At, Draft, DraftPeer, Problems};
use crate::intent::limits::MTU_BYTES_MIN_IPV6;

pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    if draft.routing.value.auto_direct_node_routes {
        draft.peers.iter().for_each(|peer| reachable(peer, problems));
    }
    mtu(draft, problems);
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

fn mtu(draft: &Draft, problems: &mut Problems) {
    let Some(mtu) = draft.routing.mtu_bytes.as_ref().filter(|mtu| mtu.value < MTU_BYTES_MIN_IPV6)
    else {
        return;
    };
    let Some((what, span)) = first_ipv6(draft) else { return };
    let message = format!("an MTU of {} is too small for IPv6", mtu.value);
    let help = format!(
        "with IPv6 the MTU is at least {MTU_BYTES_MIN_IPV6}; or remove the IPv6 addresses and CIDRs"
    );
    problems.push(
        Diagnostic::new(mtu.span, message).related(span, format!("{what} is IPv6")).help(help),
    );
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
