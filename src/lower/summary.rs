//! What a node is, in the few words that `status` shows. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{CILIUM_WG0, Node};
use crate::bpf_abi::{
    CILIUM_LXC, EndpointKey, NODE_FLAG_DSR, NODE_FLAG_GENEVE, NODE_FLAG_HOST_ROUTING,
    NODE_FLAG_NODE_PORT, NodeValue,
};
use crate::intent::{Intent, Masquerade};
use crate::kinds::bpf_link::Mode;
use crate::kinds::bpf_map::MapName;
use crate::kinds::bpf_map_entry;
use crate::kinds::link::Protocol;
use crate::kinds::{Desired, Observed, Wanted, xdp_link};
use crate::net::PublicKey;

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

/// By what packets get from one device to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostRouting {
    #[default]
    Legacy,
    Bpf,
}

impl HostRouting {
    fn of(past_host: bool) -> Self {
        if past_host { Self::Bpf } else { Self::Legacy }
    }
}

/// How packets of clients outside get to backends elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balancing {
    Snat,
    Dsr,
}

impl Balancing {
    fn of(outside: bool, direct_return: bool) -> Option<Self> {
        outside.then_some(if direct_return { Self::Dsr } else { Self::Snat })
    }
}

/// The node in a few words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Whether the machine was looked at; else what depends on it is not known.
    #[serde(default)]
    pub looked: bool,
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
    /// `None` where there are no services for clients outside.
    #[serde(default)]
    pub load_balancing: Option<Balancing>,
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
    /// UDP port of the tunnel.
    #[serde(default)]
    pub tunnel_port: Option<u16>,
    /// Family of the addresses that tunnels lead to.
    #[serde(default)]
    pub underlay: Option<String>,
    #[serde(default)]
    pub host_routing: HostRouting,
    /// What encrypts; `None`: nothing.
    #[serde(default)]
    pub encryption: Option<Encryption>,
    /// Underlay devices whose drivers are to send packets on; none where that is not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acceleration: Vec<Accelerated>,
    /// Settings that `destroy` leaves as they are: what they were is not known any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
}

/// What encrypts, in a few words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Encryption {
    pub device: String,
    /// `None`: it is about to be made.
    pub public_key: Option<PublicKey>,
    pub port: u16,
    pub peers: usize,
    pub nodes: bool,
    pub strict: bool,
}

impl Encryption {
    fn of(intent: &Intent, node: &Node, desired: &Desired) -> Option<Self> {
        let (asked, state) = (intent.encryption.as_ref()?, node.encryption?);
        Some(Self {
            device: CILIUM_WG0.into(),
            public_key: state.public_key,
            port: asked.port,
            peers: desired.wireguard_peers.len(),
            nodes: asked.nodes,
            strict: asked.strict,
        })
    }
}

/// A device whose driver is to send packets on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accelerated {
    pub device: String,
    pub ifindex: u32,
    /// Who does; `None`: nobody, as yet or because it can't be had.
    pub mode: Option<xdp_link::Mode>,
}

impl Accelerated {
    fn all(desired: &Desired) -> Vec<Self> {
        let wanted = desired.xdp_links.iter();
        let device = |(key, wanted): (&xdp_link::Key, &Wanted<xdp_link::Spec>)| Self {
            device: wanted.spec.ifname.to_string(),
            ifindex: key.ifindex,
            mode: None,
        };
        wanted.map(device).collect()
    }

    fn in_force(&mut self, observed: &Observed) {
        let seen = observed.xdp_links.get(&xdp_link::Key { ifindex: self.ifindex });
        self.mode = seen.filter(|seen| seen.foreign.is_none()).and_then(|seen| seen.mode);
    }
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
            looked: machine.is_some(),
            node: intent.node.name.as_deref().unwrap_or_default().to_string(),
            addresses: Vec::new(),
            devices: Vec::new(),
            peers: intent.peers.len(),
            endpoints: intent.endpoints.len(),
            services: intent.services.len(),
            frontends: 0,
            backends: 0,
            load_balancing: Balancing::of(
                intent.serves_outside(),
                intent.load_balancing.direct_return,
            ),
            ipam: intent.node.cidrs.iter().map(|cidr| Ipam::of(*cidr)).collect(),
            attach: Mode::Tcx,
            masquerade: intent.masquerade == Masquerade::Nftables,
            mtu_bytes: 0,
            route_mtu_bytes: 0,
            tunnel: None,
            tunnel_port: None,
            underlay: None,
            host_routing: HostRouting::of(intent.routing.past_host),
            encryption: None,
            acceleration: Vec::new(),
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
        summary.tunnel_port = node.tunnel.map(|tunnel| tunnel.port);
        summary.underlay = node.tunnel.map(|tunnel| tunnel.underlay.name().to_string());
        summary.encryption = Encryption::of(intent, node, desired);
        summary.acceleration = Accelerated::all(desired);
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

    /// With what the node does now in place of what is asked of it, where that is another thing.
    pub fn in_force(mut self, observed: &Observed) -> Self {
        self.acceleration.iter_mut().for_each(|device| device.in_force(observed));
        let seen = observed.bpf_map_entries.get(&bpf_map_entry::node());
        let value = seen.and_then(|seen| seen.value.as_slice().try_into().ok());
        // A node that is not in force, or has no tunnel yet, does nothing else.
        let Some(value) = value.map(NodeValue::from_bytes) else { return self };
        let has = |flag: u32| value.flags & flag != 0;
        let now = Self {
            host_routing: HostRouting::of(has(NODE_FLAG_HOST_ROUTING)),
            load_balancing: Balancing::of(has(NODE_FLAG_NODE_PORT), has(NODE_FLAG_DSR)),
            ..self
        };
        if value.tunnel_mtu == 0 {
            let route_mtu_bytes = now.mtu_bytes;
            return Self {
                tunnel: None,
                tunnel_port: None,
                underlay: None,
                route_mtu_bytes,
                ..now
            };
        }
        if value.tunnel_ifindex == 0 {
            return now;
        }
        Self {
            tunnel: Some(if has(NODE_FLAG_GENEVE) { Protocol::Geneve } else { Protocol::Vxlan }),
            tunnel_port: Some(u16::from_be_bytes(value.tunnel_port_be)),
            route_mtu_bytes: value.tunnel_mtu.into(),
            ..now
        }
    }
}

/// How many addresses of a CIDR can be used: all but the first and, for IPv4, the last.
fn size(cidr: IpNet) -> u128 {
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
    let all = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
    all.saturating_sub(if cidr.addr().is_ipv4() { 2 } else { 1 })
}
