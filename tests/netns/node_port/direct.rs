//! Direct return: backends on other nodes see clients outside, and their answers go there straight away.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use super::talk::{PATIENCE, connect, connected, tcp, udp};
use super::{ENDS, NODE_PORT, PAST_THE_STACKS, PORT, Place, WIDE, at, ip, service};
use crate::capture::Capture;

const DIRECT: &str = "mode = \"dsr\"";

/// Both nodes ask for it; node b has no service.
fn place(routing: &'static str) -> Option<Place> {
    Some(Place::new(false)?.with(routing, DIRECT))
}

/// Backends that another node has: its endpoint, and itself.
const ELSEWHERE: [usize; 2] = [1, 3];

fn the_client_is_seen(routing: &'static str) {
    let Some(place) = place(routing) else { return };
    for number in 0..place.backends(&ENDS[0]).len() {
        let of_both = ENDS.each_ref().map(|ends| place.backends(ends)[number].0);
        place.serve(DIRECT, &service(&of_both.map(|ip| SocketAddr::new(ip, PORT)), ""));
        for ends in &ENDS {
            let (backend, space, seen) = place.backends(ends)[number];
            // What is no node's can't answer for a service: that goes on from this node.
            let seen = if ELSEWHERE.contains(&number) { ip(ends.client) } else { seen };
            let backend = SocketAddr::new(backend, PORT);
            for frontend in
                [at(ends.node, NODE_PORT), at(ends.external, WIDE), at(ends.load_balancer, WIDE)]
            {
                let what = format!("{frontend} to {backend}");
                assert_eq!(tcp(&place.lab.outside, frontend, space, backend), seen, "TCP {what}");
                assert_eq!(udp(&place.lab.outside, frontend, space, backend), seen, "UDP {what}");
            }
        }
    }
}

#[test]
fn the_client_is_seen_by_the_stacks() {
    the_client_is_seen("");
}

#[test]
fn the_client_is_seen_past_the_stacks() {
    the_client_is_seen(PAST_THE_STACKS);
}

/// `status` says what is in force.
#[test]
fn status_says_the_mode() {
    let Some(place) = place("") else { return };
    let wide = service(&ENDS.each_ref().map(|ends| at(ends.there, PORT)), "");
    let narrow = "[[service]]\nname = \"inside\"\ncluster-ips = [\"10.96.0.10:80\"]\n\
                  backends = [\"10.244.1.124:8080\"]\n";
    let assert_said = |text: &str, json: Option<&str>| {
        let said = place.lab.a.ciliate(&["status"]).stdout;
        let services = said.lines().find(|line| line.starts_with("Services:")).expect("a row");
        assert!(services.ends_with(text), "no `{text}` in {services}");
        let said = place.lab.a.ciliate(&["status", "-o", "json"]).json();
        assert_eq!(said["summary"]["load_balancing"].as_str(), json);
    };
    place.serve("", narrow);
    assert_said("[1 frontend, 1 backend]", None);
    place.serve("", &wide);
    assert_said("backends]   Mode: SNAT", Some("snat"));
    place.write(DIRECT, &wide);
    assert_said("backends]   Mode: SNAT", Some("snat"));
    place.serve(DIRECT, &wide);
    assert_said("backends]   Mode: DSR", Some("dsr"));
}

/// On the wire: what goes to the backend is from the client, with the option where a flow begins, by node a; what comes
/// back is from the service, by node b.
#[test]
fn answers_take_the_short_way() {
    let Some(place) = place("") else { return };
    let macs = [&place.lab.a.space, &place.lab.b.space].map(|space| {
        space.sh(r"ip -o link show dev eth0 | sed 's/.*ether \([^ ]*\) .*/\1/'").trim().to_string()
    });
    place.serve(DIRECT, &service(&ENDS.each_ref().map(|ends| at(ends.there, PORT)), ""));
    for ends in &ENDS {
        let frontend = at(ends.external, WIDE);
        let backs = Capture::start(
            &place.lab.outside,
            "eth0",
            20,
            &format!("src host {} and tcp", ends.external),
        );
        let forth = Capture::start(
            &place.lab.b.space,
            "eth0",
            20,
            &format!("src host {} and dst host {}", ends.client, ends.there),
        );
        let backend = at(ends.there, PORT);
        assert_eq!(tcp(&place.lab.outside, frontend, &place.there, backend), ip(ends.client));
        let (forth, back) = (forth.lines(), backs.lines());
        assert!(forth.len() >= 5 && back.len() >= 5, "{forth:#?}\n{back:#?}");
        for line in &forth {
            assert!(line.starts_with(&macs[0]), "{line} is not by node a ({})", macs[0]);
        }
        for line in &back {
            assert!(line.starts_with(&macs[1]), "{line} is not by node b ({})", macs[1]);
        }
        // Eight bytes of options, or a header of 24.
        let lengths = |line: &str| -> usize {
            let length = line.split("length ").nth(1).expect("a length");
            length.split([':', ' ', ',']).next().and_then(|n| n.parse().ok()).expect("a number")
        };
        let syn = if ends.client.contains(':') { 14 + 40 + 24 + 40 } else { 14 + 20 + 8 + 40 };
        assert_eq!(lengths(&forth[0]), syn, "{}", forth[0]);
    }
    let listed = place.lab.b.ciliate(&["bpf", "nat", "list"]).all();
    for ends in &ENDS {
        let line = format!("TCP OUT {} -> ", at(ends.there, PORT));
        let service = format!("XLATE_SRC {} ", at(ends.external, WIDE));
        assert!(
            listed.lines().any(|found| found.starts_with(&line) && found.contains(&service)),
            "{line}…{service}: {listed}"
        );
    }
}

