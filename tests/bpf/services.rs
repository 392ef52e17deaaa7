//! Services at the endpoint's device, packet by packet. Every packet has checksums, and they are right afterwards.

use std::net::IpAddr;

use ciliate::bpf_abi::*;

use crate::flows::{Flow, Life};
use crate::frames::*;
use crate::kept;
use crate::lab::{self, Lab, Outcome, services::remove_backend};
use crate::model::Action;
use crate::model::services::{LOOPBACK4, LOOPBACK6};
use crate::service_world::*;
use crate::world::*;

/// Of the client, unless a test needs several.
const PORT: u16 = 40_000;

pub type End = (IpAddr, u16);

fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut header = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => panic!("two families"),
    };
    header.extend((len as u32).to_be_bytes());
    header.extend([0, 0, 0, protocol]);
    header
}

/// Where the checksum is, in a header of the protocol.
fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP => Some(6),
        ICMP4 | ICMP6 => Some(2),
        _ => None,
    }
}

pub fn packet(from: IpAddr, to: IpAddr, protocol: u8, ttl: u8, mut payload: Vec<u8>) -> Vec<u8> {
    if let Some(at) = checksum_at(protocol) {
        payload[at..at + 2].fill(0);
        let header = pseudo_header(from, to, protocol, payload.len());
        let header = if protocol == ICMP4 { &[][..] } else { &header };
        let sum = checksum(&[header, &payload]);
        payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4_of(protocol, from, to, ttl, &payload),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6_with(from, to, ttl, protocol, &payload),
        _ => panic!("two families"),
    }
}

pub fn segment(from: End, to: End, protocol: u8, flags: u8) -> Vec<u8> {
    let payload = match protocol {
        TCP => tcp_between(from.1, to.1, flags, b"data"),
        _ => udp_between(from.1, to.1, b"data"),
    };
    packet(from.0, to.0, protocol, 64, payload)
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { TYPE_IPV4 } else { TYPE_IPV6 };
    ethernet(LXC_MAC_A, MAC_A, ethertype, packet)
}

/// An ICMP error: the port is unreachable.
pub fn error(from: IpAddr, to: IpAddr, quote: &[u8]) -> Vec<u8> {
    let (protocol, kind, code) = if from.is_ipv4() { (ICMP4, 3, 3) } else { (ICMP6, 1, 4) };
    let message = [&[kind, code, 0, 0, 0, 0, 0, 0][..], quote].concat();
    packet(from, to, protocol, 64, message)
}

/// Sends a frame of A's, B's or the host's, and returns the packet that leaves.
pub fn sent(out: &Outcome) -> &[u8] {
    assert_ne!(out.action, Action::Drop);
    &out.frame[ETH_LEN..]
}

/// The packet is the one that is expected, but for the hops it has left.
pub fn assert_packet(out: &Outcome, expected: &[u8]) {
    let mut found = sent(out).to_vec();
    if found[0] >> 4 == 4 {
        assert_eq!(checksum(&[&found[..20]]), 0, "the header's checksum: {found:02x?}");
        found[8] = 64;
        found[10..12].copy_from_slice(&expected[10..12]);
        let mut whole = expected.to_vec();
        whole[10..12].fill(0);
        let sum = checksum(&[&whole[..20]]);
        assert_eq!(sum.to_be_bytes(), expected[10..12], "what the test expects");
    } else {
        found[7] = 64;
    }
    assert_eq!(found, expected);
}

fn client_sends(lab: &Lab, packet: &[u8]) -> Outcome {
    lab.container_sends(&frame(packet))
}

fn b_sends(lab: &Lab, packet: &[u8]) -> Outcome {
    lab.send("cil_from_container", lab.sandbox.lxc_b, 0, &frame(packet))
}

fn with_services(test: impl Fn(&mut Lab, Ends) + Send + Sync) {
    lab::run(|lab| {
        add_services(lab);
        for ends in [ENDS4, ENDS6] {
            test(lab, ends);
        }
    });
}

/// Leaves a service one backend.
pub fn only(lab: &mut Lab, to: (IpAddr, u16, u8), backends: &[u32], base: u16) {
    let mut world = lab.world.clone();
    let ids = backends.iter().map(|id| u32::from(base) + id).collect();
    world.services.get_mut(&to).expect("a service").backends = ids;
    lab.describe(world);
}

