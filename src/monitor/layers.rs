//! The headers of a packet one by one, each as a line: what `-vv` and the JSON show.
//!
//! Pure. Imports `net` and its siblings. The lines have the form that `cilium monitor` gives them, with a
//! tab behind the name: `IPv4 {Contents=[..20..] Payload=[..40..] Version=4 …}`, where `[..20..]` is a
//! number of bytes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use etherparse::{
    ArpPacketSlice, Icmpv4Slice, Icmpv6Slice, IpNumber, LaxIpv4Slice, LaxIpv6Slice, LaxNetSlice,
    TcpSlice, UdpSlice,
};

use super::connection::ether_type;
use super::icmp::Message;
use super::packet::{Layers, Sctp, Transport, Tunnel, TunnelProtocol};
use crate::net::Mac;

/// A header: the key it has in the JSON, and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub key: &'static str,
    pub line: String,
}

impl Layer {
    fn new(key: &'static str, name: &str, fields: fmt::Arguments<'_>) -> Self {
        Self { key, line: format!("{name}\t{{{fields}}}") }
    }
}

/// A number of bytes, or of other things, that are not shown themselves.
struct Count(usize);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("[]"),
            count => write!(f, "[..{count}..]"),
        }
    }
}

/// What a header and what follows it take.
struct Extent(usize, usize);

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contents={} Payload={}", Count(self.0), Count(self.1))
    }
}

/// The lines of all headers, from the outside in.
pub fn layers(layers: &Layers<'_>) -> Vec<Layer> {
    let mut lines = Vec::with_capacity(3);
    if let Some(ethernet) = &layers.ethernet {
        lines.push(Layer::new(
            "ethernet",
            "Ethernet",
            format_args!(
                "{} SrcMAC={} DstMAC={} EthernetType={} Length=0",
                Extent(ethernet.header_slice().len(), ethernet.payload_slice().len()),
                Mac(ethernet.source()),
                Mac(ethernet.destination()),
                ether_type(ethernet.ether_type()),
            ),
        ));
    }
    lines.extend(layers.net.as_ref().map(|net| match net {
        LaxNetSlice::Ipv4(ip) => ipv4(ip),
        LaxNetSlice::Ipv6(ip) => ipv6(ip),
        LaxNetSlice::Arp(packet) => arp(packet),
    }));
    lines.extend(layers.transport.as_ref().map(|transport| match transport {
        Transport::Tcp(header) => tcp(header),
        Transport::Udp(header) => udp(header),
        Transport::Sctp(header) => sctp(header),
        Transport::Icmp4(header) => icmp4(header),
        Transport::Icmp6(header) => icmp6(header),
    }));
    lines
}

/// The line of a tunnel's own header.
pub fn tunnel(tunnel: &Tunnel<'_>) -> String {
    let name = match tunnel.protocol {
        TunnelProtocol::Vxlan => "VXLAN",
        TunnelProtocol::Geneve => "Geneve",
    };
    format!("{name}\t{{VNI={}}}", tunnel.vni)
}

fn address(bytes: &[u8]) -> String {
    match <[u8; 4]>::try_from(bytes) {
        Ok(bytes) => IpAddr::from(Ipv4Addr::from(bytes)).to_string(),
        Err(_) => Count(bytes.len()).to_string(),
    }
}

fn hardware(bytes: &[u8]) -> String {
    match bytes.try_into() {
        Ok(bytes) => Mac(bytes).to_string(),
        Err(_) => Count(bytes.len()).to_string(),
    }
}

fn arp(packet: &ArpPacketSlice<'_>) -> Layer {
    Layer::new(
        "arp",
        "ARP",
        format_args!(
            "{} AddrType={} Protocol={} HwAddressSize={} ProtAddressSize={} Operation={} \
             SourceHwAddress={} SourceProtAddress={} DstHwAddress={} DstProtAddress={}",
            Extent(packet.slice().len(), 0),
            packet.hw_addr_type().0,
            ether_type(packet.proto_addr_type()),
            packet.hw_addr_size(),
            packet.proto_addr_size(),
            packet.operation().0,
            hardware(packet.sender_hw_addr()),
            address(packet.sender_protocol_addr()),
            hardware(packet.target_hw_addr()),
            address(packet.target_protocol_addr()),
        ),
    )
}

/// The name of a transport in an IP header.
fn protocol(number: IpNumber) -> String {
    match number {
        IpNumber::ICMP => "ICMPv4".into(),
        IpNumber::IPV6_ICMP => "ICMPv6".into(),
        other => other.keyword_str().map_or_else(|| other.0.to_string(), str::to_string),
    }
}

