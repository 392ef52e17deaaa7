//! ([`Intent`], [`Facts`]) → [`Desired`]: which kernel objects the intent calls for on this machine.
//!
//! Pure: may import `intent`, `facts`, `kinds`, `bpf_abi` and `bpf_objects`. One
//! file for each concern; each adds its objects to the same [`Desired`]. Values that the kernel would
//! choose (ifindexes, Ethernet addresses, endpoint ids, addresses not given) are chosen here, so that a
//! plan is complete; what the kernel holds already is chosen again.

mod acceleration;
mod allocate;
mod before;
mod encryption;
mod endpoint;
mod health;
mod identity;
mod mac;
mod masquerade;
mod node;
mod node_port;
mod overlay;
mod program;
mod routing;
mod service;
mod socket;
mod summary;
pub mod sysctl;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::facts::Facts;
use crate::intent::limits::MTU_BYTES_MAX;
use crate::intent::{AttachMode, Intent, Masquerade};
use crate::kinds::bpf_link::Mode;
use crate::kinds::{Blocked, BlockedReason, Desired, Kind, Origin, Wanted, WantedMap};
use crate::net::IfName;

pub use allocate::Allocation;
pub use encryption::CILIUM_WG0;
pub use endpoint::lxc_name;
pub use health::LXC_HEALTH;
pub use overlay::Tunnel;
pub use program::digest;
pub use summary::{Accelerated, Balancing, Encryption, HostRouting, Ipam, Summary, lost_text};

/// MTU where no device says anything (`mtu` of Cilium: a base of 0 means this).
const MTU_DEFAULT_BYTES: u32 = 1500;

/// The device that stands for the node on its endpoints' side, and its peer.
pub const CILIUM_HOST: &str = "cilium_host";
pub const CILIUM_NET: &str = "cilium_net";

/// The node with its defaults settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Underlay addresses.
    pub addresses: Vec<IpAddr>,
    /// Underlay devices that exist, with their ifindexes.
    pub devices: Vec<(IfName, u32)>,
    /// MTU of devices.
    pub mtu_bytes: u32,
    /// MTU of routes that may lead into the tunnel; without one, that of devices.
    pub route_mtu_bytes: u32,
    /// `None` with native routing.
    pub tunnel: Option<Tunnel>,
    /// `None`: off.
    pub encryption: Option<encryption::State>,
    pub ipv4: bool,
    pub ipv6: bool,
    pub attach: Mode,
}

/// Everything a concern needs, and where it puts its objects.
pub(crate) struct Lowering<'a> {
    pub intent: &'a Intent,
    pub facts: &'a Facts,
    pub node: Node,
    pub allocation: Allocation,
    pub desired: Desired,
}

impl Lowering<'_> {
    fn block(&mut self, origin: Origin, reason: BlockedReason) {
        self.desired.blocked.push(Blocked { origin, reason });
    }
}

/// Adds an object, unless another concern asked for the same one.
fn want<K: Kind>(map: &mut WantedMap<K>, key: K::Key, spec: K::Spec, origin: &Origin) {
    map.entry(key).or_insert_with(|| Wanted { spec, origin: origin.clone() });
}

/// The same for many objects, of which the first one counts: a map that is built at once takes a fraction
/// of the time.
fn want_all<K: Kind>(map: &mut WantedMap<K>, objects: Vec<(K::Key, Wanted<K::Spec>)>) {
    // Of equal keys the last one stays.
    *map = objects.into_iter().rev().chain(std::mem::take(map)).collect();
}

/// Lowers an intent; with the result goes what the node is in a few words.
pub fn lower(intent: &Intent, facts: &Facts) -> (Desired, Summary) {
    let mut blocked = Vec::new();
    let node = settle(intent, facts, &mut blocked);
    let allocation = Allocation::new(intent, facts, &node);
    let desired = Desired { blocked, ..Desired::default() };
    let mut lowering = Lowering { intent, facts, node, allocation, desired };
    program::lower(&mut lowering);
    node::lower(&mut lowering);
    identity::lower(&mut lowering);
    endpoint::lower(&mut lowering);
    health::lower(&mut lowering);
    service::lower(&mut lowering);
    node_port::lower(&mut lowering);
    routing::lower(&mut lowering);
    overlay::lower(&mut lowering);
    encryption::lower(&mut lowering);
    masquerade::lower(&mut lowering);
    socket::lower(&mut lowering);
    acceleration::lower(&mut lowering);
    sysctl::lower(&mut lowering);
    let Lowering { node, desired, .. } = lowering;
    let mut summary = Summary::of(intent, Some((&facts.hostname, &node, &desired)));
    summary.lost = sysctl::lost_in(&desired, facts);
    (desired, summary)
}

