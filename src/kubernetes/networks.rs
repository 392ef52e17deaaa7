//! Whose addresses are whose: nodes' addresses and CIDRs, which nothing else may have.
//!
//! ciliate refuses a configuration as a whole in which two things have one address. Whoever may write a
//! service or a node's status could stop every node from following the cluster that way, so what would
//! be refused is left out here, by itself and with a reason. Pure; imports nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// Shortest prefixes of a node's CIDR: wider ones hold networks that nothing can be in.
const PREFIX_BITS_MIN: [u8; 2] = [8, 16];

/// What nodes have.
#[derive(Debug, Default)]
pub struct Networks {
    addresses: BTreeMap<IpAddr, String>,
    /// By first address; no two overlap.
    cidrs: BTreeMap<IpAddr, (IpNet, String)>,
}

/// Why an address can't be used by anything.
pub fn unusable(address: IpAddr) -> Option<String> {
    let bad = match address {
        // "This network", loopback, multicast and what is reserved above it.
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] == 127 || v4.octets()[0] >= 224,
        IpAddr::V6(v6) => {
            let link_local = v6.is_unicast_link_local() || v6.is_multicast();
            link_local || v6.is_loopback() || v6.is_unspecified() || v6.to_ipv4_mapped().is_some()
        }
    };
    bad.then(|| format!("{address} can't be reached by others"))
}

impl Networks {
    /// Gives a node an address.
    ///
    /// # Errors
    /// Why it can't have it.
    pub fn add_address(&mut self, address: IpAddr, node: &str) -> Result<(), String> {
        if let Some(why) = unusable(address).or_else(|| self.holder(address)) {
            return Err(why);
        }
        self.addresses.insert(address, node.to_owned());
        Ok(())
    }

    /// Gives a node a CIDR.
    ///
    /// # Errors
    /// Why it can't have it.
    pub fn add_cidr(&mut self, cidr: IpNet, node: &str) -> Result<(), String> {
        let (first, last) = (cidr.network(), cidr.broadcast());
        let wide = cidr.prefix_len() < PREFIX_BITS_MIN[usize::from(first.is_ipv6())];
        let link_local = matches!(first, IpAddr::V4(v4) if v4.is_link_local())
            || cidr.contains(&IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)));
        if wide || link_local || cidr.addr() != first || unusable(first).is_some() {
            return Err(format!("{cidr} is no network of endpoints"));
        }
        let inside = self.cidrs.range(first..=last).next().map(|(_, entry)| entry);
        if let Some((other, owner)) = self.network_of(first).or(inside) {
            return Err(format!("{cidr} overlaps {other} of node {owner}"));
        }
        if let Some((address, owner)) = self.addresses.range(first..=last).next() {
            return Err(format!("{cidr} has the address {address} of node {owner}"));
        }
        self.cidrs.insert(first, (cidr, node.to_owned()));
        Ok(())
    }

    fn network_of(&self, address: IpAddr) -> Option<&(IpNet, String)> {
        let (_, entry) = self.cidrs.range(..=address).next_back()?;
        entry.0.contains(&address).then_some(entry)
    }

    /// What of a node an address is.
    pub fn holder(&self, address: IpAddr) -> Option<String> {
        if let Some(node) = self.addresses.get(&address) {
            return Some(format!("{address} is the address of node {node}"));
        }
        let (cidr, node) = self.network_of(address)?;
        Some(format!("{address} is in {cidr} of node {node}"))
    }
}
