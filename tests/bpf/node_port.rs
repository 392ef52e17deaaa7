//! Services for clients outside, packet by packet: at the underlay, at the backend's device, and back. Every packet has
//! checksums, and they are right afterwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::maps::HashMap;
use ciliate::bpf_abi::*;

use crate::frames::*;
use crate::host_routing::add_routes;
use crate::kept;
use crate::lab::{self, Lab, Outcome};
use crate::model::Action;
use crate::sandbox::ip;
use crate::service_world::*;
use crate::services::{End, assert_packet, error, only, packet, segment};
use crate::world::*;

const CLIENT4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);
const OTHER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 10);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const ROUTER6_FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);
pub const PORT: u16 = 40_000;

/// `MARK_MAGIC_SNAT_DONE`.
pub const SENT: u32 = 0x300;

pub struct Outside {
    pub ends: Ends,
    pub client: IpAddr,
    other: IpAddr,
    /// On the way to either.
    hop: IpAddr,
    router: IpAddr,
}

impl Outside {
    fn of(ends: Ends) -> Self {
        if ends.vip.is_ipv4() {
            let (client, other) = (CLIENT4.into(), OTHER4.into());
            Self { ends, client, other, hop: ROUTER.into(), router: ROUTER4.into() }
        } else {
            let (client, other) = (CLIENT6.into(), OTHER6.into());
            Self { ends, client, other, hop: ROUTER6_FAR.into(), router: ROUTER6.into() }
        }
    }
}

/// A node that has a way to everybody.
pub fn with(test: impl Fn(&mut Lab, &Outside) + Send + Sync) {
    lab::run(|lab| {
        lab.route_past_host();
        add_routes();
        ip("route add default via 172.18.0.2");
        ip("-6 route add default via fd00:172:18::2");
        serve_outside(lab);
        let mut world = lab.world.clone();
        world.node.flags &= !NODE_FLAG_HOST_ROUTING;
        lab.describe(world);
        for ends in [ENDS4, ENDS6] {
            test(lab, &Outside::of(ends));
        }
    });
}

pub fn at_host(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { TYPE_IPV4 } else { TYPE_IPV6 };
    ethernet(HOST_MAC, NET_MAC, ethertype, packet)
}

pub fn arrives(lab: &Lab, packet: &[u8]) -> Outcome {
    lab.send("cil_from_netdev", lab.sandbox.cilium_host, 0, &at_host(packet))
}

fn leaves(lab: &Lab, packet: &[u8]) -> Outcome {
    lab.send("cil_to_netdev", lab.sandbox.cilium_host, 0, &at_host(packet))
}

pub fn b_sends(lab: &Lab, packet: &[u8]) -> Outcome {
    let ethertype = if packet[0] >> 4 == 4 { TYPE_IPV4 } else { TYPE_IPV6 };
    let frame = ethernet(LXC_MAC_B, MAC_B, ethertype, packet);
    lab.send("cil_from_container", lab.sandbox.lxc_b, 0, &frame)
}

/// It goes out by the kernel's route, and nothing will change its source.
#[track_caller]
pub fn assert_out(out: &Outcome, expected: &[u8]) {
    assert_eq!((out.action, out.mark), (Action::Redirect, SENT));
    assert_packet(out, expected);
}

#[track_caller]
fn assert_dropped(lab: &mut Lab, out: &Outcome, reason: u8) {
    assert_eq!(out.action, Action::Drop);
    let counted = lab.counted();
    assert!(counted.iter().any(|count| count.reason == reason), "{counted:?}");
}

#[test]
fn to_an_endpoint_and_back() {
    with(|lab, Outside { ends, client, .. }| {
        for (protocol, port, backend) in [(TCP, 80, 1000), (UDP, 2000, 1000), (SCTP, 1000, 1000)] {
            only(lab, (ends.vip, port, protocol), &[TO_B], ends.base);
            let (from, vip, b) = ((*client, PORT), (ends.vip, port), (ends.b, backend));
            let out = arrives(lab, &segment(from, vip, protocol, TCP_SYN));
            assert_eq!((out.action, &out.frame[..6]), (Action::Redirect, &MAC_B[..]));
            assert_packet(&out, &segment(from, b, protocol, TCP_SYN));
            let answer = b_sends(lab, &segment(b, from, protocol, TCP_SYN | TCP_ACK));
            assert_out(&answer, &segment(vip, from, protocol, TCP_SYN | TCP_ACK));
            // What is not through the service is what it was.
            let direct = b_sends(lab, &segment(b, (*client, PORT + 1), protocol, TCP_SYN));
            assert_packet(&direct, &segment(b, (*client, PORT + 1), protocol, TCP_SYN));
        }
    });
}

