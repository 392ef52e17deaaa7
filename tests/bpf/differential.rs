//! Random packets, the same on every run: the bytecode and the model agree on verdict, bytes, mark and
//! counters.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::frames::*;
use crate::lab::{self, Lab};
use crate::model::{self, Action, Count, Expected};
use crate::truncated::shortest;
use crate::world::*;

const PACKETS: usize = 30_000;

/// Deterministic random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn mac(&mut self) -> Mac {
        self.pick(&[BROADCAST, MAC_A, MAC_B, LXC_MAC_A, LXC_MAC_B, HOST_MAC, NET_MAC])
    }

    fn v4(&mut self) -> Ipv4Addr {
        let groups = [[224, 0, 0, 22].into(), [255; 4].into(), [169, 254, 9, 9].into()];
        let nodes = [A4, A4, B4, B4, ROUTER4, NODE4, NETNS4, REMOTE4, WORLD4, UNUSED4];
        self.pick(&[&nodes[..], &groups, &[Ipv4Addr::UNSPECIFIED]].concat())
    }

    fn v6(&mut self) -> Ipv6Addr {
        let group = solicited_node(B6);
        let nodes = [A6, A6, B6, B6, ROUTER6, NODE6, REMOTE6, WORLD6, UNUSED6];
        self.pick(&[&nodes[..], &[A_LINK_LOCAL, group, Ipv6Addr::UNSPECIFIED]].concat())
    }

    fn ipv4(&mut self) -> Vec<u8> {
        let options = 4 * if self.chance(80) { 0 } else { self.below(11) };
        let (options, len) = (self.bytes(options), self.below(64));
        let (source, ttl) = (self.source4(), self.pick(&[0, 1, 2, 64, 64, 255]));
        let payload = self.bytes(len);
        ipv4_with(source, self.v4(), ttl, &options, &payload)
    }

    fn source4(&mut self) -> Ipv4Addr {
        if self.chance(60) { A4 } else { self.v4() }
    }

    fn source6(&mut self) -> Ipv6Addr {
        if self.chance(60) { A6 } else { self.v6() }
    }

    /// A message, some of it neighbour discovery, behind some extension headers.
    fn ipv6(&mut self) -> Vec<u8> {
        let (source, destination) = (self.source6(), self.v6());
        let (mut next, mut payload) = if self.chance(60) {
            let kind = self.pick(&[135, 135, 135, 136, 133, 128, 1, 3, 137, 143]);
            let len = 8 * self.below(3);
            let (target, options) = (self.v6(), self.bytes(len));
            let code = if self.chance(95) { 0 } else { 7 };
            let body = nd_body(self.next() as u8, target, &options);
            (ICMP6, icmp6(source, destination, kind, code, &body))
        } else {
            let len = if self.chance(90) { self.below(100) } else { self.below(2500) };
            (self.pick(&[UDP, 6, 44, 59]), self.bytes(len))
        };
        for _ in 0..if self.chance(70) { 0 } else { self.below(7) } {
            let kind = self.pick(&[0, 43, 60, 51]);
            let units = self.below(3) as u8;
            let len =
                if kind == 51 { 8 + 4 * usize::from(units) } else { 8 + 8 * usize::from(units) };
            let mut header = self.bytes(len);
            (header[0], header[1]) = (next, units);
            (next, payload) = (kind, [header, payload].concat());
        }
        let hop_limit = self.pick(&[255, 255, 255, 64, 64, 2, 1, 0]);
        ipv6_with(source, destination, hop_limit, next, &payload)
    }

    fn frame(&mut self) -> Vec<u8> {
        let (ethertype, packet) = match self.below(100) {
            0..30 => (TYPE_IPV4, self.ipv4()),
            30..80 => (TYPE_IPV6, self.ipv6()),
            80..92 => {
                let sides = [(self.mac(), self.v4()), (self.mac(), self.v4())];
                let operation = self.pick(&[1, 1, 1, 2]);
                (TYPE_ARP, [arp(operation, sides[0], sides[1]), vec![0; self.below(20)]].concat())
            }
            _ => {
                let len = 1 + self.below(100);
                (self.pick(&[0x8100, 0x88a8, 0x88cc, 0x0026, 0x05ff, 0x0600]), self.bytes(len))
            }
        };
        let mut frame = ethernet(self.mac(), self.mac(), ethertype, &packet);
        self.damage(&mut frame);
        frame
    }

    /// Cuts off and changes bytes of some frames, as far as a test run takes the result.
    fn damage(&mut self, frame: &mut Vec<u8>) {
        if self.chance(15) {
            for _ in 0..1 + self.below(4) {
                let at = self.below(frame.len().min(110));
                frame[at] = self.next() as u8;
            }
        }
        if self.chance(15) {
            frame.truncate(ETH_LEN + self.below(frame.len() - ETH_LEN + 1));
        }
        let shortest = shortest(frame);
        if frame.len() < shortest {
            let missing = self.bytes(shortest - frame.len());
            frame.extend(missing);
        }
    }
}