/// Errors of backends are the service's, those of clients reach the backend.
#[test]
fn errors() {
    let Some(place) = place("") else { return };
    for number in ELSEWHERE {
        let of_both = ENDS.each_ref().map(|ends| place.backends(ends)[number].0);
        place.serve(DIRECT, &service(&of_both.map(|ip| SocketAddr::new(ip, PORT)), ""));
        for ends in &ENDS {
            let frontend = at(ends.external, WIDE);
            let error = connect(&place.lab.outside, frontend, PATIENCE).expect_err("nobody");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "TCP {frontend}");
            let socket = connected(&place.lab.outside, frontend);
            socket.send(b"anybody?").expect("send");
            let error = socket.recv(&mut [0; 16]).expect_err("nobody");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "UDP {frontend}");

            let (backend, space, _) = place.backends(ends)[number];
            let server = space.run(|| UdpSocket::bind((backend, PORT))).expect("bind");
            server.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
            let client = connected(&place.lab.outside, frontend);
            client.send(b"ask").expect("ask");
            let mut buffer = [0; 16];
            let (_, peer) = server.recv_from(&mut buffer).expect("what was asked");
            assert_eq!(peer.ip(), ip(ends.client));
            space.run(|| server.connect(peer)).expect("connect");
            drop(client);
            server.send(b"too late").expect("send");
            // The client's error goes to the service, and so to the backend.
            let error = server.recv(&mut buffer).expect_err("nobody is there");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{backend}");
        }
    }
}

/// A datagram for which there is no room with the option: its sender is told, and cuts it. Pieces arrive, both ways.
#[test]
fn too_long_with_the_option() {
    let Some(place) = place("") else { return };
    let backends = ENDS.each_ref().map(|ends| at(ends.there, PORT));
    place.serve(DIRECT, &service(&backends, ""));
    for (ends, backend) in ENDS.iter().zip(backends) {
        let server = place.there.run(|| UdpSocket::bind(backend)).expect("bind");
        server.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        let client = connected(&place.lab.outside, at(ends.external, WIDE));
        // As long as the wire takes.
        let sent = vec![7; 1500 - 8 - if ends.client.contains(':') { 40 } else { 20 }];
        client.send(&sent).expect("send");
        let error = client.recv(&mut [0; 16]).expect_err("too long");
        // EMSGSIZE.
        assert_eq!(error.raw_os_error(), Some(90), "{error}");
        for sent in [sent, vec![9; 5000]] {
            client.send(&sent).expect("send");
            let mut buffer = vec![0; 65_536];
            let (size, peer) = server.recv_from(&mut buffer).expect("the datagram");
            assert_eq!(buffer[..size], sent);
            server.send_to(&sent, peer).expect("send back");
            let size = client.recv(&mut buffer).expect("the answer");
            assert_eq!(buffer[..size], sent);
        }
    }
}

/// From the same port to the backend itself afterwards: nothing of the service is left.
#[test]
fn the_same_port_without_the_service() {
    let Some(place) = place("") else { return };
    let backends = ENDS.each_ref().map(|ends| at(ends.there, PORT));
    place.serve(DIRECT, &service(&backends, ""));
    place.lab.outside.sh("ip route add 10.244.1.0/24 via 172.18.0.2; ip -6 route add fd00:10:244:1::/80 via fc00:18::2");
    for (ends, backend) in ENDS.iter().zip(backends) {
        for target in [at(ends.external, WIDE), backend, at(ends.external, WIDE)] {
            let server = super::talk::listen(&place.there, backend);
            let client = super::apart::from_port(&place.lab.outside, 41_234, target);
            let (_, peer) = server.accept().expect("accept");
            assert_eq!(peer, at(ends.client, 41_234));
            assert_eq!(client.peer_addr().expect("connected"), target);
            rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO))
                .expect("no farewell");
        }
    }
    place.lab.outside.sh("ip route del 10.244.1.0/24; ip -6 route del fd00:10:244:1::/80");
}
