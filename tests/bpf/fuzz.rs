//! Frames at random, and frames of use with bytes changed, at every program: nothing crashes, every verdict
//! is one that the program may give, and every packet is accounted for: dropped with a counter, or passed
//! with one, or one of the answers that are not counted.
//!
//! `FUZZ_SEED` and `FUZZ_FRAMES` choose other frames, and how many per program; a failure says the seed of
//! the batch that it was in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ciliate::bpf_abi::*;

use crate::differential::from_peer;
use crate::frames::*;
use crate::host_routing::add_routes;
use crate::lab::{self, Lab, Outcome, context, context_by_tunnel, test_run};
use crate::listener::{Filter, Listener};
use crate::model::Action;
use crate::node_port::at_host;
use crate::random::Random;
use crate::sandbox::ip;
use crate::service_world::{VIP4, VIP6, add_services, serve_outside};
use crate::services::segment;
use crate::truncated::shortest;
use crate::wire_format::from_peer as peer_sends;
use crate::world::{B4, B6};
use crate::xdp;

const FRAMES: u64 = 1_000_000;
const SEED: u64 = 0x00c1_11a7e;
/// Frames between two looks at the counters.
const BATCH: u64 = 10_000;
/// Frames to start from.
const CORPUS: usize = 4096;
/// Frames that a test run takes have to fit a page with what stands around them.
const FRAME_LEN_MAX: usize = 3000;
/// Leaves room for what a tunnel puts around a frame.
const TUNNELED_LEN_MAX: usize = FRAME_LEN_MAX - 100;

/// What of the counters a packet is found by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    dropped: u64,
    /// Out of an endpoint, or into the tunnel.
    forwarded_out: u64,
    /// Into an endpoint.
    forwarded_in: u64,
    /// Seen at a device of the node.
    arrived: u64,
}

impl Account {
    fn of_counters(lab: &mut Lab) -> Self {
        let mut account = Self::default();
        for count in lab.counted() {
            *match (count.reason, count.direction) {
                (REASON_FORWARDED, DIRECTION_EGRESS) => &mut account.forwarded_out,
                (REASON_FORWARDED, DIRECTION_INGRESS) => &mut account.forwarded_in,
                (REASON_INTERFACE, DIRECTION_INGRESS) => &mut account.arrived,
                (REASON_FRAGMENT, _) => continue,
                (DROP_FIRST.., _) => &mut account.dropped,
                _ => panic!("no program counts this: {count:?}"),
            } += count.packets;
        }
        account
    }

    /// Adds what a verdict has to be found by.
    fn add(&mut self, target: Target, mark: u32, frame: &[u8], out: &Outcome) {
        let from_proxy = matches!(mark >> 8 & 15, 0xa | 0xb);
        match target {
            Target::FromHost if from_proxy => {}
            Target::FromContainer | Target::IntoTunnel | Target::ToHost | Target::ToOverlay => {}
            // At the underlay, and out of the tunnel.
            Target::OutOfTunnel if out.action != Action::Next => self.arrived += 2,
            // What is left to tc's program that counts.
            Target::Driver if out.action == Action::Next => return,
            _ => self.arrived += 1,
        }
        if out.action == Action::Drop {
            self.dropped += 1;
            return;
        }
        let local = out.mark & 0xf00 == 0xf00 && out.action == Action::Redirect;
        let by_tunnel = out.mark & 0xf00 == 0x400 && out.action == Action::Redirect;
        match target {
            Target::FromContainer | Target::IntoTunnel if is_answer(frame, out) => {}
            Target::FromContainer | Target::IntoTunnel => {
                self.forwarded_out += 1;
                self.forwarded_in += u64::from(local);
            }
            // Without a mark, which a delivered packet that looks like one has.
            Target::FromHost | Target::FromOverlay if out.mark == 0 && is_error(out) => {}
            Target::FromHost => {
                self.forwarded_in += u64::from(local);
                self.forwarded_out += u64::from(by_tunnel);
            }
            // To the node itself it is counted at cilium_host.
            Target::FromOverlay => {
                let to_node = out.frame[..6] == crate::world::HOST_MAC;
                self.forwarded_in += u64::from(local && !to_node);
            }
            Target::ToHost | Target::Driver => self.forwarded_out += 1,
            Target::PastHost | Target::OutOfTunnel => {
                self.forwarded_in += u64::from(out.action == Action::Redirect);
            }
            Target::Outside if out.action == Action::Redirect => {
                self.forwarded_in += u64::from(local);
                self.forwarded_out += u64::from(!local);
            }
            Target::FromNetdev | Target::Outside | Target::ToOverlay => {}
        }
    }
}

