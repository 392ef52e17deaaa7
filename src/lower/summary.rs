//! What a node is, in the few words that `status` shows. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Node;
use crate::bpf_abi::CILIUM_LXC;
use crate::bpf_abi::EndpointKey;
use crate::intent::{Intent, Masquerade};
use crate::kinds::Desired;
use crate::kinds::bpf_link::Mode;
use crate::kinds::bpf_map::MapName;
use crate::kinds::link::Protocol;

/// How full a CIDR is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ipam {
    pub cidr: IpNet,
    pub allocated: u64,
    /// At most what 64 bits hold.
    pub available: u64,
}

impl Ipam {
    fn of(cidr: IpNet) -> Self {
        let available = u64::try_from(size(cidr)).unwrap_or(u64::MAX);
        Self { cidr, allocated: 0, available }
    }
}

/// The node in a few words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub node: String,
    pub addresses: Vec<IpAddr>,
    pub devices: Vec<String>,
    pub peers: usize,
    pub endpoints: usize,
    #[serde(default)]
    pub services: usize,
    #[serde(default)]
    pub frontends: usize,
    #[serde(default)]
    pub backends: usize,
    pub ipam: Vec<Ipam>,
    pub attach: Mode,
    pub masquerade: bool,
    pub mtu_bytes: u32,
    /// Of routes that may lead into the tunnel.
    #[serde(default)]
    pub route_mtu_bytes: u32,
    /// What encapsulates; `None` with native routing.
    #[serde(default)]
    pub tunnel: Option<Protocol>,
    /// Settings that `destroy` leaves as they are: what they were is not known any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
}

/// What is said of [`Summary::lost`].
pub fn lost_text(setting: &str) -> String {
    format!(
        "{setting}: what it was before ciliate is not known any more, since its record in ciliate_before was \
         removed; `ciliate destroy` leaves it as it is"
    )
}

impl Summary {
    /// From the intent alone, or with the machine's part.
    pub fn of(intent: &Intent, machine: Option<(&str, &Node, &Desired)>) -> Self {
        let mut summary = Self {
            node: intent.node.name.as_deref().unwrap_or_default().to_string(),
            addresses: Vec::new(),
            devices: Vec::new(),
            peers: intent.peers.len(),
            endpoints: intent.endpoints.len(),
            services: intent.services.len(),
            frontends: 0,
            backends: 0,
            ipam: intent.node.cidrs.iter().map(|cidr| Ipam::of(*cidr)).collect(),
            attach: Mode::Tcx,
            masquerade: intent.masquerade == Masquerade::Nftables,
            mtu_bytes: 0,
            route_mtu_bytes: 0,
            tunnel: None,
            lost: Vec::new(),
        };
        let Some((hostname, node, desired)) = machine else { return summary };
        if summary.node.is_empty() {
            summary.node = hostname.to_string();
        }
        summary.addresses.clone_from(&node.addresses);
        summary.devices = node.devices.iter().map(|(ifname, _)| ifname.to_string()).collect();
        summary.attach = node.attach;
        summary.mtu_bytes = node.mtu_bytes;
        summary.route_mtu_bytes = node.route_mtu_bytes;
        (summary.frontends, summary.backends) =
            (desired.lb_services.len(), desired.lb_backends.len());
        summary.tunnel = node.tunnel.map(|tunnel| tunnel.protocol);
        let map = MapName::of_abi(CILIUM_LXC);
        for key in desired.bpf_map_entries.keys().filter(|key| key.map == map) {
            let Ok(bytes) = key.key.as_slice().try_into() else { continue };
            let Some(address) = EndpointKey::from_bytes(bytes).address() else { continue };
            for ipam in &mut summary.ipam {
                ipam.allocated += u64::from(ipam.cidr.contains(&address));
            }
        }
        summary
    }
}

/// How many addresses of a CIDR can be used: all but the first and, for IPv4, the last.
fn size(cidr: IpNet) -> u128 {
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
    let all = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
    all.saturating_sub(if cidr.addr().is_ipv4() { 2 } else { 1 })
}
