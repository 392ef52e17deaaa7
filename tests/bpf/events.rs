//! Events: who is told what, and what the records say.

use ciliate::bpf_abi::*;

use crate::frames::*;
use crate::lab::{self, Lab, TUNNEL_PORT};
use crate::listener::{Filter, Listener, Record};
use crate::world::*;

const TRACES: u32 = 1 << EVENT_TRACE;
const DROPS: u32 = 1 << EVENT_DROP;
/// Ids of the two endpoints.
const A: u16 = 32;
const B: u16 = 33;

fn a_to(destination: std::net::Ipv4Addr, len: usize) -> Vec<u8> {
    let packet = ipv4_of(UDP, A4, destination, 64, &udp(&vec![0x5a; len]));
    ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &packet)
}

fn points(records: &[Record]) -> Vec<(&'static str, u16)> {
    let name = |record: &Record| OBSERVATION_POINTS[usize::from(record.common().subtype)];
    records.iter().map(|record| (name(record), record.common().source)).collect()
}

fn listen(lab: &mut Lab, types: u32) -> Listener {
    Listener::new(lab, 0, Filter { types, ..Filter::default() })
}

#[test]
fn packets_are_seen_at_every_point() {
    lab::run(|lab| {
        let mut listener = listen(lab, TRACES);
        lab.container_sends(&a_to(B4, 8));
        assert_eq!(points(&listener.records()), [("from-endpoint", A), ("to-endpoint", B)]);
        lab.container_sends(&a_to(WORLD4, 8));
        assert_eq!(points(&listener.records()), [("from-endpoint", A), ("to-stack", A)]);
        lab.host_sends(MARK_MAGIC_HOST, &a_to(B4, 8));
        assert_eq!(points(&listener.records()), [("from-host", 0), ("to-endpoint", B)]);
        lab.host_sends(0x3210_0a04, &a_to(B4, 8));
        assert_eq!(points(&listener.records()), [("from-proxy", 0), ("to-endpoint", B)]);
        lab.send("cil_from_netdev", lab.sandbox.cilium_host, 0, &a_to(B4, 8));
        assert_eq!(points(&listener.records()), [("from-network", 0)]);
        lab.send("cil_to_host", lab.sandbox.cilium_host, 0, &a_to(NODE4, 8));
        assert_eq!(points(&listener.records()), [("to-stack", 0)]);

        lab.add_tunnel();
        lab.container_sends(&a_to(REMOTE4, 8));
        assert_eq!(points(&listener.records()), [("from-endpoint", A), ("to-overlay", A)]);
        lab.host_sends(MARK_MAGIC_HOST, &a_to(REMOTE4, 8));
        assert_eq!(points(&listener.records()), [("from-host", 0), ("to-overlay", 0)]);
        lab.tunnel_sends(40_000, false, &a_to(B4, 8));
        assert_eq!(points(&listener.records()), [("from-overlay", 0), ("to-endpoint", B)]);
        lab.tunnel_sends(40_000, false, &a_to(ROUTER4, 8));
        assert_eq!(points(&listener.records()), [("from-overlay", 0), ("to-host", 0)]);
    });
}

