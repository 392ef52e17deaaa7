//! What conntrack is meant to do, written a second time, without looking at the programs. Pure.
//!
//! Time does not pass here: instead of a time, a flow has the reason why it ends.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ciliate::bpf_abi::*;

use crate::frames::*;

const SCTP: u8 = 132;
const FRAGMENT: u8 = 44;
const NOTHING: u8 = 59;
const EXTENSIONS: [u8; 4] = [0, 43, 51, 60];

/// What conntrack says of a packet; the numbers are those in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    New = 0,
    Established = 1,
    Reply = 2,
    Related = 3,
}

/// How a packet passes an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub inward: bool,
    pub from_tunnel: bool,
}

pub const OUT: Way = Way { inward: false, from_tunnel: false };
pub const IN: Way = Way { inward: true, from_tunnel: false };
pub const IN_FROM_TUNNEL: Way = Way { inward: true, from_tunnel: true };

/// A flow in the direction it was begun in, as one endpoint sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    pub from: (IpAddr, u16),
    pub to: (IpAddr, u16),
    pub protocol: u8,
    pub inward: bool,
    /// Stands for the ICMP errors about the flows between the two.
    pub related: bool,
}

impl Flow {
    fn reversed(self) -> Self {
        Self { from: self.to, to: self.from, inward: !self.inward, ..self }
    }
}

/// Why and with that when an entry ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    TcpSyn,
    Tcp,
    TcpClosing,
    Other,
}

impl Life {
    /// In seconds after the last packet.
    pub fn seconds(self) -> u32 {
        match self {
            Self::TcpSyn | Self::Other => 60,
            Self::Tcp => 8000,
            Self::TcpClosing => 10,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub life: Life,
    pub bits: u16,
    pub tx_flags: u8,
    pub rx_flags: u8,
    pub identity: u32,
}

const RX_CLOSING: u16 = 1;
const TX_CLOSING: u16 = 2;
const SEEN_NON_SYN: u16 = 16;
const FROM_TUNNEL: u16 = 1024;

/// What of a packet conntrack looks at.
#[derive(Clone, Debug)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub ports: (u16, u16),
    tcp_flags: u8,
    /// An ICMP error.
    pub is_error: bool,
    /// Of an ICMP error: the flow of the packet it quotes, when that can be told.
    quoted: Option<Flow>,
}

/// Which packet a fragment is of.
type Piece = (IpAddr, IpAddr, u32, u8);

#[derive(Default)]
pub struct Flows {
    pub entries: BTreeMap<Flow, Entry>,
    pieces: BTreeMap<Piece, (u16, u16)>,
}

/// A header chain's end.
struct Upper {
    protocol: u8,
    at: usize,
    /// Identification, offset, and the protocol all pieces name, of a fragment.
    fragment: Option<(u32, u16, u8)>,
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn v4(bytes: &[u8]) -> IpAddr {
    Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[..4]).expect("4 bytes")).into()
}

fn v6(bytes: &[u8]) -> IpAddr {
    Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..16]).expect("16 bytes")).into()
}

/// The end of a header chain, or `None` for one that has no end, or too far away.
fn upper(packet: &[u8]) -> Option<Upper> {
    if packet[0] >> 4 == 4 {
        let (id, field) = (u32::from(word(packet, 4)), word(packet, 6));
        let fragment = (field & 0x3fff != 0).then_some((id, field & 0x1fff, packet[9]));
        return Some(Upper { protocol: packet[9], at: usize::from(packet[0] & 15) * 4, fragment });
    }
    let mut found = Upper { protocol: packet[6], at: 40, fragment: None };
    for _ in 0..=4 {
        let header = packet.get(found.at..found.at + 8);
        match found.protocol {
            NOTHING => return None,
            FRAGMENT => {
                let header = header?;
                let (field, id) = (word(header, 2), &header[4..8]);
                let id = u32::from_be_bytes(id.try_into().expect("4 bytes"));
                let whole = field & 0xfff9 == 0;
                found.fragment = (!whole).then_some((id, field & 0xfff8, header[0]));
                (found.protocol, found.at) = (header[0], found.at + 8);
                if field & 0xfff8 != 0 {
                    return Some(found);
                }
            }
            extension if EXTENSIONS.contains(&extension) => {
                let header = header?;
                let units = usize::from(header[1]);
                found.at += if extension == 51 { 8 + units * 4 } else { 8 + units * 8 };
                found.protocol = header[0];
            }
            _ => return Some(found),
        }
    }
    None
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}