/// Sends a client's segment to the service, and returns the port that it goes on from.
#[track_caller]
fn forwarded(lab: &Lab, from: End, vip: End, node: IpAddr, backend: End) -> u16 {
    let out = arrives(lab, &segment(from, vip, TCP, TCP_SYN));
    assert_eq!(out.action, Action::Redirect);
    let at = ETH_LEN + if node.is_ipv4() { 20 } else { 40 };
    let port = u16::from_be_bytes([out.frame[at], out.frame[at + 1]]);
    assert_packet(&out, &segment((node, port), backend, TCP, TCP_SYN));
    port
}

#[test]
fn to_another_node_and_back() {
    with(|lab, Outside { ends, client, .. }| {
        only(lab, (ends.vip, 80, TCP), &[TO_REMOTE], ends.base);
        let (from, vip, backend) = ((*client, PORT), (ends.vip, 80), (ends.remote, 80));
        for flags in [TCP_SYN, TCP_ACK] {
            let out = arrives(lab, &segment(from, vip, TCP, flags));
            assert_out(&out, &segment((ends.node, PORT), backend, TCP, flags));
            let answer = arrives(lab, &segment(backend, (ends.node, PORT), TCP, flags | TCP_ACK));
            assert_out(&answer, &segment(vip, from, TCP, flags | TCP_ACK));
        }
        // Not from the range: another port takes its place.
        let port = forwarded(lab, (*client, 1234), vip, ends.node, backend);
        assert!(port >= PORT, "{port}");
        // What the node itself gets is the node's.
        let own = segment(backend, (ends.node, PORT - 1), TCP, TCP_ACK);
        assert_eq!(arrives(lab, &own).action, Action::Next);
    });
}

#[test]
fn flows_have_ports_of_their_own_until_they_are_over() {
    with(|lab, Outside { ends, client, other, .. }| {
        only(lab, (ends.vip, 80, TCP), &[TO_REMOTE], ends.base);
        let (vip, backend) = ((ends.vip, 80), (ends.remote, 80));
        assert_eq!(forwarded(lab, (*client, PORT), vip, ends.node, backend), PORT);
        assert_ne!(forwarded(lab, (*other, PORT), vip, ends.node, backend), PORT);
        // To other backends, the same port.
        only(lab, (ends.vip, 80, TCP), &[TO_FAR], ends.base);
        assert_eq!(forwarded(lab, (*other, PORT + 9), vip, ends.node, (ends.far, 80)), PORT + 9);
        only(lab, (ends.vip, 80, TCP), &[TO_REMOTE], ends.base);
        // One port is all there is, and it is taken.
        let all = UnderlayValue {
            ipv4_be: NODE4.octets(),
            ipv6_be: NODE6.octets(),
            port_min: PORT,
            port_max: PORT,
        };
        lab.set_underlay(all);
        lab.counted();
        let out = arrives(lab, &segment((*other, PORT + 1), vip, TCP, TCP_SYN));
        assert_dropped(lab, &out, DROP_NO_MAPPING);
        kept::make_older(lab, *client, 8001);
        assert_eq!(forwarded(lab, (*other, PORT + 1), vip, ends.node, backend), PORT);
        // Whose it was before has to take another.
        let out = arrives(lab, &segment((*client, PORT), vip, TCP, TCP_SYN));
        assert_dropped(lab, &out, DROP_NO_MAPPING);
        lab.set_underlay(UnderlayValue { port_max: u16::MAX, ..all });
        assert_ne!(forwarded(lab, (*client, PORT), vip, ends.node, backend), PORT);
    });
}

