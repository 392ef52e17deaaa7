//! Document → [`Intent`]: what the operator asked for, as types.
//!
//! Pure: may import `config` and `net`, nothing that touches the kernel. After this stage nothing is
//! a string that still has to be parsed, every limit of [`limits`] holds, and everything that can be
//! judged from the files alone has been judged. What only the machine can answer (which device holds
//! an address, whether a peer is on-link) stays optional here and is settled by `lower`.

pub mod limits;

mod address;
mod amend;
mod check;
mod datapath;
mod draft;
mod encryption;
mod endpoint;
mod health;
mod identity;
mod labels;
mod name;
mod node;
mod paths;
mod peer;
mod reserved;
mod routing;
mod service;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::{Diagnostic, Document, Span};
use crate::net::{IfName, Mac, Netns, PublicKey};

pub use amend::Amended;
pub use identity::{Identity, IdentityError, identity_of_labels};
pub use service::{
    Acceleration, Algorithm, Backend, BackendState, Frontend, FrontendKind, HealthCheck,
    LoadBalancing, MAGLEV_TABLE_SIZES, NoBackend, Protocol, Question, Service,
};

/// What the operator asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    pub node: Node,
    pub routing: Routing,
    pub masquerade: Masquerade,
    pub datapath: Datapath,
    pub conntrack: Conntrack,
    pub health: Health,
    pub load_balancing: LoadBalancing,
    /// `None`: off.
    pub encryption: Option<Encryption>,
    pub paths: Paths,
    /// By name.
    pub peers: BTreeMap<Arc<str>, Peer>,
    /// By name.
    pub endpoints: BTreeMap<Arc<str>, Endpoint>,
    /// By name.
    pub services: BTreeMap<Arc<str>, Service>,
}

impl Intent {
    /// The same with other services.
    #[must_use]
    pub fn with_services(&self, services: BTreeMap<Arc<str>, Service>) -> Self {
        Self {
            node: self.node.clone(),
            routing: self.routing.clone(),
            masquerade: self.masquerade,
            datapath: self.datapath.clone(),
            conntrack: self.conntrack,
            health: self.health,
            load_balancing: self.load_balancing.clone(),
            encryption: self.encryption.clone(),
            paths: self.paths.clone(),
            peers: self.peers.clone(),
            endpoints: self.endpoints.clone(),
            services,
        }
    }
}

/// This host.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// `None`: the hostname.
    pub name: Option<Arc<str>>,
    /// Underlay addresses, at most one per family. Empty: those of the default-route device.
    pub addresses: Vec<IpAddr>,
    /// Underlay devices. Empty: the ones that hold `addresses`.
    pub devices: Vec<IfName>,
    /// What endpoints are numbered from: at most one per family.
    pub cidrs: Vec<IpNet>,
    /// The address of `cilium_host`, one for each family of `cidrs`, already defaulted to the first
    /// usable address of the CIDR.
    pub routers: Vec<IpAddr>,
    /// The addresses of the health endpoint, at most one per family, already defaulted. None: there is
    /// no health endpoint.
    pub health_addresses: Vec<IpAddr>,
    /// Where `[node]` stands, for messages.
    pub span: Span,
}

/// `[routing]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    pub mode: RoutingMode,
    /// Native: route each peer's CIDRs through its node address.
    pub auto_direct_node_routes: bool,
    /// Native: packets between endpoints and those of peers go past the host's stack.
    pub past_host: bool,
    /// Reached without masquerade.
    pub native_cidrs: Vec<IpNet>,
    /// MTU of the underlay; `None`: the smallest of the devices.
    pub mtu_bytes: Option<u32>,
    /// Routing table of the peers' routes: `None` is the main table; a number gets an ip rule of its
    /// own at `rule_priority`.
    pub table: Option<u32>,
    pub rule_priority: u32,
}

/// `[routing] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutingMode {
    Native,
    Tunnel(Tunnel),
}

/// How packets are encapsulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    pub protocol: TunnelProtocol,
    /// UDP port, already defaulted.
    pub port: u16,
    /// The kernel's conntrack leaves outer packets alone.
    pub notrack: bool,
    /// Which of the nodes' addresses tunnels lead to; `None` where that depends on the addresses that
    /// the machine has.
    pub underlay: Option<Underlay>,
}

