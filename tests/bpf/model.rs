//! What the programs are meant to do, written a second time: over byte slices, without the programs'
//! constraints, and without looking at their code. Pure.
//!
//! Disagreement with the bytecode is a bug in one of the two. What both leave out (total lengths,
//! checksums) no test here will notice.

#[path = "model/icmp6.rs"]
mod icmp6;
#[path = "model/services.rs"]
pub mod services;
#[path = "model/too_long.rs"]
mod too_long;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ciliate::bpf_abi::*;

use crate::flows::{Flows, IN, IN_FROM_TUNNEL, OUT, Packet, State, Way};
use crate::frames::{ETH_LEN, Mac, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, UDP};
use crate::world::HOST_MAC;
use icmp6::{discovery, time_exceeded};
use services::{Backend, Frontend, LOOPBACK4, LOOPBACK6, Left};

/// What the maps hold.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub node: NodeValue,
    pub devices: BTreeMap<u32, DeviceValue>,
    pub endpoints: BTreeMap<IpAddr, EndpointValue>,
    pub ipcache: Vec<(IpAddr, u8, IpcacheValue)>,
    /// By address, port and protocol.
    pub services: BTreeMap<(IpAddr, u16, u8), Frontend>,
    pub backends: BTreeMap<u32, Backend>,
}

/// Verdict of a classifier (`TC_ACT_*`, linux/pkt_cls.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Next,
    Pass,
    Drop,
    Redirect,
}

impl Action {
    pub fn from_return_value(value: i32) -> Self {
        match value {
            -1 => Self::Next,
            0 => Self::Pass,
            2 => Self::Drop,
            7 => Self::Redirect,
            other => panic!("no program returns {other}"),
        }
    }
}

/// An amount in `cilium_metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub reason: u8,
    pub direction: u8,
    pub packets: u64,
    pub bytes: u64,
}

/// What should become of a packet. Frame and mark of a dropped one are nobody's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub action: Action,
    pub frame: Vec<u8>,
    pub mark: u32,
    /// Reason and direction of each time the packet is counted, with its length on arrival.
    pub counts: Vec<(u8, u8)>,
    /// What listeners are told.
    pub told: Vec<Told>,
}

/// An event of a packet, but for when, and where in the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// `EVENT_DROP`, and the reason; or `EVENT_TRACE`, and the observation point.
    pub kind: (u8, u8),
    /// Endpoint whose program it is.
    pub source: u16,
    /// Endpoint the packet is for.
    pub destination: u16,
    /// Of sender and receiver.
    pub identities: (u32, u32),
    /// What conntrack knows; zero for drops.
    pub state: u8,
}

/// A packet on its way through a program.
pub struct Run<'a> {
    world: &'a World,
    flows: &'a mut Flows,
    frame: &'a [u8],
    mark: u32,
    counts: Vec<(u8, u8)>,
    told: Vec<Told>,
    source: u16,
    destination: u16,
    identities: (u32, u32),
    /// On its way into an endpoint.
    arrives: bool,
}

const FORWARD_IN: (u8, u8) = (REASON_FORWARDED, DIRECTION_INGRESS);
const FORWARD_OUT: (u8, u8) = (REASON_FORWARDED, DIRECTION_EGRESS);

/// Observation points.
const TO_ENDPOINT: u8 = 0;
const TO_HOST: u8 = 2;
const TO_STACK: u8 = 3;
const TO_OVERLAY: u8 = 4;
const FROM_ENDPOINT: u8 = 5;
const FROM_PROXY: u8 = 6;
const FROM_HOST: u8 = 7;
const FROM_OVERLAY: u8 = 9;
const FROM_NETWORK: u8 = 10;
/// The state where conntrack was not asked.
const UNKNOWN: u8 = 5;

/// A packet that is answered or passed: verdict, frame, mark; or why, and in which direction, it is dropped.
type Fate = Result<(Action, Vec<u8>, u32), u8>;

