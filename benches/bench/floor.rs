//! The least that the kernel asks for: the same routes as raw netlink messages, serialised beforehand.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::lab;

/// Messages in one send.
const BATCH: usize = 256;

fn message(index: usize, ifindex: u32, acknowledged: bool) -> Vec<u8> {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = 28;
    route.header.table = 254;
    route.header.protocol = RouteProtocol::from(99);
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(IpAddr::from(lab::prefix(index)))),
        RouteAttribute::Gateway(RouteAddress::from(IpAddr::from(lab::VIA))),
        RouteAttribute::Oif(ifindex),
    ];
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL;
    header.flags |= if acknowledged { NLM_F_ACK } else { 0 };
    header.sequence_number = index as u32;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::NewRoute(route));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

fn eth0() -> u32 {
    let output = std::process::Command::new("ip").args(["-o", "link", "show", "eth0"]).output();
    let text = String::from_utf8(output.expect("ip").stdout).expect("text");
    text.split(':').next().and_then(|index| index.trim().parse().ok()).expect("an index")
}

fn send(chunks: &[Vec<u8>]) -> Duration {
    let mut socket = Socket::new(NETLINK_ROUTE).expect("socket");
    socket.bind_auto().expect("bind");
    socket.connect(&SocketAddr::new(0, 0)).expect("connect");
    let begin = Instant::now();
    for chunk in chunks {
        socket.send(chunk, 0).expect("send");
        let (answer, _) = socket.recv_from_full().expect("receive");
        let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        assert_eq!(code, 0, "the kernel refuses a route");
    }
    begin.elapsed()
}

/// Many messages in a send, the last one acknowledged.
pub fn batched(count: usize) -> Duration {
    let ifindex = eth0();
    let all: Vec<usize> = (0..count).collect();
    let chunks: Vec<Vec<u8>> = all
        .chunks(BATCH)
        .map(|chunk| {
            let last = chunk.len() - 1;
            chunk.iter().enumerate().flat_map(|(i, n)| message(*n, ifindex, i == last)).collect()
        })
        .collect();
    send(&chunks)
}

/// One message in a send, each one acknowledged.
pub fn one_by_one(count: usize) -> Duration {
    let ifindex = eth0();
    let messages: Vec<Vec<u8>> = (0..count).map(|index| message(index, ifindex, true)).collect();
    send(&messages)
}
