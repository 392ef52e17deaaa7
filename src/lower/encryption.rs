//! Encryption: WireGuard's device and peers, what leads packets there, and what the programs are told of it. Pure.
//!
//! The programs mark what has to be encrypted, a rule sends the mark to a table of its own, and that leads to the
//! device. What WireGuard makes of a packet has another mark, which no rule is about. On the underlay a program
//! looks once more: what should have been encrypted and was not goes to the device as well, or is dropped.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::identity::own_cidr;
use super::node::{end, ifname};
use super::overlay::far_end;
use super::program::{Attachment, attach};
use super::{Lowering, Node, Tunnel, host_prefix, want, want_all};
use crate::bpf_abi::{
    CILIATE_ENCRYPTION, ENCRYPTION_FLAG_NODES, ENCRYPTION_FLAG_ON, ENCRYPTION_FLAG_STRICT,
    EncryptionValue, MARK_MAGIC_ENCRYPT, MARK_MAGIC_MASK, MARK_MAGIC_WIREGUARD,
};
use crate::facts::{Facts, WireguardKey};
use crate::intent::limits::{MTU_BYTES_MIN, MTU_BYTES_MIN_IPV6, TABLE_ENCRYPTION};
use crate::intent::{Encryption, Intent, Peer};
use crate::kinds::bpf_link::{self, Hook};
use crate::kinds::bpf_map::MapName;
use crate::kinds::bpf_map_entry::{self, BpfMapEntry};
use crate::kinds::link::{self, ALIAS_ENCRYPTION, KIND_WIREGUARD, Link, NO_MAC};
use crate::kinds::route::{self, Route, Scope};
use crate::kinds::rule::{self, Rule};
use crate::kinds::wireguard::{self, Wireguard};
use crate::kinds::wireguard_peer::{self, WireguardPeer};
use crate::kinds::{Blocked, BlockedReason, ObjectKey, Origin, Wanted, wireguard_key};
use crate::net::{Netns, PublicKey};

/// The device, as Cilium names it.
pub const CILIUM_WG0: &str = "cilium_wg0";

/// The programs on it.
const PROGRAMS: [(&str, Hook); 2] =
    [("cil_from_wireguard", Hook::Ingress), ("cil_to_wireguard", Hook::Egress)];

/// Priority of the rule that leads to WireGuard: Cilium's.
const RULE_PRIORITY: u32 = 1;

/// Encryption with what the machine decides settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// `None`: there is no key yet, or none that can be used.
    pub public_key: Option<PublicKey>,
    /// Whether the device can be had.
    usable: bool,
    /// Whether its key can.
    key_usable: bool,
}

/// Settles what the intent leaves to the machine, and says what is in the way.
pub(super) fn settle(intent: &Intent, facts: &Facts, blocked: &mut Vec<Blocked>) -> Option<State> {
    intent.encryption.as_ref()?;
    let found = facts.wireguard.as_ref()?;
    let mut block = |reason| blocked.push(Blocked { origin: Origin::Encryption, reason });
    if !found.available {
        block(BlockedReason::WireguardMissing);
    }
    let (public_key, key_usable) = match &found.key {
        WireguardKey::Missing => (None, true),
        WireguardKey::Usable(key) => (Some(*key), true),
        WireguardKey::Refused(problem) => {
            block(BlockedReason::PrivateKeyUnusable { problem: problem.clone() });
            (None, false)
        }
    };
    // A device that is there has its key, whatever became of the file.
    let there = facts.links.get(&ifname(CILIUM_WG0));
    let there = there.is_some_and(|link| link.owned() && link.kind == KIND_WIREGUARD);
    Some(State { public_key, usable: found.available && (key_usable || there), key_usable })
}

/// What WireGuard leaves of the underlay's MTU; all of it where it is off.
pub(super) fn mtu_bytes(
    state: Option<State>,
    mtu_bytes: u32,
    (tunnel, ipv6): (Option<Tunnel>, bool),
    blocked: &mut Vec<Blocked>,
) -> u32 {
    if state.is_none() {
        return mtu_bytes;
    }
    let left = device_mtu_bytes(mtu_bytes);
    // The tunnel takes more of it, and says so.
    if ipv6 && tunnel.is_none() && left < MTU_BYTES_MIN_IPV6 {
        let reason = BlockedReason::EncryptionMtu { mtu_bytes, left_bytes: left };
        blocked.push(Blocked { origin: Origin::Encryption, reason });
    }
    left
}

