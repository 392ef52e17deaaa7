//! Facts about the machine that are not ours to change and that `lower` needs: devices, addresses, how
//! peers are reached, settings, namespaces, and what earlier rounds recorded in the kernel.
//!
//! Pure: `observe` fills them in. Imports `bpf_abi`, `net` and the decoded links of `kinds`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::bpf_abi::DeviceValue;
use crate::kinds::SeenMap;
use crate::kinds::lb_backend::LbBackend;
use crate::kinds::lb_service::{self, LbService};
use crate::kinds::link::LinkInfo;
use crate::net::{IfName, PublicKey};

/// By endpoint: our addresses there, or why the namespace can't be used.
pub type Namespaces = BTreeMap<Arc<str>, Result<Vec<IpAddr>, NetnsProblem>>;

/// Why an endpoint's network namespace can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetnsProblem {
    #[error("no such file")]
    NoSuchPath,
    #[error("no such process")]
    NoSuchPid,
    #[error("the file is not a network namespace")]
    NotANetns,
    /// Its default route would become the node's.
    #[error("this is the node's own network namespace")]
    IsNodesOwn,
    /// That of process 1, where the node is itself in another: as bad.
    #[error("this is the machine's own network namespace")]
    IsMachinesOwn,
    #[error("it is the namespace of endpoint `{0}` as well")]
    IsOf(Arc<str>),
    /// It can't be opened or entered, in the kernel's words.
    #[error("{0}")]
    Refused(String),
}

/// Backends that were found dead: each by the service that has it checked, and its address.
pub type Dead = BTreeSet<(Arc<str>, SocketAddr)>;

/// What a process knows that the machine doesn't tell.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// Records as they were, which somebody may have removed since.
    pub records: BTreeMap<String, String>,
    /// What the daemon's health checks have found.
    pub dead: Arc<Dead>,
}

/// What there is to encrypt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wireguard {
    /// Whether the kernel has WireGuard.
    pub available: bool,
    /// The file of the private key.
    pub key_file: Arc<str>,
    pub key: WireguardKey,
}

/// The private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireguardKey {
    /// There is none yet.
    Missing,
    /// There is one; with it, what belongs to it.
    Usable(PublicKey),
    /// Why it can't be used.
    Refused(String),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    pub hostname: String,
    /// The node's own namespace, by a name that no other has.
    pub netns: String,
    /// The control group whose sockets are translated, and its number; only where any are.
    pub cgroup: Option<(Arc<str>, u64)>,
    /// All links of the node's own namespace.
    pub links: BTreeMap<IfName, LinkInfo>,
    /// All addresses of the node's own namespace: device, address with prefix length.
    pub addresses: Vec<(IfName, IpNet)>,
    /// The device of the default route, IPv4 and IPv6.
    pub default_devices: Vec<IfName>,
    /// How the kernel would reach each peer's address.
    pub next_hops: BTreeMap<IpAddr, NextHop>,
    /// Settings of the node's namespace, by path.
    pub sysctls: BTreeMap<Arc<str>, String>,
    /// The map of records: what was changed on things that aren't ours, and what it was.
    pub before: BTreeMap<String, String>,
    /// The same as the daemon knows it from its rounds before, where records may have been removed or altered.
    pub remembered: BTreeMap<String, String>,
    /// Backends that get nothing new.
    pub dead: Arc<Dead>,
    /// `ciliate_device`: what earlier rounds gave to endpoints, by ifindex.
    pub devices: BTreeMap<u32, DeviceValue>,
    /// The numbers that services and backends have.
    pub services: ServiceIds,
    /// By endpoint, its namespace: our addresses on the endpoint's device, or why it can't be used.
    pub namespaces: Namespaces,
    /// Why the health endpoint can't be wired in the namespace that is at its place. Where there is none,
    /// or what is there is no namespace of its own, it is made.
    pub health: Option<NetnsProblem>,
    /// What there is to encrypt with, if that is asked for.
    pub wireguard: Option<Wireguard>,
    /// Whether the kernel has TCX.
    pub tcx: bool,
    /// Devices with a clsact qdisc.
    pub clsact: BTreeSet<IfName>,
    /// Devices with a qdisc `ingress`, which keeps out a clsact one.
    pub ingress: BTreeSet<IfName>,
}

impl Facts {
    /// The peers' addresses that the kernel doesn't reach directly.
    pub fn not_on_link(&self) -> Vec<IpAddr> {
        let others = self.next_hops.iter().filter(|(_, hop)| !matches!(hop, NextHop::OnLink(_)));
        others.map(|(address, _)| *address).collect()
    }

    /// What was recorded. What is remembered counts: nobody has a reason to alter a record.
    pub fn records(&self) -> BTreeMap<&str, &str> {
        let all = self.before.iter().chain(&self.remembered);
        all.map(|(what, was)| (what.as_str(), was.as_str())).collect()
    }
}

/// The numbers that services and backends have in the kernel.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServiceIds {
    /// Of frontends, in their order.
    pub frontends: Vec<(lb_service::Frontend, u16)>,
    /// All that anything is under, in their order.
    pub numbers: Vec<u16>,
    /// Of backends, by address and protocol, in their order.
    pub backends: Vec<((SocketAddr, u8), u32)>,
    /// All of them, in their order.
    pub backend_ids: Vec<u32>,
}

impl ServiceIds {
    /// From what there is. One that is used twice counts for the first.
    pub fn of(services: &SeenMap<LbService>, backends: &SeenMap<LbBackend>) -> Self {
        let mut ids = Self::default();
        for (key, state) in services {
            match (key, state.id()) {
                (lb_service::Key::Frontend(frontend), Some(id)) => {
                    ids.frontends.push((*frontend, id));
                    ids.numbers.push(id);
                }
                (lb_service::Key::Frontend(_), None) => {}
                (lb_service::Key::Number { id, .. }, _) => ids.numbers.push(*id),
            }
        }
        for (key, seen) in backends {
            ids.backends.push(((seen.backend.address, seen.backend.protocol), key.id));
            ids.backend_ids.push(key.id);
        }
        ids.numbers.sort_unstable();
        ids.backends.sort_unstable();
        ids
    }
}

/// How the kernel would reach an address (`RTM_GETROUTE`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// On-link, through this device.
    OnLink(IfName),
    /// Through a gateway.
    Gateway { gateway: IpAddr, dev: IfName },
    /// It is an address of this host.
    Local,
    /// There is no route.
    Unreachable,
}
