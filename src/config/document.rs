//! The tables of a configuration file, as types.
//!
//! The only description of the file format: `serde` reads with it, [`super::schema()`] publishes it (the
//! comments here are what an editor shows) and `shape` checks against what is published. Values are
//! still text and numbers as written; `crate::intent` gives them meaning. Pure; imports nothing of
//! this crate.

mod service;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_spanned::Spanned;

pub use service::{
    Acceleration, Algorithm, Backend, BackendEntry, BackendState, HealthCheck, HealthCheckType,
    LoadBalancing, LoadBalancingMode, NoBackend, Service, ServiceProtocol, TrafficPolicy,
};

/// A value that may be absent, with its place.
pub type Maybe<T> = Option<Spanned<T>>;

const ADDRESS: &str = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)$";
const CIDR: &str = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)/[0-9]{1,3}$";
const NAME: &str = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,62}$";
const IFNAME: &str = r"^[!-.0-9;-~]{1,15}$";
const MAC: &str = r"^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$";
const KEY: &str = r"^[A-Za-z0-9+/]{43}=$";
const ABSOLUTE: &str = r"^/";
const SOCKET: &str = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$";

/// Configuration of ciliate: the wanted state of this node's part of the network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Root {
    /// This host.
    #[schemars(with = "Option<Node>")]
    pub node: Maybe<Node>,
    /// How packets get to other nodes.
    #[schemars(with = "Option<Routing>")]
    pub routing: Maybe<Routing>,
    /// What leaves for the outside world under the node's own address.
    #[schemars(with = "Option<Masquerade>")]
    pub masquerade: Maybe<Masquerade>,
    /// How the BPF programs are run.
    #[schemars(with = "Option<Datapath>")]
    pub datapath: Maybe<Datapath>,
    /// What is remembered of connections.
    #[schemars(with = "Option<Conntrack>")]
    pub conntrack: Maybe<Conntrack>,
    /// Whether the nodes reach each other.
    #[schemars(with = "Option<Health>")]
    pub health: Maybe<Health>,
    /// Encryption between nodes.
    #[schemars(with = "Option<Encryption>")]
    pub encryption: Maybe<Encryption>,
    /// How traffic to services is spread over their backends.
    #[schemars(with = "Option<LoadBalancing>")]
    pub load_balancing: Maybe<LoadBalancing>,
    /// Where files are kept: one set for each instance, so that two nodes can share a machine. Each is in
    /// a network namespace of its own: of two in one, each takes the other's devices for its own.
    #[schemars(with = "Option<Paths>")]
    pub paths: Maybe<Paths>,
    /// Another node. Tables of all files are joined.
    #[serde(default)]
    #[schemars(with = "Vec<Peer>")]
    pub peer: Vec<Spanned<Peer>>,
    /// A network namespace on this node that is given a veth, addresses and an identity. Tables of all
    /// files are joined.
    #[serde(default)]
    #[schemars(with = "Vec<Endpoint>")]
    pub endpoint: Vec<Spanned<Endpoint>>,
    /// Addresses and ports that are balanced over backends. Tables of all files are joined.
    #[serde(default)]
    #[schemars(with = "Vec<Service>")]
    pub service: Vec<Spanned<Service>>,
}

/// `[node]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Node {
    /// Name of this node. Default: the hostname.
    #[schemars(with = "Option<String>", regex(pattern = NAME))]
    pub name: Maybe<String>,
    /// Underlay addresses, at most one per family. To be given where the device has virtual addresses as well: the
    /// kernel names the IPv6 address first that came last. Default: those of the default-route device.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = ADDRESS)))]
    pub addresses: Maybe<Vec<Spanned<String>>>,
    /// Underlay devices. Default: the ones that hold `addresses`.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = IFNAME)))]
    pub devices: Maybe<Vec<Spanned<String>>>,
    /// What endpoints are numbered from: one CIDR per family.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = CIDR)))]
    pub cidrs: Maybe<Vec<Spanned<String>>>,
    /// The address of `cilium_host`, per family: the endpoints' gateway. Default: the first usable
    /// address of each CIDR.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = ADDRESS)))]
    pub routers: Maybe<Vec<Spanned<String>>>,
    /// The addresses of the health endpoint, out of `cidrs`, per family. Default: the last usable address
    /// of each CIDR; none in one longer than /29 (IPv6: /126), where no endpoint would have room beside it.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = ADDRESS)))]
    pub health_addresses: Maybe<Vec<Spanned<String>>>,
}

