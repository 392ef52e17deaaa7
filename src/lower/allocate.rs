//! Numbers that have to be chosen: ifindexes, endpoint ids, addresses. Pure.
//!
//! There is no database. What the kernel holds is the record: a link that is there keeps its ifindex, an
//! entry of `ciliate_device` (found by the endpoint's Ethernet address, which follows from its name)
//! keeps ifindex, id and addresses; where that is lost, our addresses on the endpoint's device count.
//! The rest is the lowest free number, in order of names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::{Node, mac};
use crate::bpf_abi::DeviceValue;
use crate::facts::Facts;
use crate::intent::{Endpoint, Intent};
use crate::kinds::BlockedReason;
use crate::net::{IfName, Mac};

/// Highest endpoint id (`pkg/endpointmanager/allocator.go` of Cilium).
const ENDPOINT_ID_MAX: u16 = 4095;

/// Somebody may give a device a number as high as 2³¹ − 1; such numbers are not counted on from.
const IFINDEX_HIGH: u32 = 1 << 24;

/// What earlier rounds gave to an endpoint.
#[derive(Debug, Clone, Copy)]
struct Record {
    ifindex: u32,
    value: DeviceValue,
}

/// The numbers of one round.
#[derive(Debug, Clone)]
pub struct Allocation {
    records: BTreeMap<Mac, Record>,
    links: BTreeMap<IfName, u32>,
    ifindexes: BTreeSet<u32>,
    ifindex_next: u32,
    ids: BTreeSet<u16>,
    addresses: BTreeSet<IpAddr>,
    cidrs: Vec<IpNet>,
    /// Where the search for a free address goes on, for each CIDR.
    cursors: BTreeMap<IpNet, u128>,
    /// What an endpoint keeps, by name.
    kept: BTreeMap<Arc<str>, Vec<IpAddr>>,
}

impl Allocation {
    /// Reserves what is in use, given, or recorded.
    pub fn new(intent: &Intent, facts: &Facts, node: &Node) -> Self {
        let records: BTreeMap<Mac, Record> = facts
            .devices
            .iter()
            .filter(|(ifindex, _)| **ifindex < IFINDEX_HIGH)
            .map(|(ifindex, value)| (Mac(value.mac), Record { ifindex: *ifindex, value: *value }))
            .collect();
        let links: BTreeMap<IfName, u32> =
            facts.links.iter().map(|(name, link)| (*name, link.ifindex)).collect();
        let mut ifindexes: BTreeSet<u32> = links.values().copied().collect();
        ifindexes.extend(records.values().map(|record| record.ifindex));
        let reserved = intent.node.routers.iter().chain(&intent.node.health_addresses);
        let reserved = reserved.chain(&node.addresses);
        let mut allocation = Self {
            ifindex_next: ifindexes.range(..IFINDEX_HIGH).last().map_or(1, |last| last + 1),
            ids: records.values().map(|record| record.value.endpoint_id).collect(),
            addresses: reserved.copied().collect(),
            cidrs: intent.node.cidrs.clone(),
            records,
            links,
            ifindexes,
            cursors: BTreeMap::new(),
            kept: BTreeMap::new(),
        };
        for endpoint in intent.endpoints.values() {
            allocation.addresses.extend(endpoint.addresses.iter().copied());
        }
        for endpoint in intent.endpoints.values().filter(|e| e.addresses.is_empty()) {
            allocation.keep(endpoint, facts);
        }
        allocation
    }

    /// Finds out which addresses an endpoint has, as far as it may keep them.
    fn keep(&mut self, endpoint: &Endpoint, facts: &Facts) {
        let held = match facts.namespaces.get(&endpoint.name) {
            Some(Ok(held)) => held.as_slice(),
            _ => &[],
        };
        let recorded = self
            .records
            .get(&mac::of_endpoint(&endpoint.name))
            .map(|record| [IpAddr::from(record.value.ipv4_be), IpAddr::from(record.value.ipv6_be)]);
        // The record on the host comes first: what is in the namespace is in the hands of whoever
        // lives there, and an endpoint doesn't get to choose its address.
        let candidates: Vec<IpAddr> = match recorded {
            Some(recorded) => recorded.to_vec(),
            None => held.to_vec(),
        };
        let mut kept: Vec<IpAddr> = Vec::new();
        for address in candidates {
            let usable = !address.is_unspecified()
                && self.cidrs.iter().any(|cidr| cidr.contains(&address))
                && !kept.iter().any(|have| have.is_ipv4() == address.is_ipv4());
            if usable && self.addresses.insert(address) {
                kept.push(address);
            }
        }
        self.kept.insert(endpoint.name.clone(), kept);
    }

    /// The ifindex of a link of ours: the one it has, the one recorded of an endpoint with this Ethernet
    /// address, or a free one.
    pub fn ifindex(&mut self, ifname: IfName, endpoint: Option<Mac>) -> u32 {
        if let Some(ifindex) = self.links.get(&ifname) {
            return *ifindex;
        }
        if let Some(record) = endpoint.and_then(|mac| self.records.get(&mac))
            && !self.links.values().any(|taken| *taken == record.ifindex)
        {
            return record.ifindex;
        }
        while !self.ifindexes.insert(self.ifindex_next) {
            self.ifindex_next += 1;
        }
        self.ifindex_next
    }

    /// The id of the endpoint with an Ethernet address: the one recorded, or a free one.
    pub fn endpoint_id(&mut self, mac: Mac) -> Option<u16> {
        if let Some(record) = self.records.get(&mac) {
            return Some(record.value.endpoint_id);
        }
        let free = (1..=ENDPOINT_ID_MAX).find(|id| !self.ids.contains(id))?;
        self.ids.insert(free);
        Some(free)
    }

    /// What is recorded of the endpoint with an Ethernet address: its ifindex and its entry.
    pub fn record(&self, mac: Mac) -> Option<(u32, DeviceValue)> {
        self.records.get(&mac).map(|record| (record.ifindex, record.value))
    }

    /// The addresses of an endpoint: those given, or those kept and, for families without one, the next
    /// that is free.
    ///
    /// # Errors
    /// A CIDR has no free address.
    pub fn addresses(&mut self, endpoint: &Endpoint) -> Result<Vec<IpAddr>, BlockedReason> {
        if !endpoint.addresses.is_empty() {
            return Ok(endpoint.addresses.clone());
        }
        let mut addresses = self.kept.get(&endpoint.name).cloned().unwrap_or_default();
        for cidr in self.cidrs.clone() {
            if addresses.iter().any(|have| have.is_ipv4() == cidr.addr().is_ipv4()) {
                continue;
            }
            let free = self.free_address(cidr);
            let free = free.ok_or(BlockedReason::NoFreeAddress { cidr: cidr.to_string() })?;
            addresses.push(free);
        }
        Ok(addresses)
    }

    /// The next free address of a CIDR. Its first and, for IPv4, its last address are not used.
    fn free_address(&mut self, cidr: IpNet) -> Option<IpAddr> {
        let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
        let size = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
        let end = if cidr.addr().is_ipv4() { size.saturating_sub(1) } else { size };
        let mut offset = self.cursors.get(&cidr).copied().unwrap_or(1);
        while offset < end {
            let address = match cidr.network() {
                IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) + offset as u32).into(),
                IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) + offset).into(),
            };
            offset += 1;
            if self.addresses.insert(address) {
                self.cursors.insert(cidr, offset);
                return Some(address);
            }
        }
        self.cursors.insert(cidr, offset);
        None
    }
}
