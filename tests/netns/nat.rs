//! The NAT maps as user space sees them: what is over is removed, and nothing else; made anew with another size.
//! Flows are put into the maps by hand here.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ciliate::bpf_abi::{
    CILIUM_CT_ANY4, CILIUM_CT_ANY6, CILIUM_CT4, CILIUM_CT6, CILIUM_SNAT4, CILIUM_SNAT6, CT_FLAG_IN,
    Ct4Key, Ct6Key, CtValue, SNAT_DSR, SNAT_FLAG_IN, Snat4Value, Snat6Value,
};
use ciliate::daemon::gc;
use ciliate::kernel::bpf_map::Map;
use ciliate::kernel::{clock, pins};

use crate::lab::{DUAL, Lab};
use crate::node::{Node, Text};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const NODE: [u8; 4] = [172, 18, 0, 3];
const BACKEND: [u8; 4] = [10, 244, 1, 124];

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(node: &Node, map: &str) -> Map {
    Map::open(&pins::map(&node.bpf, map)).unwrap_or_else(|error| panic!("open {map}: {error}"))
}

fn entries(map: &Map) -> Entries {
    map.entries().expect("read the map").into_iter().collect()
}

/// A flow to the same backend from a port of its own.
#[derive(Clone, Copy)]
struct Flow {
    v6: bool,
    number: u16,
    protocol: u8,
    /// Of the node itself, else of a client.
    own: bool,
}

/// An address of IPv6 that ends like one of IPv4.
fn long(v4: [u8; 4]) -> [u8; 16] {
    Ipv4Addr::from(v4).to_ipv6_mapped().octets()
}

impl Flow {
    /// Both entries, last used so many seconds ago.
    fn entries(self, ago: u64) -> Entries {
        let used = u64::from(clock::monotonic_seconds()).saturating_sub(ago);
        let Self { v6, number, protocol, own } = self;
        let (port, there) = (number.to_be_bytes(), 8080u16.to_be_bytes());
        let taken = (number + 1).to_be_bytes();
        let client = if own { NODE } else { [172, 18, 0, 1] };
        let out = Ct4Key {
            saddr_be: client,
            daddr_be: BACKEND,
            sport_be: port,
            dport_be: there,
            protocol,
            flags: 0,
        };
        let back = Ct4Key {
            saddr_be: BACKEND,
            daddr_be: NODE,
            sport_be: there,
            dport_be: taken,
            protocol,
            flags: SNAT_FLAG_IN,
        };
        let made = [(out, NODE, taken), (back, client, port)];
        let pair = made.map(|(key, address, port_be)| {
            let v4 = Snat4Value {
                created: used,
                needs_ct: u64::from(!own),
                last_used: used,
                address_be: address,
                port_be,
                ..Snat4Value::default()
            };
            if !v6 {
                return (key.to_bytes().to_vec(), v4.to_bytes().to_vec());
            }
            let value = Snat6Value {
                created: used,
                needs_ct: v4.needs_ct,
                last_used: used,
                address_be: long(address),
                port_be,
                ..Snat6Value::default()
            };
            (long_key(key).to_bytes().to_vec(), value.to_bytes().to_vec())
        });
        pair.into()
    }

    /// What conntrack knows of it, to end in so many seconds, and in which map.
    fn tracked(self, seconds: i64) -> (&'static str, Vec<u8>, Vec<u8>) {
        let lifetime = (i64::from(clock::monotonic_seconds()) + seconds).max(0) as u32;
        let value = CtValue { lifetime, bits: 16, ..CtValue::default() }.to_bytes().to_vec();
        let key = Ct4Key {
            daddr_be: [172, 18, 0, 1],
            saddr_be: BACKEND,
            dport_be: 8080u16.to_be_bytes(),
            sport_be: self.number.to_be_bytes(),
            protocol: self.protocol,
            flags: 0,
        };
        match (self.v6, self.protocol == TCP) {
            (false, true) => (CILIUM_CT4, key.to_bytes().to_vec(), value),
            (false, false) => (CILIUM_CT_ANY4, key.to_bytes().to_vec(), value),
            (true, true) => (CILIUM_CT6, long_key(key).to_bytes().to_vec(), value),
            (true, false) => (CILIUM_CT_ANY6, long_key(key).to_bytes().to_vec(), value),
        }
    }

