//! Nodes → `[node]` and `[[peer]]`, and whose addresses are whose: nodes' addresses and CIDRs nothing else may have.
//!
//! ciliate refuses a configuration as a whole in which two things have one address. Whoever may write a
//! service or a node's status could stop every node from following the cluster that way, so what would
//! be refused is left out, by itself and with a reason. Pure; imports `objects`, `page`, `settings`, `stores`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use base64::prelude::{BASE64_STANDARD, Engine};
use ipnet::IpNet;

use crate::objects::Node;
use crate::page::{Files, allowed, file, text};
use crate::settings::Settings;
use crate::stores::Store;

/// The files of all nodes, and what the nodes have.
pub fn files(nodes: &Store<Node>, settings: &Settings, files: &mut Files) -> Networks {
    let (mut networks, mut keys, mut family) = (Networks::default(), BTreeSet::new(), None);
    // Of two that have the same, this node keeps it, and among the others the one that was there first.
    let mut nodes = nodes.by_age();
    nodes.sort_by_key(|(name, _)| **name != settings.node);
    for (name, node) in nodes {
        let (mut node, mut left_out) = (Node::clone(node), Vec::new());
        node.addresses.retain(|ip| allowed(networks.give((*ip).into(), name), &mut left_out));
        let mut give = |cidr| unfit(cidr).or_else(|| networks.give(cidr, name));
        node.cidrs.retain(|cidr| allowed(give(*cidr), &mut left_out));
        let is_own = *name == settings.node;
        let key = node.public_key.take().filter(|_| settings.public_key.is_some());
        node.public_key = key.filter(|key| {
            let why = match is_key(key) {
                true if keys.insert(key.clone()) => return !is_own,
                true => "its public key, which another node has too",
                false => "its public key, which is none",
            };
            allowed(Some(why.to_owned()), &mut left_out)
        });
        // Tunnels lead to IPv4 addresses, if this node has one.
        family = if is_own { node.addresses.first().map(IpAddr::is_ipv4) } else { family };
        let reached = family.is_none_or(|v4| node.addresses.iter().any(|ip| ip.is_ipv4() == v4));
        let why = |ip: &IpAddr| (!reached).then(|| format!("{ip}: no tunnel leads to its family"));
        node.addresses.retain(|ip| allowed(why(ip), &mut left_out));
        // One that is not complete yet. A peer without addresses or CIDRs is no peer.
        let is_peer = !node.addresses.is_empty() && !node.cidrs.is_empty();
        let source = format!("Node {name}");
        if is_own {
            files.insert(file("node", name), Some(text(&source, &left_out, Some(("node", node)))));
        } else if is_peer || !left_out.is_empty() {
            let peer = is_peer.then_some(("peer", [node]));
            files.insert(file("peer", name), Some(text(&source, &left_out, peer)));
        }
    }
    networks
}

/// Base64 of 32 bytes.
pub fn is_key(text: &str) -> bool {
    BASE64_STANDARD.decode(text).is_ok_and(|key| key.len() == 32)
}

/// Shortest prefixes of a node's CIDR: wider ones hold networks that nothing can be in.
const PREFIX_BITS_MIN: [u8; 2] = [8, 16];

/// What nodes have, by first address; an address is a network of one. No two overlap.
#[derive(Debug, Default)]
pub struct Networks(BTreeMap<IpAddr, (IpNet, String)>);

/// Why an address can't be used by anything.
pub fn unusable(address: IpAddr) -> Option<String> {
    let bad = match address {
        // "This network", loopback, multicast and what is reserved above it.
        IpAddr::V4(v4) => matches!(v4.octets()[0], 0 | 127 | 224..),
        // Link-local and multicast, mapped IPv4, the unspecified address and loopback.
        IpAddr::V6(v6) => matches!(
            v6.segments(),
            [0xfe80..=0xfebf | 0xff00.., ..] | [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0, 0, 0, 0 | 1]
        ),
    };
    bad.then(|| format!("{address} can't be reached by others"))
}

/// Why endpoints can't have their addresses of it.
fn unfit(cidr: IpNet) -> Option<String> {
    let first = cidr.network();
    let wide = cidr.prefix_len() < PREFIX_BITS_MIN[usize::from(first.is_ipv6())];
    let link_local = matches!(first, IpAddr::V4(v4) if v4.is_link_local())
        || cidr.contains(&IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)));
    let bad = wide || link_local || cidr.addr() != first || unusable(first).is_some();
    bad.then(|| format!("{cidr} is no network of endpoints"))
}

impl Networks {
    /// Gives a node a CIDR, or an address; or says why it can't have it.
    pub fn give(&mut self, net: IpNet, node: &str) -> Option<String> {
        let why = unusable(net.addr()).or_else(|| self.holder(net));
        if why.is_none() {
            self.0.insert(net.network(), (net, node.to_owned()));
        }
        why
    }

    /// What of a node it is.
    pub fn holder(&self, net: IpNet) -> Option<String> {
        let around = self.0.range(..=net.network()).next_back();
        let around = around.filter(|(_, (other, _))| other.contains(&net.network()));
        let inside = || self.0.range(net.network()..=net.broadcast()).next();
        let (_, (other, node)) = around.or_else(inside)?;
        Some(format!("{net} overlaps {other} of node {node}"))
    }
}