/// An ICMPv6 time exceeded or packet too big of ours.
fn is_error(out: &Outcome) -> bool {
    let ours = out.frame.get(ETH_LEN + 8..ETH_LEN + 24) == Some(&crate::world::ROUTER6.octets());
    let told = out.frame.get(ETH_LEN + 40..ETH_LEN + 42);
    out.action == Action::Redirect && ours && matches!(told, Some([2 | 3, 0]))
}

/// An ICMP fragmentation needed of ours.
fn is_frag_needed(out: &Outcome) -> bool {
    let ours = out.frame.get(ETH_LEN + 12..ETH_LEN + 16) == Some(&crate::world::ROUTER4.octets());
    let told = out.frame.get(ETH_LEN + 20..ETH_LEN + 22) == Some(&[3, 4]);
    out.action == Action::Redirect && ours && told
}

/// A service without backends says so.
fn is_refusal(out: &Outcome) -> bool {
    let packet = &out.frame[ETH_LEN..];
    let (source, told) = match packet[0] >> 4 {
        4 if packet.len() >= 28 => (packet[12..16] == VIP4.octets(), [packet[20], packet[21]]),
        6 if packet.len() >= 48 => (packet[8..24] == VIP6.octets(), [packet[40], packet[41]]),
        _ => return false,
    };
    let hops = packet[if packet[0] >> 4 == 4 { 8 } else { 7 }];
    let refusal = told == [3, 3] || told == [1, 4];
    out.action == Action::Redirect && source && refusal && hops == 64
}

/// What `cil_from_container` does not count: ARP, neighbour discovery, errors.
fn is_answer(frame: &[u8], out: &Outcome) -> bool {
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    let untouched = out.action == Action::Pass && out.frame == frame;
    match ethertype {
        TYPE_ARP => true,
        TYPE_IPV4 => is_frag_needed(out) || is_refusal(out),
        // Solicitations and advertisements for the stack have no hop taken.
        TYPE_IPV6 => untouched || is_advertisement(out) || is_error(out) || is_refusal(out),
        _ => false,
    }
}

fn is_advertisement(out: &Outcome) -> bool {
    let kind = out.frame.get(ETH_LEN + 40) == Some(&136) && out.frame[ETH_LEN + 7] == 255;
    out.action == Action::Redirect && out.frame.len() == 86 && kind
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    FromContainer,
    /// The same where packets go past the host's stack and the tunnel's device.
    IntoTunnel,
    FromHost,
    ToHost,
    FromNetdev,
    /// The same where packets go past the host's stack.
    PastHost,
    /// The same of frames in a tunnel.
    OutOfTunnel,
    /// The same where services are for clients outside.
    Outside,
    FromOverlay,
    ToOverlay,
    /// The program of drivers, where services are for clients outside.
    Driver,
}

