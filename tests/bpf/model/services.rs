//! The part of the model that is about services. Which of several backends a program takes is up to it: the model
//! is told, and checks that it may.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ciliate::bpf_abi::*;

use super::{Action, Fate, Run, World};
use crate::flows::{Entry, Flow, OUT, Packet, State, has_ports};
use crate::frames::*;

const SCTP: u8 = 132;
const ACTIVE: u8 = 0;

/// What an endpoint that is its own backend sees for a client.
pub const LOOPBACK4: Ipv4Addr = Ipv4Addr::new(169, 254, 42, 1);
pub const LOOPBACK6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0xa9fe, 0x2a01);

/// An address, a port and a protocol, and what is behind it.
#[derive(Clone, Debug, Default)]
pub struct Frontend {
    pub rev_nat: u16,
    pub flags: u8,
    pub flags2: u8,
    pub affinity_s: u32,
    /// By id; those in use.
    pub backends: Vec<u32>,
    /// Instead of `backends`, for senders of the cluster.
    pub internal: Option<Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
    pub state: u8,
}

/// What became of a packet that leaves an endpoint.
pub enum Left {
    Tracked(State),
    /// The sender gets this instead.
    Told(Fate),
}

fn loopback(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { LOOPBACK4.into() } else { LOOPBACK6.into() }
}

/// A packet that leaves an endpoint, on a node with services.
pub fn leave(
    run: &mut Run<'_>,
    device: &DeviceValue,
    packet: &mut Packet,
    frame: &mut [u8],
) -> Result<Left, u8> {
    if !has_ports(packet.protocol) {
        if packet.is_error {
            client_error(run, packet, frame)?;
        }
        return Ok(Left::Tracked(run.track(packet, OUT)));
    }
    let key = Flow { service: true, ..packet.flow() };
    if let Some(backend) = kept(run, key, packet) {
        let through = run.flows.entries[&key].rev_nat;
        translate(packet, frame, backend, through)?;
        return Ok(Left::Tracked(run.track(packet, OUT)));
    }
    let to = (packet.destination, packet.ports.1, packet.protocol);
    if let (false, Some(frontend)) = (run.flows.answers(packet), run.world.services.get(&to)) {
        let ids = frontend.internal.as_ref().unwrap_or(&frontend.backends);
        if ids.is_empty() && run.world.node.flags & NODE_FLAG_NO_BACKEND_DROP != 0
            || ids.is_empty() && packet.is_elsewhere
        {
            return Err(DROP_NO_BACKEND);
        }
        if ids.is_empty() {
            return Ok(Left::Told(unreachable(run, device)));
        }
        begin(run, key, packet, frontend, ids, frame)?;
    }
    Ok(Left::Tracked(run.track(packet, OUT)))
}

/// The backend of a flow that has one.
fn kept(run: &mut Run<'_>, key: Flow, packet: &Packet) -> Option<Backend> {
    let entry = run.flows.entries.get_mut(&key)?;
    let backend = *run.world.backends.get(&entry.backend)?;
    let syn = packet.protocol == TCP && packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
    if syn && backend.state != ACTIVE {
        return None;
    }
    entry.see_client(packet.protocol == TCP, packet.tcp_flags);
    Some(backend)
}

fn begin(
    run: &mut Run<'_>,
    key: Flow,
    packet: &mut Packet,
    frontend: &Frontend,
    ids: &[u32],
    frame: &mut [u8],
) -> Result<(), u8> {
    let client = (packet.source, frontend.rev_nat);
    let affinity = frontend.flags & SERVICE_FLAG_AFFINITY != 0;
    let stays = run.flows.affinities.get(&client).filter(|id| affinity && ids.contains(id));
    let candidates: Vec<u32> = stays.map_or_else(|| ids.to_vec(), |id| vec![*id]);
    let taken = run.flows.taken.as_ref().and_then(|taken| taken(&key));
    let id = taken.filter(|id| candidates.contains(id)).unwrap_or(candidates[0]);
    let backend = run.world.backends[&id];
    let mut entry = Entry::begin(packet.protocol == TCP, OUT, run.identities.0);
    (entry.rev_nat, entry.backend, entry.affinity) = (frontend.rev_nat, id, affinity);
    run.flows.entries.insert(key, entry);
    if affinity {
        run.flows.affinities.insert(client, id);
    }
    translate(packet, frame, backend, frontend.rev_nat)
}

