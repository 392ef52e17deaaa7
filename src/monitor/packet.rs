//! The captured beginning of a packet, taken apart: Ethernet, IP or ARP, transport; and the same again
//! for what is inside a tunnel.
//!
//! Pure. Imports `bpf_abi`. Headers are read by `etherparse`: it reads IPv4, IPv6 with its chain of
//! extension headers, ARP, VLAN tags and transports out of packets that are cut off anywhere, without
//! copying, and can't be made to panic by them. What it doesn't know is read here: SCTP, VXLAN, Geneve,
//! and the transport header in the first of several fragments. Its reader of whole packets is left out:
//! going from header to header here takes half the time.

use std::net::IpAddr;

use etherparse::{
    ArpPacketSlice, EtherType, Ethernet2Slice, Icmpv4Slice, Icmpv6Slice, IpNumber,
    Ipv6ExtensionSlice, LaxIpPayloadSlice, LaxIpv4Slice, LaxIpv6Slice, LaxNetSlice,
    SingleVlanSlice, TcpSlice, UdpSlice,
};

use crate::bpf_abi::{EVENT_FLAG_GENEVE, EVENT_FLAG_L3_DEVICE, EVENT_FLAG_VXLAN};

/// A packet, and the tunnel it is in.
#[derive(Debug)]
pub struct Packet<'a> {
    pub layers: Layers<'a>,
    pub tunnel: Option<Tunnel<'a>>,
}

/// The headers of a tunnel.
#[derive(Debug)]
pub struct Tunnel<'a> {
    pub protocol: TunnelProtocol,
    /// Carries the identity of the sender.
    pub vni: u32,
    pub outer: Layers<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelProtocol {
    Vxlan,
    Geneve,
}

/// The headers of a packet, as far as they were captured.
#[derive(Debug, Default)]
pub struct Layers<'a> {
    pub ethernet: Option<Ethernet2Slice<'a>>,
    pub net: Option<LaxNetSlice<'a>>,
    pub transport: Option<Transport<'a>>,
}

/// A transport header.
#[derive(Debug)]
pub enum Transport<'a> {
    Tcp(TcpSlice<'a>),
    Udp(UdpSlice<'a>),
    Sctp(Sctp<'a>),
    Icmp4(Icmpv4Slice<'a>),
    Icmp6(Icmpv6Slice<'a>),
}

/// SCTP: the twelve bytes in front of its chunks, and the chunks.
#[derive(Debug)]
pub struct Sctp<'a> {
    pub header: &'a [u8; 12],
    pub payload: &'a [u8],
}

impl Sctp<'_> {
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    fn word(&self, at: usize) -> u32 {
        let header = self.header;
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    }

    pub fn verification_tag(&self) -> u32 {
        self.word(4)
    }

    pub fn checksum(&self) -> u32 {
        self.word(8)
    }
}

impl<'a> Packet<'a> {
    /// Takes a packet apart; `flags` are the event's.
    pub fn read(bytes: &'a [u8], flags: u8) -> Self {
        let layers = if flags & EVENT_FLAG_L3_DEVICE != 0 {
            Layers::read_ip(bytes)
        } else {
            Layers::read(bytes)
        };
        let protocol = match flags & (EVENT_FLAG_VXLAN | EVENT_FLAG_GENEVE) {
            0 => return Self { layers, tunnel: None },
            EVENT_FLAG_VXLAN => TunnelProtocol::Vxlan,
            _ => TunnelProtocol::Geneve,
        };
        let Some((vni, inside)) = protocol.inside(&layers) else {
            return Self { layers, tunnel: None };
        };
        let tunnel = Tunnel { protocol, vni, outer: layers };
        Self { layers: Layers::read(inside), tunnel: Some(tunnel) }
    }
}

impl TunnelProtocol {
    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
        }
    }

    /// The VNI and the frame inside (RFC 7348, RFC 8926). Both headers have the VNI in bytes 4 to 6.
    fn inside<'a>(self, outer: &Layers<'a>) -> Option<(u32, &'a [u8])> {
        let Some(Transport::Udp(udp)) = &outer.transport else { return None };
        let (header, rest) = udp.payload().split_first_chunk::<8>()?;
        let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
        let options_len = match self {
            Self::Vxlan => 0,
            Self::Geneve => usize::from(header[0] & 0x3f) * 4,
        };
        Some((vni, rest.get(options_len..)?))
    }
}

