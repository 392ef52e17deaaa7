//! Maglev tables in the kernel against a model that is written by the book: permutations written out, turn by turn.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Cursor;
use std::net::SocketAddr;

use ciliate::bpf_abi::CILIATE_MAGLEV;
use ciliate::kernel::bpf_map::Map;

use crate::lab::{DUAL, Lab};

/// Sets of backends that are compared.
const SETS: usize = 1000;
/// Entries of a table: the smallest size that is a hundred times the backends of a set.
const SIZE: u32 = 1021;
const BACKENDS_MAX: u64 = 10;
/// The first four bytes of Cilium's default seed for Maglev, `JLfvgnHc2kaSUFaI`.
const SEED: u32 = 0x24b7_ef82;

/// Numbers by chance, the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// A service: its frontend, protocol and backends with their weights.
struct Set {
    frontend: SocketAddr,
    protocol: &'static str,
    backends: BTreeMap<SocketAddr, u16>,
}

impl Set {
    fn by(chance: &mut Chance, number: usize) -> Self {
        let (high, low) = (number / 250, number % 250 + 1);
        let v6 = chance.below(2) == 1;
        let frontend = match v6 {
            false => format!("10.99.{high}.{low}:80"),
            true => format!("[2001:db8:99:{high}::{low}]:80"),
        };
        let (count, protocol) = (1 + chance.below(BACKENDS_MAX), chance.below(3) as usize);
        let plain = chance.below(2) == 1;
        let one = |_| {
            let (net, host) = (chance.below(4), chance.below(200) + 1);
            let port = 80 + chance.below(3);
            let address = match v6 {
                false => format!("10.98.{net}.{host}:{port}"),
                true => format!("[2001:db8:98:{net}::{host}]:{port}"),
            };
            let weight = match chance.below(4) {
                _ if plain => 100,
                0 => 100,
                1 => 1,
                _ => 1 + chance.below(65_535) as u16,
            };
            (address.parse().expect("an address"), weight)
        };
        let backends = (0..count).map(one).collect();
        let protocol = ["TCP", "UDP", "SCTP"][protocol];
        Self { frontend: frontend.parse().expect("an address"), protocol, backends }
    }

    fn text(&self, number: usize) -> String {
        let one = |(address, weight): (&SocketAddr, &u16)| {
            format!("{{ address = \"{address}\", weight = {weight} }}")
        };
        let backends: Vec<String> = self.backends.iter().map(one).collect();
        let mut text = String::new();
        let _ = write!(
            text,
            "[[service]]\nname = \"s{number}\"\nprotocol = \"{}\"\nexternal-ips = [\"{}\"]\nbackends = [{}]\n",
            self.protocol,
            self.frontend,
            backends.join(", ")
        );
        text
    }

    /// Who has each entry.
    fn model(&self) -> Vec<SocketAddr> {
        let mut named: Vec<(String, SocketAddr, u64)> = self
            .backends
            .iter()
            .map(|(address, weight)| {
                let name = format!("[{address}/{},State:active]", self.protocol);
                (name, *address, u64::from(*weight))
            })
            .collect();
        named.sort();
        let size = u64::from(SIZE);
        let permutation = |name: &String| -> Vec<usize> {
            let hash = murmur3::murmur3_x64_128(&mut Cursor::new(name), SEED).expect("a hash");
            let (offset, skip) = (hash as u64 % size, (hash >> 64) as u64 % (size - 1) + 1);
            (0..size).map(|turn| ((offset + turn * skip) % size) as usize).collect()
        };
        let orders: Vec<Vec<usize>> = named.iter().map(|(name, ..)| permutation(name)).collect();
        let sum: u64 = named.iter().map(|(.., weight)| weight).sum();
        let mut table: Vec<Option<SocketAddr>> = vec![None; SIZE as usize];
        let mut had = vec![0; named.len()];
        let mut turns = (0..named.len()).cycle();
        for filled in 1..=size {
            // The next whose part of what is filled, rounded up, is more than it has.
            let part = |who: usize| (filled * named[who].2).div_ceil(sum);
            let who = turns.find(|who| had[*who] < part(*who)).expect("somebody lags behind");
            let free = orders[who].iter().find(|entry| table[**entry].is_none()).expect("room");
            table[*free] = Some(named[who].1);
            had[who] += 1;
        }
        table.into_iter().map(|entry| entry.expect("every entry has somebody")).collect()
    }
}

#[test]
fn tables_are_those_of_the_model() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through();
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let sets: Vec<Set> = (0..SETS).map(|number| Set::by(&mut chance, number)).collect();
    let mut text = fs::read_to_string(&lab.a.config).expect("read the configuration");
    let _ = write!(text, "[load-balancing]\nalgorithm = \"maglev\"\nmaglev-table-size = {SIZE}\n");
    text.extend(sets.iter().enumerate().map(|(number, set)| set.text(number)));
    fs::write(&lab.a.config, text).expect("write the configuration");
    lab.a.apply();
    lab.note_bpf();
    let observed = lab.a.view().observed;
    let addresses: BTreeMap<u32, SocketAddr> =
        observed.lb_backends.iter().map(|(key, seen)| (key.id, seen.backend.address)).collect();
    let tables: BTreeMap<String, u32> =
        observed.lb_services.iter().map(|(key, state)| (key.to_string(), state.table)).collect();
    let map = Map::open(&lab.a.bpf.join("maps").join(CILIATE_MAGLEV)).expect("open the tables");
    let mut several = 0;
    for set in &sets {
        let frontend = format!("{}/{}", set.frontend, set.protocol);
        let number = tables.get(&frontend).unwrap_or_else(|| panic!("no {frontend}"));
        let table = map.lookup(&number.to_ne_bytes()).expect("look up").expect("a table");
        let ids = table.chunks_exact(4).map(|id| u32::from_ne_bytes([id[0], id[1], id[2], id[3]]));
        let found: Vec<SocketAddr> = ids.map(|id| addresses[&id]).collect();
        let wrong =
            found.iter().zip(set.model()).filter(|(found, wanted)| *found != wanted).count();
        assert_eq!((found.len(), wrong), (SIZE as usize, 0), "{frontend}: {:?}", set.backends);
        several += usize::from(set.backends.len() > 1);
    }
    assert!(several > SETS / 2, "too few sets of more than one");
}
