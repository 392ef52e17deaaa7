//! Services in the socket, with the kernel's own sockets: whom they are connected to, and whom they say they are.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use aya::maps::HashMap;
use ciliate::bpf_abi::*;

use crate::control_group;
use crate::lab::{self, Globals, Lab};
use crate::model::services::{Backend, Frontend};
use crate::sandbox::ip;
use crate::service_world::*;

const PATIENCE: Duration = Duration::from_secs(20);
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Addresses of this namespace that stand for backends, and those of services.
#[derive(Clone, Copy)]
struct Place {
    /// The node's own.
    node: IpAddr,
    other: IpAddr,
    vip: IpAddr,
    external: IpAddr,
    peer: IpAddr,
    base: u16,
}

fn places() -> [Place; 2] {
    let v4 = |last| IpAddr::from([10, 99, 0, last]);
    let v6 = |last| IpAddr::from([0xfd00, 0x99, 0, 0, 0, 0, 0, last]);
    [
        Place {
            node: v4(1),
            other: v4(2),
            vip: VIP4.into(),
            external: v4(80),
            peer: v4(90),
            base: 0,
        },
        Place {
            node: v6(1),
            other: v6(2),
            vip: VIP6.into(),
            external: v6(0x80),
            peer: v6(0x90),
            base: 20,
        },
    ]
}

/// A namespace with the addresses above, and services whose backends they are.
fn run(test: impl Fn(&mut Lab, Place) + Send + Sync) {
    run_with(Globals::default(), test);
}

fn run_with(globals: Globals, test: impl Fn(&mut Lab, Place) + Send + Sync) {
    lab::run_with(globals, |lab| {
        for place in places() {
            for address in [place.node, place.other] {
                ip(&format!("address add {address}/{} dev lo", bits(address)));
                wait_for(address);
            }
        }
        let mut world = lab.world.clone();
        for place in places() {
            for (address, identity) in [
                (place.node, IDENTITY_HOST),
                (place.other, IDENTITY_HOST),
                (place.peer, IDENTITY_REMOTE_NODE),
            ] {
                world.ipcache.push((address, bits(address), IpcacheValue::new(identity)));
            }
        }
        lab.describe(world);
        let group = control_group::enter();
        lab.attach_sockets(&group.open());
        for place in places() {
            test(lab, place);
        }
    });
}