    fn map(self) -> &'static str {
        if self.v6 { CILIUM_SNAT6 } else { CILIUM_SNAT4 }
    }

    fn put(self, node: &Node, ago: u64, tracked: Option<i64>) -> Entries {
        let made = self.entries(ago);
        let map = open(node, self.map());
        made.iter().for_each(|(key, value)| map.update_one(key, value).expect("write"));
        if let Some(seconds) = tracked {
            let (map, key, value) = self.tracked(seconds);
            open(node, map).update_one(&key, &value).expect("write");
        }
        made
    }
}

fn long_key(key: Ct4Key) -> Ct6Key {
    Ct6Key {
        daddr_be: long(key.daddr_be),
        saddr_be: long(key.saddr_be),
        dport_be: key.dport_be,
        sport_be: key.sport_be,
        protocol: key.protocol,
        flags: key.flags,
    }
}

/// Whatever the kernel's clock says: the machine may have come up a minute ago.
const FOREVER_AGO: u64 = u64::MAX;

#[test]
fn what_is_over_goes_and_nothing_else() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.a.write(&Text::node_a(&lab));
    lab.a.apply();
    let up = clock::monotonic_seconds();
    assert!(up > 62, "this machine has run for {up} seconds, of which no flow can be a minute old");
    for v6 in [false, true] {
        let mut kept = Entries::new();
        let mut number = 40_000;
        let mut flow = |protocol, own| {
            number += 2;
            Flow { v6, number, protocol, own }
        };
        for protocol in [TCP, UDP, SCTP] {
            // Of a client: while conntrack knows it, or it was heard of lately.
            kept.extend(flow(protocol, false).put(&lab.a, FOREVER_AGO, Some(1000)));
            kept.extend(flow(protocol, false).put(&lab.a, 10, Some(-1)));
            kept.extend(flow(protocol, false).put(&lab.a, 10, None));
            flow(protocol, false).put(&lab.a, FOREVER_AGO, Some(-1));
            flow(protocol, false).put(&lab.a, 62, None);
        }
        // Of the node, which conntrack doesn't know.
        kept.extend(flow(TCP, true).put(&lab.a, 62, None));
        kept.extend(flow(UDP, true).put(&lab.a, 10, None));
        flow(UDP, true).put(&lab.a, 62, None);
        let run = gc::collect(&lab.a.bpf);
        assert_eq!((run.errors, run.nat_deleted), (0, 14), "{run:?}");
        let map = if v6 { CILIUM_SNAT6 } else { CILIUM_SNAT4 };
        let now = entries(&open(&lab.a, map));
        assert!(now == kept, "{} entries of {}: {run:?}", now.len(), kept.len());
    }
    let run = gc::collect(&lab.a.bpf);
    assert_eq!((run.nat_entries, run.nat_deleted), (44, 0), "{run:?}");
}

/// With direct return: the entry is of the answer, and the flow one into an endpoint.
#[test]
fn direct_return_is_judged_by_its_flow() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.a.write(&Text::node_a(&lab));
    lab.a.apply();
    let (nat, flows) = (open(&lab.a, CILIUM_SNAT4), open(&lab.a, CILIUM_CT_ANY4));
    let there = 8080u16.to_be_bytes();
    for (port, seconds) in [(1000u16, Some(100)), (1001, Some(-1)), (1002, None)] {
        let answer = Ct4Key {
            saddr_be: BACKEND,
            daddr_be: [172, 18, 0, 1],
            sport_be: there,
            dport_be: port.to_be_bytes(),
            protocol: UDP,
            flags: 0,
        };
        let value = Snat4Value {
            needs_ct: SNAT_DSR,
            address_be: [192, 0, 2, 9],
            port_be: 80u16.to_be_bytes(),
            ..Snat4Value::default()
        };
        nat.update_one(&answer.to_bytes(), &value.to_bytes()).expect("write");
        let Some(seconds) = seconds else { continue };
        let flow =
            Ct4Key { dport_be: there, sport_be: port.to_be_bytes(), flags: CT_FLAG_IN, ..answer };
        let lifetime = (i64::from(clock::monotonic_seconds()) + seconds).max(0) as u32;
        let value = CtValue { lifetime, ..CtValue::default() };
        flows.update_one(&flow.to_bytes(), &value.to_bytes()).expect("write");
    }
    let run = gc::collect(&lab.a.bpf);
    assert_eq!((run.errors, run.nat_entries, run.nat_deleted), (0, 1, 2), "{run:?}");
}

