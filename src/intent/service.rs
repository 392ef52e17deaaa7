//! `[load-balancing]` and `[[service]]`: what they mean. `load_balancing` and `read` are how text becomes it.
//!
//! Pure.

mod health_check;
pub(super) mod load_balancing;
pub(super) mod read;
mod socket_address;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;

use super::limits;
use crate::config::Span;

pub use health_check::{HealthCheck, Question};

/// `[load-balancing]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancing {
    pub algorithm: Algorithm,
    /// Translate at connect(2) for this host's cgroup tree.
    pub socket: bool,
    /// False: only cluster IPs, and only for endpoints; the rest is left to a kube-proxy.
    pub replace_kube_proxy: bool,
    pub node_ports: RangeInclusive<u16>,
    /// Entries of a Maglev table: one of [`MAGLEV_TABLE_SIZES`].
    pub maglev_table_size: u32,
    pub no_backend: NoBackend,
    /// Backends on other nodes see clients outside, and answer them themselves.
    pub direct_return: bool,
    pub acceleration: Acceleration,
}

/// Sizes a Maglev table may have: primes, as in Cilium (`bpf-lb-maglev-table-size`).
pub const MAGLEV_TABLE_SIZES: [u32; 10] =
    [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071];

impl Default for LoadBalancing {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Random,
            socket: true,
            replace_kube_proxy: true,
            node_ports: limits::NODE_PORT_MIN..=limits::NODE_PORT_MAX,
            maglev_table_size: limits::MAGLEV_TABLE_SIZE_DEFAULT,
            no_backend: NoBackend::Reject,
            direct_return: false,
            acceleration: Acceleration::Disabled,
        }
    }
}

impl super::Intent {
    /// Whether services are translated in the sockets of this host's processes. With a kube-proxy beside it they are
    /// left to that.
    pub fn balances_sockets(&self) -> bool {
        let balancing = &self.load_balancing;
        balancing.socket && balancing.replace_kube_proxy && !self.services.is_empty()
    }

    /// Whether any service is for clients outside, or a backend here may be that of one on another node.
    pub fn serves_outside(&self) -> bool {
        let is_wide = |service: &Service| {
            let mut kinds = service.frontends.iter().map(|frontend| frontend.kind);
            service.node_port.is_some() || kinds.any(|kind| kind != FrontendKind::ClusterIp)
        };
        self.load_balancing.replace_kube_proxy
            && (self.load_balancing.direct_return || self.services.values().any(is_wide))
    }

    /// Whether programs are attached to drivers.
    pub fn accelerates(&self) -> bool {
        self.load_balancing.acceleration != Acceleration::Disabled && self.serves_outside()
    }
}

/// Whether drivers send packets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceleration {
    Disabled,
    Native,
    /// Or the kernel in their place.
    BestEffort,
}

/// How a backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Random,
    Maglev,
}

/// What a client of a service without backends is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoBackend {
    /// An ICMP error: port unreachable.
    Reject,
    /// Nothing.
    Drop,
}

/// What is balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// As written in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// One `[[service]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: Arc<str>,
    pub protocol: Protocol,
    /// In their order. Each address and port of one protocol belongs to one service.
    pub frontends: Vec<Frontend>,
    /// On every underlay address of the node of the service's families.
    pub node_port: Option<u16>,
    /// Seconds that a client is kept at its backend.
    pub session_affinity_s: Option<u32>,
    /// Traffic from outside goes only to backends on this node.
    pub external_local: bool,
    /// Traffic from endpoints and this host goes only to backends on this node.
    pub internal_local: bool,
    /// Who may use external, load-balancer and node-port frontends. Empty: everybody.
    pub source_ranges: Vec<IpNet>,
    /// By address; both families may be among them, a frontend uses those of its own.
    pub backends: Vec<Backend>,
    /// How active backends are asked whether they are alive.
    pub health_check: Option<Arc<HealthCheck>>,
    pub span: Span,
}

impl Service {
    /// Whether the service is of a family: something of it is, or nothing says which it is of. Decides where
    /// its node port is.
    pub fn is_of_family(&self, ipv6: bool) -> bool {
        let addresses = self.frontends.iter().map(|frontend| frontend.address);
        is_of_family(addresses.chain(self.backends.iter().map(|backend| backend.address)), ipv6)
    }
}

/// See [`Service::is_of_family`]: whether addresses of a service's frontends and backends make it one of a family.
pub(super) fn is_of_family(addresses: impl Iterator<Item = SocketAddr>, ipv6: bool) -> bool {
    let mut addresses = addresses.peekable();
    addresses.peek().is_none() || addresses.any(|address| address.is_ipv6() == ipv6)
}

/// An address and port that clients use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    pub address: SocketAddr,
    pub kind: FrontendKind,
}

/// Whom a frontend is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrontendKind {
    /// Endpoints and this host.
    ClusterIp,
    /// Everybody, by an address that the network brings here.
    ExternalIp,
    LoadBalancerIp,
    /// Everybody, at this host's own address alone; the unspecified address is every underlay address.
    HostPort,
}

impl FrontendKind {
    /// The key of the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::ClusterIp => "cluster-ips",
            Self::ExternalIp => "external-ips",
            Self::LoadBalancerIp => "load-balancer-ips",
            Self::HostPort => "host-ports",
        }
    }
}

/// Where a frontend's traffic goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    pub address: SocketAddr,
    /// Share of the traffic, with Maglev; 1 to [`limits::WEIGHT_MAX`].
    pub weight: u16,
    pub state: BackendState,
}

/// What the operator says of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    Active,
    /// Finishes old flows; new ones only where no other backend is active.
    Terminating,
    Quarantined,
    Maintenance,
}