#[test]
fn the_nodes_own_flows_keep_off_those_of_clients() {
    with(|lab, Outside { ends, client, .. }| {
        only(lab, (ends.vip, 80, TCP), &[TO_REMOTE], ends.base);
        let (vip, backend) = ((ends.vip, 80), (ends.remote, 80));
        // The node first.
        let own = segment((ends.node, PORT), backend, TCP, TCP_SYN);
        let out = leaves(lab, &own);
        assert_eq!(out.action, Action::Next);
        assert_packet(&out, &own);
        assert_ne!(forwarded(lab, (*client, PORT), vip, ends.node, backend), PORT);
        let answer = segment(backend, (ends.node, PORT), TCP, TCP_ACK);
        let out = arrives(lab, &answer);
        assert_eq!(out.action, Action::Next);
        assert_packet(&out, &answer);
        // The client first.
        let taken = forwarded(lab, (*client, PORT + 5), vip, ends.node, backend);
        assert_eq!(taken, PORT + 5);
        let out = leaves(lab, &segment((ends.node, taken), backend, TCP, TCP_SYN));
        assert_eq!(out.action, Action::Next);
        let at = ETH_LEN + if ends.node.is_ipv4() { 20 } else { 40 };
        let port = u16::from_be_bytes([out.frame[at], out.frame[at + 1]]);
        assert_ne!(port, taken);
        assert_packet(&out, &segment((ends.node, port), backend, TCP, TCP_SYN));
        let out = arrives(lab, &segment(backend, (ends.node, port), TCP, TCP_ACK));
        assert_eq!(out.action, Action::Next);
        assert_packet(&out, &segment(backend, (ends.node, taken), TCP, TCP_ACK));
        // An error about it as well.
        let quote = segment((ends.node, port), backend, TCP, TCP_SYN);
        let out = arrives(lab, &error(ends.remote, ends.node, &quote));
        let seen =
            changed_quote(&error(ends.remote, ends.node, &quote), (ends.node, taken), backend);
        assert_eq!(out.action, Action::Next);
        assert_packet(&out, &seen);
        // What is sent for clients is left alone, and so is what endpoints send.
        let sent = segment((ends.node, taken), backend, TCP, TCP_SYN);
        let frame = at_host(&sent);
        let out = lab.send("cil_to_netdev", lab.sandbox.cilium_host, SENT, &frame);
        assert_eq!(out.frame, frame);
        let other = at_host(&segment((ends.b, taken), backend, TCP, TCP_SYN));
        let out = lab.send("cil_to_netdev", lab.sandbox.cilium_host, 0, &other);
        assert_eq!(out.frame, other);
    });
}

/// A port that a socket of the node has is nobody's.
#[test]
fn ports_of_sockets_are_not_taken() {
    with(|lab, Outside { ends, client, .. }| {
        only(lab, (ends.vip, 80, TCP), &[TO_REMOTE], ends.base);
        let own = |lab: &mut Lab, port: u16| {
            lab.set_underlay(UnderlayValue {
                ipv4_be: NODE4.octets(),
                ipv6_be: NODE6.octets(),
                port_min: port,
                port_max: port,
            });
        };
        let listener = std::net::TcpListener::bind((ends.node, 0)).expect("listen");
        let port = listener.local_addr().expect("a port").port();
        own(lab, port);
        let (vip, backend) = ((ends.vip, 80), (ends.remote, 80));
        let out = arrives(lab, &segment((*client, PORT), vip, TCP, TCP_SYN));
        assert_dropped(lab, &out, DROP_NO_MAPPING);
        drop(listener);
        assert_eq!(forwarded(lab, (*client, PORT), vip, ends.node, backend), port);
        lab.counted();
        // The same of UDP, whose sockets may be bound to no address.
        let any: IpAddr = if ends.node.is_ipv4() { [0_u8; 4].into() } else { [0_u16; 8].into() };
        only(lab, (ends.vip, 80, UDP), &[TO_REMOTE], ends.base);
        for (at, address) in [(1, ends.node), (2, any)] {
            let socket = std::net::UdpSocket::bind((address, 0)).expect("bind");
            let port = socket.local_addr().expect("a port").port();
            own(lab, port);
            let asked = segment((*client, PORT + at), vip, UDP, 0);
            let out = arrives(lab, &asked);
            assert_dropped(lab, &out, DROP_NO_MAPPING);
            drop(socket);
            let sent = segment((ends.node, port), backend, UDP, 0);
            assert_out(&arrives(lab, &asked), &sent);
            lab.counted();
        }
        serve_outside(lab);
        let mut world = lab.world.clone();
        world.node.flags &= !NODE_FLAG_HOST_ROUTING;
        lab.describe(world);
    });
}

