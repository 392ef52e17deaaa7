//! What clients outside are told, and who is told nothing.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use super::talk::{IMPATIENCE, PATIENCE, connect, connected, tcp};
use super::{ENDS, NODE_PORT, PORT, Place, WIDE, at, ip, service};

/// Nobody listens at the backend: its error is the service's.
fn refused_by_the_backend(tunnel: bool) {
    let Some(place) = Place::new(tunnel) else { return };
    for number in 0..4 {
        let of_both = ENDS.each_ref().map(|ends| place.backends(ends)[number].0);
        place.serve("", &service(&of_both.map(|ip| SocketAddr::new(ip, PORT)), ""));
        for ends in &ENDS {
            for frontend in [at(ends.node, NODE_PORT), at(ends.external, WIDE)] {
                let what = format!("{frontend} to {}", place.backends(ends)[number].0);
                // TCP by a segment, UDP by an ICMP error that quotes what was sent.
                let error = connect(&place.lab.outside, frontend, PATIENCE).expect_err(&what);
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "TCP {what}");
                let socket = connected(&place.lab.outside, frontend);
                socket.send(b"anybody?").expect("send");
                let error = socket.recv(&mut [0; 16]).expect_err(&what);
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "UDP {what}");
            }
        }
    }
}

#[test]
fn errors_of_backends_come_from_the_service() {
    refused_by_the_backend(false);
}

#[test]
fn errors_of_backends_come_from_the_service_by_the_tunnel() {
    refused_by_the_backend(true);
}

/// The other way: a client that is gone tells the backend.
#[test]
fn errors_of_clients_reach_the_backend() {
    for tunnel in [false, true] {
        let Some(place) = Place::new(tunnel) else { return };
        for (number, ends) in [(0, &ENDS[0]), (1, &ENDS[0]), (0, &ENDS[1]), (1, &ENDS[1])] {
            let of_both = ENDS.each_ref().map(|ends| place.backends(ends)[number].0);
            place.serve("", &service(&of_both.map(|ip| SocketAddr::new(ip, PORT)), ""));
            let (backend, space, _) = place.backends(ends)[number];
            let server = space.run(|| UdpSocket::bind((backend, PORT))).expect("bind");
            server.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
            let client = connected(&place.lab.outside, at(ends.external, WIDE));
            client.send(b"ask").expect("ask");
            let mut buffer = [0; 16];
            let (_, peer) = server.recv_from(&mut buffer).expect("what was asked");
            space.run(|| server.connect(peer)).expect("connect");
            drop(client);
            server.send(b"too late").expect("send");
            let error = server.recv(&mut buffer).expect_err("nobody is there");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{backend}, tunnel {tunnel}");
        }
    }
}

#[test]
fn no_backend() {
    let Some(place) = Place::new(false) else { return };
    for (policy, told) in [("reject", Some(ErrorKind::ConnectionRefused)), ("drop", None)] {
        place.serve(&format!("no-backend = {policy:?}"), &service(&[], ""));
        for ends in &ENDS {
            let frontend = at(ends.external, WIDE);
            let patience = if told.is_some() { PATIENCE } else { IMPATIENCE };
            let error = connect(&place.lab.outside, frontend, patience).expect_err("no backend");
            assert_eq!(error.kind(), told.unwrap_or(ErrorKind::TimedOut), "{policy} {frontend}");
        }
    }
}

#[test]
fn who_may_not_ask() {
    let Some(place) = Place::new(false) else { return };
    let backends = ENDS.each_ref().map(|ends| at(ends.there, PORT));
    let ranges = "source-ranges = [\"203.0.113.0/24\", \"2001:db8:f::/48\"]";
    place.serve("", &service(&backends, ranges));
    for ends in &ENDS {
        // A cluster IP is for endpoints and the node, and so is what the ranges are not about.
        for frontend in [at(ends.node, NODE_PORT), at(ends.external, WIDE), at(ends.cluster, WIDE)]
        {
            let error = connect(&place.lab.outside, frontend, IMPATIENCE).expect_err("let in");
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{frontend}");
        }
    }
    let metrics = place.lab.a.ciliate(&["bpf", "metrics", "list"]).all();
    for reason in ["Denied by LB src range check", "Is a ClusterIP"] {
        assert!(metrics.contains(reason), "{reason}: {metrics}");
    }
    place.serve("", &service(&backends, "source-ranges = [\"172.18.0.0/16\", \"fc00:18::/64\"]"));
    for (ends, backend) in ENDS.iter().zip(backends) {
        let seen = tcp(&place.lab.outside, at(ends.external, WIDE), &place.there, backend);
        assert_eq!(seen, ip(ends.node));
    }
}

/// A datagram that is too long for the tunnel is not lost for good: its sender is told, and cuts it.
#[test]
fn too_long_for_the_tunnel() {
    let Some(place) = Place::new(true) else { return };
    let backends = ENDS.each_ref().map(|ends| at(ends.there, PORT));
    place.serve("", &service(&backends, ""));
    for (ends, backend) in ENDS.iter().zip(backends) {
        let server = place.there.run(|| UdpSocket::bind(backend)).expect("bind");
        server.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        let client = connected(&place.lab.outside, at(ends.external, WIDE));
        let sent = [7; 1440];
        client.send(&sent).expect("send");
        let error = client.recv(&mut [0; 16]).expect_err("too long");
        // EMSGSIZE.
        assert_eq!(error.raw_os_error(), Some(90), "{error}");
        client.send(&sent).expect("send");
        let mut buffer = [0; 2000];
        let (size, _) = server.recv_from(&mut buffer).expect("the datagram");
        assert_eq!(buffer[..size], sent);
    }
}