/// Waits until an address can be used: what the kernel does about an IPv6 one, and its route, come in their
/// own time, on `lo` as well.
fn wait_for(address: IpAddr) {
    let since = Instant::now();
    let works = || UdpSocket::bind((address, 0)).and_then(|socket| socket.connect((address, 9)));
    while let Err(error) = works() {
        assert!(since.elapsed() < PATIENCE, "{address}: {error}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// A service at an address and a port; its backends are ports of the node.
fn service(lab: &mut Lab, at: (IpAddr, u16, u8), number: u16, flags: u8, ports: &[(IpAddr, u16)]) {
    let mut world = lab.world.clone();
    let ids: Vec<u32> =
        (0..ports.len() as u32).map(|index| u32::from(number) * 16 + index + 1).collect();
    for (id, (address, port)) in ids.iter().zip(ports) {
        world.backends.insert(*id, Backend { address: *address, port: *port, state: 0 });
    }
    let affinity_s = if flags & SERVICE_FLAG_AFFINITY != 0 { 600 } else { 0 };
    let frontend =
        Frontend { rev_nat: number, flags, affinity_s, backends: ids, ..Frontend::default() };
    world.services.insert(at, frontend);
    lab.describe(world);
}

fn listen(address: IpAddr) -> (TcpListener, (IpAddr, u16)) {
    let listener = TcpListener::bind((address, 0)).expect("bind");
    let port = listener.local_addr().expect("an address").port();
    (listener, (address, port))
}

/// Whom a connection to somebody is with.
fn connect(to: impl Into<SocketAddr>) -> TcpStream {
    let to = to.into();
    TcpStream::connect_timeout(&to, PATIENCE).unwrap_or_else(|error| panic!("{to}: {error}"))
}

#[test]
fn tcp_is_with_the_backend_and_says_it_is_with_the_service() {
    run(|lab, place| {
        let (listener, backend) = listen(place.node);
        service(lab, (place.vip, 80, TCP), place.base + 1, 0, &[backend]);
        let stream = connect((place.vip, 80));
        let (accepted, client) = listener.accept().expect("a client");
        assert_eq!(stream.peer_addr().expect("a peer"), (place.vip, 80).into());
        assert_eq!(client, stream.local_addr().expect("an address"));
        assert_eq!(accepted.local_addr().expect("an address"), backend.into());
        let others = connect(backend);
        assert_eq!(others.peer_addr().expect("a peer"), backend.into(), "no service at all");
    });
}

#[test]
fn ipv4_by_a_socket_of_ipv6() {
    run(|lab, place| {
        let (IpAddr::V4(vip), IpAddr::V4(_)) = (place.vip, place.node) else { return };
        let (listener, backend) = listen(place.node);
        service(lab, (place.vip, 80, TCP), place.base + 1, 0, &[backend]);
        let mapped = (IpAddr::from(vip.to_ipv6_mapped()), 80);
        let stream = connect(mapped);
        assert_eq!(stream.peer_addr().expect("a peer"), mapped.into());
        listener.accept().expect("a client");
    });
}

#[test]
fn no_backend_is_no_route() {
    run(|lab, place| {
        service(lab, (place.vip, 81, TCP), place.base + 2, 0, &[]);
        service(lab, (place.vip, 81, UDP), place.base + 3, 0, &[]);
        let error = TcpStream::connect((place.vip, 81)).expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::HostUnreachable);
        let socket = UdpSocket::bind((place.node, 0)).expect("bind");
        let error = socket.send_to(b"anybody", (place.vip, 81)).expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    });
}

/// The entries of what sockets asked for.
fn remembered(lab: &mut Lab, ipv4: bool) -> usize {
    if ipv4 {
        let map: HashMap<_, [u8; 16], [u8; 8]> =
            lab.map(CILIUM_LB4_REVERSE_SK).try_into().expect("hash");
        map.keys().count()
    } else {
        let map: HashMap<_, [u8; 32], [u8; 20]> =
            lab.map(CILIUM_LB6_REVERSE_SK).try_into().expect("hash");
        map.keys().count()
    }
}

#[test]
fn nothing_is_left_of_a_socket() {
    run(|lab, place| {
        let (_listener, backend) = listen(place.node);
        service(lab, (place.vip, 80, TCP), place.base + 1, 0, &[backend]);
        let stream = connect((place.vip, 80));
        assert_eq!(remembered(lab, place.vip.is_ipv4()), 1);
        drop(stream);
        assert_eq!(remembered(lab, place.vip.is_ipv4()), 0);
    });
}

#[test]
fn udp_stays_at_one_backend_and_is_answered_by_the_service() {
    run(|lab, place| {
        let servers = [place.node, place.other, place.node, place.other]
            .map(|address| UdpSocket::bind((address, 0)).expect("bind"));
        let backends = servers.each_ref().map(|server| server.local_addr().expect("an address"));
        let backends = backends.map(|address| (address.ip(), address.port()));
        service(lab, (place.vip, 53, UDP), place.base + 4, 0, &backends);
        servers.iter().for_each(|server| server.set_nonblocking(true).expect("no waiting"));
        let mut taken = BTreeSet::new();
        for _ in 0..40 {
            let client = UdpSocket::bind((place.node, 0)).expect("bind");
            client.set_read_timeout(Some(PATIENCE)).expect("a limit");
            let mut of_this = BTreeSet::new();
            for _ in 0..3 {
                client.send_to(b"question", (place.vip, 53)).expect("send");
                // On one machine a datagram is there when `send` returns.
                let mut got = servers.iter().enumerate().filter_map(|(index, server)| {
                    let (_, from) = server.recv_from(&mut [0; 20]).ok()?;
                    server.send_to(b"answer", from).expect("answer");
                    Some(index)
                });
                of_this.insert(got.next().expect("one of them has it"));
                let (_, from) = client.recv_from(&mut [0; 20]).expect("an answer");
                assert_eq!(from, (place.vip, 53).into());
            }
            assert_eq!(of_this.len(), 1, "one socket, one backend");
            taken.extend(of_this);
        }
        assert!(taken.len() > 1, "all sockets at one backend");
        let client = UdpSocket::bind((place.node, 0)).expect("bind");
        client.connect((place.vip, 53)).expect("connect");
        assert_eq!(client.peer_addr().expect("a peer"), (place.vip, 53).into());
    });
}

#[test]
fn tcp_goes_to_any_but_a_client_that_is_kept_to_one() {
    run(|lab, place| {
        let listeners = [place.node, place.other].map(listen);
        let backends = listeners.each_ref().map(|(_, backend)| *backend);
        service(lab, (place.vip, 80, TCP), place.base + 1, 0, &backends);
        service(lab, (place.vip, 82, TCP), place.base + 5, SERVICE_FLAG_AFFINITY, &backends);
        let goes_to = |lab: &mut Lab, port| {
            let _stream = connect((place.vip, port));
            let v4 = place.vip.is_ipv4();
            if v4 {
                let map: HashMap<_, [u8; 16], [u8; 8]> =
                    lab.map(CILIUM_LB4_REVERSE_SK).try_into().expect("hash");
                let key = map.keys().next().expect("one socket").expect("a key");
                Lb4ReverseSkKey::from_bytes(&key).address_be.to_vec()
            } else {
                let map: HashMap<_, [u8; 32], [u8; 20]> =
                    lab.map(CILIUM_LB6_REVERSE_SK).try_into().expect("hash");
                let key = map.keys().next().expect("one socket").expect("a key");
                Lb6ReverseSkKey::from_bytes(&key).address_be.to_vec()
            }
        };
        let any: BTreeSet<_> = (0..40).map(|_| goes_to(lab, 80)).collect();
        assert_eq!(any.len(), 2);
        let one: BTreeSet<_> = (0..40).map(|_| goes_to(lab, 82)).collect();
        assert_eq!(one.len(), 1);
    });
}

#[test]
fn node_ports_at_every_node_and_at_loopback() {
    run(|lab, place| {
        let (listener, backend) = listen(place.node);
        let v4 = place.vip.is_ipv4();
        let (nowhere, loopback): (IpAddr, IpAddr) = match v4 {
            true => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
            false => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
        };
        service(lab, (nowhere, 30_080, TCP), place.base + 6, SERVICE_FLAG_NODE_PORT, &[backend]);
        service(lab, (nowhere, 8080, TCP), place.base + 7, SERVICE_FLAG_HOST_PORT, &[backend]);
        // Neither a node port outside their range, nor another port inside.
        service(lab, (nowhere, 8081, TCP), place.base + 8, SERVICE_FLAG_NODE_PORT, &[backend]);
        for address in [place.other, place.peer] {
            let stream = connect((address, 30_080));
            assert_eq!(stream.peer_addr().expect("a peer"), (address, 30_080).into());
            listener.accept().expect("a client");
        }
        connect((place.other, 8080));
        let refused = TcpStream::connect((place.other, 8081)).expect_err("not a service");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let refused = TcpStream::connect((loopback, 30_080)).expect_err("another's loopback");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn addresses_from_outside_are_left_to_their_host() {
    run(|lab, place| {
        let (listener, backend) = listen(place.node);
        let flags = SERVICE_FLAG_EXTERNAL_IP;
        service(lab, (place.other, 90, TCP), place.base + 9, flags, &[backend]);
        service(lab, (place.external, 90, TCP), place.base + 10, flags, &[backend]);
        connect((place.other, 90));
        listener.accept().expect("a client");
        let elsewhere = TcpStream::connect((place.external, 90)).expect_err("no way there");
        assert_eq!(elsewhere.kind(), ErrorKind::NetworkUnreachable);
    });
}

#[test]
fn in_the_nodes_namespace_ports_are_taken() {
    let globals = Globals { node_is_here: true, ..Globals::default() };
    run_with(globals, |lab, place| {
        let (listener, backend) = listen(place.node);
        let (nowhere, loopback): (IpAddr, IpAddr) = match place.vip.is_ipv4() {
            true => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
            false => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
        };
        let port = 30_080 + place.base;
        service(lab, (nowhere, port, TCP), place.base + 6, SERVICE_FLAG_NODE_PORT, &[backend]);
        service(lab, (nowhere, port, UDP), place.base + 7, SERVICE_FLAG_NODE_PORT, &[]);
        service(lab, (place.other, port, TCP), place.base + 8, SERVICE_FLAG_EXTERNAL_IP, &[]);
        for address in [nowhere, loopback, place.node, place.other] {
            let error = TcpListener::bind((address, port)).expect_err("the service's");
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{address}");
            TcpListener::bind((address, port + 1)).expect("nobody's");
        }
        UdpSocket::bind((nowhere, port)).expect_err("of this protocol too");
        let stream = connect((loopback, port));
        assert_eq!(stream.peer_addr().expect("a peer"), (loopback, port).into());
        listener.accept().expect("a client");
    });
}
