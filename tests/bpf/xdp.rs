//! Services for clients outside at the driver, packet by packet: what goes out again is what tc's program would send,
//! and everything else is left to that as it came.

use std::net::IpAddr;

use aya::programs::{TestRun, TestRunOptions, Xdp};
use ciliate::bpf_abi::*;
use ciliate::kernel::bpf_map::Map;

use crate::frames::*;
use crate::lab::{Lab, Outcome};
use crate::model::Action;
use crate::node_port::{Outside, PORT, arrives, assert_out, at_host, with};
use crate::sandbox::ip;
use crate::service_world::*;
use crate::services::{End, assert_packet, error, only, packet, segment};
use crate::world::*;

/// Of the next hop to everybody.
const HOP_MAC: Mac = [2, 0, 0, 0, 0x18, 2];

/// What the program may say of a frame.
pub const VERDICTS: [Action; 3] = [Action::Next, Action::Drop, Action::Redirect];

/// A frame that a device has received. Left to the kernel is the next program's, sent out again is redirected.
pub fn at_driver(lab: &Lab, ifindex: u32, frame: &[u8]) -> Outcome {
    let program: &Xdp = lab.loaded("cil_xdp_entry").try_into().expect("a program of drivers");
    // `struct xdp_md` (linux/bpf.h): data, its end, metadata, device, queue, egress.
    let mut context = [0_u8; 24];
    context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
    context[12..16].copy_from_slice(&ifindex.to_ne_bytes());
    let mut out = vec![0; frame.len() + 64];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        ..TestRunOptions::new()
    };
    let result =
        program.test_run(options).unwrap_or_else(|error| panic!("{error:?}: {frame:02x?}"));
    out.truncate(result.data_size_out as usize);
    // `enum xdp_action`.
    let action = match result.return_value {
        1 => Action::Drop,
        2 => Action::Next,
        3 => Action::Redirect,
        other => panic!("the program returns {other}"),
    };
    Outcome { action, frame: out, mark: 0 }
}

fn received(lab: &Lab, packet: &[u8]) -> Outcome {
    at_driver(lab, lab.sandbox.cilium_host, &at_host(packet))
}

/// The kernel knows the next hop.
pub fn know_the_next_hop() {
    let [a, b, c, d, e, f] = HOP_MAC;
    for hop in ["172.18.0.2", "fd00:172:18::2"] {
        ip(&format!(
            "neigh replace {hop} dev cilium_host lladdr {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} nud permanent"
        ));
    }
}

fn at_drivers(test: impl Fn(&mut Lab, &Outside) + Send + Sync) {
    with(|lab, outside| {
        know_the_next_hop();
        only(lab, (outside.ends.vip, 80, TCP), &[TO_REMOTE], outside.ends.base);
        test(lab, outside);
    });
}

#[track_caller]
fn assert_sent(lab: &mut Lab, packet: &[u8], expected: &[u8]) {
    lab.counted();
    let out = received(lab, packet);
    assert_eq!(out.action, Action::Redirect);
    assert_eq!((&out.frame[..6], &out.frame[6..12]), (&HOP_MAC[..], &HOST_MAC[..]));
    assert_packet(&out, expected);
    let hops = out.frame[ETH_LEN + if packet[0] >> 4 == 4 { 8 } else { 7 }];
    assert_eq!(hops, 63, "hops left");
    let counted: Vec<_> =
        lab.counted().iter().map(|count| (count.reason, count.direction, count.packets)).collect();
    let expected =
        [(REASON_FORWARDED, DIRECTION_EGRESS, 1), (REASON_INTERFACE, DIRECTION_INGRESS, 1)];
    assert_eq!(counted, expected);
}

/// Nothing is written, and nothing counted: that is done where the packet goes on.
#[track_caller]
fn assert_left(lab: &mut Lab, frame: &[u8], why: &str) {
    lab.counted();
    let out = at_driver(lab, lab.sandbox.cilium_host, frame);
    assert_eq!((out.action, &out.frame[..]), (Action::Next, frame), "{why}");
    assert_eq!(lab.counted(), [], "{why}");
}