/// `[routing]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Routing {
    /// How packets get to other nodes' endpoints.
    #[schemars(with = "Option<RoutingMode>")]
    pub mode: Maybe<RoutingMode>,
    /// Encapsulation in tunnel mode; without effect in native mode.
    #[schemars(with = "Option<TunnelProtocol>")]
    pub tunnel_protocol: Maybe<TunnelProtocol>,
    /// UDP port in tunnel mode, the same on every node; without effect in native mode. Default: 8472,
    /// for geneve 6081.
    #[schemars(with = "Option<i64>", range(min = 1, max = 65535))]
    pub tunnel_port: Maybe<i64>,
    /// Tunnel mode: the kernel's conntrack leaves packets between the nodes alone; each flow would take entries
    /// that never see an answer. A firewall that lets in `ct state new` alone has to let in `untracked` too, or
    /// needs false here. Default: true.
    #[schemars(with = "Option<bool>")]
    pub tunnel_notrack: Maybe<bool>,
    /// Which of the nodes' addresses tunnels lead to, the same on every node; without effect in native
    /// mode. Default: ipv4 where the node has an IPv4 address, else ipv6.
    #[schemars(with = "Option<UnderlayProtocol>")]
    pub underlay_protocol: Maybe<UnderlayProtocol>,
    /// Native mode: route each peer's CIDRs through its node address. All nodes have to be on one
    /// link. Default: false, the network routes them.
    #[schemars(with = "Option<bool>")]
    pub auto_direct_node_routes: Maybe<bool>,
    /// Who routes packets between this node's endpoints and those of peers; in tunnel mode who puts them into the
    /// tunnel, from Linux 6.7 on, and takes them out: small ones, the tunnel's device has the others. Rules of a
    /// firewall for the tunnel's port then miss packets too. Default: kernel.
    #[schemars(with = "Option<HostRouting>")]
    pub host_routing: Maybe<HostRouting>,
    /// Destinations that are reached without masquerade.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = CIDR)))]
    pub native_cidrs: Maybe<Vec<Spanned<String>>>,
    /// MTU of the underlay in bytes; with IPv6 at least 1280. Default: the smallest of the devices.
    #[schemars(with = "Option<i64>", range(min = 68, max = 65520))]
    pub mtu: Maybe<i64>,
    /// Routing table for the peers' routes. Default: the main table, without a rule.
    #[schemars(with = "Option<i64>", range(min = 1, max = 4_294_967_295_i64))]
    pub table: Maybe<i64>,
    /// Priority of the rule that leads to `table`. Default: 110.
    #[schemars(with = "Option<i64>", range(min = 1, max = 32765))]
    pub rule_priority: Maybe<i64>,
}

/// `[routing] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RoutingMode {
    /// Packets to other nodes' endpoints travel inside UDP packets between the nodes; the default.
    Tunnel,
    /// The kernel routes packets to other nodes, unchanged.
    Native,
}

/// `[routing] host-routing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostRouting {
    /// The host's stack, as with all other packets; the default.
    Kernel,
    /// The programs, by the kernel's routes and neighbours: faster, and past all rules of nftables and iptables.
    Bpf,
}

/// `[routing] tunnel-protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TunnelProtocol {
    /// VXLAN (RFC 7348); the default.
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
}

/// `[routing] underlay-protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnderlayProtocol {
    /// The IPv4 addresses.
    Ipv4,
    /// The IPv6 addresses.
    Ipv6,
}

/// `[masquerade]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Masquerade {
    /// What translates addresses. Default: nftables.
    #[schemars(with = "Option<MasqueradeMode>")]
    pub mode: Maybe<MasqueradeMode>,
}

/// `[masquerade] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MasqueradeMode {
    /// A table of our own in nftables; the default.
    Nftables,
    /// Nothing: the outside world has routes to the node's CIDRs.
    Off,
}

/// `[datapath]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Datapath {
    /// How programs are attached to devices. A change between the two ways stops each device for a few
    /// milliseconds. Default: auto.
    #[schemars(with = "Option<AttachMode>")]
    pub attach_mode: Maybe<AttachMode>,
}