fn ipv4(ip: &LaxIpv4Slice<'_>) -> Layer {
    let header = ip.header();
    let flags = match (header.dont_fragment(), header.more_fragments()) {
        (false, false) => "",
        (true, false) => "DF",
        (false, true) => "MF",
        (true, true) => "DF|MF",
    };
    Layer::new(
        "ipv4",
        "IPv4",
        format_args!(
            "{} Version={} IHL={} TOS={} Length={} Id={} Flags={flags} FragOffset={} TTL={} \
             Protocol={} Checksum={} SrcIP={} DstIP={} Options={} Padding=[]",
            Extent(header.slice().len(), ip.payload().payload.len()),
            header.version(),
            header.ihl(),
            header.dcp().value() << 2 | header.ecn().value(),
            header.total_len(),
            header.identification(),
            header.fragments_offset().value(),
            header.ttl(),
            protocol(header.protocol()),
            header.header_checksum(),
            header.source_addr(),
            header.destination_addr(),
            Count(header.options().len()),
        ),
    )
}

fn ipv6(ip: &LaxIpv6Slice<'_>) -> Layer {
    let header = ip.header();
    Layer::new(
        "ipv6",
        "IPv6",
        format_args!(
            "{} Version={} TrafficClass={} FlowLabel={} Length={} NextHeader={} HopLimit={} \
             SrcIP={} DstIP={} Extensions={}",
            Extent(
                header.slice().len(),
                ip.extensions().slice().len() + ip.payload().payload.len()
            ),
            header.version(),
            header.traffic_class(),
            header.flow_label().value(),
            header.payload_length(),
            protocol(header.next_header()),
            header.hop_limit(),
            header.source_addr(),
            header.destination_addr(),
            Count(ip.extensions().slice().len()),
        ),
    )
}

fn tcp(tcp: &TcpSlice<'_>) -> Layer {
    Layer::new(
        "tcp",
        "TCP",
        format_args!(
            "{} SrcPort={} DstPort={} Seq={} Ack={} DataOffset={} FIN={} SYN={} RST={} PSH={} \
             ACK={} URG={} ECE={} CWR={} NS={} Window={} Checksum={} Urgent={} Options={} Padding=[]",
            Extent(tcp.header_slice().len(), tcp.payload().len()),
            tcp.source_port(),
            tcp.destination_port(),
            tcp.sequence_number(),
            tcp.acknowledgment_number(),
            tcp.data_offset(),
            tcp.fin(),
            tcp.syn(),
            tcp.rst(),
            tcp.psh(),
            tcp.ack(),
            tcp.urg(),
            tcp.ece(),
            tcp.cwr(),
            tcp.ns(),
            tcp.window_size(),
            tcp.checksum(),
            tcp.urgent_pointer(),
            Count(tcp_options(tcp.options())),
        ),
    )
}

/// How many options there are: padding counts one by one, and the end of the list is the last (RFC 9293).
fn tcp_options(mut options: &[u8]) -> usize {
    let mut count = 0;
    while let [kind, rest @ ..] = options {
        count += 1;
        options = match (kind, rest.first()) {
            (0, _) => &[],
            (1, _) => rest,
            (_, Some(length)) => options.get(usize::from(*length).max(2)..).unwrap_or_default(),
            (_, None) => &[],
        };
    }
    count
}

fn udp(udp: &UdpSlice<'_>) -> Layer {
    Layer::new(
        "udp",
        "UDP",
        format_args!(
            "{} SrcPort={} DstPort={} Length={} Checksum={}",
            Extent(udp.header_slice().len(), udp.payload().len()),
            udp.source_port(),
            udp.destination_port(),
            udp.length(),
            udp.checksum(),
        ),
    )
}

fn sctp(sctp: &Sctp<'_>) -> Layer {
    Layer::new(
        "sctp",
        "SCTP",
        format_args!(
            "{} SrcPort={} DstPort={} VerificationTag={} Checksum={}",
            Extent(sctp.header.len(), sctp.payload.len()),
            sctp.source_port(),
            sctp.destination_port(),
            sctp.verification_tag(),
            sctp.checksum(),
        ),
    )
}

fn icmp4(icmp: &Icmpv4Slice<'_>) -> Layer {
    let [id_high, id_low, sequence_high, sequence_low] = icmp.bytes5to8();
    Layer::new(
        "icmpv4",
        "ICMPv4",
        format_args!(
            "{} TypeCode={} Checksum={} Id={} Seq={}",
            Extent(icmp.header_len(), icmp.payload().len()),
            Message { v6: false, kind: icmp.type_u8(), code: icmp.code_u8() },
            icmp.checksum(),
            u16::from_be_bytes([id_high, id_low]),
            u16::from_be_bytes([sequence_high, sequence_low]),
        ),
    )
}

fn icmp6(icmp: &Icmpv6Slice<'_>) -> Layer {
    Layer::new(
        "icmpv6",
        "ICMPv6",
        format_args!(
            "{} TypeCode={} Checksum={}",
            Extent(4, icmp.slice().len() - 4),
            Message { v6: true, kind: icmp.type_u8(), code: icmp.code_u8() },
            icmp.checksum(),
        ),
    )
}
