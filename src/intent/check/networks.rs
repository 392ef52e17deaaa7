//! CIDRs that must not overlap.
//!
//! One sweep over all of them in the order of their first addresses, so that a hundred thousand take
//! as long as sorting them. Pure.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Diagnostic, Span};
use crate::intent::draft::{At, Draft, Problems};

/// Whose CIDR it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    Node,
    Peer(&'a str),
    NativeCidrs,
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("this node"),
            Self::Peer(name) => write!(f, "peer `{name}`"),
            Self::NativeCidrs => f.write_str("`native-cidrs`"),
        }
    }
}

/// A CIDR with its owner and place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network<'a> {
    pub cidr: IpNet,
    pub span: Span,
    pub owner: Owner<'a>,
}

pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    overlaps(&endpoint_networks(draft), problems);
    let native = draft.routing.native_cidrs.iter();
    let native: Vec<_> = native.map(|cidr| network(cidr, Owner::NativeCidrs)).collect();
    overlaps(&sorted(native), problems);
}

fn network<'a>(cidr: &At<IpNet>, owner: Owner<'a>) -> Network<'a> {
    Network { cidr: cidr.value, span: cidr.span, owner }
}

/// The networks that endpoints of all nodes are numbered from, by first address.
pub(super) fn endpoint_networks(draft: &Draft) -> Vec<Network<'_>> {
    let node = draft.node.cidrs.iter().map(|cidr| network(cidr, Owner::Node));
    let peers = draft.peers.iter().flat_map(|peer| {
        peer.cidrs.iter().map(|cidr| network(cidr, Owner::Peer(&peer.name.value)))
    });
    sorted(node.chain(peers).collect())
}

fn sorted(mut networks: Vec<Network<'_>>) -> Vec<Network<'_>> {
    networks.sort_by_key(|network| {
        (network.cidr.network(), Reverse(network.cidr.broadcast()), network.span.start)
    });
    networks
}

/// The network that holds an address. If networks overlap, it may be missed: they are complained about.
pub(super) fn holding<'a, 'b>(
    networks: &'b [Network<'a>],
    address: IpAddr,
) -> Option<&'b Network<'a>> {
    let after = networks.partition_point(|network| network.cidr.network() <= address);
    networks[..after].last().filter(|network| network.cidr.contains(&address))
}

/// CIDRs either contain each other or have nothing in common, so in this order those that contain one are the last
/// before it. It is told of the widest and of the narrowest of them: when one is mended, the other is still wrong.
fn overlaps(networks: &[Network<'_>], problems: &mut Problems) {
    let mut around: Vec<&Network<'_>> = Vec::new();
    for network in networks {
        while around.last().is_some_and(|last| !last.cidr.contains(&network.cidr)) {
            around.pop();
        }
        if let (Some(widest), Some(narrowest)) = (around.first(), around.last()) {
            problems.push(overlap(widest, network));
            if narrowest.cidr != widest.cidr {
                problems.push(overlap(narrowest, network));
            }
        }
        around.push(network);
    }
}

fn overlap(one: &Network<'_>, other: &Network<'_>) -> Diagnostic {
    let (earlier, later) = if one.span <= other.span { (one, other) } else { (other, one) };
    let same_owner = earlier.owner == later.owner;
    let message = match (earlier.cidr == later.cidr, same_owner) {
        (true, true) => format!("{} is listed twice", later.cidr),
        (true, false) => {
            format!("{} belongs to both {} and {}", later.cidr, earlier.owner, later.owner)
        }
        (false, true) => {
            format!("{} overlaps {}, both of {}", later.cidr, earlier.cidr, later.owner)
        }
        (false, false) => {
            format!(
                "{} of {} overlaps {} of {}",
                later.cidr, later.owner, earlier.cidr, earlier.owner
            )
        }
    };
    let problem = Diagnostic::new(later.span, message).related(earlier.span, "the other one");
    problem.help(match (same_owner, one.owner) {
        (true, _) if one.cidr == other.cidr => "remove one of the two".to_owned(),
        (true, _) => format!("remove {}: {} includes it", other.cidr, one.cidr),
        (false, _) => "every node has CIDRs of its own: change one of the two".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(cidrs: &[&str]) -> Vec<Network<'static>> {
        let network = |(at, cidr): (usize, &&str)| Network {
            cidr: cidr.parse().unwrap(),
            span: Span { start: at, end: at + 1 },
            owner: Owner::Peer("p"),
        };
        sorted(cidrs.iter().enumerate().map(network).collect())
    }

    /// Pairs of places, the later first.
    fn overlapping(cidrs: &[&str]) -> Vec<(usize, usize)> {
        let mut problems = Vec::new();
        overlaps(&networks(cidrs), &mut problems);
        problems.iter().map(|problem| (problem.span.start, problem.related[0].0.start)).collect()
    }

    #[test]
    fn overlaps_are_found_and_neighbours_are_none() {
        assert_eq!(overlapping(&["10.0.0.0/9", "10.128.0.0/9", "::/1", "8000::/1"]), []);
        assert_eq!(overlapping(&["10.1.0.0/16", "10.0.0.0/8"]), [(1, 0)]);
        // What lies between the wide one and a later narrow one doesn't hide it.
        let between = ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "10.2.3.0/24"];
        assert_eq!(overlapping(&between), [(1, 0), (2, 0), (3, 0), (3, 2)]);
        assert_eq!(overlapping(&["0.0.0.0/0", "::/0"]), []);
        assert_eq!(overlapping(&["10.0.0.0/8", "10.0.0.0/8", "10.0.0.0/8"]), [(1, 0), (2, 0)]);
    }

    #[test]
    fn an_address_finds_its_network() {
        let networks = networks(&["10.1.0.0/16", "10.0.0.0/16", "fd00::/64"]);
        let found = |address: &str| {
            holding(&networks, address.parse().unwrap()).map(|network| network.span.start)
        };
        assert_eq!(found("10.0.255.255"), Some(1));
        assert_eq!(found("10.1.0.0"), Some(0));
        assert_eq!(found("fd00::1"), Some(2));
        assert_eq!(
            (found("10.2.0.0"), found("9.9.9.9"), found("fd00:0:0:1::")),
            (None, None, None)
        );
    }
}
