//! How much of what clients outside send each backend gets.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::net::sockopt;

use super::talk::{PATIENCE, connected};
use super::{ENDS, NODE_PORT, PORT, Place, at, ip};
use crate::node::list;
use crate::space::Space;

/// Flows of a family.
const FLOWS: u16 = 10_000;
/// Ports that NAT leaves as they are: what goes elsewhere is not to wait for others.
const FIRST: u16 = 40_000;
/// Room for what nobody has read yet.
const BUFFER_BYTES: usize = 64 * 1024 * 1024;

/// A backend that only counts.
struct Counter {
    at: SocketAddr,
    socket: UdpSocket,
}

impl Counter {
    fn start(space: &Space, at: SocketAddr) -> Self {
        let socket = space.run(|| UdpSocket::bind(at)).expect("bind");
        sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).expect("a larger buffer");
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("set a timeout");
        Self { at, socket }
    }

    fn count(&self) -> u64 {
        let mut count = 0;
        loop {
            match self.socket.recv_from(&mut [0; 16]) {
                Ok(_) => count += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return count;
                }
            }
        }
    }
}

/// Backends of both families with weights: two on the node, two on the other one.
fn backends(place: &Place) -> Vec<[(SocketAddr, &Space); 4]> {
    let of = |ends: &super::Ends| {
        let (here, there) = (&place.here, &place.there);
        [
            (at(ends.here, PORT), here),
            (at(ends.here, PORT + 1), here),
            (at(ends.there, PORT), there),
            (at(ends.there, PORT + 1), there),
        ]
    };
    ENDS.iter().map(of).collect()
}

fn service(place: &Place, weights: [u32; 4], more: &str) -> String {
    let one = |(backend, weight): (SocketAddr, u32)| {
        format!("{{ address = \"{backend}\", weight = {weight} }}")
    };
    let all: Vec<String> = backends(place)
        .iter()
        .flat_map(|family| {
            family.iter().map(|(at, _)| *at).zip(weights).map(one).collect::<Vec<_>>()
        })
        .collect();
    format!(
        "[[service]]\nname = \"shares\"\nprotocol = \"UDP\"\nnode-port = {NODE_PORT}\nbackends = [{}]\n{more}\n",
        all.join(", ")
    )
}

/// What each backend gets of flows from one port each.
fn shares(place: &Place, family: usize) -> BTreeMap<SocketAddr, u64> {
    let servers: Vec<Counter> =
        backends(place)[family].iter().map(|(at, space)| Counter::start(space, *at)).collect();
    let ends = &ENDS[family];
    place.lab.outside.run(|| {
        for port in FIRST..FIRST + FLOWS {
            let socket = UdpSocket::bind((ip(ends.client), port)).expect("bind");
            socket.send_to(b"one", at(ends.node, NODE_PORT)).expect("send");
        }
    });
    servers.iter().map(|server| (server.at, server.count())).collect()
}

/// Within five standard deviations of what is due, and a hundredth of it for tables that are not quite even.
#[track_caller]
fn assert_fair(shares: &BTreeMap<SocketAddr, u64>, due: [f64; 4], what: &str) {
    let total: u64 = shares.values().sum();
    assert_eq!(total, u64::from(FLOWS), "{what}: {shares:?}");
    for ((backend, got), due) in shares.iter().zip(due) {
        let expected = due * f64::from(FLOWS);
        let bound = 5.0 * (expected * (1.0 - due)).sqrt() + expected / 100.0;
        let off = (*got as f64 - expected).abs();
        assert!(
            off <= bound,
            "{what}: {backend} got {got}, {expected} ± {bound} are due: {shares:?}"
        );
    }
}

#[test]
fn ten_thousand_flows() {
    let Some(place) = Place::new(false) else { return };
    let even = [0.25; 4];
    for (balancing, weights, due) in [
        ("", [100; 4], even),
        ("algorithm = \"maglev\"", [100; 4], even),
        ("algorithm = \"maglev\"", [100, 200, 300, 400], [0.1, 0.2, 0.3, 0.4]),
    ] {
        place.serve(balancing, &service(&place, weights, ""));
        for family in [0, 1] {
            // What each flow was kept at is forgotten.
            assert_eq!(place.lab.a.ciliate(&["bpf", "ct", "flush"]).code, 0);
            let shares = shares(&place, family);
            assert_fair(&shares, due, &format!("{balancing:?} {weights:?}"));
        }
    }
}

/// A client outside stays at its backend from whatever port it asks, another client at its own, and both go on
/// elsewhere when it is gone.
#[test]
fn affinity() {
    let Some(place) = Place::new(false) else { return };
    for balancing in ["", "algorithm = \"maglev\""] {
        for family in [0, 1] {
            let mut left = backends(&place)[family].to_vec();
            let ends = &ENDS[family];
            let mut before = BTreeMap::new();
            while !left.is_empty() {
                let all: Vec<String> = left.iter().map(|(at, _)| at.to_string()).collect();
                let all = list(&all.iter().map(String::as_str).collect::<Vec<_>>());
                let text = format!(
                    "[[service]]\nname = \"kept\"\nprotocol = \"UDP\"\nnode-port = {NODE_PORT}\nbackends = {all}\n\
                     session-affinity = \"1h\"\n"
                );
                place.serve(balancing, &text);
                let servers: Vec<Counter> =
                    left.iter().map(|(at, space)| Counter::start(space, *at)).collect();
                let mut chosen = None;
                for client in [&place.lab.outside, &place.lab.b.space] {
                    for _ in 0..20 {
                        connected(client, at(ends.node, NODE_PORT)).send(b"one").expect("send");
                    }
                    // Neighbours may have to be found first.
                    let mut counts = vec![0; servers.len()];
                    crate::daemon::wait_until(PATIENCE, || {
                        let each = counts.iter_mut().zip(&servers);
                        each.for_each(|(count, server)| *count += server.count());
                        counts.iter().sum::<u64>() >= 20
                    });
                    let got = servers.iter().zip(&counts).filter(|(_, count)| **count == 20);
                    let [(one, _)] = got.collect::<Vec<_>>()[..] else {
                        panic!("{}: not all went to one: {counts:?}", client.name)
                    };
                    let name = client.name.clone();
                    let kept =
                        before.insert(name, one.at).filter(|at| all.contains(&at.to_string()));
                    assert!(
                        kept.is_none_or(|at| at == one.at),
                        "{}: kept at {kept:?}",
                        client.name
                    );
                    chosen = Some(one.at);
                }
                left.retain(|(at, _)| Some(*at) != chosen);
            }
        }
    }
}
