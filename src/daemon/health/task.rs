//! What health has to do: where to listen, whom to probe, how often. Pure; imports `intent` and `lower`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::responder::Place;
use super::table::Side;
use crate::intent::Intent;
use crate::lower::Summary;
use crate::net::Netns;

/// A node to probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub name: Arc<str>,
    /// This one.
    pub local: bool,
    pub node: Vec<IpAddr>,
    pub endpoint: Vec<IpAddr>,
}

impl Target {
    /// All its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = (Side, IpAddr)> + '_ {
        let node = self.node.iter().map(|address| (Side::Node, *address));
        node.chain(self.endpoint.iter().map(|address| (Side::Endpoint, *address)))
    }
}

/// Whom to probe, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nodes {
    pub nodes: Vec<Target>,
    pub interval: Duration,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Task {
    pub listen: Vec<Place>,
    pub nodes: Nodes,
}

impl Task {
    /// What a configuration asks for on the machine it was settled for; `None`: nothing.
    pub fn of(intent: &Intent, summary: &Summary) -> Option<Self> {
        if !intent.health.enabled {
            return None;
        }
        let health = &intent.node.health_addresses;
        let netns = intent.paths.health_netns();
        let listen = summary.addresses.iter().map(|address| (Netns::HOST, *address));
        let listen = listen.chain(health.iter().map(|address| (netns.clone(), *address)));
        let own = Target {
            name: summary.node.as_str().into(),
            local: true,
            node: summary.addresses.clone(),
            endpoint: health.clone(),
        };
        // Addresses of a family that this node hasn't are out of its reach, and that is no news.
        let reached = |address: &&IpAddr| {
            summary.addresses.iter().any(|own| own.is_ipv6() == address.is_ipv6())
        };
        let inside = |address: &&IpAddr| {
            intent.node.cidrs.iter().any(|cidr| cidr.addr().is_ipv6() == address.is_ipv6())
        };
        let peers = intent.peers.values().map(|peer| Target {
            name: peer.name.clone(),
            local: false,
            node: peer.addresses.iter().filter(reached).copied().collect(),
            endpoint: peer.health_addresses.iter().filter(inside).copied().collect(),
        });
        let nodes: Vec<Target> = std::iter::once(own).chain(peers).collect();
        let interval = interval(intent.health.interval, nodes.len());
        let listen = listen.map(|(netns, address)| Place { netns, address }).collect();
        Some(Self { listen, nodes: Nodes { nodes, interval } })
    }
}

/// Time between two probes of an address: longer in a larger cluster, so that what each node has to
/// answer grows with its logarithm (`pkg/backoff` of Cilium).
fn interval(base: Duration, nodes: usize) -> Duration {
    base.mul_f64((nodes as f64).ln_1p())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minutes: the logarithm of one more than there are nodes.
    #[test]
    fn larger_clusters_are_probed_less_often() {
        let seconds = |nodes| interval(Duration::from_secs(60), nodes).as_secs();
        assert_eq!([1, 2, 4, 16, 64, 4096].map(seconds), [41, 65, 96, 169, 250, 499]);
    }
}
