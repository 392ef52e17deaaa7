//! What is known of the nodes' health: the part of `status` that is about it. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Which side of a node an address is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Its own, on the network between the nodes.
    Node,
    /// That of its health endpoint.
    Endpoint,
}

/// What one way of asking found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Finding {
    /// Time from question to answer, of the last probe that was answered.
    pub rtt_us: Option<u64>,
    /// When it was answered last (RFC 3339).
    pub last_success: Option<String>,
    /// Why it wasn't, at the last probe.
    pub error: Option<String>,
}

/// One address of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    pub side: Side,
    pub address: IpAddr,
    /// When it was probed last (RFC 3339); absent before the first probe is done.
    pub probed: Option<String>,
    pub icmp: Finding,
    pub http: Finding,
}

impl Path {
    /// Not probed yet.
    pub fn new(side: Side, address: IpAddr) -> Self {
        let (icmp, http) = (Finding::default(), Finding::default());
        Self { side, address, probed: None, icmp, http }
    }

    /// Whether every way of asking was answered; `None` before the first probe.
    pub fn reachable(&self) -> Option<bool> {
        self.probed.as_ref()?;
        Some(self.icmp.error.is_none() && self.http.error.is_none())
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHealth {
    pub name: Arc<str>,
    /// This one.
    pub local: bool,
    pub paths: Vec<Path>,
}

impl NodeHealth {
    /// Whether all its addresses answer; `None` if that isn't known of all, and no address is known not
    /// to.
    pub fn reachable(&self) -> Option<bool> {
        self.reachable_at(None)
    }

    /// The same for one side.
    pub fn reachable_at(&self, side: Option<Side>) -> Option<bool> {
        let paths = self.paths.iter().filter(|path| side.is_none_or(|side| path.side == side));
        let (mut all, mut unknown) = (true, false);
        for path in paths {
            all &= path.reachable() != Some(false);
            unknown |= path.reachable().is_none();
        }
        if all && unknown { None } else { Some(all) }
    }
}

/// All nodes, this one first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    pub enabled: bool,
    /// When an address was probed last (RFC 3339).
    pub probed: Option<String>,
    /// Seconds between two probes of an address.
    pub interval_s: u64,
    pub nodes: Vec<NodeHealth>,
}

impl Health {
    /// How many nodes are reachable, and of how many that isn't known yet.
    pub fn counts(&self) -> (usize, usize) {
        let count = |wanted| self.nodes.iter().filter(|n| n.reachable() == wanted).count();
        (count(Some(true)), count(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(paths: &[(Side, Option<bool>)]) -> NodeHealth {
        let path = |(side, good): &(Side, Option<bool>)| {
            let mut path = Path::new(*side, [10, 0, 0, 1].into());
            path.probed = good.map(|_| "then".to_owned());
            path.http.error = (*good == Some(false)).then(|| "refused".to_owned());
            path
        };
        NodeHealth { name: "a".into(), local: false, paths: paths.iter().map(path).collect() }
    }

    #[test]
    fn a_node_is_as_reachable_as_its_worst_address() {
        use Side::{Endpoint, Node};
        let good = node(&[(Node, Some(true)), (Endpoint, Some(true))]);
        let half = node(&[(Node, Some(true)), (Endpoint, Some(false))]);
        let early = node(&[(Node, Some(true)), (Endpoint, None)]);
        let bad = node(&[(Node, None), (Endpoint, Some(false))]);
        assert_eq!(good.reachable(), Some(true));
        assert_eq!((half.reachable(), half.reachable_at(Some(Node))), (Some(false), Some(true)));
        assert_eq!((early.reachable(), early.reachable_at(Some(Node))), (None, Some(true)));
        assert_eq!(bad.reachable(), Some(false));
        let health = Health { nodes: vec![good, half, early, bad], ..Health::default() };
        assert_eq!(health.counts(), (1, 1));
    }
}