/// What is desired where nothing is: the settings as they were, and no object of ours. With it go the settings
/// that can't be put back.
pub fn lower_nothing(facts: &Facts) -> (Desired, Vec<String>) {
    let mut desired = Desired::default();
    sysctl::restore(facts, &mut desired);
    (desired, sysctl::lost(facts))
}

/// Settles what the intent leaves to the machine.
fn settle(intent: &Intent, facts: &Facts, blocked: &mut Vec<Blocked>) -> Node {
    let mut addresses = intent.node.addresses.clone();
    if addresses.is_empty() {
        addresses = default_addresses(facts);
    }
    if addresses.is_empty() && needs_underlay(intent) {
        let reason = BlockedReason::UnderlayMissing;
        blocked.push(Blocked { origin: Origin::Node, reason });
    }
    let mut names = intent.node.devices.clone();
    if names.is_empty() {
        for address in &addresses {
            match facts.addresses.iter().find(|(_, net)| net.addr() == *address) {
                Some((ifname, _)) => names.push(*ifname),
                None => blocked.push(Blocked {
                    origin: Origin::Node,
                    reason: BlockedReason::AddressMissing { address: address.to_string() },
                }),
            }
        }
    }
    names.sort();
    names.dedup();
    let mut devices = Vec::new();
    for ifname in names {
        match facts.links.get(&ifname) {
            Some(link) => devices.push((ifname, link.ifindex)),
            None => blocked.push(Blocked {
                origin: Origin::Node,
                reason: BlockedReason::DeviceMissing { ifname: ifname.to_string() },
            }),
        }
    }
    let mtu = devices.iter().filter_map(|(ifname, _)| facts.links.get(ifname));
    let mtu = mtu.map(|link| link.end.mtu_bytes).min().unwrap_or(MTU_DEFAULT_BYTES);
    let attach = match intent.datapath.attach_mode {
        AttachMode::Tcx => Mode::Tcx,
        AttachMode::Auto if facts.tcx => Mode::Tcx,
        AttachMode::Clsact | AttachMode::Auto => Mode::Clsact,
    };
    let has = |v6: bool| intent.node.cidrs.iter().any(|cidr| cidr.addr().is_ipv6() == v6);
    let (ipv4, ipv6) = (has(false), has(true));
    let mtu_bytes = intent.routing.mtu_bytes.unwrap_or(mtu).min(MTU_BYTES_MAX);
    let tunnel = overlay::settle(intent, facts, &addresses, blocked);
    let encryption = encryption::settle(intent, facts, blocked);
    let left = encryption::mtu_bytes(encryption, mtu_bytes, (tunnel, ipv6), blocked);
    let route_mtu_bytes = overlay::route_mtu_bytes(tunnel, left, ipv6, blocked);
    Node { addresses, devices, mtu_bytes, route_mtu_bytes, tunnel, encryption, ipv4, ipv6, attach }
}

/// Whether anything leads out of this host by devices that the machine has to name. A node may be alone,
/// and then needs none.
fn needs_underlay(intent: &Intent) -> bool {
    let outside = intent.masquerade != Masquerade::Off || !intent.peers.is_empty();
    outside && intent.node.devices.is_empty() && !intent.node.cidrs.is_empty()
}

/// The first address of each family on the default-route devices that others can reach.
fn default_addresses(facts: &Facts) -> Vec<IpAddr> {
    let on_default = |wanted_v6: bool| {
        facts
            .addresses
            .iter()
            .filter(|(ifname, _)| facts.default_devices.contains(ifname))
            .map(|(_, net)| net.addr())
            .find(|address| match address {
                IpAddr::V4(v4) => !wanted_v6 && !v4.is_loopback() && !v4.is_link_local(),
                IpAddr::V6(v6) => wanted_v6 && !v6.is_loopback() && !v6.is_unicast_link_local(),
            })
    };
    [on_default(false), on_default(true)].into_iter().flatten().collect()
}

/// The prefix that holds one address and nothing else.
fn host_prefix(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