impl<'a> Run<'a> {
    fn new(world: &'a World, flows: &'a mut Flows, mark: u32, frame: &'a [u8]) -> Self {
        let (counts, told) = (Vec::new(), Vec::new());
        let (source, destination, identities, arrives) = (0, 0, (0, 0), false);
        Self { world, flows, frame, mark, counts, told, source, destination, identities, arrives }
    }

    fn tell(&mut self, kind: (u8, u8), state: u8) {
        let Self { source, destination, identities, .. } = *self;
        self.told.push(Told { kind, source, destination, identities, state });
    }

    fn trace(&mut self, point: u8, state: u8) {
        self.tell((EVENT_TRACE, point), state);
    }

    /// As it came.
    fn untouched(&self) -> Fate {
        Ok((Action::Pass, self.frame.to_vec(), self.mark))
    }

    fn settle(mut self, fate: Fate, direction: u8) -> Expected {
        let direction = if self.arrives { DIRECTION_INGRESS } else { direction };
        let (action, frame, mark) = fate.unwrap_or_else(|reason| {
            self.counts.push((reason, direction));
            self.tell((EVENT_DROP, reason), 0);
            (Action::Drop, Vec::new(), 0)
        });
        Expected { action, frame, mark, counts: self.counts, told: self.told }
    }

    /// The part of the packet that conntrack wants to know.
    fn read(&mut self, direction: u8) -> Result<Packet, u8> {
        let counts = &mut self.counts;
        self.flows.read(&self.frame[ETH_LEN..], || counts.push((REASON_FRAGMENT, direction)))
    }

    fn track(&mut self, packet: &mut Packet, way: Way) -> State {
        self.flows.track(packet, way, self.identities.0)
    }

    /// To an endpoint of the node; the frame is `sent`, one hop less.
    fn deliver(
        &mut self,
        endpoint: &EndpointValue,
        packet: &mut Packet,
        way: Way,
        mut sent: Vec<u8>,
    ) -> Fate {
        self.arrives = true;
        self.identities.1 = endpoint.identity;
        (self.source, self.destination) = (endpoint.endpoint_id, endpoint.endpoint_id);
        let state = self.track(packet, way);
        services::put_back(self.world, packet, &mut sent)?;
        self.trace(TO_ENDPOINT, state as u8);
        self.counts.push(FORWARD_IN);
        sent[..6].copy_from_slice(&endpoint.mac);
        sent[6..12].copy_from_slice(&endpoint.node_mac);
        Ok((Action::Redirect, sent, identity_mark(self.identities.0)))
    }
}

/// `cil_from_container`; `frame` has at least an Ethernet header.
pub fn from_container(
    world: &World,
    flows: &mut Flows,
    (ifindex, mark): (u32, u32),
    frame: &[u8],
) -> Expected {
    let mut run = Run::new(world, flows, mark, frame);
    let device = world.devices.get(&ifindex);
    if let Some(device) = device {
        (run.source, run.identities.0) = (device.endpoint_id, device.identity);
        run.trace(FROM_ENDPOINT, UNKNOWN);
    }
    let fate = match (device, ethertype(frame)) {
        (None, _) => Err(DROP_NO_CONFIG),
        (_, ..0x600) => Err(DROP_UNSUPPORTED_L2),
        (Some(device), TYPE_ARP) => arp(&run, device),
        (Some(device), TYPE_IPV4 | TYPE_IPV6) => ip_from_container(&mut run, device),
        _ => Err(DROP_UNSUPPORTED_L3),
    };
    run.settle(fate, DIRECTION_EGRESS)
}