#[track_caller]
fn assert_dropped(lab: &mut Lab, packet: &[u8], reason: u8) {
    lab.counted();
    assert_eq!(received(lab, packet).action, Action::Drop);
    let counted = lab.counted();
    let reasons: Vec<_> = counted.iter().map(|count| count.reason).collect();
    assert_eq!(reasons, [REASON_INTERFACE, reason]);
}

/// What of UDP needs the service of TCP's port 80 as well.
fn serve_udp(lab: &mut Lab, vip: IpAddr, base: u16) {
    only(lab, (vip, 2000, UDP), &[TO_REMOTE], base);
}

#[test]
fn to_another_node_and_back() {
    at_drivers(|lab, Outside { ends, client, .. }| {
        serve_udp(lab, ends.vip, ends.base);
        for (protocol, port) in [(TCP, 80), (UDP, 2000)] {
            let (from, vip, backend) = ((*client, PORT), (ends.vip, port), (ends.remote, 80));
            for flags in [TCP_SYN, TCP_ACK, TCP_ACK | TCP_FIN] {
                let (asked, node) = (segment(from, vip, protocol, flags), (ends.node, PORT));
                assert_sent(lab, &asked, &segment(node, backend, protocol, flags));
                let answer = segment(backend, node, protocol, flags | TCP_ACK);
                assert_sent(lab, &answer, &segment(vip, from, protocol, flags | TCP_ACK));
            }
        }
    });
}

/// Every flow may go on by the other program: both have it from the same maps.
#[test]
fn flows_are_those_of_tc() {
    at_drivers(|lab, Outside { ends, client, .. }| {
        let (vip, backend) = ((ends.vip, 80), (ends.remote, 80));
        for port in [PORT, 1234] {
            let from = (*client, port);
            // Not from the range, it goes by another one, which is the program's choice.
            let first = arrives(lab, &segment(from, vip, TCP, TCP_SYN));
            let at = ETH_LEN + if ends.node.is_ipv4() { 20 } else { 40 };
            let node = (ends.node, u16::from_be_bytes([first.frame[at], first.frame[at + 1]]));
            assert_out(&first, &segment(node, backend, TCP, TCP_SYN));
            assert_sent(
                lab,
                &segment(backend, node, TCP, TCP_SYN | TCP_ACK),
                &segment(vip, from, TCP, TCP_SYN | TCP_ACK),
            );
            assert_sent(
                lab,
                &segment(from, vip, TCP, TCP_ACK),
                &segment(node, backend, TCP, TCP_ACK),
            );
            let answer = arrives(lab, &segment(backend, node, TCP, TCP_ACK));
            assert_out(&answer, &segment(vip, from, TCP, TCP_ACK));
        }
        // The other way round.
        let (from, node) = ((*client, PORT + 1), (ends.node, PORT + 1));
        assert_sent(lab, &segment(from, vip, TCP, TCP_SYN), &segment(node, backend, TCP, TCP_SYN));
        let answer = arrives(lab, &segment(backend, node, TCP, TCP_SYN | TCP_ACK));
        assert_out(&answer, &segment(vip, from, TCP, TCP_SYN | TCP_ACK));
    });
}