#[test]
fn to_the_node_itself_and_back() {
    with(|lab, Outside { ends, client, .. }| {
        let (from, vip, node) = ((*client, PORT), (ends.vip, 80), (ends.node, 1000));
        let asked = segment(from, vip, UDP, 0);
        let out = arrives(lab, &asked);
        assert_eq!(out.action, Action::Next, "the stack's");
        assert_packet(&out, &segment(from, node, UDP, 0));
        let out = leaves(lab, &segment(node, from, UDP, 0));
        assert_eq!(out.action, Action::Next);
        assert_packet(&out, &segment(vip, from, UDP, 0));
        // Nobody listens there: the error is the service's, and about what the client sent.
        let out = leaves(lab, &error(ends.node, *client, &segment(from, node, UDP, 0)));
        let expected = changed_quote(&error(ends.vip, *client, &asked), from, vip);
        assert_packet(&out, &without_quoted_sum(&out, &expected));
        // Not through the service: as it is.
        let direct = segment(node, (*client, PORT + 1), UDP, 0);
        assert_packet(&leaves(lab, &direct), &direct);
    });
}

/// An ICMP error whose quoted packet has other ends; the quoted segment's checksum stays as it was.
fn changed_quote(error: &[u8], from: End, to: End) -> Vec<u8> {
    let v4 = error[0] >> 4 == 4;
    let (quote, l4) = if v4 { (28, 48) } else { (48, 88) };
    let mut inner = error[quote..].to_vec();
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let ends = [octets(from.0), octets(to.0)].concat();
    let at = if v4 { 12 } else { 8 };
    inner[at..at + ends.len()].copy_from_slice(&ends);
    if v4 {
        inner[10..12].fill(0);
        let sum = checksum(&[&inner[..20]]).to_be_bytes();
        inner[10..12].copy_from_slice(&sum);
    }
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    inner[l4 - quote..l4 - quote + 4].copy_from_slice(&ports);
    let (source, destination): (IpAddr, IpAddr) = if v4 {
        let part = |at: usize| <[u8; 4]>::try_from(&error[at..at + 4]).expect("4 bytes");
        (part(12).into(), part(16).into())
    } else {
        let part = |at: usize| <[u8; 16]>::try_from(&error[at..at + 16]).expect("16 bytes");
        (part(8).into(), part(24).into())
    };
    let message = [&error[quote - 8..quote - 6], &[0; 6], &inner[..]].concat();
    packet(source, destination, if v4 { ICMP4 } else { ICMP6 }, 64, message)
}

/// What is expected, with the checksum that the quoted segment has in what was found.
fn without_quoted_sum(out: &Outcome, expected: &[u8]) -> Vec<u8> {
    let mut expected = expected.to_vec();
    let l4 = if expected[0] >> 4 == 4 { 48 } else { 88 };
    let at = l4 + 6;
    expected[at..at + 2].copy_from_slice(&out.frame[ETH_LEN + at..ETH_LEN + at + 2]);
    let v4 = expected[0] >> 4 == 4;
    let sum_at = if v4 { 22 } else { 42 };
    expected[sum_at..sum_at + 2]
        .copy_from_slice(&out.frame[ETH_LEN + sum_at..ETH_LEN + sum_at + 2]);
    assert_message(&out.frame[ETH_LEN..]);
    expected
}