/// Ports, or what stands for them; and whether it is an ICMP error.
fn ports(l4: &[u8], protocol: u8, ipv4: bool) -> Result<((u16, u16), bool), u8> {
    let cut_off = DROP_CT_INVALID_HEADER;
    if has_ports(protocol) {
        let ports = l4.get(..4).ok_or(cut_off)?;
        return Ok(((word(ports, 0), word(ports, 2)), false));
    }
    if protocol != if ipv4 { ICMP4 } else { ICMP6 } {
        return Err(DROP_CT_UNKNOWN_PROTOCOL);
    }
    let (kind, id) = (*l4.first().ok_or(cut_off)?, l4.get(4..6).map(|id| word(id, 0)));
    match (ipv4, kind) {
        (true, 8) | (false, 128) => Ok(((id.ok_or(cut_off)?, 0), false)),
        (true, 0) | (false, 129) => Ok(((0, id.ok_or(cut_off)?), false)),
        (true, 3 | 11 | 12) | (false, 1..=4) => Ok(((0, 0), true)),
        _ => Ok(((0, 0), false)),
    }
}

fn ends(packet: &[u8]) -> (IpAddr, IpAddr) {
    match packet[0] >> 4 {
        4 => (v4(&packet[12..]), v4(&packet[16..])),
        _ => (v6(&packet[8..]), v6(&packet[24..])),
    }
}

/// The flow of a packet that an ICMP error quotes; who the error is for has sent it.
fn quoted(quote: &[u8], ipv4: bool, error_for: IpAddr) -> Option<Flow> {
    let version = quote.first()? >> 4;
    let long_enough = quote.len() >= if ipv4 { 20 } else { 40 };
    if !long_enough || version != if ipv4 { 4 } else { 6 } || ipv4 && quote[0] & 15 < 5 {
        return None;
    }
    let (source, destination) = ends(quote);
    let upper = upper(quote)?;
    if source != error_for || upper.fragment.is_some_and(|(_, offset, _)| offset != 0) {
        return None;
    }
    let (ports, _) = ports(quote.get(upper.at..)?, upper.protocol, ipv4).ok()?;
    Some(Flow {
        from: (source, ports.0),
        to: (destination, ports.1),
        protocol: upper.protocol,
        inward: false,
        related: false,
    })
}

impl Flows {
    /// Reads a valid IP packet. `counted` is called for each fragment.
    pub fn read(&mut self, packet: &[u8], mut counted: impl FnMut()) -> Result<Packet, u8> {
        let ipv4 = packet[0] >> 4 == 4;
        let (source, destination) = ends(packet);
        let upper = upper(packet).ok_or(DROP_INVALID_EXTENSION_HEADER)?;
        let protocol = upper.protocol;
        let l4 = packet.get(upper.at..).unwrap_or(&[]);
        let (ports, tcp_flags, is_error, quoted) = ((0, 0), 0, false, None);
        let mut read = Packet { source, destination, protocol, ports, tcp_flags, is_error, quoted };
        if let Some((id, offset, named)) = upper.fragment {
            counted();
            if protocol == if ipv4 { ICMP4 } else { ICMP6 } {
                return Err(DROP_INVALID_PACKET);
            }
            if !has_ports(protocol) {
                return Err(DROP_CT_UNKNOWN_PROTOCOL);
            }
            let piece = (source, destination, id, named);
            if offset != 0 {
                read.ports = *self.pieces.get(&piece).ok_or(DROP_FRAGMENT_NOT_FOUND)?;
                return Ok(read);
            }
            read.fill(l4, ipv4)?;
            self.pieces.insert(piece, read.ports);
            return Ok(read);
        }
        read.fill(l4, ipv4)?;
        Ok(read)
    }