#[test]
fn traces_say_who_and_where() {
    lab::run(|lab| {
        let mut listener = listen(lab, TRACES);
        let begin = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let packet = ipv6(A6, B6, 64);
        lab.container_sends(&ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &packet));
        lab.container_sends(&a_to(WORLD4, 8));
        lab.container_sends(&a_to(B4, 8));
        let end = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let records = listener.records();
        for record in &records {
            let at = record.head.time_ns as i64;
            let ns = |time: rustix::time::Timespec| time.tv_sec * 1_000_000_000 + time.tv_nsec;
            assert!((ns(begin)..=ns(end)).contains(&at), "time of the event");
            assert!(record.head.cpu < 4096, "CPU {}", record.head.cpu);
            let (event, head) = (record.trace(), record.capture_head());
            assert_eq!(head.version, TRACE_EVENT_VERSION);
            assert_eq!(event.source_identity, IDENTITY_A);
            assert_eq!(record.bytes.len(), 48 + usize::from(head.len_captured));
        }
        let [from, to_b, _, to_stack, _, to_b4] = &records[..] else { panic!("six records") };
        let event = from.trace();
        let unknown = (event.destination_identity, event.destination_id, event.reason);
        assert_eq!((unknown, event.ifindex), ((0, 0, 5), 0));
        assert_eq!(event.original_source, [0; 16]);
        let event = to_b.trace();
        let known = (event.destination_identity, event.destination_id, event.reason);
        assert_eq!((known, event.ifindex), ((IDENTITY_B, B, 0), lab.sandbox.lxc_b));
        assert_eq!((event.flags, event.original_source), (EVENT_FLAG_IPV6, A6.octets()));
        let event = to_stack.trace();
        assert_eq!((event.destination_identity, event.flags), (IDENTITY_WORLD_IPV4, 0));
        let event = to_b4.trace();
        assert_eq!(event.original_source[..4], A4.octets());
        assert_eq!(event.original_source[4..], [0; 12]);
    });
}

/// What is inside is for whoever reads the event.
#[test]
fn what_carries_another_packet_is_said_to() {
    let inside = [&[8, 0, 0, 0, 0, 1, 44, 0][..], &a_to(B4, 100)].concat();
    let v4 = |to, port| {
        let packet = ipv4_of(UDP, PEER4, to, 64, &udp_between(1000, port, &inside));
        ethernet(HOST_MAC, NET_MAC, TYPE_IPV4, &packet)
    };
    let v6 = |to, port| {
        let packet = ipv6_with(PEER6, to, 64, UDP, &udp_between(1000, port, &inside));
        ethernet(HOST_MAC, NET_MAC, TYPE_IPV6, &packet)
    };
    let tcp = ipv4_of(TCP, PEER4, NODE4, 64, &tcp_between(1000, TUNNEL_PORT, TCP_ACK, &inside));
    let mut later = v4(NODE4, TUNNEL_PORT);
    later[ETH_LEN + 7] = 5;
    let others = [
        (v4(NODE4, 53), 0),
        (v4(WORLD4, TUNNEL_PORT), 0),
        (v4(B4, TUNNEL_PORT), 0),
        (v6(NODE6, 53), EVENT_FLAG_IPV6),
        (v6(WORLD6, TUNNEL_PORT), EVENT_FLAG_IPV6),
        (ethernet(HOST_MAC, NET_MAC, TYPE_IPV4, &tcp), 0),
        (later, 0),
    ];
    lab::run(|lab| {
        let device = lab.sandbox.cilium_host;
        let mut listener = listen(lab, TRACES);
        let mut flags = |lab: &Lab, frame: &[u8]| {
            lab.send("cil_from_netdev", device, 0, frame);
            let records = listener.records();
            let [record] = &records[..] else { panic!("one record") };
            (record.trace().flags, record.bytes.len() - 48)
        };
        let (by_v4, by_v6) = (v4(NODE4, TUNNEL_PORT), v6(NODE6, TUNNEL_PORT));
        assert_eq!(flags(lab, &by_v4), (0, 128), "without a tunnel");
        lab.add_tunnel();
        for (more, flag) in [(0, EVENT_FLAG_VXLAN), (NODE_FLAG_GENEVE, EVENT_FLAG_GENEVE)] {
            let mut world = lab.world.clone();
            world.node.flags |= more;
            lab.describe(world);
            assert_eq!(flags(lab, &by_v4), (flag, 192));
            assert_eq!(flags(lab, &by_v6), (flag | EVENT_FLAG_IPV6, 192));
            for (frame, expected) in &others {
                assert_eq!(flags(lab, frame), (*expected, 128), "{frame:02x?}");
            }
        }
    });
}