fn client_entry(lab: &mut Lab, client: End, service: End, protocol: u8) -> CtValue {
    let flow =
        Flow { from: client, to: service, protocol, inward: false, related: false, service: true };
    *kept::flows(lab).get(&flow).expect("an entry of the client's")
}

#[test]
fn a_local_backend_and_its_answers() {
    with_services(|lab, ends| {
        let (client, service, backend) = ((ends.a, PORT), (ends.vip, 80), (ends.b, 1000));
        only(lab, (ends.vip, 80, TCP), &[TO_B], ends.base);
        for flags in [TCP_SYN, TCP_ACK, TCP_FIN | TCP_ACK] {
            let out = client_sends(lab, &segment(client, service, TCP, flags));
            assert_eq!((out.action, &out.frame[..6]), (Action::Redirect, &MAC_B[..]));
            assert_packet(&out, &segment(client, backend, TCP, flags));
            let answer = b_sends(lab, &segment(backend, client, TCP, flags | TCP_ACK));
            assert_eq!((answer.action, &answer.frame[..6]), (Action::Redirect, &MAC_A[..]));
            assert_packet(&answer, &segment(service, client, TCP, flags | TCP_ACK));
        }
        let value = client_entry(lab, client, service, TCP);
        assert_eq!((value.backend_id, value.rev_nat), (u64::from(ends.base) + 1, ends.base + 1));
        assert!(value.lifetime.abs_diff(kept::now() + Life::Grace.seconds()) < 30, "{value:?}");
    });
}

#[test]
fn udp_and_sctp() {
    with_services(|lab, ends| {
        let client = (ends.a, PORT);
        only(lab, (ends.vip, 2000, UDP), &[TO_B], ends.base);
        for (protocol, port, backend) in [(UDP, 2000, 1000), (SCTP, 1000, 1000)] {
            let (service, backend) = ((ends.vip, port), (ends.b, backend));
            let out = client_sends(lab, &segment(client, service, protocol, 0));
            assert_packet(&out, &segment(client, backend, protocol, 0));
            let answer = b_sends(lab, &segment(backend, client, protocol, 0));
            assert_packet(&answer, &segment(service, client, protocol, 0));
        }
        let out = client_sends(lab, &segment(client, (ends.vip, 2000), SCTP, 0));
        assert_eq!(out.action, Action::Drop, "SCTP to another port");
        let reasons: Vec<u8> = lab.counted().iter().map(|count| count.reason).collect();
        assert!(reasons.contains(&DROP_L4_CHECKSUM), "{reasons:?}");
    });
}

#[test]
fn a_datagram_without_checksum_stays_without() {
    with_services(|lab, ends| {
        only(lab, (ends.vip, 2000, UDP), &[TO_B], ends.base);
        let bare = |from: End, to: End| {
            let mut packet = segment(from, to, UDP, 0);
            let at = packet.len() - 4 - 2;
            packet[at..at + 2].fill(0);
            packet
        };
        let out = client_sends(lab, &bare((ends.a, PORT), (ends.vip, 2000)));
        assert_packet(&out, &bare((ends.a, PORT), (ends.b, 1000)));
    });
}

#[test]
fn remote_backends_by_every_way() {
    with_services(|lab, ends| {
        let (client, service, backend) = ((ends.a, PORT), (ends.vip, 80), (ends.remote, 80));
        let mut world = lab.world.clone();
        world.node.tunnel_ifindex = 0;
        lab.describe(world);
        only(lab, (ends.vip, 80, TCP), &[TO_REMOTE], ends.base);
        let out = client_sends(lab, &segment(client, service, TCP, TCP_SYN));
        assert_eq!(out.action, Action::Pass, "native routing is the stack's");
        assert_packet(&out, &segment(client, backend, TCP, TCP_SYN));
        let answer = segment(backend, client, TCP, TCP_SYN | TCP_ACK);
        let back = segment(service, client, TCP, TCP_SYN | TCP_ACK);
        assert_packet(&lab.host_sends(0, &frame(&answer)), &back);
        lab.add_tunnel();
        let out = client_sends(lab, &segment(client, service, TCP, TCP_ACK));
        assert_eq!((out.action, out.mark & 0xf00), (Action::Redirect, 0x400), "by the tunnel");
        assert_packet(&out, &segment(client, backend, TCP, TCP_ACK));
        assert_packet(&lab.tunnel_sends(IDENTITY_REMOTE, false, &frame(&answer)), &back);
    });
}