impl<'a> Layers<'a> {
    /// A packet that begins with Ethernet.
    fn read(frame: &'a [u8]) -> Self {
        let Ok(ethernet) = Ethernet2Slice::from_slice_without_fcs(frame) else {
            return Self::default();
        };
        let (mut ether_type, mut rest) = (ethernet.ether_type(), ethernet.payload_slice());
        while let EtherType::VLAN_TAGGED_FRAME
        | EtherType::PROVIDER_BRIDGING
        | EtherType::VLAN_DOUBLE_TAGGED_FRAME = ether_type
        {
            let Ok(tag) = SingleVlanSlice::from_slice(rest) else { break };
            (ether_type, rest) = (tag.ether_type(), tag.payload_slice());
        }
        Self { ethernet: Some(ethernet), ..Self::behind(ether_type, rest) }
    }

    /// A packet that begins with IP.
    fn read_ip(packet: &'a [u8]) -> Self {
        let version = packet.first().map(|byte| byte >> 4);
        Self::behind(if version == Some(6) { EtherType::IPV6 } else { EtherType::IPV4 }, packet)
    }

    fn behind(ether_type: EtherType, bytes: &'a [u8]) -> Self {
        let net = match ether_type {
            EtherType::IPV4 => {
                LaxIpv4Slice::from_slice(bytes).ok().map(|(ip, _)| LaxNetSlice::Ipv4(ip))
            }
            EtherType::IPV6 => {
                LaxIpv6Slice::from_slice(bytes).ok().map(|(ip, _)| LaxNetSlice::Ipv6(ip))
            }
            EtherType::ARP => ArpPacketSlice::from_slice(bytes).ok().map(LaxNetSlice::Arp),
            _ => None,
        };
        let transport = net.as_ref().and_then(transport);
        Self { ethernet: None, net, transport }
    }

    /// Source and destination of the IP header.
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        match &self.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                Some((header.source_addr().into(), header.destination_addr().into()))
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                Some((header.source_addr().into(), header.destination_addr().into()))
            }
            _ => None,
        }
    }

    /// What the IP header and its extensions say comes next.
    pub fn protocol(&self) -> Option<IpNumber> {
        payload(self.net.as_ref()?).map(|payload| payload.ip_number)
    }

    /// Ports of the transports that have some.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.transport.as_ref()? {
            Transport::Tcp(tcp) => Some((tcp.source_port(), tcp.destination_port())),
            Transport::Udp(udp) => Some((udp.source_port(), udp.destination_port())),
            Transport::Sctp(sctp) => Some((sctp.source_port(), sctp.destination_port())),
            Transport::Icmp4(_) | Transport::Icmp6(_) => None,
        }
    }

    /// Where in its packet a fragment lies, in bytes; `None` for what is not a fragment.
    pub fn fragment_offset(&self) -> Option<u16> {
        fragment_offset(self.net.as_ref()?)
    }

    /// The protocol behind the Ethernet header and its VLAN tags.
    pub fn ether_type(&self) -> Option<EtherType> {
        self.ethernet.as_ref().map(Ethernet2Slice::ether_type)
    }
}

fn payload<'net, 'a>(net: &'net LaxNetSlice<'a>) -> Option<&'net LaxIpPayloadSlice<'a>> {
    net.ip_payload_ref()
}

fn fragment_offset(net: &LaxNetSlice<'_>) -> Option<u16> {
    match net {
        LaxNetSlice::Ipv4(ip) if ip.is_payload_fragmented() => {
            Some(ip.header().fragments_offset().byte_offset())
        }
        LaxNetSlice::Ipv6(ip) if ip.is_payload_fragmented() => {
            ip.extensions().clone().into_iter().find_map(|extension| match extension {
                Ipv6ExtensionSlice::Fragment(fragment) => {
                    Some(fragment.fragment_offset().byte_offset())
                }
                _ => None,
            })
        }
        _ => None,
    }
}

/// The transport header: of whole packets, and of the first of several fragments.
fn transport<'a>(net: &LaxNetSlice<'a>) -> Option<Transport<'a>> {
    let payload = payload(net)?;
    if fragment_offset(net).is_some_and(|offset| offset > 0) {
        return None;
    }
    let bytes = payload.payload;
    match payload.ip_number {
        IpNumber::TCP => TcpSlice::from_slice(bytes).ok().map(Transport::Tcp),
        IpNumber::UDP => UdpSlice::from_slice_lax(bytes).ok().map(Transport::Udp),
        IpNumber::ICMP => Icmpv4Slice::from_slice(bytes).ok().map(Transport::Icmp4),
        IpNumber::IPV6_ICMP => Icmpv6Slice::from_slice(bytes).ok().map(Transport::Icmp6),
        IpNumber::SCTP => {
            let (header, payload) = bytes.split_first_chunk()?;
            Some(Transport::Sctp(Sctp { header, payload }))
        }
        _ => None,
    }
}