/// `[datapath] attach-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AttachMode {
    /// TCX where the kernel has it (6.6), else clsact; the default.
    Auto,
    /// TCX links.
    Tcx,
    /// Filters of a clsact qdisc, or of a qdisc `ingress` that the underlay has already.
    Clsact,
}

/// `[conntrack]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Conntrack {
    /// TCP connections that fit, of each family. Those there are stay when it is changed. Default: 131072.
    #[schemars(with = "Option<i64>", range(min = 1024, max = 16_777_216))]
    pub tcp_max_entries: Maybe<i64>,
    /// Flows of other protocols that fit, of each family. Default: 65536.
    #[schemars(with = "Option<i64>", range(min = 1024, max = 16_777_216))]
    pub any_max_entries: Maybe<i64>,
    /// Entries of flows that go by an address of this node's, of each family; each flow has two. Those there
    /// are stay when it is changed. Default: 131072.
    #[schemars(with = "Option<i64>", range(min = 1024, max = 16_777_216))]
    pub nat_max_entries: Maybe<i64>,
}

/// `[health]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Health {
    /// Answer the other nodes' probes, with an endpoint of its own for them, and probe the others.
    /// Default: true.
    #[schemars(with = "Option<bool>")]
    pub enabled: Maybe<bool>,
    /// Seconds between two probes of an address, times the natural logarithm of one more than there are
    /// nodes. Default: 60.
    #[schemars(with = "Option<i64>", range(min = 1, max = 3600))]
    pub interval: Maybe<i64>,
}

/// `[encryption]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Encryption {
    /// How traffic between nodes is encrypted. Default: off.
    #[schemars(with = "Option<EncryptionMode>")]
    pub mode: Maybe<EncryptionMode>,
    /// UDP port of WireGuard, the same on every node. Default: 51871.
    #[schemars(with = "Option<i64>", range(min = 1, max = 65535))]
    pub port: Maybe<i64>,
    /// File with this node's private key, in base64, which only its owner may read. It is made when it is
    /// missing. Default: the credential `wireguard.key` of the service, else `wireguard.key` below `state`
    /// of `[paths]`.
    #[schemars(with = "Option<String>", regex(pattern = ABSOLUTE))]
    pub private_key_file: Maybe<String>,
    /// Encrypt what the nodes themselves send to each other as well. The same on every node. Default: false.
    #[schemars(with = "Option<bool>")]
    pub encrypt_nodes: Maybe<bool>,
    /// Let nothing between endpoints of different nodes leave in plain text, also where a peer has no
    /// `public-key`. Default: false.
    #[schemars(with = "Option<bool>")]
    pub strict: Maybe<bool>,
    /// Seconds between two signs of life to each peer where nothing else is sent; 0 is none. Default: 0.
    #[schemars(with = "Option<i64>", range(min = 0, max = 65535))]
    pub persistent_keepalive: Maybe<i64>,
}

/// `[encryption] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EncryptionMode {
    /// Not at all; the default.
    Off,
    /// WireGuard, between each two nodes.
    Wireguard,
}

/// `[paths]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Paths {
    /// Lock, control socket and other things that end with a reboot. Default: /run/ciliate.
    #[schemars(with = "Option<String>", regex(pattern = ABSOLUTE))]
    pub runtime: Maybe<String>,
    /// For what has to survive a reboot: the private key. Default: /var/lib/ciliate.
    #[schemars(with = "Option<String>", regex(pattern = ABSOLUTE))]
    pub state: Maybe<String>,
    /// Directory for pins in a mounted BPF file system. Default: /sys/fs/bpf/ciliate.
    #[schemars(with = "Option<String>", regex(pattern = ABSOLUTE))]
    pub bpf: Maybe<String>,
    /// Root of the cgroup v2 tree, for services translated at connect(2). Default:
    /// /sys/fs/cgroup.
    #[schemars(with = "Option<String>", regex(pattern = ABSOLUTE))]
    pub cgroup: Maybe<String>,
}

