//! Random packets, the same on every run: the bytecode and the model agree on verdict, bytes, mark,
//! counters, events, and what conntrack keeps.

use std::collections::BTreeMap;

use crate::flows::Flows;
use crate::kept;
use crate::lab::{self, Lab, Outcome};
use crate::listener::{Filter, Listener};
use crate::model::{self, Action, Count, Expected};
use crate::random::Random;
use crate::service_world::add_services;
use crate::world::{HOST_MAC, SKIP4, SKIP6};

const PACKETS: usize = 30_000;

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

/// Runs random frames through one program and its model; fails when a verdict is rare.
fn compare(
    lab: &mut Lab,
    seed: u64,
    verdicts: &[Action],
    run: impl Fn(&Lab, &mut Random, &mut Flows, &[u8]) -> (Outcome, Expected),
) {
    let (mut random, mut flows) = (Random::new(seed), Flows::default());
    flows.taken = Some(kept::taken(lab));
    let (mut sums, mut seen) = (Sums::default(), BTreeMap::new());
    let (begin, mut listener) = (kept::now(), Listener::new(lab, 0, Filter::default()));
    for number in 0..PACKETS {
        let frame = random.frame();
        let (out, expected) = run(lab, &mut random, &mut flows, &frame);
        let what = || format!("packet {number}: {frame:02x?}");
        assert_eq!(out.action, expected.action, "{}", what());
        if out.action != Action::Drop {
            assert_eq!(out.frame, expected.frame, "{}", what());
            assert_eq!(out.mark, expected.mark, "{}", what());
        }
        assert_eq!(listener.told(), expected.told, "{}", what());
        sums.add(&expected, &frame);
        *seen.entry(out.action).or_insert(0) += 1;
    }
    assert_eq!(lab.counted(), sums.counts());
    kept::assert_flows(lab, &flows, begin);
    for action in verdicts {
        assert!(seen[action] > PACKETS / 20, "too few of a kind: {seen:?}");
    }
}

const ALL: &[Action] = &[Action::Pass, Action::Drop, Action::Redirect];

/// Some mark, of every kind that the programs tell apart.
fn mark(random: &mut Random) -> u32 {
    let magic = random.pick(&[0, 0x200, 0x400, 0xa00, 0xb00, 0xc00, 0xf00]);
    (random.next() as u32 & !0xf00) | magic
}

fn from_container(lab: &mut Lab, seed: u64) {
    let devices = [lab.sandbox.lxc_a, lab.sandbox.lxc_a, lab.sandbox.lxc_a, lab.sandbox.lxc_b];
    compare(lab, seed, ALL, |lab, random, flows, frame| {
        let (ifindex, mark) = (random.pick(&devices), mark(random));
        let out = lab.send("cil_from_container", ifindex, mark, frame);
        (out, model::from_container(&lab.world, flows, (ifindex, mark), frame))
    });
}

fn from_host(lab: &mut Lab, seed: u64) {
    compare(lab, seed, ALL, |lab, random, flows, frame| {
        let mark = mark(random);
        (lab.host_sends(mark, frame), model::from_host(&lab.world, flows, mark, frame))
    });
}

#[test]
fn from_container_is_the_model() {
    lab::run(|lab| from_container(lab, 0x5eed));
}

#[test]
fn from_container_with_a_tunnel_is_the_model() {
    lab::run(|lab| {
        lab.add_tunnel();
        from_container(lab, 0x7ee1);
    });
}

#[test]
fn from_host_is_the_model() {
    lab::run(|lab| from_host(lab, 0xcafe));
}

#[test]
fn from_host_with_a_tunnel_is_the_model() {
    lab::run(|lab| {
        lab.add_tunnel();
        from_host(lab, 0xcafe);
    });
}

#[test]
fn from_overlay_is_the_model() {
    lab::run(|lab| {
        lab.add_tunnel();
        compare(lab, 0x0e1a, ALL, |lab, random, flows, frame| {
            let id = random.pick(&[1, 2, 2, 6, 6, 7, 4, 40_000, 17_248, 0x00ab_cdef]);
            let out = lab.tunnel_sends(id, random.chance(30), frame);
            (out, model::from_overlay(&lab.world, flows, Some(id), frame))
        });
    });
}

#[test]
fn to_host_and_from_netdev_are_the_model() {
    lab::run(|lab| {
        compare(lab, 0xbeef, &[Action::Pass, Action::Next], |lab, random, flows, frame| {
            let (from_netdev, mark) = (random.chance(50), mark(random));
            let program = if from_netdev { "cil_from_netdev" } else { "cil_to_host" };
            let out = lab.send(program, lab.sandbox.cilium_host, mark, frame);
            (out, model::passes(&lab.world, flows, from_netdev, mark, frame))
        });
    });
}

/// Flows to services and their answers, which come by three ways.
fn with_services(lab: &mut Lab, seed: u64) {
    let devices = [lab.sandbox.lxc_a, lab.sandbox.lxc_a, lab.sandbox.lxc_a, lab.sandbox.lxc_b];
    compare(lab, seed, ALL, |lab, random, flows, frame| {
        let mark = mark(random);
        match random.below(10) {
            0..7 => {
                let ifindex = random.pick(&devices);
                let out = lab.send("cil_from_container", ifindex, mark, frame);
                (out, model::from_container(&lab.world, flows, (ifindex, mark), frame))
            }
            7..9 => (lab.host_sends(mark, frame), model::from_host(&lab.world, flows, mark, frame)),
            _ => {
                let out = lab.tunnel_sends(40_000, false, frame);
                (out, model::from_overlay(&lab.world, flows, Some(40_000), frame))
            }
        }
    });
}

#[test]
fn services_are_the_model() {
    lab::run(|lab| {
        add_services(lab);
        with_services(lab, 0x5e41);
    });
}

#[test]
fn services_with_a_tunnel_are_the_model() {
    lab::run(|lab| {
        add_services(lab);
        lab.add_tunnel();
        with_services(lab, 0x5e42);
    });
}

#[test]
fn from_netdev_past_the_host_is_the_model() {
    lab::run(|lab| {
        lab.route_past_host();
        compare(lab, 0xfa57, &[Action::Next, Action::Redirect], |lab, random, flows, frame| {
            let mut frame = frame.to_vec();
            if random.chance(90) {
                frame[..6].copy_from_slice(&HOST_MAC);
            }
            if random.chance(90) {
                from_peer(&mut frame);
            }
            let mark = mark(random);
            let out = lab.send("cil_from_netdev", lab.sandbox.cilium_host, mark, &frame);
            (out, model::passes(&lab.world, flows, true, mark, &frame))
        });
    });
}

/// Makes a peer's endpoint the sender, which no tunnel leads to. The checksum is anybody's guess.
pub fn from_peer(frame: &mut [u8]) {
    let [v4, v6] = [SKIP4.octets().to_vec(), SKIP6.octets().to_vec()];
    let (at, address) = match frame[12..14] {
        [8, 0] => (26, v4),
        [0x86, 0xdd] => (22, v6),
        _ => return,
    };
    if let Some(place) = frame.get_mut(at..at + address.len()) {
        place.copy_from_slice(&address);
    }
}