/// `[routing] tunnel-protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelProtocol {
    Vxlan,
    Geneve,
}

/// `[routing] underlay-protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underlay {
    Ipv4,
    Ipv6,
}

impl Underlay {
    /// Whether an address is of the family.
    pub fn includes(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::Ipv4)
    }

    /// The family's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    /// What a packet grows by in a tunnel: IP, UDP, the tunnel's own header and the inner Ethernet
    /// header. VXLAN's header and Geneve's without options are of the same length.
    pub fn overhead_bytes(self) -> u32 {
        match self {
            Self::Ipv4 => 20 + 8 + 8 + 14,
            Self::Ipv6 => 40 + 8 + 8 + 14,
        }
    }
}

/// `[masquerade] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masquerade {
    Nftables,
    Off,
}

/// `[datapath]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Datapath {
    pub attach_mode: AttachMode,
}

/// How programs are attached to devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachMode {
    /// TCX where the kernel has it (6.6), else clsact.
    Auto,
    Tcx,
    Clsact,
}

/// `[conntrack]`: how much fits into the maps of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conntrack {
    pub tcp_max_entries: u32,
    pub any_max_entries: u32,
    pub nat_max_entries: u32,
}

/// `[health]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    pub enabled: bool,
    /// Time between two probes of an address, before it is scaled by the size of the cluster.
    pub interval: Duration,
}

/// `[encryption]` with WireGuard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// UDP port.
    pub port: u16,
    /// The private key; `None`: a credential of the service, or below `<paths.state>`.
    pub key_file: Option<PathBuf>,
    /// What nodes send to each other as well.
    pub nodes: bool,
    /// Nothing between endpoints in plain text.
    pub strict: bool,
}

impl Encryption {
    /// What a packet grows by: an IPv6 and a UDP header, and WireGuard's own, as Cilium counts.
    pub const OVERHEAD_BYTES: u32 = 40 + 8 + 32;
}

/// `[paths]`: one set for each instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    pub runtime: PathBuf,
    pub state: PathBuf,
    pub bpf: PathBuf,
    pub cgroup: PathBuf,
}

impl Paths {
    /// The namespace of the health endpoint.
    pub fn health_netns(&self) -> Netns {
        Netns::at(self.runtime.join("netns/health").to_string_lossy())
    }
}

/// Another node.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    pub name: Arc<str>,
    /// Underlay addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    pub cidrs: Vec<IpNet>,
    /// The addresses of its `cilium_host`, at most one per family, already defaulted to the first
    /// usable address of a CIDR.
    pub routers: Vec<IpAddr>,
    /// The addresses of its health endpoint, at most one per family, already defaulted to the last
    /// usable address of a CIDR; none with health disabled here.
    pub health_addresses: Vec<IpAddr>,
    /// A fixed neighbour entry for the peer's addresses, where the network answers no ARP.
    pub mac: Option<Mac>,
    pub wireguard: Wireguard,
    /// Endpoints there that are known in advance.
    pub endpoints: Vec<PeerEndpoint>,
    pub span: Span,
}

/// What a peer is to WireGuard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wireguard {
    /// `None`: nothing is encrypted to it.
    pub public_key: Option<PublicKey>,
    /// `None`: one of its addresses, and the port that this node has.
    pub endpoint: Option<SocketAddr>,
    /// Seconds, already defaulted; 0 is off.
    pub keepalive_s: u16,
}

/// An endpoint of another node.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerEndpoint {
    pub name: Arc<str>,
    /// At least one, at most one per family.
    pub addresses: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    pub identity: Identity,
}

/// A network namespace on this node that is given a veth, addresses and an identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    pub name: Arc<str>,
    pub netns: Netns,
    /// Where `netns` or `pid` stands, for messages.
    pub netns_span: Span,
    /// The device in the namespace.
    pub ifname: IfName,
    /// At most one per family. A family of the node's CIDRs that is missing here is allocated by
    /// `lower` if `addresses` is empty, and left out if not.
    pub addresses: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    pub identity: Identity,
    pub span: Span,
}