impl Target {
    /// Verdicts it may give.
    fn verdicts(self) -> &'static [Action] {
        match self {
            Self::FromContainer | Self::IntoTunnel | Self::FromHost | Self::FromOverlay => {
                &[Action::Pass, Action::Drop, Action::Redirect]
            }
            Self::ToHost | Self::ToOverlay => &[Action::Pass],
            Self::FromNetdev => &[Action::Next],
            Self::Driver => &xdp::VERDICTS,
            Self::PastHost | Self::OutOfTunnel | Self::Outside => {
                &[Action::Next, Action::Drop, Action::Redirect]
            }
        }
    }

    fn send(self, lab: &Lab, random: &mut Random, mark: u32, frame: &[u8]) -> Outcome {
        let sandbox = &lab.sandbox;
        let (program, ifindex) = match self {
            Self::FromContainer if random.chance(1) => ("cil_from_container", sandbox.cilium_net),
            Self::FromContainer if random.chance(5) => {
                let tag = (random.pick(&[0x8100, 0x88a8]), random.pick(&[7, 0xe000]));
                return lab.send_tagged("cil_from_container", sandbox.lxc_a, &[tag], frame);
            }
            Self::FromContainer | Self::IntoTunnel => {
                ("cil_from_container", random.pick(&[sandbox.lxc_a, sandbox.lxc_a, sandbox.lxc_b]))
            }
            Self::FromHost => ("cil_from_host", sandbox.cilium_host),
            Self::ToHost => ("cil_to_host", sandbox.cilium_host),
            Self::FromNetdev => ("cil_from_netdev", sandbox.cilium_host),
            Self::PastHost => {
                let mut frame = frame.to_vec();
                frame[..6].copy_from_slice(&crate::world::HOST_MAC);
                from_peer(&mut frame);
                return lab.send("cil_from_netdev", sandbox.cilium_host, mark, &frame);
            }
            Self::OutOfTunnel => {
                let mut frame = in_tunnel(random, frame);
                frame[..6].copy_from_slice(&crate::world::HOST_MAC);
                return lab.send("cil_from_netdev", sandbox.cilium_host, mark, &frame);
            }
            // Of what is not nearly right, hardly any gets further than the headers.
            Self::Driver if random.chance(30) => {
                return xdp::at_driver(lab, sandbox.cilium_host, &asked(random));
            }
            Self::Driver => return xdp::at_driver(lab, sandbox.cilium_host, frame),
            Self::Outside => {
                let mut frame = frame.to_vec();
                frame[..6].copy_from_slice(&crate::world::HOST_MAC);
                if random.chance(50) {
                    to(&mut frame, VIP4, VIP6);
                }
                return lab.send("cil_from_netdev", sandbox.cilium_host, mark, &frame);
            }
            Self::ToOverlay => ("cil_to_overlay", sandbox.cilium_vxlan),
            Self::FromOverlay if random.chance(1) => ("cil_from_overlay", sandbox.cilium_vxlan),
            Self::FromOverlay => {
                let id = random.pick(&[1, 2, 6, 7, 40_000, 0x00ff_ffff]);
                let context = context_by_tunnel(id, random.chance(50));
                return test_run(lab.program_by_tunnel(), context, frame);
            }
        };
        test_run(lab.program(program), context(ifindex, mark), frame)
    }
}

/// A frame as another node's tunnel would send it, for an endpoint more often than not, with bytes changed now and then.
fn in_tunnel(random: &mut Random, frame: &[u8]) -> Vec<u8> {
    let mut inner = frame[..frame.len().min(TUNNELED_LEN_MAX)].to_vec();
    if random.chance(70) {
        to(&mut inner, B4, B6);
    }
    let id = random.pick(&[1, 2, 6, 40_000, 0x00ff_ffff]);
    let mut outer = peer_sends(random.chance(50), id, &inner);
    for _ in 0..random.below(10).saturating_sub(7) {
        let at = random.below(outer.len().min(128));
        outer[at] ^= 1 << random.below(8);
    }
    outer
}

/// Makes an address the destination.
fn to(frame: &mut [u8], v4: Ipv4Addr, v6: Ipv6Addr) {
    let [v4, v6] = [v4.octets().to_vec(), v6.octets().to_vec()];
    let (at, address) = match frame[12..14] {
        [8, 0] => (30, v4),
        [0x86, 0xdd] => (38, v6),
        _ => return,
    };
    if let Some(place) = frame.get_mut(at..at + address.len()) {
        place.copy_from_slice(&address);
    }
}

/// What a client outside asks of a service, with a byte or two of it changed.
fn asked(random: &mut Random) -> Vec<u8> {
    let (client, vip) = random.pick(&[
        (IpAddr::from([203, 0, 113, 9]), IpAddr::V4(VIP4)),
        (IpAddr::from([0x2001, 0xdb8, 9, 0, 0, 0, 0, 9]), IpAddr::V6(VIP6)),
    ]);
    let (protocol, flags) = random.pick(&[(TCP, TCP_SYN), (TCP, TCP_ACK), (UDP, 0)]);
    let (from, to) = (40_000 + random.below(2000) as u16, random.pick(&[80, 1000, 2000]));
    let mut frame = at_host(&segment((client, from), (vip, to), protocol, flags));
    for _ in 0..random.below(3) {
        let at = random.below(frame.len());
        frame[at] = random.next() as u8;
    }
    frame
}

/// Changes a frame as packets in the wild are wrong: some bytes, its end, or a part of another one.
fn mutate(random: &mut Random, frame: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..random.below(5) {
        let at = random.below(frame.len().min(128));
        match random.below(4) {
            0 => frame[at] ^= 1 << random.below(8),
            1 => frame[at] = random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            _ => frame[at] = random.next() as u8,
        }
    }
    match random.below(12) {
        0 => frame.truncate(1 + random.below(frame.len())),
        1 => frame.resize((frame.len() + random.below(64)).min(FRAME_LEN_MAX), 0x5a),
        2 => {
            let at = random.below(frame.len().min(other.len()));
            frame.truncate(at);
            frame.extend(&other[at..]);
        }
        _ => {}
    }
    frame.truncate(FRAME_LEN_MAX);
    // Too short for a test run. Such frames come over a wire in `truncated`.
    while frame.len() < ETH_LEN || frame.len() < shortest(frame) {
        frame.push(random.next() as u8);
    }
}

