//! Flows of clients, and the node's own, to the same backend at the same time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use super::talk::{PATIENCE, listen};
use super::{ENDS, PORT, Place, WIDE, at, service};
use crate::space::Space;

/// A connection from a port of one's own choice.
#[track_caller]
pub fn from_port(space: &Space, port: u16, to: SocketAddr) -> TcpStream {
    let any: SocketAddr =
        if to.is_ipv6() { ([0u16; 8], port).into() } else { ([0u8; 4], port).into() };
    let family = if to.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let made = space.run(|| {
        let made = socket(family, SocketType::STREAM, None)?;
        rustix::net::sockopt::set_socket_reuseaddr(&made, true)?;
        bind(&made, &any)?;
        connect(&made, &to)?;
        Ok::<_, rustix::io::Errno>(made)
    });
    let made = made.unwrap_or_else(|error| panic!("from port {port} to {to}: {error}"));
    let stream = TcpStream::from(made);
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    stream
}

/// Takes connections, and tells each client its number, for as many as there are to be.
fn counting(listener: TcpListener, count: u8) -> thread::JoinHandle<Vec<SocketAddr>> {
    thread::spawn(move || {
        let mut streams: Vec<(TcpStream, SocketAddr)> =
            (0..count).map(|_| listener.accept().expect("accept")).collect();
        for _ in 0..2 {
            for (number, (stream, _)) in (0..).zip(&mut streams) {
                stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a byte");
                stream.write_all(&[byte[0], number]).expect("answer");
            }
        }
        streams.into_iter().map(|(_, peer)| peer).collect()
    })
}

/// Both streams are still what they were.
#[track_caller]
fn assert_apart(streams: &mut [TcpStream]) {
    for round in 0..2 {
        for (number, stream) in (0..).zip(streams.iter_mut()) {
            stream.write_all(&[round * 10 + number]).expect("send a byte");
        }
        for (number, stream) in (0..).zip(streams.iter_mut()) {
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).expect("the answer");
            assert_eq!(answer, [round * 10 + number, number], "round {round}");
        }
    }
}

/// The client's source port is that of the node's own connection to the backend, whoever was first.
fn same_port(tunnel: bool) {
    let Some(place) = Place::new(tunnel) else { return };
    let backends = ENDS.each_ref().map(|ends| at(ends.there, PORT));
    place.serve("", &service(&backends, ""));
    for (ends, backend) in ENDS.iter().zip(backends) {
        for (port, node_first) in [(40_001, true), (40_002, false)] {
            let server = counting(listen(&place.there, backend), 2);
            let own = || from_port(&place.lab.a.space, port, backend);
            let client = || from_port(&place.lab.outside, port, at(ends.external, WIDE));
            let (first, second): (TcpStream, TcpStream) =
                if node_first { (own(), client()) } else { (client(), own()) };
            assert_apart(&mut [first, second]);
            let seen = server.join().expect("the server");
            assert_eq!(seen[0].ip(), seen[1].ip(), "both are from the node");
            assert!(seen[0].port() == port && seen[1].port() != port, "{seen:?}");
        }
    }
}

#[test]
fn from_the_nodes_own() {
    same_port(false);
}

#[test]
fn from_the_nodes_own_through_the_tunnel() {
    same_port(true);
}

/// Two clients with the same source port; and what is left of them is listed.
#[test]
fn from_each_other() {
    let Some(place) = Place::new(false) else { return };
    let backends = ENDS.each_ref().map(|ends| at(ends.there, PORT));
    place.serve("", &service(&backends, ""));
    for (ends, backend) in ENDS.iter().zip(backends) {
        let server = counting(listen(&place.there, backend), 2);
        let frontend = at(ends.external, WIDE);
        let mut streams = [
            from_port(&place.lab.outside, 41_000, frontend),
            from_port(&place.lab.b.space, 41_000, at(ends.node, super::NODE_PORT)),
        ];
        assert_apart(&mut streams);
        let seen = server.join().expect("the server");
        assert_ne!(seen[0], seen[1]);
        let listed = place.lab.a.ciliate(&["bpf", "nat", "list"]).all();
        let line = format!(
            "TCP OUT {} -> {backend} XLATE_SRC {} ",
            at(ends.client, 41_000),
            at(ends.node, 41_000)
        );
        assert!(listed.contains(&line), "{line}: {listed}");
    }
}