/// `cil_from_host`; `frame` has at least an Ethernet header.
pub fn from_host(world: &World, flows: &mut Flows, mark: u32, frame: &[u8]) -> Expected {
    let mut run = Run::new(world, flows, mark, frame);
    run.identities.0 = identity_in(mark);
    if from_proxy(mark) {
        run.trace(FROM_PROXY, UNKNOWN);
    } else {
        run.counts.push((REASON_INTERFACE, DIRECTION_INGRESS));
        run.trace(FROM_HOST, UNKNOWN);
    }
    let fate = match ethertype(frame) {
        TYPE_IPV4 | TYPE_IPV6 => ip_from_host(&mut run),
        _ => run.untouched(),
    };
    run.settle(fate, DIRECTION_INGRESS)
}

/// `cil_from_overlay`; `frame` has at least an Ethernet header, `id` is that of its tunnel key.
pub fn from_overlay(world: &World, flows: &mut Flows, id: Option<u32>, frame: &[u8]) -> Expected {
    let mut run = Run::new(world, flows, 0, frame);
    run.counts.push((REASON_INTERFACE, DIRECTION_INGRESS));
    let fate = match ethertype(frame) {
        TYPE_IPV4 | TYPE_IPV6 => ip_from_overlay(&mut run, id),
        _ => {
            run.trace(FROM_OVERLAY, UNKNOWN);
            run.untouched()
        }
    };
    run.settle(fate, DIRECTION_INGRESS)
}

/// `cil_to_host` and `cil_from_netdev`: both pass everything on, but for what goes past the host. The device
/// has the address [`HOST_MAC`].
pub fn passes(
    world: &World,
    flows: &mut Flows,
    from_netdev: bool,
    mark: u32,
    frame: &[u8],
) -> Expected {
    let mut run = Run::new(world, flows, mark, frame);
    let ip = matches!(ethertype(frame), TYPE_IPV4 | TYPE_IPV6);
    if from_netdev {
        run.counts.push((REASON_INTERFACE, DIRECTION_INGRESS));
        if ip && let Some(source) = source_anyway(frame) {
            run.identities.0 = guess(world, source);
        }
        run.trace(FROM_NETWORK, UNKNOWN);
        if let Some(fate) = past_host(&mut run) {
            return run.settle(fate, DIRECTION_INGRESS);
        }
    } else {
        run.counts.push(FORWARD_OUT);
        run.identities.0 = identity_in(mark);
        run.trace(TO_STACK, UNKNOWN);
    }
    let action = if from_netdev { Action::Next } else { Action::Pass };
    run.settle(Ok((action, frame.to_vec(), mark)), DIRECTION_INGRESS)
}

/// From a peer's endpoint to one of this node, where the stack is not to see that.
fn past_host(run: &mut Run<'_>) -> Option<Fate> {
    let (world, frame) = (run.world, run.frame);
    let ours = world.node.flags & NODE_FLAG_HOST_ROUTING != 0 && frame[..6] == HOST_MAC;
    if !ours || !matches!(ethertype(frame), TYPE_IPV4 | TYPE_IPV6) {
        return None;
    }
    let (source, destination) = addresses(frame).ok()?;
    let endpoint = endpoint_elsewhere(world, destination)?;
    let peer = cached(world, source).filter(|peer| peer.flags & IPCACHE_FLAG_SKIP_TUNNEL != 0)?;
    let sent = one_hop_less(frame)?;
    run.identities.0 = peer.identity;
    let packet = run.read(DIRECTION_INGRESS);
    Some(packet.and_then(|mut packet| run.deliver(endpoint, &mut packet, IN, sent)))
}

fn ethertype(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[12], frame[13]])
}

fn mac(bytes: &[u8]) -> Mac {
    bytes.try_into().expect("6 bytes")
}

fn v6(bytes: &[u8]) -> Ipv6Addr {
    <[u8; 16]>::try_from(bytes).expect("16 bytes").into()
}

fn v4(bytes: &[u8]) -> Ipv4Addr {
    <[u8; 4]>::try_from(bytes).expect("4 bytes").into()
}

fn from_proxy(mark: u32) -> bool {
    matches!(mark >> 8 & 15, 0xa | 0xb)
}