fn translate(
    packet: &mut Packet,
    frame: &mut [u8],
    backend: Backend,
    rev_nat: u16,
) -> Result<(), u8> {
    (packet.rev_nat, packet.loopback) = (rev_nat, packet.source == backend.address);
    let source = if packet.loopback { loopback(packet.source) } else { packet.source };
    rewrite(packet, frame, (source, packet.ports.0), (backend.address, backend.port))
}

/// A packet into an endpoint: an answer of a service comes from the service.
pub fn put_back(world: &World, packet: &mut Packet, frame: &mut [u8]) -> Result<(), u8> {
    let (rev_nat, own) = packet.reverse;
    let mut found = world.services.iter().filter(|(_, frontend)| frontend.rev_nat == rev_nat);
    let Some(((address, port, _), _)) = found.next() else { return Ok(()) };
    let client = if own { packet.source } else { packet.destination };
    if !packet.is_error {
        return rewrite(packet, frame, (*address, *port), (client, packet.ports.1));
    }
    let Some((quoted, at)) = packet.quoted else { return Ok(()) };
    let from = if packet.source == quoted.to.0 { *address } else { packet.source };
    rewrite_error(packet, frame, (from, client), at, (client, quoted.from.1), (*address, *port));
    Ok(())
}

/// An error of a client's about what came from a service.
fn client_error(run: &Run<'_>, packet: &mut Packet, frame: &mut [u8]) -> Result<(), u8> {
    let Some((quoted, at)) = packet.quoted else { return Ok(()) };
    let key = Flow { service: true, ..quoted.reversed() };
    let key = Flow { inward: false, ..key };
    let entry = run.flows.entries.get(&key);
    let backend = entry.and_then(|entry| run.world.backends.get(&entry.backend));
    let Some(backend) = backend.filter(|_| has_ports(quoted.protocol)) else { return Ok(()) };
    let own = packet.source == backend.address;
    let source = if own { loopback(packet.source) } else { packet.source };
    let (from, to) = ((backend.address, backend.port), (source, quoted.to.1));
    rewrite_error(packet, frame, (source, backend.address), at, from, to);
    let flow = Flow { from, to, ..quoted };
    packet.quoted = Some((flow, at));
    Ok(())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A checksum after some of what it is over has changed.
fn adjusted(sum: u16, old: &[u8], new: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> Vec<u16> {
        bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    };
    let gone: u32 = words(old).iter().map(|word| u32::from(!word)).sum();
    let come: u32 = words(new).iter().map(|word| u32::from(*word)).sum();
    let sum = (u32::from(!sum) + gone + come) % 0xffff;
    !(if sum == 0 { 0xffff } else { sum as u16 })
}

fn adjust(frame: &mut [u8], at: usize, old: &[u8], new: &[u8]) {
    let sum = u16::from_be_bytes([frame[at], frame[at + 1]]);
    frame[at..at + 2].copy_from_slice(&adjusted(sum, old, new).to_be_bytes());
}

/// Writes addresses into a header; that of IPv4 has a checksum. Returns what was there, and what is.
fn readdress(frame: &mut [u8], header: usize, ends: (IpAddr, IpAddr)) -> (Vec<u8>, Vec<u8>) {
    let new = [octets(ends.0), octets(ends.1)].concat();
    let at = header + if ends.0.is_ipv4() { 12 } else { 8 };
    let old = frame[at..at + new.len()].to_vec();
    if ends.0.is_ipv4() {
        adjust(frame, header + 10, &old, &new);
    }
    frame[at..at + new.len()].copy_from_slice(&new);
    (old, new)
}

type End = (IpAddr, u16);

/// Gives a packet other ends.
fn rewrite(packet: &mut Packet, frame: &mut [u8], from: End, to: End) -> Result<(), u8> {
    let new_ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    let other_ports = packet.ports != (from.1, to.1);
    let l4 = ETH_LEN + packet.at;
    let sum_at = match packet.protocol {
        _ if packet.is_elsewhere => None,
        TCP => Some(l4 + 16),
        UDP => Some(l4 + 6),
        _ => None,
    };
    let cut_off = sum_at.is_some_and(|at| at + 2 > frame.len());
    if cut_off || packet.protocol == SCTP && other_ports {
        return Err(DROP_L4_CHECKSUM);
    }
    let (mut old, mut new) = readdress(frame, ETH_LEN, (from.0, to.0));
    if !packet.is_elsewhere {
        old.extend(&frame[l4..l4 + 4]);
        new.extend(&new_ports);
        frame[l4..l4 + 4].copy_from_slice(&new_ports);
    }
    if let Some(at) = sum_at.filter(|at| packet.protocol != UDP || frame[*at..*at + 2] != [0, 0]) {
        adjust(frame, at, &old, &new);
        if packet.protocol == UDP && frame[at..at + 2] == [0, 0] {
            frame[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        }
    }
    (packet.source, packet.destination, packet.ports) = (from.0, to.0, (from.1, to.1));
    Ok(())
}

/// Gives an ICMP error other ends, and the packet it quotes, whose ports are at `at`.
fn rewrite_error(
    packet: &mut Packet,
    frame: &mut [u8],
    outer: (IpAddr, IpAddr),
    at: usize,
    from: End,
    to: End,
) {
    let (at, message) = (ETH_LEN + at, ETH_LEN + packet.at);
    let (old_ends, new_ends) = readdress(frame, ETH_LEN, outer);
    let (mut old, mut new) = readdress(frame, message + 8, (from.0, to.0));
    if outer.0.is_ipv4() {
        // Its header's own checksum makes up for the addresses.
        old.clear();
        new.clear();
    } else {
        old.extend(old_ends);
        new.extend(new_ends);
    }
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    old.extend(&frame[at..at + 4]);
    new.extend(&ports);
    frame[at..at + 4].copy_from_slice(&ports);
    adjust(frame, message + 2, &old, &new);
    (packet.source, packet.destination) = outer;
}

/// The error for who sent to a service without backends.
fn unreachable(run: &Run<'_>, device: &DeviceValue) -> Fate {
    let packet = &run.frame[ETH_LEN..];
    let quote = &packet[..packet.len().min(if packet[0] >> 4 == 4 { 548 } else { 1232 })];
    let body = [&[0; 4][..], quote].concat();
    let (ethertype, error) = match super::addresses(run.frame)? {
        (IpAddr::V4(source), IpAddr::V4(service)) => {
            let mut error = ipv4_of(ICMP4, service, source, 64, &icmp4(3, 3, &body));
            // Without identification.
            error[4..6].fill(0);
            error[6..8].copy_from_slice(&[0x40, 0]);
            error[10..12].fill(0);
            let sum = checksum(&[&error[..20]]);
            error[10..12].copy_from_slice(&sum.to_be_bytes());
            (TYPE_IPV4, error)
        }
        (IpAddr::V6(source), IpAddr::V6(service)) => {
            let message = icmp6(service, source, 1, 4, &body);
            (TYPE_IPV6, ipv6_with(service, source, 64, ICMP6, &message))
        }
        _ => panic!("two families"),
    };
    let frame = ethernet(device.mac, device.node_mac, ethertype, &error);
    Ok((Action::Redirect, frame, run.mark))
}