/// The checksum of an ICMP message is right.
#[track_caller]
fn assert_message(found: &[u8]) {
    if found[0] >> 4 == 4 {
        assert_eq!(checksum(&[&found[20..]]), 0, "the message's checksum");
        return;
    }
    let len = ((found.len() - 40) as u32).to_be_bytes();
    assert_eq!(
        checksum(&[&found[8..40], &len, &[0, 0, 0, ICMP6], &found[40..]]),
        0,
        "the message's"
    );
}

#[test]
fn errors_are_of_the_service_and_about_what_was_sent() {
    with(|lab, Outside { ends, client, hop, .. }| {
        only(lab, (ends.vip, 2000, UDP), &[TO_B], ends.base);
        only(lab, (ends.vip, 80, TCP), &[TO_REMOTE], ends.base);
        let from = (*client, PORT);
        // An endpoint of this node tells the client.
        let (vip, b) = ((ends.vip, 2000), (ends.b, 1000));
        arrives(lab, &segment(from, vip, UDP, 0));
        let out = b_sends(lab, &error(ends.b, *client, &segment(from, b, UDP, 0)));
        let expected =
            changed_quote(&error(ends.vip, *client, &segment(from, b, UDP, 0)), from, vip);
        assert_out(&out, &expected);
        assert_message(&out.frame[ETH_LEN..]);
        // The client, and somebody on the way to it, tell the endpoint.
        let answer = segment(vip, from, UDP, 0);
        for teller in [*client, *hop] {
            let out = arrives(lab, &error(teller, ends.vip, &answer));
            assert_eq!((out.action, &out.frame[..6]), (Action::Redirect, &MAC_B[..]));
            assert_packet(&out, &changed_quote(&error(teller, ends.b, &answer), b, from));
        }
        // A backend elsewhere, and somebody on the way there, tell the client.
        let (vip, remote, node) = ((ends.vip, 80), (ends.remote, 80), (ends.node, PORT));
        arrives(lab, &segment(from, vip, TCP, TCP_SYN));
        let sent = segment(node, remote, TCP, TCP_SYN);
        for (teller, seen) in [(ends.remote, ends.vip), (*hop, *hop)] {
            let out = arrives(lab, &error(teller, ends.node, &sent));
            assert_out(&out, &changed_quote(&error(seen, *client, &sent), from, vip));
        }
        // And the client tells that backend.
        let answer = segment(vip, from, TCP, TCP_ACK);
        for (teller, seen) in [(*client, ends.node), (*hop, ends.node)] {
            let out = arrives(lab, &error(teller, ends.vip, &answer));
            assert_out(&out, &changed_quote(&error(seen, ends.remote, &answer), remote, node));
        }
        // What nobody sent is the stack's.
        let strange = error(*hop, ends.node, &segment((ends.node, 50_000), remote, TCP, TCP_SYN));
        assert_eq!(arrives(lab, &strange).action, Action::Next);
    });
}

/// By route, and by the tunnel.
#[test]
fn errors_about_sctp() {
    with(|lab, Outside { ends, client, router, .. }| {
        only(lab, (ends.vip, 80, SCTP), &[TO_REMOTE], ends.base);
        let (from, vip, backend) = ((*client, PORT), (ends.vip, 80), (ends.remote, 80));
        for node in [ends.node, *router] {
            let tunnel = node == *router;
            if tunnel {
                lab.add_tunnel();
            }
            let sent = segment((node, PORT), backend, SCTP, 0);
            assert_packet(&arrives(lab, &segment(from, vip, SCTP, 0)), &sent);
            let told = error(ends.remote, node, &sent);
            let out = if tunnel {
                lab.tunnel_sends(40_000, false, &at_host(&told))
            } else {
                arrives(lab, &told)
            };
            assert_out(&out, &changed_quote(&error(ends.vip, *client, &sent), from, vip));
            let answer = segment(vip, from, SCTP, 0);
            let out = arrives(lab, &error(*client, ends.vip, &answer));
            assert_eq!(
                (out.action, out.mark & 0xf00),
                (Action::Redirect, if tunnel { 0x400 } else { SENT })
            );
            let quote = error(node, ends.remote, &answer);
            assert_packet(&out, &changed_quote(&quote, backend, (node, PORT)));
        }
        let mut world = lab.world.clone();
        world.node.tunnel_ifindex = 0;
        lab.describe(world);
    });
}