#[test]
fn an_endpoint_that_is_its_own_backend() {
    with_services(|lab, ends| {
        let (client, service, backend) = ((ends.a, PORT), (ends.vip, 1000), (ends.a, 2000));
        let hidden = if ends.a.is_ipv4() { IpAddr::V4(LOOPBACK4) } else { IpAddr::V6(LOOPBACK6) };
        let hidden = (hidden, PORT);
        for flags in [TCP_SYN, TCP_ACK] {
            let out = client_sends(lab, &segment(client, service, TCP, flags));
            assert_eq!((out.action, &out.frame[..6]), (Action::Redirect, &MAC_A[..]));
            assert_packet(&out, &segment(hidden, backend, TCP, flags));
            let out = client_sends(lab, &segment(backend, hidden, TCP, flags | TCP_ACK));
            assert_eq!((out.action, &out.frame[..6]), (Action::Redirect, &MAC_A[..]));
            assert_packet(&out, &segment(service, client, TCP, flags | TCP_ACK));
        }
        // And what it says of a packet it does not like.
        let asked = segment(hidden, backend, TCP, TCP_SYN);
        let out = client_sends(lab, &error(ends.a, hidden.0, &asked));
        let told = error(ends.vip, ends.a, &segment_quoted(&asked, client, service));
        assert_packet(&out, &told);
    });
}

/// A packet as an error quotes it that was translated: all but the segment's checksum, which stays.
fn segment_quoted(sent: &[u8], from: End, to: End) -> Vec<u8> {
    let mut quote = segment(from, to, TCP, 0);
    let ports = if sent[0] >> 4 == 4 { 20 } else { 40 };
    quote.truncate(ports + 4);
    quote.extend(&sent[ports + 4..]);
    quote
}

#[test]
fn errors_about_what_a_client_sent() {
    with_services(|lab, ends| {
        let (client, service, backend) = ((ends.a, PORT), (ends.vip, 80), (ends.remote, 80));
        only(lab, (ends.vip, 80, TCP), &[TO_REMOTE], ends.base);
        client_sends(lab, &segment(client, service, TCP, TCP_SYN));
        let asked = segment(client, backend, TCP, TCP_SYN);
        let quote = segment_quoted(&asked, client, service);
        let told = lab.host_sends(0, &frame(&error(ends.remote, ends.a, &asked)));
        assert_packet(&told, &error(ends.vip, ends.a, &quote));
        let told = lab.host_sends(0, &frame(&error(ends.far, ends.a, &asked)));
        assert_packet(&told, &error(ends.far, ends.a, &quote));
    });
}

#[test]
fn errors_about_what_a_client_was_given() {
    with_services(|lab, ends| {
        let (client, service, backend) = ((ends.a, PORT), (ends.vip, 80), (ends.b, 1000));
        only(lab, (ends.vip, 80, TCP), &[TO_B], ends.base);
        client_sends(lab, &segment(client, service, TCP, TCP_SYN));
        b_sends(lab, &segment(backend, client, TCP, TCP_SYN | TCP_ACK));
        let given = segment(service, client, TCP, TCP_SYN | TCP_ACK);
        let told = client_sends(lab, &error(ends.a, ends.vip, &given));
        assert_eq!((told.action, &told.frame[..6]), (Action::Redirect, &MAC_B[..]));
        assert_packet(&told, &error(ends.a, ends.b, &segment_quoted(&given, backend, client)));
    });
}

