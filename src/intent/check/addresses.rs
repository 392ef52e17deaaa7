//! Addresses: each belongs to one thing, endpoints' are inside the node's CIDRs, nodes' outside all.
//!
//! Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::networks::{Network, Owner, endpoint_networks, holding};
use crate::config::{Diagnostic, Span};
use crate::intent::address::family;
use crate::intent::draft::{At, Draft, DraftEndpoint, Problems};
use crate::intent::node::unusable;

pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    unique(draft, problems);
    let networks = endpoint_networks(draft);
    for (owner, address) in underlay(draft) {
        problems
            .extend(holding(&networks, address.value).map(|net| swallowed(owner, address, net)));
    }
    for endpoint in &draft.endpoints {
        for address in &endpoint.addresses {
            problems.extend(misplaced(draft, endpoint, address));
        }
    }
}

/// Whose address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder<'a> {
    Node,
    /// With the place it was written at, or else of the CIDR it was derived from.
    Router {
        derived: bool,
    },
    Peer(&'a str),
    Endpoint(&'a str),
}

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("this node"),
            Self::Router { .. } => f.write_str("the router"),
            Self::Peer(name) => write!(f, "peer `{name}`"),
            Self::Endpoint(name) => write!(f, "endpoint `{name}`"),
        }
    }
}

/// The addresses of nodes.
fn underlay(draft: &Draft) -> impl Iterator<Item = (Holder<'_>, &At<IpAddr>)> {
    let node = draft.node.addresses.iter().map(|address| (Holder::Node, address));
    let peers = draft.peers.iter().flat_map(|peer| {
        peer.addresses.iter().map(|address| (Holder::Peer(&peer.name.value), address))
    });
    node.chain(peers)
}

fn unique(draft: &Draft, problems: &mut Problems) {
    let routers = draft.node.routers.iter().map(|router| {
        let derived = draft.node.cidrs.iter().any(|cidr| cidr.span == router.span);
        (Holder::Router { derived }, router)
    });
    let endpoints = draft.endpoints.iter().flat_map(|endpoint| {
        endpoint.addresses.iter().map(|address| (Holder::Endpoint(&endpoint.name.value), address))
    });
    let mut all: Vec<_> = underlay(draft).chain(routers).chain(endpoints).collect();
    all.sort_by_key(|(holder, address)| {
        (!matches!(holder, Holder::Router { .. }), address.span.start)
    });
    let mut seen: BTreeMap<IpAddr, (Holder<'_>, Span)> = BTreeMap::new();
    for (holder, address) in all {
        let Some(&(earlier, span)) = seen.get(&address.value) else {
            seen.insert(address.value, (holder, address.span));
            continue;
        };
        // The same thing twice is complained about by name.
        if earlier != holder {
            problems.push(twice((earlier, span), (holder, address)));
        }
    }
}

fn twice(earlier: (Holder<'_>, Span), later: (Holder<'_>, &At<IpAddr>)) -> Diagnostic {
    let ((earlier, span), (later, address)) = (earlier, later);
    let value = address.value;
    let problem = |message: String| Diagnostic::new(address.span, message);
    match (earlier, later) {
        (Holder::Router { derived }, later) => {
            let why = match derived {
                true => "the router has the first address of this CIDR, since `routers` names no other",
                false => "the router's address",
            };
            problem(format!("{value} of {later} is the router's address"))
                .related(span, why)
                .help("choose another address, or another one for the router with `routers`")
        }
        (Holder::Node, peer @ Holder::Peer(_)) | (peer @ Holder::Peer(_), Holder::Node) => {
            problem(format!("{peer} has this node's address {value}"))
                .related(span, "the other one")
                .help("a node's own configuration lists only the others: remove this [[peer]], or correct the address")
        }
        (earlier, later) => problem(format!("{value} is used twice: by {earlier} and by {later}"))
            .related(span, format!("used by {earlier}"))
            .help("give one of them another address"),
    }
}

/// A node's address inside the CIDRs of endpoints: the route to the CIDR would take the node with it.
fn swallowed(holder: Holder<'_>, address: &At<IpAddr>, network: &Network<'_>) -> Diagnostic {
    let whose = match network.owner {
        Owner::Node => "this node's endpoints".to_owned(),
        other => format!("the endpoints of {other}"),
    };
    let message = format!(
        "address {} of {holder} is inside {}, the CIDR of {whose}",
        address.value, network.cidr
    );
    Diagnostic::new(address.span, message)
        .related(network.span, "this CIDR")
        .help("nodes have addresses outside all `cidrs`: correct the address or the CIDR")
}

/// An endpoint's address that is not one of the node's CIDRs to give.
fn misplaced(draft: &Draft, endpoint: &DraftEndpoint, address: &At<IpAddr>) -> Option<Diagnostic> {
    let (value, name) = (address.value, &endpoint.name.value);
    let family = family(&value);
    let own = draft.node.cidrs.iter().find(|cidr| cidr.value.addr().is_ipv4() == value.is_ipv4());
    let Some(own) = own else {
        let complete = draft.node.cidrs_complete && !draft.node.cidrs.is_empty();
        return complete.then(|| {
            let message = format!(
                "endpoint `{name}` has an {family} address, this node has no {family} CIDR"
            );
            Diagnostic::new(address.span, message)
                .help(format!("add an {family} entry to `cidrs` of [node], or remove this address"))
        });
    };
    if !own.value.contains(&value) {
        let message =
            format!("{value} of endpoint `{name}` is outside this node's CIDR {}", own.value);
        let help =
            format!("choose an address in {}, or leave `addresses` out to be given one", own.value);
        return Some(
            Diagnostic::new(address.span, message).related(own.span, "the node's CIDR").help(help),
        );
    }
    let why = unusable(own.value, value)?;
    let message = format!("{value} of endpoint `{name}` is the {why} address of {}", own.value);
    let help = "choose another address, or leave `addresses` out to be given one";
    Some(Diagnostic::new(address.span, message).related(own.span, "the node's CIDR").help(help))
}