fn arp(run: &Run<'_>, device: &DeviceValue) -> Fate {
    let frame = run.frame;
    let Some(packet) = frame.get(ETH_LEN..ETH_LEN + 28) else { return run.untouched() };
    let for_device = frame[..6] == [0xff; 6] || frame[..6] == device.node_mac;
    let request = packet[..8] == [0, 1, 8, 0, 6, 4, 0, 1];
    if !for_device || !request || packet[24..28] == device.ipv4_be {
        return run.untouched();
    }
    let reply = [
        &frame[6..12],
        &device.node_mac,
        &frame[12..20],
        &[0, 2],
        &device.node_mac,
        &packet[24..28],
        &packet[8..14],
        &packet[14..18],
        &frame[ETH_LEN + 28..],
    ];
    Ok((Action::Redirect, reply.concat(), run.mark))
}

/// The source address of what may be no valid packet, where there is room for one.
fn source_anyway(frame: &[u8]) -> Option<IpAddr> {
    match ethertype(frame) {
        TYPE_IPV4 => Some(v4(frame.get(ETH_LEN + 12..ETH_LEN + 16)?).into()),
        _ => Some(v6(frame.get(ETH_LEN + 8..ETH_LEN + 24)?).into()),
    }
}

/// The addresses of a valid packet.
fn addresses(frame: &[u8]) -> Result<(IpAddr, IpAddr), u8> {
    let packet = &frame[ETH_LEN..];
    if ethertype(frame) == TYPE_IPV6 {
        let valid = packet.len() >= 40 && packet[0] >> 4 == 6;
        return match valid {
            true => Ok((v6(&packet[8..24]).into(), v6(&packet[24..40]).into())),
            false => Err(DROP_INVALID_PACKET),
        };
    }
    let header_len = usize::from(packet[0] & 15) * 4;
    if packet[0] >> 4 != 4 || header_len < 20 || packet.len() < header_len {
        return Err(DROP_INVALID_PACKET);
    }
    Ok((v4(&packet[12..16]).into(), v4(&packet[16..20]).into()))
}

/// The frame with one hop less, `None` when there is none left.
fn one_hop_less(frame: &[u8]) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    if ethertype(&frame) == TYPE_IPV6 {
        frame[ETH_LEN + 7] = frame[ETH_LEN + 7].checked_sub(1).filter(|left| *left > 0)?;
        return Some(frame);
    }
    frame[ETH_LEN + 8] = frame[ETH_LEN + 8].checked_sub(1).filter(|left| *left > 0)?;
    // The header's words sum up to what they did before, modulo 65535, right or wrong.
    let sum = u16::from_be_bytes([frame[ETH_LEN + 10], frame[ETH_LEN + 11]]);
    let sum = ((u32::from(sum) + 0x100) % 0xffff) as u16;
    frame[ETH_LEN + 10..ETH_LEN + 12].copy_from_slice(&sum.to_be_bytes());
    Some(frame)
}

fn endpoint_elsewhere(world: &World, address: IpAddr) -> Option<&EndpointValue> {
    world.endpoints.get(&address).filter(|endpoint| endpoint.flags & 3 == 0)
}

/// To the port where tunnels end.
fn is_forged(world: &World, packet: &Packet) -> bool {
    let tunnel_port = u16::from_be_bytes(world.node.tunnel_port_be);
    packet.protocol == UDP && packet.ports.1 == tunnel_port && tunnel_port != 0
}