/// The device's MTU, by that of the underlay.
fn device_mtu_bytes(mtu_bytes: u32) -> u32 {
    mtu_bytes.saturating_sub(Encryption::OVERHEAD_BYTES).max(MTU_BYTES_MIN)
}

/// What the ipcache says of a prefix that is a peer's: whether packets to it are encrypted, and whether they may
/// leave if they are not.
pub(super) fn of_prefix(lowering: &Lowering<'_>, peer: &Peer, is_node: bool) -> (bool, bool) {
    let Some(asked) = &lowering.intent.encryption else { return (false, false) };
    let encrypted = peer.wireguard.public_key.is_some() && (asked.nodes || !is_node);
    (encrypted, asked.strict && !is_node)
}

/// Whether a prefix is of this node's endpoints, of which nothing leaves for a peer's in plain text.
pub(super) fn keeps_in(lowering: &Lowering<'_>, prefix: &IpNet) -> bool {
    let strict = lowering.intent.encryption.as_ref().is_some_and(|asked| asked.strict);
    let mut cidrs = lowering.intent.node.cidrs.iter();
    strict && lowering.node.encryption.is_some() && cidrs.any(|cidr| cidr.contains(prefix))
}

/// Adds everything.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let Some(asked) = lowering.intent.encryption.clone() else { return };
    let Some(state) = lowering.node.encryption else { return };
    if lowering.intent.node.cidrs.is_empty() {
        return;
    }
    if asked.strict {
        for cidr in lowering.intent.node.cidrs.clone() {
            own_cidr(lowering, cidr);
        }
    }
    let device = state.usable.then(|| device(lowering, &asked, state));
    tell_programs(lowering, &asked, device);
    if device.is_none() {
        return;
    }
    steer(lowering);
    let mut peers = Vec::new();
    for peer in lowering.intent.peers.values() {
        let Some(public_key) = peer.wireguard.public_key else { continue };
        let origin = Origin::Peer(peer.name.clone());
        if state.public_key == Some(public_key) {
            lowering.block(origin, BlockedReason::PeerHasOurKey);
            continue;
        }
        let Some(endpoint) = endpoint(&lowering.node, peer, asked.port) else {
            lowering.block(origin, BlockedReason::PeerWithoutEndpoint);
            continue;
        };
        let key = wireguard_peer::Key { ifname: ifname(CILIUM_WG0), public_key };
        let others = peer.addresses.iter().filter(|address| **address != endpoint.ip());
        let spec = wireguard_peer::Spec {
            endpoint,
            addresses: others.copied().collect(),
            keepalive_s: peer.wireguard.keepalive_s,
            allowed_ips: allowed_ips(lowering, peer, asked.nodes),
        };
        peers.push((key, Wanted { spec, origin }));
    }
    want_all::<WireguardPeer>(&mut lowering.desired.wireguard_peers, peers);
}

/// The device, its key, and the programs on it. Returns its ifindex.
fn device(lowering: &mut Lowering<'_>, asked: &Encryption, state: State) -> u32 {
    let origin = Origin::Encryption;
    let device = ifname(CILIUM_WG0);
    let ifindex = lowering.allocation.ifindex(device, None);
    let mtu_bytes = device_mtu_bytes(lowering.node.mtu_bytes);
    let end = end(NO_MAC, mtu_bytes, false, ALIAS_ENCRYPTION);
    let spec = link::Spec { ifindex, end, form: link::Form::Wireguard };
    want::<Link>(&mut lowering.desired.links, device, spec, &origin);
    for (program, hook) in PROGRAMS {
        let (link, qdisc_ours) = (Some(device), false);
        let at = Attachment { ifname: device, ifindex, hook, link, qdisc_ours };
        attach(lowering, program, at, &origin);
    }
    if let (true, Some(found)) = (state.key_usable, &lowering.facts.wireguard) {
        let file = found.key_file.clone();
        let desired = &mut lowering.desired;
        let keys = &mut desired.wireguard_keys;
        want::<wireguard_key::WireguardKey>(keys, file.clone(), wireguard_key::Spec, &origin);
        let spec =
            wireguard::Spec { key_file: file, port: asked.port, fwmark: MARK_MAGIC_WIREGUARD };
        want::<Wireguard>(&mut desired.wireguards, device, spec, &origin);
    }
    ifindex
}