/// `[[peer]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Peer {
    /// Name of the other node.
    #[schemars(with = "String", regex(pattern = NAME))]
    pub name: Spanned<String>,
    /// Its underlay addresses, at most one per family.
    #[schemars(with = "Vec<String>", inner(regex(pattern = ADDRESS)))]
    pub addresses: Spanned<Vec<Spanned<String>>>,
    /// What its endpoints are numbered from.
    #[schemars(with = "Vec<String>", inner(regex(pattern = CIDR)))]
    pub cidrs: Spanned<Vec<Spanned<String>>>,
    /// The address of its `cilium_host`, per family. Default: the first usable address of its first
    /// CIDR of the family that has one, which /31 and /32 (IPv6: /128) have not.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = ADDRESS)))]
    pub routers: Maybe<Vec<Spanned<String>>>,
    /// The addresses of its health endpoint, per family. Default: the last usable address of its first
    /// CIDR of the family that is not longer than /29 (IPv6: /126); without one, none, and only its node
    /// addresses are probed.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = ADDRESS)))]
    pub health_addresses: Maybe<Vec<Spanned<String>>>,
    /// Its Ethernet address, for a fixed neighbour entry where the network answers no ARP.
    #[schemars(with = "Option<String>", regex(pattern = MAC))]
    pub mac: Maybe<String>,
    /// Its WireGuard public key: what `ciliate wireguard pubkey` says there. Without one nothing is encrypted
    /// to it, and with `strict` of `[encryption]` nothing sent between the nodes' endpoints.
    #[schemars(with = "Option<String>", regex(pattern = KEY))]
    pub public_key: Maybe<String>,
    /// Address and port of its WireGuard, where that is not its first address of a family that this node has,
    /// IPv4 before IPv6, and `port` of `[encryption]`.
    #[schemars(with = "Option<String>")]
    pub wireguard_endpoint: Maybe<String>,
    /// Seconds between two signs of life to it. Default: that of `[encryption]`.
    #[schemars(with = "Option<i64>", range(min = 0, max = 65535))]
    pub persistent_keepalive: Maybe<i64>,
    /// An endpoint of the peer whose identity is known here in advance.
    #[serde(default)]
    #[schemars(with = "Vec<PeerEndpoint>")]
    pub endpoint: Vec<Spanned<PeerEndpoint>>,
}

/// `[[peer.endpoint]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PeerEndpoint {
    /// Name of the endpoint.
    #[schemars(with = "String", regex(pattern = NAME))]
    pub name: Spanned<String>,
    /// Its addresses, out of the peer's `cidrs`, at most one per family.
    #[schemars(with = "Vec<String>", inner(regex(pattern = ADDRESS)))]
    pub addresses: Spanned<Vec<Spanned<String>>>,
    /// Labels the identity is derived from, as on the peer.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    pub labels: Maybe<BTreeMap<Spanned<String>, Spanned<String>>>,
    /// Security identity, as on the peer: 256 to 65535, or 128 to 255. Default: derived from `labels`;
    /// without labels 5 (init).
    #[schemars(with = "Option<i64>", range(min = 128, max = 65535))]
    pub identity: Maybe<i64>,
}

/// `[[endpoint]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Endpoint {
    /// Name of the endpoint.
    #[schemars(with = "String", regex(pattern = NAME))]
    pub name: Spanned<String>,
    /// File of the network namespace, as `ip netns` makes it. Either this or `pid`.
    #[schemars(with = "Option<String>", regex(pattern = ABSOLUTE))]
    pub netns: Maybe<String>,
    /// A process in the network namespace: the one that has this number now. Either this or `netns`.
    #[schemars(with = "Option<i64>", range(min = 1, max = 4_194_304))]
    pub pid: Maybe<i64>,
    /// Name of the device in the namespace. Default: eth0.
    #[schemars(with = "Option<String>", regex(pattern = IFNAME))]
    pub ifname: Maybe<String>,
    /// Addresses out of the node's `cidrs`, at most one per family. Default: the next free ones, kept
    /// across restarts.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = ADDRESS)))]
    pub addresses: Maybe<Vec<Spanned<String>>>,
    /// Labels the identity is derived from.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    pub labels: Maybe<BTreeMap<Spanned<String>, Spanned<String>>>,
    /// Security identity: 256 to 65535, or 128 to 255. Default: derived from `labels`; without labels 5
    /// (init).
    #[schemars(with = "Option<i64>", range(min = 128, max = 65535))]
    pub identity: Maybe<i64>,
}