/// While there is an old map, programs may use it: what they write there is not seen here.
#[test]
fn nothing_goes_while_maps_are_made_anew() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.a.write(&Text::node_a(&lab));
    lab.a.apply();
    let over = Flow { v6: false, number: 40_000, protocol: TCP, own: false };
    over.put(&lab.a, FOREVER_AGO, None);
    let shape = open(&lab.a, CILIUM_CT4).shape();
    let old = Map::create("old", shape).expect("a map");
    let pin = pins::map(&lab.a.bpf, &format!("{CILIUM_CT4}-old"));
    old.pin(&pin).expect("pin");
    lab.note_bpf();
    assert_eq!(gc::collect(&lab.a.bpf).nat_deleted, 0);
    std::fs::remove_file(&pin).expect("unpin");
    assert_eq!(gc::collect(&lab.a.bpf).nat_deleted, 2);
}

/// A packet puts the end off between the look and the hand.
#[test]
fn what_revives_is_spared() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.a.write(&Text::node_a(&lab));
    lab.a.apply();
    let flows: Vec<Flow> = (0..1000)
        .map(|n| Flow { v6: n % 2 == 1, number: 20_000 + 2 * n, protocol: UDP, own: n % 3 == 0 })
        .collect();
    let (stop, revived) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                revive(&lab.a, &flows, &revived);
            }
        });
        let (mut spared, begin) = (0, Instant::now());
        while spared < 20 && begin.elapsed() < Duration::from_secs(60) {
            let run = gc::collect(&lab.a.bpf);
            assert_eq!(run.errors, 0);
            spared += run.revived;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(spared > 0, "none revived");
    });
    assert!(revived.load(Ordering::Relaxed) > 0, "nothing was put to the test");
}

/// Lets flows end and go on again. What went on while it was there has to stay.
fn revive(node: &Node, flows: &[Flow], revived: &AtomicU64) {
    let maps = [open(node, CILIUM_SNAT4), open(node, CILIUM_SNAT6)];
    let map = |flow: &Flow| &maps[usize::from(flow.v6)];
    for flow in flows {
        for (key, value) in flow.entries(FOREVER_AGO) {
            map(flow).update_one(&key, &value).expect("let it end");
        }
    }
    for flow in flows {
        for (key, value) in flow.entries(0) {
            if !map(flow).replace(&key, &value).expect("let it go on") {
                continue;
            }
            revived.fetch_add(1, Ordering::Relaxed);
            // The collector may be between taking it out and putting it back.
            let there = || map(flow).lookup(&key).expect("read").is_some();
            let kept = crate::daemon::wait_until(Duration::from_secs(10), there);
            assert!(kept, "flow {} is lost", flow.number);
        }
    }
}

#[test]
fn sizes_change_and_what_was_used_last_stays() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let configure = |nat: u32| {
        let mut text = Text::node_a(&lab);
        text.other = format!("[conntrack]\nnat-max-entries = {nat}\n");
        lab.a.write(&text);
        lab.a.apply();
        lab.note_bpf();
    };
    configure(4096);
    let mut before = [Entries::new(), Entries::new()];
    for n in 0..1000 {
        for v6 in [false, true] {
            let flow = Flow { v6, number: 2 * n, protocol: TCP, own: false };
            before[usize::from(v6)].extend(flow.put(&lab.a, u64::from(n) / 20, None));
        }
    }
    configure(8192);
    for (map, before) in [CILIUM_SNAT4, CILIUM_SNAT6].iter().zip(&before) {
        let map = open(&lab.a, map);
        assert_eq!(map.shape().max_entries, 8192);
        assert!(entries(&map) == *before);
    }
    configure(1024);
    for (map, before) in [CILIUM_SNAT4, CILIUM_SNAT6].iter().zip(&before) {
        let now = entries(&open(&lab.a, map));
        assert!((800..=1024).contains(&now.len()), "{} entries", now.len());
        let used = |value: &[u8]| u64::from_ne_bytes(value[16..24].try_into().expect("8 bytes"));
        let oldest = now.values().map(|value| used(value)).min().expect("entries");
        let newer = before.iter().filter(|(_, value)| used(value) > oldest);
        let lost = newer.filter(|(key, _)| !now.contains_key(*key)).count();
        assert_eq!(lost, 0, "of what was used later");
    }
}