/// Adds up what the model counts.
#[derive(Default)]
struct Sums(BTreeMap<(u8, u8), (u64, u64)>);

impl Sums {
    fn add(&mut self, expected: &Expected, frame: &[u8]) {
        for count in &expected.counts {
            let sum = self.0.entry(*count).or_default();
            *sum = (sum.0 + 1, sum.1 + frame.len() as u64);
        }
    }

    fn counts(&self) -> Vec<Count> {
        let counts = self.0.iter().map(|((reason, direction), (packets, bytes))| Count {
            reason: *reason,
            direction: *direction,
            packets: *packets,
            bytes: *bytes,
        });
        counts.collect()
    }
}

/// Runs the frames through one program and its model; returns how often each verdict was.
fn compare(
    lab: &mut Lab,
    seed: u64,
    program: &str,
    ifindexes: &[u32],
    model: impl Fn(&Lab, u32, u32, &[u8]) -> Expected,
) -> BTreeMap<Action, usize> {
    let mut random = Random(seed);
    let (mut sums, mut verdicts) = (Sums::default(), BTreeMap::new());
    for number in 0..PACKETS {
        let frame = random.frame();
        let ifindex = random.pick(ifindexes);
        let magic = random.pick(&[0, 0x200, 0xa00, 0xb00, 0xc00, 0xf00]);
        let mark = (random.next() as u32 & !0xf00) | magic;
        let expected = model(lab, ifindex, mark, &frame);
        let out = lab.send(program, ifindex, mark, &frame);
        let what = || format!("{program}, packet {number}, mark {mark:#x}: {frame:02x?}");
        assert_eq!(out.action, expected.action, "{}", what());
        if out.action != Action::Drop {
            assert_eq!(out.frame, expected.frame, "{}", what());
            assert_eq!(out.mark, expected.mark, "{}", what());
        }
        sums.add(&expected, &frame);
        *verdicts.entry(out.action).or_default() += 1;
    }
    assert_eq!(lab.counted(), sums.counts());
    verdicts
}

#[test]
fn from_container_is_the_model() {
    lab::run(|lab| {
        let devices = [lab.sandbox.lxc_a, lab.sandbox.lxc_a, lab.sandbox.lxc_a, lab.sandbox.lxc_b];
        let verdicts =
            compare(lab, 0x5eed, "cil_from_container", &devices, |lab, ifindex, mark, frame| {
                model::from_container(&lab.world, ifindex, mark, frame)
            });
        for action in [Action::Pass, Action::Drop, Action::Redirect] {
            assert!(verdicts[&action] > PACKETS / 20, "too few of a kind: {verdicts:?}");
        }
    });
}

#[test]
fn from_host_is_the_model() {
    lab::run(|lab| {
        let devices = [lab.sandbox.cilium_host];
        let verdicts = compare(lab, 0xcafe, "cil_from_host", &devices, |lab, _, mark, frame| {
            model::from_host(&lab.world, mark, frame)
        });
        for action in [Action::Pass, Action::Drop, Action::Redirect] {
            assert!(verdicts[&action] > PACKETS / 20, "too few of a kind: {verdicts:?}");
        }
    });
}