#[test]
fn by_the_tunnel_and_back() {
    with(|lab, Outside { ends, client, router, .. }| {
        lab.add_tunnel();
        only(lab, (ends.vip, 80, TCP), &[TO_REMOTE], ends.base);
        let (from, vip, backend) = ((*client, PORT), (ends.vip, 80), (ends.remote, 80));
        let out = arrives(lab, &segment(from, vip, TCP, TCP_SYN));
        assert_eq!((out.action, out.mark & 0xf00), (Action::Redirect, 0x400));
        assert_packet(&out, &segment((*router, PORT), backend, TCP, TCP_SYN));
        let answer = segment(backend, (*router, PORT), TCP, TCP_SYN | TCP_ACK);
        let out = lab.tunnel_sends(40_000, false, &at_host(&answer));
        assert_out(&out, &segment(vip, from, TCP, TCP_SYN | TCP_ACK));
        // The node's own, the other way round as well.
        let own = segment((*router, PORT), backend, TCP, TCP_SYN);
        let out = lab.host_sends(0, &at_host(&own));
        let at = ETH_LEN + if router.is_ipv4() { 20 } else { 40 };
        let port = u16::from_be_bytes([out.frame[at], out.frame[at + 1]]);
        assert_ne!(port, PORT);
        assert_packet(&out, &segment((*router, port), backend, TCP, TCP_SYN));
        let answer = segment(backend, (*router, port), TCP, TCP_ACK);
        let out = lab.tunnel_sends(40_000, false, &at_host(&answer));
        assert_packet(&out, &segment(backend, (*router, PORT), TCP, TCP_ACK));
        let mut world = lab.world.clone();
        world.node.tunnel_ifindex = 0;
        lab.describe(world);
    });
}

