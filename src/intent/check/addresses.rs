//! Addresses: each belongs to one thing, endpoints' are inside the node's CIDRs, nodes' outside all.
//!
//! Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::networks::{Network, Owner, endpoint_networks, holding};
use crate::config::{Diagnostic, Span};
use crate::intent::address::family;
use crate::intent::draft::{At, Draft, DraftEndpoint, DraftPeer, Problems};
use crate::intent::reserved::{Reserved, unusable};

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
    for peer in &draft.peers {
        for (endpoint, address) in of_endpoints(peer) {
            problems.extend(misplaced_at(peer, endpoint, address, &networks));
        }
    }
}

/// The addresses of a peer's endpoints, with the endpoints' names.
fn of_endpoints(peer: &DraftPeer) -> impl Iterator<Item = (&str, &At<IpAddr>)> {
    peer.endpoints.iter().flat_map(|endpoint| {
        endpoint.addresses.iter().map(|address| (&*endpoint.name.value, address))
    })
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
    /// The health endpoint, likewise.
    Health {
        derived: bool,
    },
    PeerRouter {
        peer: &'a str,
        derived: bool,
    },
    PeerHealth {
        peer: &'a str,
        derived: bool,
    },
    PeerEndpoint {
        peer: &'a str,
        endpoint: &'a str,
    },
}

impl<'a> Holder<'a> {
    /// What an address is set aside for, and whether it was derived from a CIDR.
    fn reserved(self) -> Option<(Reserved, bool)> {
        match self {
            Self::Router { derived } | Self::PeerRouter { derived, .. } => {
                Some((Reserved::Router, derived))
            }
            Self::Health { derived } | Self::PeerHealth { derived, .. } => {
                Some((Reserved::Health, derived))
            }
            _ => None,
        }
    }

    /// The peer on whose endpoints' side the address is.
    fn peer(self) -> Option<&'a str> {
        match self {
            Self::PeerRouter { peer, .. }
            | Self::PeerHealth { peer, .. }
            | Self::PeerEndpoint { peer, .. } => Some(peer),
            _ => None,
        }
    }

    /// Whether this address was derived from a peer's CIDR that `other` is not of.
    fn overlaps(self, other: Holder<'_>) -> bool {
        let derived = self.reserved().is_some_and(|(_, derived)| derived);
        derived && self.peer().is_some_and(|peer| other.peer() != Some(peer))
    }
}

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("this node"),
            Self::Router { .. } => f.write_str("the router"),
            Self::Health { .. } => f.write_str("the health endpoint"),
            Self::Peer(name) => write!(f, "peer `{name}`"),
            Self::Endpoint(name) => write!(f, "endpoint `{name}`"),
            Self::PeerRouter { peer, .. } => write!(f, "the router of peer `{peer}`"),
            Self::PeerHealth { peer, .. } => write!(f, "the health endpoint of peer `{peer}`"),
            Self::PeerEndpoint { peer, endpoint } => {
                write!(f, "endpoint `{endpoint}` of peer `{peer}`")
            }
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
    let cidrs = &draft.node.cidrs;
    let routers = draft.node.routers.iter();
    let routers =
        routers.map(|router| (Holder::Router { derived: derived(router, cidrs) }, router));
    let health = draft.node.health.iter();
    let health =
        health.map(|address| (Holder::Health { derived: derived(address, cidrs) }, address));
    let endpoints = draft.endpoints.iter().flat_map(|endpoint| {
        endpoint.addresses.iter().map(|address| (Holder::Endpoint(&endpoint.name.value), address))
    });
    let peers = draft.peers.iter().flat_map(of_peer);
    let all = underlay(draft).chain(routers).chain(health).chain(endpoints).chain(peers);
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(holder, address)| (holder.reserved().is_none(), address.span.start));
    let mut seen: BTreeMap<IpAddr, (Holder<'_>, Span)> = BTreeMap::new();
    for (holder, address) in all {
        let Some(&(earlier, span)) = seen.get(&address.value) else {
            seen.insert(address.value, (holder, address.span));
            continue;
        };
        // The same thing twice is complained about by name, and CIDRs that overlap as such.
        if earlier != holder && !earlier.overlaps(holder) && !holder.overlaps(earlier) {
            problems.push(twice((earlier, span), (holder, address)));
        }
    }
}

/// Whether an address has the place of the CIDR that it was derived from.
fn derived(address: &At<IpAddr>, cidrs: &[At<IpNet>]) -> bool {
    cidrs.iter().any(|cidr| cidr.span == address.span)
}

/// What a peer has on its endpoints' side.
fn of_peer(peer: &DraftPeer) -> impl Iterator<Item = (Holder<'_>, &At<IpAddr>)> {
    let name = &peer.name.value;
    let routers = peer.routers.iter().map(move |router| {
        (Holder::PeerRouter { peer: name, derived: derived(router, &peer.cidrs) }, router)
    });
    let health = peer.health.iter().map(move |address| {
        (Holder::PeerHealth { peer: name, derived: derived(address, &peer.cidrs) }, address)
    });
    let endpoints = of_endpoints(peer);
    routers.chain(health).chain(
        endpoints.map(move |(endpoint, address)| {
            (Holder::PeerEndpoint { peer: name, endpoint }, address)
        }),
    )
}

fn twice(earlier: (Holder<'_>, Span), later: (Holder<'_>, &At<IpAddr>)) -> Diagnostic {
    let ((earlier, span), (later, address)) = (earlier, later);
    let value = address.value;
    let problem = |message: String| Diagnostic::new(address.span, message);
    if let Some((what, derived)) = earlier.reserved() {
        let (holder, place, key) = match what {
            Reserved::Router => ("router", "first", what.key()),
            Reserved::Health => ("health endpoint", "last", what.key()),
        };
        let why = match derived {
            true => format!(
                "the {holder} has the {place} address of this CIDR, since `{key}` names no other"
            ),
            false => format!("the {holder}'s address"),
        };
        let whose = match earlier.peer() {
            Some(peer) => format!("the address of peer `{peer}`'s {holder}"),
            None => format!("the {holder}'s address"),
        };
        return problem(format!("{value} of {later} is {whose}"))
            .related(span, why)
            .help(format!("choose another address, or another one for the {holder} with `{key}`"));
    }
    match (earlier, later) {
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

/// The address of a peer's endpoint that is not one of the peer's CIDRs to give.
fn misplaced_at(
    peer: &DraftPeer,
    endpoint: &str,
    address: &At<IpAddr>,
    networks: &[Network<'_>],
) -> Option<Diagnostic> {
    let (value, name) = (address.value, &*peer.name.value);
    let what = format!("{value} of endpoint `{endpoint}` of peer `{name}`");
    match holding(networks, value) {
        Some(network) if network.owner == Owner::Peer(name) => {
            let why = unusable(network.cidr, value)?;
            // A CIDR of one address is that address.
            if network.cidr.prefix_len() == network.cidr.max_prefix_len() {
                return None;
            }
            let message = format!("{what} is the {why} address of {}", network.cidr);
            Some(
                Diagnostic::new(address.span, message)
                    .related(network.span, "the peer's CIDR")
                    .help("give the address that the endpoint has"),
            )
        }
        // What is missing may be among the CIDRs that were refused.
        None if !peer.cidrs_complete => None,
        _ => {
            let problem = Diagnostic::new(address.span, format!("{what} is outside its CIDRs"));
            let problem = match peer.cidrs.first() {
                Some(cidr) => problem.related(cidr.span, "the peer's CIDRs"),
                None => problem,
            };
            Some(problem.help("correct the address, or add its network to the peer's `cidrs`"))
        }
    }
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