#[test]
fn so_much_of_the_packet_is_captured() {
    lab::run(|lab| {
        lab.add_tunnel();
        let mut listener = listen(lab, TRACES);
        for (destination, most) in [(WORLD4, 128), (REMOTE4, 192)] {
            // The last two are such that the one limit or the other just cuts something off.
            for len in [1, 50, 86, 87, 150, 151, 1400] {
                let frame = a_to(destination, len);
                lab.container_sends(&frame);
                let records = listener.records();
                let [from, to] = &records[..] else { panic!("two records") };
                let limits = [(from, 128), (to, most)];
                for (record, limit) in limits {
                    let head = record.capture_head();
                    assert_eq!(head.len_original as usize, frame.len());
                    let captured = &record.bytes[48..];
                    assert_eq!(captured.len(), frame.len().min(limit), "payload of {len}");
                    assert_eq!(usize::from(head.len_captured), captured.len());
                    let changed = ETH_LEN + 12;
                    assert_eq!(captured[changed..], frame[changed..captured.len()]);
                }
                assert_eq!(from.bytes[48..], frame[..frame.len().min(128)]);
            }
        }
    });
}

#[test]
fn drops_say_why_and_where() {
    lab::run(|lab| {
        let mut listener = listen(lab, DROPS);
        let spoofed = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6(WORLD6, B6, 64));
        lab.container_sends(&spoofed);
        let records = listener.records();
        let [record] = &records[..] else { panic!("one record") };
        let (event, common) = (record.drop(), record.common());
        assert_eq!((common.subtype, common.source), (DROP_INVALID_SOURCE_IP, A));
        assert_eq!(record.capture_head().version, DROP_EVENT_VERSION);
        assert_eq!((event.source_identity, event.destination_identity), (IDENTITY_A, 0));
        assert_eq!((event.flags, event.ext_error, event.pad), (EVENT_FLAG_IPV6, 0, [0; 3]));
        assert_eq!(event.ifindex, lab.sandbox.lxc_a);
        assert_eq!(record.bytes[40..], spoofed);
        let metrics = lab.metrics();
        let [(key, _)] = metrics[..] else { panic!("{metrics:?}") };
        assert_eq!((event.line, event.file), (key.line, key.file), "where the counter is");
    });
}

#[test]
fn listeners_have_a_ring_and_a_filter_each() {
    lab::run(|lab| {
        let filter = Filter { types: TRACES, ..Filter::default() };
        let mut all = Listener::new(lab, 0, filter);
        let mut from_a = Listener::new(lab, 1, Filter { from: A, ..filter });
        let mut to_b = Listener::new(lab, 3, Filter { to: B, ..filter });
        let mut about_b = Listener::new(lab, 7, Filter { related: B, ..filter });
        let mut drops = Listener::new(lab, 5, Filter { types: DROPS, ..filter });
        lab.container_sends(&a_to(B4, 8));
        let answer = ethernet(LXC_MAC_B, MAC_B, TYPE_IPV4, &ipv4(B4, WORLD4, 64));
        lab.send("cil_from_container", lab.sandbox.lxc_b, 0, &answer);
        lab.container_sends(&ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4(B4, A4, 64)));

        let (a_out, b_in) = (("from-endpoint", A), ("to-endpoint", B));
        let (b_out, b_stack) = (("from-endpoint", B), ("to-stack", B));
        assert_eq!(points(&all.records()), [a_out, b_in, b_out, b_stack, a_out]);
        assert_eq!(points(&from_a.records()), [a_out, a_out]);
        assert_eq!(points(&to_b.records()), [b_in]);
        assert_eq!(points(&about_b.records()), [b_in, b_out, b_stack]);
        let records = drops.records();
        let [record] = &records[..] else { panic!("one record") };
        assert_eq!(record.common().subtype, DROP_INVALID_SOURCE_IP);
    });
}

#[test]
fn what_finds_no_room_is_counted() {
    lab::run(|lab| {
        let small = Filter { types: TRACES, ring_len: 4096, ..Filter::default() };
        let (mut narrow, mut wide) =
            (Listener::new(lab, 2, small), Listener::new(lab, 0, Filter::default()));
        for _ in 0..40 {
            lab.container_sends(&a_to(WORLD4, 8));
        }
        let (kept, all) = (narrow.records().len() as u64, wide.records().len() as u64);
        assert!(kept > 0 && kept < all, "{kept} of {all}");
        assert_eq!(lab.lost(), [0, 0, all - kept, 0, 0, 0, 0, 0]);
    });
}

