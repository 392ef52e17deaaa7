//! Clients outside with other things than plain TCP and UDP to node ports: host ports, SCTP, fragments.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, bind, ipproto, recvfrom, sendto, socket,
};

use super::talk::{PATIENCE, connect, connected, tcp, udp};
use super::{ENDS, Ends, NODE_PORT, PORT, Place, WIDE, at, ip, service};
use crate::node::list;
use crate::space::Space;

const HOST_PORT: u16 = 8081;
const EMSGSIZE: i32 = 90;

/// The node's own ports lead to the backends that are on it, and to no others.
#[test]
fn host_ports() {
    let Some(place) = Place::new(false) else { return };
    let of = |backends: &[SocketAddr], ports: &[&str]| -> String {
        let backends: Vec<String> = backends.iter().map(SocketAddr::to_string).collect();
        let backends = list(&backends.iter().map(String::as_str).collect::<Vec<_>>());
        let ports = list(ports);
        let one = |protocol| {
            format!(
                "[[service]]\nname = \"host-{protocol}\"\nprotocol = \"{protocol}\"\nhost-ports = {ports}\n\
                 backends = {backends}\n"
            )
        };
        one("TCP") + &one("UDP")
    };
    let both: Vec<SocketAddr> =
        ENDS.iter().flat_map(|ends| [at(ends.there, PORT), at(ends.here, PORT)]).collect();
    for ports in [["0.0.0.0:8081", "[::]:8081"], ["172.18.0.3:8081", "[fc00:18::3]:8081"]] {
        place.serve("", &of(&both, &ports));
        for ends in &ENDS {
            let (frontend, backend) = (at(ends.node, HOST_PORT), at(ends.here, PORT));
            for (client, seen) in
                [(&place.lab.outside, ends.client), (&place.lab.b.space, ends.other_node)]
            {
                // Any other backend would be found by one of these.
                for _ in 0..5 {
                    assert_eq!(tcp(client, frontend, &place.here, backend), ip(seen), "{ports:?}");
                    assert_eq!(udp(client, frontend, &place.here, backend), ip(seen), "{ports:?}");
                }
            }
        }
    }
    // Without one on the node nobody answers.
    place.serve(
        "",
        &of(&ENDS.each_ref().map(|ends| at(ends.there, PORT)), &["0.0.0.0:8081", "[::]:8081"]),
    );
    for ends in &ENDS {
        let error =
            connect(&place.lab.outside, at(ends.node, HOST_PORT), PATIENCE).expect_err("nobody");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}

/// The checksum of SCTP (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

/// An INIT chunk with text for its parameters: all that is looked at are the ports.
fn sctp(from: u16, to: u16, text: &[u8]) -> Vec<u8> {
    let mut packet =
        [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 8], &[1, 0, 0, 4], text].concat();
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// A socket for whole SCTP packets; this machine's kernel need not have the protocol.
struct Raw(OwnedFd);

impl Raw {
    fn open(space: &Space, address: IpAddr) -> Self {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let made = space.run(|| {
            let made = socket(family, SocketType::RAW, Some(ipproto::SCTP))?;
            bind(&made, &SocketAddr::new(address, 0))?;
            set_socket_timeout(&made, Timeout::Recv, Some(PATIENCE))?;
            Ok::<_, rustix::io::Errno>(made)
        });
        Self(made.expect("a raw socket"))
    }

    fn send(&self, to: IpAddr, packet: &[u8]) {
        sendto(&self.0, packet, SendFlags::empty(), &SocketAddr::new(to, 0)).expect("send");
    }

    /// The next packet between these ports, whose checksum has to be right, and who sent it.
    #[track_caller]
    fn receive(&self, ports: (u16, u16), what: &str) -> (IpAddr, Vec<u8>) {
        loop {
            let mut buffer = [0; 2048];
            let received = recvfrom(&self.0, &mut buffer[..], RecvFlags::empty());
            let (size, _, from) = received.unwrap_or_else(|error| panic!("{what}: {error}"));
            let from = SocketAddr::try_from(from.expect("a sender")).expect("an address").ip();
            // Sockets of IPv4 give the header along.
            let begin = if from.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
            let packet = &buffer[begin..size];
            let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            if (port(0), port(2)) != ports {
                continue;
            }
            let mut summed = packet.to_vec();
            summed[8..12].fill(0);
            assert_eq!(crc32c(&summed).to_le_bytes(), packet[8..12], "{what}: the checksum");
            return (from, packet[16..].to_vec());
        }
    }
}

/// There and back; returns whom the backend sees.
#[track_caller]
fn sctp_talk(from: (&Space, &str), frontend: &str, to: &Space, backend: &str, port: u16) -> IpAddr {
    const CLIENT: u16 = 40_123;
    let what = format!("SCTP from {} by {frontend}:{port} to {backend}", from.1);
    let (client, server) = (Raw::open(from.0, ip(from.1)), Raw::open(to, ip(backend)));
    client.send(ip(frontend), &sctp(CLIENT, port, b"ask"));
    let (seen, text) = server.receive((CLIENT, port), &what);
    assert_eq!(text, b"ask", "{what}");
    server.send(seen, &sctp(port, CLIENT, b"answer"));
    let (answered, text) = client.receive((port, CLIENT), &what);
    assert_eq!((answered, &text[..]), (ip(frontend), &b"answer"[..]), "{what}");
    seen
}

fn sctp_everywhere(tunnel: bool) {
    let Some(place) = Place::new(tunnel) else { return };
    let wide = |ends: &Ends, pick: fn(&Ends) -> &'static str| at(pick(ends), PORT).to_string();
    for number in 0..2 {
        let backend = |ends: &Ends| place.backends(ends)[number].0;
        // Its checksum can't be had, so no port is exchanged: each frontend has that of its backends.
        let services: String = [(PORT, ""), (NODE_PORT, "node-port = 30080")]
            .map(|(port, more)| {
                let backends = ENDS.each_ref().map(|ends| SocketAddr::new(backend(ends), port).to_string());
                let external = ENDS.each_ref().map(|ends| wide(ends, |ends| ends.external));
                let external = list(&external.each_ref().map(String::as_str));
                let external = if more.is_empty() { format!("external-ips = {external}") } else { String::new() };
                let backends = list(&backends.each_ref().map(String::as_str));
                format!(
                    "[[service]]\nname = \"sctp-{port}\"\nprotocol = \"SCTP\"\n{more}\n{external}\nbackends = {backends}\n"
                )
            })
            .concat();
        place.serve("", &services);
        for ends in &ENDS {
            let (address, space, seen) = place.backends(ends)[number];
            let address = address.to_string();
            for (frontend, port) in [(ends.external, PORT), (ends.node, NODE_PORT)] {
                let client = (&place.lab.outside, ends.client);
                assert_eq!(sctp_talk(client, frontend, space, &address, port), seen);
            }
        }
    }
}

#[test]
fn sctp_by_route() {
    sctp_everywhere(false);
}

#[test]
fn sctp_by_tunnel() {
    sctp_everywhere(true);
}

/// Datagrams that are cut into pieces, both ways: only the first has ports.
fn in_pieces(tunnel: bool) {
    let Some(place) = Place::new(tunnel) else { return };
    for number in 0..place.backends(&ENDS[0]).len() {
        let of_both = ENDS.each_ref().map(|ends| place.backends(ends)[number].0);
        place.serve("", &service(&of_both.map(|ip| SocketAddr::new(ip, PORT)), ""));
        for ends in &ENDS {
            let (backend, space, seen) = place.backends(ends)[number];
            let server = space.run(|| UdpSocket::bind((backend, PORT))).expect("bind");
            server.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
            for frontend in [at(ends.external, WIDE), at(ends.node, NODE_PORT)] {
                let client = connected(&place.lab.outside, frontend);
                // IPv6 is cut by its sender alone, which is told how small for the tunnel.
                if tunnel && space.name == place.there.name && frontend.is_ipv6() {
                    client.send(&[7; 3000]).expect("send");
                    let error = client.recv(&mut [0; 16]).expect_err("too long");
                    assert_eq!(error.raw_os_error(), Some(EMSGSIZE), "{error}");
                }
                for size in [3000, 20_000] {
                    let what = format!("{size} bytes by {frontend} to {backend}");
                    let sent: Vec<u8> = (0..size).map(|n| (n % 241) as u8).collect();
                    client.send(&sent).expect("send");
                    let mut buffer = vec![0; 65_536];
                    let (got, peer) =
                        server.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert!(buffer[..got] == sent, "{what}: {got} bytes there");
                    assert_eq!(peer.ip(), seen, "{what}");
                    server.send_to(&sent, peer).expect("send back");
                    let got = client.recv(&mut buffer).unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert!(buffer[..got] == sent, "{what}: {got} bytes back");
                }
            }
        }
    }
}

#[test]
fn fragments() {
    in_pieces(false);
}

#[test]
fn fragments_by_tunnel() {
    in_pieces(true);
}