/// Where an endpoint is said to live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointNetns {
    pub name: Arc<str>,
    pub netns: Netns,
    pub span: Span,
}

/// The endpoints' namespaces alone, from a document that has errors: whether they are there can be said
/// together with what else is wrong.
pub fn namespaces_of(document: &Document) -> Vec<EndpointNetns> {
    endpoint::namespaces(document)
}

/// The paths alone, from a document that may have errors: enough to find a running daemon, or what it
/// left.
///
/// # Errors
/// A file can't be read or parsed, or `[paths]` itself is wrong: the defaults could be another node's.
pub fn paths_of(document: &Document) -> Result<Paths, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let paths = paths::read(document.root().paths.as_ref(), &mut problems);
    let lost = ["runtime", "state", "bpf", "cgroup"];
    if document.is_whole()
        && problems.is_empty()
        && !document.has_lost("paths")
        && !lost.iter().any(|key| document.has_lost(&format!("paths.{key}")))
    {
        return Ok(paths);
    }
    problems.extend(document.problems().iter().cloned());
    Err(problems)
}

/// The same with a guess where the files don't tell: enough to ask a daemon that runs on with what was there before.
pub fn rough_paths_of(document: &Document) -> Paths {
    let rough = document.rough_paths();
    paths_of(document).unwrap_or_else(|_| paths::read(rough.as_ref(), &mut Vec::new()))
}

/// Reads a document.
///
/// # Errors
/// Every problem found, in file order, those of the document itself included; no part of a document
/// with an error is used. If a file could not be read or parsed, the others are judged all the same; what is
/// missing because of it is not the operator's mistake.
pub fn read(document: &Document) -> Result<Intent, Vec<Diagnostic>> {
    let mut problems = document.problems().to_vec();
    let draft = draft::draft(document, &mut problems);
    check::check(&draft, &mut problems);
    if problems.is_empty() {
        return Ok(draft.finish());
    }
    problems.sort_by_key(|problem| problem.span.start);
    Err(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Result<Paths, Vec<Diagnostic>> {
        paths_of(&Document::of_texts([("x", text.to_string())]))
    }

    #[test]
    fn paths_are_had_from_a_configuration_that_is_wrong_elsewhere() {
        let moved = "[paths]\nbpf = \"/sys/fs/bpf/other\"\n";
        for wrong in ["", "[node]\ncidrs = [\"10.0.0.1/99\"]\n", "[nose]\n", "[[endpoint]]\n"] {
            let found =
                paths(&format!("{moved}{wrong}")).unwrap_or_else(|e| panic!("{wrong}: {e:?}"));
            assert_eq!(found.bpf, std::path::Path::new("/sys/fs/bpf/other"), "{wrong}");
        }
    }

    #[test]
    fn a_daemon_is_found_by_files_that_are_not_toml() {
        let moved = "[paths]\nruntime = \"/run/other\"\n";
        for wrong in
            ["[node]\ncidrs = [\n", "x = \n", "[[endpoint\n", "[paths\nbpf = 7\n", "a: b\n"]
        {
            let texts = [("a", moved.to_string()), ("b", wrong.to_string())];
            for document in [
                Document::of_texts([("x", format!("{moved}{wrong}"))]),
                Document::of_texts([("x", format!("{wrong}{moved}"))]),
                Document::of_texts(texts),
            ] {
                assert!(paths_of(&document).is_err(), "{wrong}");
                let runtime = rough_paths_of(&document).runtime;
                assert_eq!(runtime, std::path::Path::new("/run/other"), "{wrong}");
            }
        }
    }

    #[test]
    fn paths_that_are_wrong_are_not_taken_for_the_defaults() {
        for wrong in [
            "[paths]\nbpf = 7\n",
            "[paths]\nbpf = \"relative\"\n",
            "paths = 7\n",
            "[paths]\nbpf = \"/sys/fs/bpf/other\n",
        ] {
            assert!(!paths(wrong).expect_err(wrong).is_empty(), "{wrong}");
        }
    }
}