#[test]
fn debug_messages_tell_the_steps() {
    let said = |record: &Record| {
        let event = record.debug();
        (record.common().subtype, [event.arg1, event.arg2, event.arg3])
    };
    lab::run(|lab| {
        let mut listener = listen(lab, 1 << EVENT_DEBUG);
        let address = |address: std::net::Ipv4Addr| u32::from_ne_bytes(address.octets());
        let frame =
            ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4_of(TCP, A4, B4, 64, &tcp(TCP_SYN, b"")));
        lab.container_sends(&frame);
        let ports = u32::from_ne_bytes([0x9c, 0x40, 0, 80]);
        let lookup = (48, [address(A4), address(B4), ports]);
        let created = (50, [0, IDENTITY_A, 0]);
        let first: Vec<_> = listener.records().iter().map(said).collect();
        let delivery = (2, [u32::from(B), IDENTITY_A, 0]);
        let out = [lookup, (49, [6 << 8 | 1, 0, 0]), (15, [0; 3]), created, delivery];
        let inward = [lookup, (49, [6 << 8, 0, 0]), (15, [0; 3]), created];
        assert_eq!(first, [&out[..], &inward].concat());

        lab.container_sends(&frame);
        let second: Vec<_> = listener.records().iter().map(|record| said(record).0).collect();
        assert_eq!(second, [48, 49, 8, 15, 2, 48, 49, 8, 15]);

        lab.add_tunnel();
        lab.container_sends(&a_to(REMOTE4, 8));
        let last = listener.records().last().map(said);
        assert_eq!(last, Some((3, [address(PEER4), IDENTITY_A, 0])));
        lab.container_sends(&a_to(OTHER_FAMILY4, 8));
        let last = listener.records().last().map(said);
        let [.., a, b, c, d] = PEER6.octets();
        assert_eq!(last, Some((3, [u32::from_ne_bytes([a, b, c, d]), IDENTITY_A, 1])));
        lab.tunnel_sends(40_000, false, &a_to(UNUSED4, 8));
        assert_eq!(listener.records().iter().map(said).next(), Some((16, [40_000, 0, 0])));
        lab.host_sends(MARK_MAGIC_HOST, &a_to(B4, 8));
        assert_eq!(listener.records().iter().map(said).next(), Some((61, [1, 0, 0])));
        lab.host_sends(0, &a_to(B4, 8));
        let mapped = (58, [address(A4), IDENTITY_A, 0]);
        assert_eq!(listener.records().iter().map(said).next(), Some(mapped));
        let frame = ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6(A6, WORLD6, 64));
        lab.container_sends(&frame);
        let third: Vec<_> = listener.records().iter().map(|record| said(record).0).collect();
        assert_eq!(third, [51, 52, 15, 53, 59]);
    });
}

#[test]
fn deliveries_are_captured() {
    let said = |record: &Record| (record.common().subtype, record.capture().arg1);
    lab::run(|lab| {
        let mut listener = listen(lab, 1 << EVENT_CAPTURE);
        lab.container_sends(&a_to(B4, 8));
        lab.container_sends(&a_to(WORLD4, 8));
        let request = arp(1, (MAC_A, A4), ([0; 6], ROUTER4));
        lab.container_sends(&ethernet(BROADCAST, MAC_A, TYPE_ARP, &request));
        let (records, own) = (listener.records(), lab.sandbox.lxc_a);
        let found: Vec<_> = records.iter().map(said).collect();
        assert_eq!(found, [(4, lab.sandbox.lxc_b), (4, 0), (4, own)]);
        // As it leaves, not as it came.
        let reply = arp(2, (LXC_MAC_A, ROUTER4), (MAC_A, A4));
        assert_eq!(records[2].bytes[24..], ethernet(MAC_A, LXC_MAC_A, TYPE_ARP, &reply));
    });
}