fn ip_from_container(run: &mut Run<'_>, device: &DeviceValue) -> Fate {
    let (world, frame) = (run.world, run.frame);
    let (source, _) = addresses(frame)?;
    if let IpAddr::V6(source) = source
        && let Some(fate) = discovery(world, device, run.mark, frame, source)
    {
        return fate;
    }
    let own: [IpAddr; 2] = [v4(&device.ipv4_be).into(), v6(&device.ipv6_be).into()];
    if !own.contains(&source) || source.is_unspecified() {
        return Err(DROP_INVALID_SOURCE_IP);
    }
    let (mut packet, mut frame) = (run.read(DIRECTION_EGRESS)?, frame.to_vec());
    if is_forged(world, &packet) {
        return Err(DROP_ENCAP_PROHIBITED);
    }
    let state = if world.node.flags & NODE_FLAG_SERVICES == 0 {
        run.track(&mut packet, OUT)
    } else {
        match services::leave(run, device, &mut packet, &mut frame)? {
            Left::Tracked(state) => state,
            Left::Told(fate) => return fate,
        }
    };
    let mut destination = packet.destination;
    let answered = matches!(state, State::Reply | State::Related);
    if answered && [LOOPBACK4.into(), LOOPBACK6.into()].contains(&destination) {
        destination = source;
    }
    if !world.endpoints.contains_key(&destination)
        && let Some(fate) = too_long::too_long(run, device, destination, &packet)
    {
        return fate;
    }
    if !world.endpoints.contains_key(&destination)
        && let Some(fate) = tunnelled(run, &frame, destination, state as u8)
    {
        return fate;
    }
    let Some(mut sent) = one_hop_less(&frame) else {
        let error = time_exceeded(world, device.mac, device.node_mac, run.frame)?;
        return Ok((Action::Redirect, error, run.mark));
    };
    run.counts.push(FORWARD_OUT);
    if let Some(endpoint) = endpoint_elsewhere(world, destination) {
        return run.deliver(endpoint, &mut packet, IN, sent);
    }
    run.identities.1 = identity_of(world, packet.destination);
    run.trace(TO_STACK, state as u8);
    sent[..6].copy_from_slice(&device.node_mac);
    Ok((Action::Pass, sent, identity_mark(device.identity)))
}

/// The entry of the longest prefix that covers the address.
fn cached(world: &World, address: IpAddr) -> Option<&IpcacheValue> {
    let covers = |(prefix, len, _): &&(IpAddr, u8, IpcacheValue)| match (prefix, address) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => {
            let differing = prefix.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= u32::from(*len)
        }
        (IpAddr::V6(prefix), IpAddr::V6(address)) => {
            let differing = prefix.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= u32::from(*len)
        }
        _ => false,
    };
    let longest = world.ipcache.iter().filter(covers).max_by_key(|(_, len, _)| *len);
    longest.map(|(.., value)| value)
}

fn identity_of(world: &World, address: IpAddr) -> u32 {
    cached(world, address).map_or(IDENTITY_WORLD, |value| value.identity)
}

/// The fate of a packet that goes into the tunnel; `None` for one that does not.
fn tunnelled(run: &mut Run<'_>, frame: &[u8], destination: IpAddr, state: u8) -> Option<Fate> {
    let value = cached(run.world, destination)?;
    let by_tunnel = value.flags & 3 == IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT;
    if run.world.node.tunnel_ifindex == 0 || !by_tunnel {
        return None;
    }
    if let (IDENTITY_UNKNOWN, Ok((source, _))) = (run.identities.0, addresses(frame)) {
        run.identities.0 = guess(run.world, source);
    }
    if value.tunnel_endpoint_be == [0; 16] {
        return Some(Err(DROP_NO_TUNNEL_ENDPOINT));
    }
    run.identities.1 = value.identity;
    run.trace(TO_OVERLAY, state);
    run.counts.push(FORWARD_OUT);
    let mark = identity_mark(on_wire(run.identities.0)) & !0xf00 | 0x400;
    Some(Ok((Action::Redirect, frame.to_vec(), mark)))
}

/// What an identity is called in the tunnel.
pub fn on_wire(identity: u32) -> u32 {
    match identity {
        IDENTITY_HOST => IDENTITY_REMOTE_NODE,
        IDENTITY_WORLD_IPV4 | IDENTITY_WORLD_IPV6 => IDENTITY_WORLD,
        other => other,
    }
}