/// Throws one batch; says what was wrong with it.
fn throw(
    lab: &mut Lab,
    target: Target,
    seed: u64,
    corpus: &[Vec<u8>],
    seen: &mut BTreeMap<Action, u64>,
) -> Result<(), String> {
    let (mut random, mut expected) = (Random::new(seed), Account::default());
    let mut frame = Vec::new();
    for _ in 0..BATCH {
        frame.clear();
        frame.extend(&corpus[random.below(corpus.len())]);
        let other = random.below(corpus.len());
        mutate(&mut random, &mut frame, &corpus[other]);
        let mark = random.next() as u32;
        let out = target.send(lab, &mut random, mark, &frame);
        if !target.verdicts().contains(&out.action) {
            return Err(format!("{:?} is none of its verdicts: {frame:02x?}", out.action));
        }
        expected.add(target, mark, &frame, &out);
        *seen.entry(out.action).or_default() += 1;
    }
    let found = Account::of_counters(lab);
    if found == expected { Ok(()) } else { Err(format!("{found:?}, but {expected:?} by verdicts")) }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

fn fuzz(target: Target) {
    let (seed, frames) = (number("FUZZ_SEED", SEED), number("FUZZ_FRAMES", FRAMES));
    lab::run(|lab| {
        lab.add_tunnel();
        add_services(lab);
        if matches!(
            target,
            Target::PastHost
                | Target::IntoTunnel
                | Target::OutOfTunnel
                | Target::Outside
                | Target::Driver
        ) {
            lab.route_past_host();
        }
        if target == Target::IntoTunnel {
            add_routes();
            // What goes by route looks like what is delivered.
            ip("route del 10.244.4.0/24");
            ip("-6 route del fd00:10:244:0:4::/80");
        }
        if matches!(target, Target::Outside | Target::Driver) {
            add_routes();
            ip("route add default via 172.18.0.2");
            ip("-6 route add default via fd00:172:18::2");
            serve_outside(lab);
            xdp::know_the_next_hop();
            // For endpoints and the node alone.
            let mut world = lab.world.clone();
            for vip in [IpAddr::V4(VIP4), IpAddr::V6(VIP6)] {
                world.services.get_mut(&(vip, 1000, TCP)).expect("a service").flags = 0;
            }
            lab.describe(world);
        }
        let mut random = Random::new(seed);
        let corpus: Vec<_> = (0..CORPUS).map(|_| random.frame()).collect();
        let (mut seen, mut listener) = (BTreeMap::new(), None);
        for batch in 0..frames.div_ceil(BATCH) {
            // The second half with somebody who listens to everything, and does not always keep up.
            if batch * BATCH * 2 >= frames && listener.is_none() {
                let types = u32::MAX;
                listener = Some(Listener::new(lab, 0, Filter { types, ..Filter::default() }));
            }
            let seed = seed ^ (batch + 1) << 32;
            if let Err(wrong) = throw(lab, target, seed, &corpus, &mut seen) {
                panic!("{target:?}, batch {batch} with seed {seed:#x}: {wrong}");
            }
            if let Some(listener) = &mut listener {
                listener.records();
            }
        }
        for action in target.verdicts() {
            let often = seen.get(action).copied().unwrap_or_default();
            assert!(often > frames / 100, "{action:?} is rare: {seen:?}");
        }
    });
}

#[test]
fn from_container() {
    fuzz(Target::FromContainer);
}

#[test]
fn from_host() {
    fuzz(Target::FromHost);
}

#[test]
fn from_overlay() {
    fuzz(Target::FromOverlay);
}

#[test]
fn to_host() {
    fuzz(Target::ToHost);
}

#[test]
fn from_netdev() {
    fuzz(Target::FromNetdev);
}

#[test]
fn past_host() {
    fuzz(Target::PastHost);
}

#[test]
fn into_the_tunnel() {
    fuzz(Target::IntoTunnel);
}

#[test]
fn out_of_the_tunnel() {
    fuzz(Target::OutOfTunnel);
}

#[test]
fn clients_outside() {
    fuzz(Target::Outside);
}

#[test]
fn at_drivers() {
    fuzz(Target::Driver);
}

#[test]
fn to_overlay() {
    fuzz(Target::ToOverlay);
}