/// The checksum that a sender leaves to its device: the sum of the pseudo header.
fn unfinished(packet: &[u8], protocol: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let (at, addresses) = if packet[0] >> 4 == 4 { (20, 12..20) } else { (40, 8..40) };
    let len = ((packet.len() - at) as u32).to_be_bytes();
    let sum = !checksum(&[&packet[addresses], &len, &[0, protocol]]);
    let check = at + if protocol == TCP { 16 } else { 6 };
    packet[check..check + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn what_is_not_handled_is_left_as_it_came() {
    at_drivers(|lab, Outside { ends, client, .. }| {
        let (from, vip) = ((*client, PORT), (ends.vip, 80));
        let asked = segment(from, vip, TCP, TCP_SYN);
        let v4 = ends.vip.is_ipv4();
        let of_type = |kind| ethernet(HOST_MAC, NET_MAC, kind, &asked);
        assert_left(lab, &of_type(0x8100), "a VLAN's");
        assert_left(lab, &of_type(0x0806), "ARP's");
        let others = [
            ("for no service", segment(from, (ends.vip, 81), TCP, TCP_SYN)),
            ("for an endpoint", segment(from, (ends.b, 80), TCP, TCP_SYN)),
            ("for the node", segment(from, (ends.node, 22), TCP, TCP_SYN)),
            ("SCTP", segment(from, vip, SCTP, 0)),
            ("an ICMP error", error(*client, ends.vip, &asked)),
            ("without a checksum yet", unfinished(&asked, TCP)),
            (
                "without a hop",
                packet(from.0, vip.0, TCP, 1, tcp_between(PORT, 80, TCP_SYN, b"data")),
            ),
        ];
        for (why, packet) in others {
            assert_left(lab, &at_host(&packet), why);
        }
        let mut strange = asked.clone();
        if v4 {
            // More fragments.
            strange[6] |= 0x20;
        } else {
            // Destination options.
            strange[6] = 60;
        }
        assert_left(lab, &at_host(&strange), "a fragment, or behind options");
        let mut strange = asked.clone();
        strange[if v4 { 3 } else { 5 }] += 1;
        assert_left(lab, &at_host(&strange), "cut off");
        let mut other = at_host(&asked);
        other[..6].copy_from_slice(&MAC_A);
        assert_left(lab, &other, "for another host");
    });
}

#[test]
fn backends_that_are_not_elsewhere_are_left_to_tc() {
    at_drivers(|lab, Outside { ends, client, .. }| {
        let places =
            [(PORT, &[TO_B][..], "an endpoint"), (PORT + 1, &[], "none: the client is told")];
        for (port, backends, why) in places {
            let asked = segment((*client, port), (ends.vip, 80), TCP, TCP_SYN);
            only(lab, (ends.vip, 80, TCP), backends, ends.base);
            assert_left(lab, &at_host(&asked), why);
        }
        only(lab, (ends.vip, 80, UDP), &[TO_NODE], ends.base);
        let asked = segment((*client, PORT), (ends.vip, 80), UDP, 0);
        assert_left(lab, &at_host(&asked), "the node");
    });
}

/// By another device, by none, or by one whose neighbour is not known yet.
#[test]
fn no_way_by_the_device_it_came_by() {
    at_drivers(|lab, Outside { ends, client, .. }| {
        let frame = at_host(&segment((*client, PORT), (ends.vip, 80), TCP, TCP_SYN));
        let (family, hop, remote) = match ends.remote {
            IpAddr::V4(remote) => ("-4", "172.18.0.2", format!("{remote}/32")),
            IpAddr::V6(remote) => ("-6", "fd00:172:18::2", format!("{remote}/128")),
        };
        // One with the same address, as those of a bond have.
        let [a, b, c, d, e, f] = HOST_MAC;
        let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        ip(&format!("link set lxc_b address {mac} up"));
        ip("link set eth_b up");
        ip(&format!("{family} route replace {remote} dev lxc_b"));
        let neighbour = ends.remote;
        ip(&format!("neigh replace {neighbour} dev lxc_b lladdr 02:00:00:00:00:77 nud permanent"));
        assert_left(lab, &frame, "another device");
        ip(&format!("{family} route replace {remote} via {hop} dev cilium_host mtu lock 1280"));
        assert_eq!(at_driver(lab, lab.sandbox.cilium_host, &frame).action, Action::Redirect);
        // Longer than the way takes.
        let long = vec![7; 1400];
        let long = tcp_between(PORT, 80, TCP_ACK, &long);
        let long = packet(*client, ends.vip, TCP, 64, long);
        assert_left(lab, &at_host(&long), "too long");
        ip(&format!("neigh del {hop} dev cilium_host"));
        assert_left(lab, &frame, "no neighbour");
        ip(&format!("{family} route replace unreachable {remote}"));
        assert_left(lab, &frame, "no route");
        ip(&format!("{family} route del unreachable {remote}"));
        know_the_next_hop();
    });
}

#[test]
fn drops() {
    at_drivers(|lab, Outside { ends, client, .. }| {
        let to = (ends.vip, 80, TCP);
        let asked = segment((*client, PORT), (ends.vip, 80), TCP, TCP_SYN);
        let mut world = lab.world.clone();
        let flags = world.services[&to].flags;
        let mut set = |lab: &mut Lab, flags| {
            world.services.get_mut(&to).expect("a service").flags = flags;
            lab.describe(world.clone());
        };
        set(lab, 0);
        assert_dropped(lab, &asked, DROP_CLUSTER_IP);
        set(lab, flags | SERVICE_FLAG_SOURCE_RANGE);
        assert_dropped(lab, &asked, DROP_SOURCE_RANGE);
        set(lab, flags);
        assert_eq!(received(lab, &asked).action, Action::Redirect);
    });
}

/// What adds to packets or encrypts them has to be done by tc's programs.
#[test]
fn direct_return_encryption_and_tunnels_are_left_to_tc() {
    at_drivers(|lab, Outside { ends, client, .. }| {
        let asked = segment((*client, PORT), (ends.vip, 80), TCP, TCP_SYN);
        let plain = lab.world.clone();
        let mut world = plain.clone();
        world.node.flags |= NODE_FLAG_DSR;
        lab.describe(world);
        assert_left(lab, &at_host(&asked), "direct return");
        let mut world = plain.clone();
        world.node.flags &= !NODE_FLAG_NODE_PORT;
        lab.describe(world);
        assert_left(lab, &at_host(&asked), "no services for clients outside");
        lab.describe(plain.clone());
        let map = Map::open(&lab.sandbox.pins.join(CILIATE_ENCRYPTION)).expect("open the map");
        let on = EncryptionValue { flags: ENCRYPTION_FLAG_ON, ..EncryptionValue::default() };
        map.update_one(&0_u32.to_ne_bytes(), &on.to_bytes()).expect("encrypt");
        assert_left(lab, &at_host(&asked), "encryption");
        let off = EncryptionValue::default();
        map.update_one(&0_u32.to_ne_bytes(), &off.to_bytes()).expect("don't");
        // The backend is behind it, where there is one.
        let mut tunnel = plain.clone();
        tunnel.node.tunnel_ifindex = lab.sandbox.cilium_vxlan;
        lab.describe(tunnel);
        assert_left(lab, &at_host(&asked), "a tunnel");
        lab.describe(plain);
    });
}

/// Every port of a client and every payload, odd ones too: the sums are right, whatever they come out as.
#[test]
fn checksums() {
    at_drivers(|lab, Outside { ends, client, .. }| {
        serve_udp(lab, ends.vip, ends.base);
        for number in 0..600_u16 {
            let (protocol, port) = if number % 2 == 0 { (TCP, 80) } else { (UDP, 2000) };
            let data = vec![number as u8; usize::from(number % 40)];
            let of = |from: End, to: End| {
                let payload = match protocol {
                    TCP => tcp_between(from.1, to.1, TCP_ACK, &data),
                    _ => udp_between(from.1, to.1, &data),
                };
                packet(from.0, to.0, protocol, 64, payload)
            };
            let (from, node) = ((*client, PORT + number), (ends.node, PORT + number));
            let out = received(lab, &of(from, (ends.vip, port)));
            // One in 65536 is taken for unfinished.
            assert_eq!(out.action, Action::Redirect, "port {}", from.1);
            assert_packet(&out, &of(node, (ends.remote, 80)));
        }
        // Of IPv4, UDP may do without.
        if ends.vip.is_ipv4() {
            let without = |from, to| {
                let mut packet = segment(from, to, UDP, 0);
                packet[26..28].fill(0);
                packet
            };
            let (from, node) = ((*client, PORT), (ends.node, PORT));
            let asked = without(from, (ends.vip, 2000));
            assert_sent(lab, &asked, &without(node, (ends.remote, 80)));
        }
    });
}