/// What a mark says of the sender.
fn identity_in(mark: u32) -> u32 {
    match mark >> 8 & 15 {
        0xc => IDENTITY_HOST,
        0xa | 0xb | 0xf => mark >> 16 | (mark & 0xff) << 16,
        _ => IDENTITY_UNKNOWN,
    }
}

/// What an address says of the sender: that it is the host's may be by translation.
fn guess(world: &World, source: IpAddr) -> u32 {
    match identity_of(world, source) {
        IDENTITY_HOST => IDENTITY_WORLD,
        other => other,
    }
}

fn ip_from_host(run: &mut Run<'_>) -> Fate {
    let (world, frame) = (run.world, run.frame);
    let (source, destination) = addresses(frame)?;
    if let Some(endpoint) = endpoint_elsewhere(world, destination) {
        if run.identities.0 == IDENTITY_UNKNOWN {
            run.identities.0 = guess(world, source);
        }
        let Some(sent) = one_hop_less(frame) else {
            let mac = world.node.host_mac;
            return Ok((Action::Redirect, time_exceeded(world, mac, mac, frame)?, MARK_MAGIC_HOST));
        };
        let mut packet = run.read(DIRECTION_INGRESS)?;
        return run.deliver(endpoint, &mut packet, IN, sent);
    }
    let (to_group, on_link) = match destination {
        IpAddr::V4(address) => {
            (address.is_multicast() || address.is_broadcast(), address.is_link_local())
        }
        IpAddr::V6(address) => (address.is_multicast(), address.is_unicast_link_local()),
    };
    if to_group {
        return run.untouched();
    }
    let ours = world.endpoints.contains_key(&destination);
    if !ours && let Some(fate) = tunnelled(run, frame, destination, UNKNOWN) {
        return fate;
    }
    let known = ours || !matches!(identity_of(world, destination), 2 | 9 | 10);
    if !known && !on_link && !from_proxy(run.mark) {
        return Err(DROP_UNROUTABLE);
    }
    let mut sent = frame.to_vec();
    sent[..6].copy_from_slice(&world.node.net_mac);
    Ok((Action::Pass, sent, 0))
}

fn ip_from_overlay(run: &mut Run<'_>, id: Option<u32>) -> Fate {
    let (world, frame) = (run.world, run.frame);
    let id = id.ok_or(DROP_NO_TUNNEL_KEY)?;
    if id == IDENTITY_HOST {
        return Err(DROP_INVALID_IDENTITY);
    }
    run.identities.0 = id;
    run.trace(FROM_OVERLAY, UNKNOWN);
    let (source, destination) = addresses(frame)?;
    run.identities.0 = match id {
        IDENTITY_WORLD if world.node.flags & NODE_FLAG_TWO_WORLDS != 0 => match source {
            IpAddr::V4(_) => IDENTITY_WORLD_IPV4,
            IpAddr::V6(_) => IDENTITY_WORLD_IPV6,
        },
        6 | 7 => cached(world, source).map_or(id, |value| value.identity),
        _ => id,
    };
    let endpoint = world.endpoints.get(&destination).ok_or(DROP_UNROUTABLE)?;
    let Some(mut sent) = one_hop_less(frame) else {
        let mac = world.node.host_mac;
        return Ok((Action::Redirect, time_exceeded(world, mac, mac, frame)?, MARK_MAGIC_HOST));
    };
    let packet = run.read(DIRECTION_INGRESS);
    if endpoint.flags & 3 == 0 {
        return run.deliver(endpoint, &mut packet?, IN_FROM_TUNNEL, sent);
    }
    if packet.is_ok_and(|packet| is_forged(world, &packet)) {
        return Err(DROP_ENCAP_PROHIBITED);
    }
    run.identities.1 = IDENTITY_HOST;
    run.trace(TO_HOST, UNKNOWN);
    sent[..6].copy_from_slice(&world.node.host_mac);
    sent[6..12].copy_from_slice(&world.node.tunnel_mac);
    Ok((Action::Redirect, sent, identity_mark(run.identities.0)))
}