    /// What conntrack says of the packet, and does.
    pub fn track(&mut self, packet: &Packet, way: Way, identity: u32) -> State {
        let flow = Flow {
            from: (packet.source, packet.ports.0),
            to: (packet.destination, packet.ports.1),
            protocol: packet.protocol,
            inward: way.inward,
            related: false,
        };
        if packet.is_error {
            return self.track_error(flow, packet.quoted);
        }
        let tcp = packet.protocol == TCP;
        for (key, state) in [(flow.reversed(), State::Reply), (flow, State::Established)] {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if tcp && entry.begins_anew(packet.tcp_flags) {
                self.entries.remove(&key);
                continue;
            }
            entry.see(tcp, packet.tcp_flags, way);
            return state;
        }
        let syn = if tcp { TCP_SYN } else { 0 };
        let entry = Entry {
            life: if tcp { Life::TcpSyn } else { Life::Other },
            bits: if way.from_tunnel { FROM_TUNNEL } else { 0 },
            tx_flags: if way.inward { 0 } else { syn },
            rx_flags: if way.inward { syn } else { 0 },
            identity,
        };
        self.entries.insert(flow, entry);
        if has_ports(packet.protocol) {
            let protocol = if packet.source.is_ipv4() { ICMP4 } else { ICMP6 };
            let companion = Flow {
                from: (flow.from.0, 0),
                to: (flow.to.0, 0),
                protocol,
                related: true,
                ..flow
            };
            let bits = entry.bits | SEEN_NON_SYN;
            self.entries.entry(companion).or_insert(Entry { bits, ..entry });
        }
        State::New
    }

    fn track_error(&self, error: Flow, quoted: Option<Flow>) -> State {
        // The quoted packet went the other way.
        let about = quoted.map(|flow| Flow { inward: !error.inward, ..flow });
        let known = about.is_some_and(|flow| {
            self.entries.contains_key(&flow) || self.entries.contains_key(&flow.reversed())
        });
        let companion = Flow { related: true, ..error };
        let by_addresses = self.entries.contains_key(&companion)
            || self.entries.contains_key(&companion.reversed());
        if known || by_addresses { State::Related } else { State::New }
    }
}

impl Packet {
    fn fill(&mut self, l4: &[u8], ipv4: bool) -> Result<(), u8> {
        let (ports, is_error) = ports(l4, self.protocol, ipv4)?;
        self.ports = ports;
        if self.protocol == TCP {
            self.tcp_flags = *l4.get(13).ok_or(DROP_CT_INVALID_HEADER)?;
        }
        if is_error {
            self.is_error = true;
            self.quoted = quoted(l4.get(8..).unwrap_or(&[]), ipv4, self.destination);
        }
        Ok(())
    }
}

impl Entry {
    fn closed(&self) -> bool {
        self.bits & (RX_CLOSING | TX_CLOSING) == RX_CLOSING | TX_CLOSING
    }

    fn begins_anew(&self, flags: u8) -> bool {
        flags & (TCP_SYN | TCP_ACK) == TCP_SYN && self.bits & (RX_CLOSING | TX_CLOSING) != 0
    }

    fn see(&mut self, tcp: bool, flags: u8, way: Way) {
        if tcp && flags & TCP_SYN == 0 {
            self.bits |= SEEN_NON_SYN;
        }
        if !self.closed() {
            self.life = match (tcp, self.bits & SEEN_NON_SYN != 0) {
                (false, _) => Life::Other,
                (true, true) => Life::Tcp,
                (true, false) => Life::TcpSyn,
            };
            *(if way.inward { &mut self.rx_flags } else { &mut self.tx_flags }) |= flags;
        }
        if tcp && flags & (TCP_FIN | TCP_RST) != 0 {
            let answered = self.rx_flags & self.tx_flags & TCP_SYN != 0;
            self.bits |= match (flags & TCP_RST != 0 && !answered, way.inward) {
                (true, _) => RX_CLOSING | TX_CLOSING,
                (false, true) => RX_CLOSING,
                (false, false) => TX_CLOSING,
            };
            if self.closed() {
                self.life = Life::TcpClosing;
            }
        }
    }
}