#[test]
fn who_is_refused() {
    with(|lab, Outside { ends, client, .. }| {
        let from = (*client, PORT);
        // Nobody is there.
        let asked = segment(from, (ends.vip, 1000), UDP, 0);
        let out = arrives(lab, &asked);
        let mut told = error(ends.vip, *client, &asked);
        if client.is_ipv4() {
            told[4..6].fill(0);
            told[6..8].copy_from_slice(&[0x40, 0]);
            told[10..12].fill(0);
            let sum = checksum(&[&told[..20]]);
            told[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        assert_out(&out, &told);
        // For endpoints and the node alone.
        let mut world = lab.world.clone();
        let to = (ends.vip, 80, TCP);
        let flags = world.services[&to].flags;
        let mut set = |lab: &mut Lab, flags| {
            world.services.get_mut(&to).expect("a service").flags = flags;
            lab.describe(world.clone());
        };
        set(lab, 0);
        lab.counted();
        let asked = segment(from, (ends.vip, 80), TCP, TCP_SYN);
        let out = arrives(lab, &asked);
        assert_dropped(lab, &out, DROP_CLUSTER_IP);
        // For others.
        set(lab, flags | SERVICE_FLAG_SOURCE_RANGE);
        let out = arrives(lab, &asked);
        assert_dropped(lab, &out, DROP_SOURCE_RANGE);
        set(lab, flags);
        assert_eq!(arrives(lab, &asked).action, Action::Redirect);
        // For no service, or another host: the stack's.
        for strange in
            [segment(from, (ends.vip, 81), TCP, TCP_SYN), segment(from, (ends.b, 80), TCP, TCP_SYN)]
        {
            let out = arrives(lab, &strange);
            assert_eq!((out.action, out.frame), (Action::Next, at_host(&strange)));
        }
        let mut other = at_host(&asked);
        other[..6].copy_from_slice(&MAC_A);
        let out = lab.send("cil_from_netdev", lab.sandbox.cilium_host, 0, &other);
        assert_eq!((out.action, out.frame), (Action::Next, other));
    });
}

/// The table decides, by client and ports: the same for the same.
#[test]
fn maglev() {
    // Of more than two bytes.
    const TABLE: u32 = 0x7_0007;
    with(|lab, Outside { ends, client, .. }| {
        let to = (ends.vip, 80, TCP);
        only(lab, to, &[TO_REMOTE, TO_FAR], ends.base);
        let rev_nat = lab.world.services[&to].rev_nat;
        let base = u32::from(ends.base);
        // The far one is in the last quarter alone, which a shorter remainder does not come to.
        let last = MAGLEV_TABLE_SIZE / 4 * 3;
        let table: Vec<u8> = (0..MAGLEV_TABLE_SIZE)
            .flat_map(|at| (base + if at < last { TO_REMOTE } else { TO_FAR }).to_ne_bytes())
            .collect();
        let pins = lab.sandbox.pins.clone();
        let open =
            |name: &str| ciliate::kernel::bpf_map::Map::open(&pins.join(name)).expect("open a map");
        open(CILIATE_MAGLEV).update_one(&TABLE.to_ne_bytes(), &table).expect("write a table");
        let index = u32::from(rev_nat).to_ne_bytes();
        open(CILIATE_MAGLEV_INDEX).update_one(&index, &TABLE.to_ne_bytes()).expect("write");
        lab::services::set_algorithm(lab, to, LB_ALGORITHM_MAGLEV);
        let chosen = |lab: &Lab, port: u16| {
            let out = arrives(lab, &segment((*client, port), (ends.vip, 80), TCP, TCP_SYN));
            assert_eq!(out.action, Action::Redirect);
            let at = ETH_LEN + if ends.vip.is_ipv4() { 16 } else { 24 };
            let len = if ends.vip.is_ipv4() { 4 } else { 16 };
            out.frame[at..at + len].to_vec()
        };
        let first: Vec<_> = (0..64).map(|port| chosen(lab, 1000 + port)).collect();
        let far = match ends.far {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let in_last = first.iter().filter(|backend| **backend == far).count();
        assert!((1..32).contains(&in_last), "{in_last} of 64 go to a quarter of the table");
        // Of what each was kept at, nothing is left.
        forget(lab, client.is_ipv4());
        let second: Vec<_> = (0..64).map(|port| chosen(lab, 1000 + port)).collect();
        assert_eq!(first, second);
    });
}

/// Empties the conntrack map of TCP.
fn forget(lab: &mut Lab, v4: bool) {
    if v4 {
        let mut map: HashMap<_, [u8; 14], [u8; 56]> = lab.map(CILIUM_CT4).try_into().expect("hash");
        let keys: Vec<_> = map.keys().map(|key| key.expect("a key")).collect();
        keys.iter().for_each(|key| map.remove(key).expect("remove"));
    } else {
        let mut map: HashMap<_, [u8; 38], [u8; 56]> = lab.map(CILIUM_CT6).try_into().expect("hash");
        let keys: Vec<_> = map.keys().map(|key| key.expect("a key")).collect();
        keys.iter().for_each(|key| map.remove(key).expect("remove"));
    }
}

/// Cut off at every length: never more than there is.
#[test]
fn at_every_length() {
    with(|lab, Outside { ends, client, router, .. }| {
        only(lab, (ends.vip, 80, TCP), &[TO_REMOTE], ends.base);
        let from = (*client, PORT);
        let samples = [
            segment(from, (ends.vip, 80), TCP, TCP_SYN),
            segment(from, (ends.vip, 2000), UDP, 0),
            segment((ends.remote, 80), (ends.node, PORT), TCP, TCP_ACK),
            error(*client, ends.vip, &segment((ends.vip, 80), from, TCP, TCP_ACK)),
            error(*router, ends.node, &segment((ends.node, PORT), (ends.remote, 80), TCP, TCP_ACK)),
            segment((ends.node, PORT), (ends.far, 80), TCP, TCP_SYN),
        ];
        for sample in samples {
            let frame = at_host(&sample);
            for len in crate::truncated::shortest(&frame)..=frame.len() {
                for program in ["cil_from_netdev", "cil_to_netdev"] {
                    let out = lab.send(program, lab.sandbox.cilium_host, 0, &frame[..len]);
                    if out.action == Action::Next {
                        assert_eq!(out.frame.len(), len, "{program}, {len} of {frame:02x?}");
                    }
                }
            }
        }
    });
}