#[test]
fn no_backend() {
    with_services(|lab, ends| {
        let asked = segment((ends.a, PORT), (ends.vip, 1000), UDP, 0);
        let out = client_sends(lab, &asked);
        assert_eq!((out.action, &out.frame[..6]), (Action::Redirect, &MAC_A[..]));
        let mut told = error(ends.vip, ends.a, &asked);
        if ends.a.is_ipv4() {
            told[4..6].fill(0);
            told[6..8].copy_from_slice(&[0x40, 0]);
            told[10..12].fill(0);
            let sum = checksum(&[&told[..20]]);
            told[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        assert_packet(&out, &told);
        assert_eq!(lab.counted(), [], "as with all answers");
        let mut world = lab.world.clone();
        world.node.flags |= NODE_FLAG_NO_BACKEND_DROP;
        lab.describe(world.clone());
        assert_eq!(client_sends(lab, &asked).action, Action::Drop);
        assert_eq!(lab.counted()[0].reason, DROP_NO_BACKEND);
        world.node.flags &= !NODE_FLAG_NO_BACKEND_DROP;
        lab.describe(world);
    });
}

#[test]
fn without_the_flag_nothing_is_looked_for() {
    with_services(|lab, ends| {
        let mut world = lab.world.clone();
        world.node.flags &= !NODE_FLAG_SERVICES;
        lab.describe(world.clone());
        let asked = segment((ends.a, PORT), (ends.vip, 80), TCP, TCP_SYN);
        assert_packet(&client_sends(lab, &asked), &asked);
        // Nor does that flow stay what it was once there are: not for longer than a second.
        world.node.flags |= NODE_FLAG_SERVICES;
        lab.describe(world);
        only(lab, (ends.vip, 80, TCP), &[TO_B], ends.base);
        kept::make_older(lab, ends.a, 1);
        assert_eq!(client_sends(lab, &asked).frame[..6], MAC_B);
    });
}

/// Whom a packet goes to.
fn destination(out: &Outcome) -> IpAddr {
    let packet = sent(out);
    if packet[0] >> 4 == 4 {
        return <[u8; 4]>::try_from(&packet[16..20]).expect("4 bytes").into();
    }
    <[u8; 16]>::try_from(&packet[24..40]).expect("16 bytes").into()
}

#[test]
fn flows_stay_at_their_backend_and_are_spread() {
    with_services(|lab, ends| {
        let service = (ends.vip, 80);
        let mut seen = std::collections::BTreeMap::new();
        for port in 10_000..10_300 {
            let first = client_sends(lab, &segment((ends.a, port), service, TCP, TCP_SYN));
            let next = client_sends(lab, &segment((ends.a, port), service, TCP, TCP_ACK));
            assert_eq!(destination(&first), destination(&next));
            *seen.entry(destination(&first)).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
        // 100 each on average; six standard deviations.
        assert!(seen.values().all(|count| (51..=149).contains(count)), "{seen:?}");
    });
}

#[test]
fn another_backend_when_the_old_one_is_gone() {
    with_services(|lab, ends| {
        let (client, service) = ((ends.a, PORT), (ends.vip, 80));
        let goes_to = |lab: &Lab, flags| {
            destination(&client_sends(lab, &segment(client, service, TCP, flags)))
        };
        only(lab, (ends.vip, 80, TCP), &[TO_B], ends.base);
        assert_eq!(goes_to(lab, TCP_SYN), ends.b);
        // Taken out of the service, it keeps what it has.
        only(lab, (ends.vip, 80, TCP), &[TO_REMOTE], ends.base);
        for flags in [TCP_ACK, TCP_SYN, TCP_FIN | TCP_ACK, TCP_SYN] {
            assert_eq!(goes_to(lab, flags), ends.b, "{flags:#x}");
        }
        // Terminating, it keeps flows, but none that begin anew.
        let mut world = lab.world.clone();
        world.backends.get_mut(&(u32::from(ends.base) + TO_B)).expect("B").state =
            BACKEND_TERMINATING;
        lab.describe(world);
        assert_eq!(goes_to(lab, TCP_ACK), ends.b);
        assert_eq!(goes_to(lab, TCP_SYN), ends.remote);
        // Gone: whatever comes.
        only(lab, (ends.vip, 80, TCP), &[TO_FAR], ends.base);
        remove_backend(lab, u32::from(ends.base) + TO_REMOTE);
        assert_eq!(goes_to(lab, TCP_ACK), ends.far);
    });
}

#[test]
fn clients_are_kept_for_a_time() {
    with_services(|lab, ends| {
        let goes_to = |lab: &Lab, port| {
            let asked = segment((ends.a, port), (ends.vip, 2000), TCP, TCP_SYN);
            destination(&client_sends(lab, &asked))
        };
        let first = goes_to(lab, 10_000);
        for port in 10_001..10_030 {
            assert_eq!(goes_to(lab, port), first);
        }
        let age = |lab: &mut Lab, seconds: u64| {
            lab::services::age_affinity(lab, ends.a, u64::from(kept::now()) - seconds);
        };
        age(lab, u64::from(AFFINITY_S) - 2);
        assert_eq!(goes_to(lab, 10_100), first, "used again, it begins anew");
        let mut others = 0;
        for port in 10_200..10_260 {
            age(lab, u64::from(AFFINITY_S) + 1);
            others += usize::from(goes_to(lab, port) != first);
        }
        assert!(others > 10, "after its time a client goes anywhere: {others}");
    });
}

#[test]
fn a_backend_that_left_the_service_keeps_no_client() {
    with_services(|lab, ends| {
        let to = (ends.vip, 2000, TCP);
        let goes_to = |lab: &Lab, port| {
            let asked = segment((ends.a, port), (ends.vip, 2000), TCP, TCP_SYN);
            destination(&client_sends(lab, &asked))
        };
        let set = |lab: &mut Lab, id: u32| {
            let mut world = lab.world.clone();
            let ids = vec![u32::from(ends.base) + id];
            world.services.get_mut(&to).expect("a service").internal = Some(ids);
            lab.describe(world);
        };
        set(lab, TO_B);
        assert_eq!(goes_to(lab, 10_000), ends.b);
        set(lab, TO_REMOTE);
        assert_eq!(goes_to(lab, 10_001), ends.b, "still allowed");
        lab::services::forbid_affinity(lab, ends.base + 8, u32::from(ends.base) + TO_B);
        assert_eq!(goes_to(lab, 10_002), ends.remote);
    });
}

#[test]
fn fragments_follow_the_first() {
    with_services(|lab, ends| {
        let (client, service, backend) = ((ends.a, PORT), (ends.vip, 2000), (ends.b, 1000));
        only(lab, (ends.vip, 2000, UDP), &[TO_B], ends.base);
        let pieces = |from: End, to: End| -> [Vec<u8>; 2] {
            let whole = udp_between(from.1, to.1, &[7; 40]);
            let (first, rest) = whole.split_at(24);
            match (from.0, to.0) {
                (IpAddr::V4(source), IpAddr::V4(target)) => {
                    [(first, 0x2000_u16), (rest, 3)].map(|(piece, field)| {
                        let mut packet = ipv4_of(UDP, source, target, 64, piece);
                        packet[6..8].copy_from_slice(&field.to_be_bytes());
                        packet[10..12].fill(0);
                        let sum = checksum(&[&packet[..20]]);
                        packet[10..12].copy_from_slice(&sum.to_be_bytes());
                        packet
                    })
                }
                (IpAddr::V6(source), IpAddr::V6(target)) => {
                    [(first, 1_u16), (rest, 24)].map(|(piece, field)| {
                        let head = [&[UDP, 0][..], &field.to_be_bytes(), &[0, 0, 0, 9]].concat();
                        ipv6_with(source, target, 64, 44, &[&head, piece].concat())
                    })
                }
                _ => panic!("two families"),
            }
        };
        for (asked, expected) in pieces(client, service).iter().zip(pieces(client, backend)) {
            assert_packet(&client_sends(lab, asked), &expected);
        }
        for (answer, expected) in pieces(backend, client).iter().zip(pieces(service, client)) {
            assert_packet(&b_sends(lab, answer), &expected);
        }
    });
}

#[test]
fn listeners_are_told_who_it_was_before() {
    with_services(|lab, ends| {
        let mut listener = crate::listener::Listener::new(lab, 0, Default::default());
        let (client, service, backend) = ((ends.a, PORT), (ends.vip, 80), (ends.b, 1000));
        only(lab, (ends.vip, 80, TCP), &[TO_B], ends.base);
        client_sends(lab, &segment(client, service, TCP, TCP_SYN));
        b_sends(lab, &segment(backend, client, TCP, TCP_SYN | TCP_ACK));
        let records = listener.records();
        let arrived = records
            .iter()
            .filter(|record| (record.common().r#type, record.common().subtype) == (EVENT_TRACE, 0));
        let sources: Vec<[u8; 16]> = arrived.map(|record| record.trace().original_source).collect();
        let octets = |address: IpAddr| {
            let mut bytes = [0; 16];
            match address {
                IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => bytes = v6.octets(),
            }
            bytes
        };
        assert_eq!(sources, [octets(ends.a), octets(ends.b)]);
    });
}
