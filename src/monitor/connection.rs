//! A packet in a few words: who talks to whom, and how.
//!
//! Pure. Imports `net` and its siblings. The words are those of `cilium monitor`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, IpNumber, TcpSlice};

use super::icmp;
use super::packet::{Layers, Packet, Transport};
use crate::net::Mac;

/// Shown as one line without its end.
#[derive(Debug)]
pub struct Connection<'p, 'a>(pub &'p Packet<'a>);

impl fmt::Display for Connection<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        layers(f, &self.0.layers)?;
        let Some(tunnel) = &self.0.tunnel else { return Ok(()) };
        f.write_str(" [tunnel ")?;
        match ends(&tunnel.outer) {
            Some((source, destination)) => write!(f, "{source} -> {destination} ")?,
            None => f.write_str("[unknown] ")?,
        }
        write!(f, "{}]", tunnel.protocol.name())
    }
}

fn ends(layers: &Layers<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let ((source, destination), (from, to)) = (layers.addresses()?, layers.ports()?);
    Some((SocketAddr::new(source, from), SocketAddr::new(destination, to)))
}

fn layers(f: &mut fmt::Formatter<'_>, layers: &Layers<'_>) -> fmt::Result {
    if let Some(addresses) = layers.addresses() {
        return ip(f, layers, addresses);
    }
    let Some(ethernet) = &layers.ethernet else { return f.write_str("[unknown]") };
    let (source, destination) = (ethernet.source(), ethernet.destination());
    write!(f, "{} -> {} {}", Mac(source), Mac(destination), ether_type(ethernet.ether_type()))
}

fn ip(
    f: &mut fmt::Formatter<'_>,
    layers: &Layers<'_>,
    (source, destination): (IpAddr, IpAddr),
) -> fmt::Result {
    match ends(layers) {
        Some((source, destination)) => write!(f, "{source} -> {destination} ")?,
        None => write!(f, "{source} -> {destination} ")?,
    }
    match &layers.transport {
        Some(Transport::Tcp(tcp)) => tcp_flags(f, tcp)?,
        Some(Transport::Udp(_)) => f.write_str("udp")?,
        Some(Transport::Sctp(_)) => f.write_str("sctp")?,
        Some(Transport::Icmp4(icmp)) => {
            let (kind, code) = (icmp.type_u8(), icmp.code_u8());
            write!(f, "icmp {}", icmp::Message { v6: false, kind, code })?;
        }
        Some(Transport::Icmp6(icmp)) => {
            let (kind, code) = (icmp.type_u8(), icmp.code_u8());
            write!(f, "icmp {}", icmp::Message { v6: true, kind, code })?;
        }
        None => protocol(f, layers.protocol())?,
    }
    match layers.fragment_offset() {
        Some(offset) => write!(f, " fragment at {offset}"),
        None => Ok(()),
    }
}

/// `tcp SYN, ACK`.
fn tcp_flags(f: &mut fmt::Formatter<'_>, tcp: &TcpSlice<'_>) -> fmt::Result {
    f.write_str("tcp ")?;
    let flags = [("SYN", tcp.syn()), ("ACK", tcp.ack()), ("RST", tcp.rst()), ("FIN", tcp.fin())];
    let mut set = flags.iter().filter(|(_, set)| *set);
    if let Some((first, _)) = set.next() {
        f.write_str(first)?;
    }
    set.try_for_each(|(flag, _)| write!(f, ", {flag}"))
}

/// A transport that was not captured, or that is not known here.
fn protocol(f: &mut fmt::Formatter<'_>, protocol: Option<IpNumber>) -> fmt::Result {
    match protocol {
        Some(IpNumber::ICMP | IpNumber::IPV6_ICMP) => f.write_str("icmp"),
        Some(number) => match number.keyword_str() {
            Some(keyword) => f.write_str(&keyword.to_ascii_lowercase()),
            None => write!(f, "protocol {}", number.0),
        },
        None => f.write_str("[unknown]"),
    }
}

/// The name of what follows an Ethernet header.
pub fn ether_type(ether_type: EtherType) -> String {
    match ether_type {
        EtherType::IPV4 => "IPv4".into(),
        EtherType::IPV6 => "IPv6".into(),
        EtherType::ARP => "ARP".into(),
        EtherType::VLAN_TAGGED_FRAME => "Dot1Q".into(),
        EtherType::PROVIDER_BRIDGING | EtherType::VLAN_DOUBLE_TAGGED_FRAME => "QinQ".into(),
        EtherType(length) if length < 0x600 => "LLC".into(),
        EtherType(other) => format!("{other:#06x}"),
    }
}