/// What the programs are told. Without a device nothing that has to be encrypted leaves.
fn tell_programs(lowering: &mut Lowering<'_>, asked: &Encryption, ifindex: Option<u32>) {
    let device = ifname(CILIUM_WG0);
    let flag = |on: bool, flag: u32| if on { flag } else { 0 };
    let mtu = device_mtu_bytes(lowering.node.mtu_bytes);
    let value = EncryptionValue {
        ifindex: ifindex.unwrap_or(0),
        flags: ENCRYPTION_FLAG_ON
            | flag(asked.nodes, ENCRYPTION_FLAG_NODES)
            | flag(asked.strict, ENCRYPTION_FLAG_STRICT),
        port_be: asked.port.to_be_bytes(),
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
        ..EncryptionValue::default()
    };
    let programs = PROGRAMS.map(|(program, hook)| {
        ObjectKey::BpfLink(bpf_link::Key { ifname: device, hook, program: program.into() })
    });
    let leads_to = [ObjectKey::Link(device)].into_iter().chain(programs);
    let spec = bpf_map_entry::Spec {
        value: value.to_bytes().to_vec(),
        link: None,
        leads_to: if ifindex.is_some() { leads_to.collect() } else { Vec::new() },
    };
    let key = bpf_map_entry::Key { map: MapName::of_abi(CILIATE_ENCRYPTION), key: vec![0; 4] };
    let entries = &mut lowering.desired.bpf_map_entries;
    want::<BpfMapEntry>(entries, key, spec, &Origin::Encryption);
}

/// The rule for the mark, and the route that it leads to.
fn steer(lowering: &mut Lowering<'_>) {
    let device = ifname(CILIUM_WG0);
    for ipv6 in [false, true] {
        if !has_family(&lowering.node, ipv6) {
            continue;
        }
        let key = rule::Key {
            ipv6,
            priority: RULE_PRIORITY,
            fwmark: Some((MARK_MAGIC_ENCRYPT, MARK_MAGIC_MASK)),
            table: TABLE_ENCRYPTION,
            other: None,
        };
        want::<Rule>(&mut lowering.desired.rules, key, rule::Spec, &Origin::Encryption);
        let everything = if ipv6 { "::/0" } else { "0.0.0.0/0" };
        let Ok(everything) = everything.parse::<IpNet>() else { continue };
        // The tunnel's own packets begin here: by this device the kernel would not know from which address.
        let src = lowering.node.addresses.iter().find(|address| address.is_ipv6() == ipv6);
        let src = src.copied().filter(|_| lowering.node.tunnel.is_some());
        let route = route::Way {
            via: None,
            dev: Some(device),
            src,
            scope: Scope::Universe,
            mtu_bytes: None,
        };
        let spec = route::Spec { route, link: Some(device) };
        let key = route::Key::in_table(Netns::HOST, TABLE_ENCRYPTION, everything);
        want::<Route>(&mut lowering.desired.routes, key, spec, &Origin::Encryption);
    }
}

/// Whether packets of a family may have to be encrypted.
fn has_family(node: &Node, ipv6: bool) -> bool {
    let of_tunnel = |tunnel: Tunnel| tunnel.underlay.name() == if ipv6 { "IPv6" } else { "IPv4" };
    let inside = if ipv6 { node.ipv6 } else { node.ipv4 };
    inside || node.tunnel.is_some_and(of_tunnel)
}

/// Where a peer's WireGuard is: as configured, or its first address of a family that this node has.
fn endpoint(node: &Node, peer: &Peer, port: u16) -> Option<SocketAddr> {
    if peer.wireguard.endpoint.is_some() {
        return peer.wireguard.endpoint;
    }
    let ours = |v6: bool| {
        node.addresses.is_empty() || node.addresses.iter().any(|address| address.is_ipv6() == v6)
    };
    let of_family = |v6: bool| peer.addresses.iter().find(|a| a.is_ipv6() == v6 && ours(v6));
    let address = of_family(false).or_else(|| of_family(true))?;
    Some(SocketAddr::new(*address, port))
}

/// What a peer may send and is sent: its endpoints' packets, in a tunnel or without one, and those of the node.
fn allowed_ips(lowering: &Lowering<'_>, peer: &Peer, nodes: bool) -> BTreeSet<IpNet> {
    let node = &lowering.node;
    let in_use = |cidr: &&IpNet| if cidr.addr().is_ipv6() { node.ipv6 } else { node.ipv4 };
    let mut allowed: BTreeSet<IpNet> = peer.cidrs.iter().filter(in_use).map(IpNet::trunc).collect();
    let end_of_tunnel = node.tunnel.and_then(|tunnel| far_end(lowering.facts, peer, tunnel).ok());
    allowed.extend(end_of_tunnel.map(host_prefix));
    if nodes {
        allowed.extend(peer.addresses.iter().copied().map(host_prefix));
    }
    allowed
}
