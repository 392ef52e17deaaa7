//! Frontends: what is written and removed for many changes at once, in an order in which no packet meets one that
//! is half made.
//!
//! 1. What slot 0 will speak of: slots, and what is under the number.
//! 2. Slot 0: of those of which all of that could be written.
//! 3. Slot 0 of frontends that go.
//! 4. What no slot 0 speaks of any more.
//!
//! When a service shrinks, slots in use may name a backend twice between the first step and the second; each is
//! one of the service's. Killed between any two, what is there is used as before or not at all, and is found by
//! the next round.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::super::{
    Frontend, Head, Key, LbService, Slot, State, map, reverse_nat_map, source_range_map,
};
use super::{RANGE_STATIC_BITS, failed};
use crate::apply::ExecError;
use crate::bpf_abi::{
    CILIATE_MAGLEV_INDEX, CILIUM_LB_AFFINITY_MATCH, LB_ALGORITHM_SHIFT, Lb4ReverseNat,
    Lb4SourceRange, Lb6ReverseNat, Lb6SourceRange, LbAffinityMatch, LbValue, RevNat,
};
use crate::kernel::Kernel;
use crate::kinds::Change;
use crate::kinds::bpf_map::{MapName, exec::open};

type Results = [Result<(), ExecError>];

/// Entries of one map, one after the other, each with the change that it is of.
#[derive(Debug)]
struct Batch {
    map: MapName,
    keys: Vec<u8>,
    values: Vec<u8>,
    owners: Vec<u32>,
}

impl Batch {
    fn of(map: MapName) -> Self {
        Self { map, keys: Vec::new(), values: Vec::new(), owners: Vec::new() }
    }

    fn add(&mut self, owner: usize, key: &[u8], value: &[u8]) {
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value);
        self.owners.push(owner as u32);
    }

    /// Writes the entries of changes of which nothing has failed.
    fn write(&self, kernel: &mut Kernel, results: &mut Results) {
        let (key_size, value_size) = self.sizes();
        if self.owners.is_empty() {
            return;
        }
        let open = match open(kernel, self.map) {
            Ok(Some(open)) => open,
            Ok(None) => {
                return self
                    .fail(results, ExecError::refused(format!("map {}", self.map), "no such map"));
            }
            Err(error) => return self.fail(results, error.into()),
        };
        let done = match open.update_packed(&self.keys, &self.values) {
            Ok(calls) => {
                kernel.writes += calls;
                return;
            }
            Err((done, _)) => done,
        };
        // One by one, so that each that can't be written says why.
        for (at, owner) in self.owners.iter().enumerate().skip(done) {
            let key = &self.keys[at * key_size..][..key_size];
            let value = &self.values[at * value_size..][..value_size];
            kernel.writes += 1;
            if let Err(error) = open.update_one(key, value) {
                results[*owner as usize] = Err(failed("write to", self.map, error).into());
            }
        }
    }

    fn delete(&self, kernel: &mut Kernel, results: &mut Results) {
        if self.owners.is_empty() {
            return;
        }
        match open(kernel, self.map) {
            // Gone with its entries: there is nothing to remove.
            Ok(None) => {}
            Ok(Some(open)) => match open.delete_packed(&self.keys) {
                Ok(calls) => kernel.writes += calls,
                Err(error) => self.fail(results, failed("remove from", self.map, error).into()),
            },
            Err(error) => self.fail(results, error.into()),
        }
    }

    fn sizes(&self) -> (usize, usize) {
        let def = self.map.def();
        (def.key_size as usize, def.value_size as usize)
    }

    fn fail(&self, results: &mut Results, error: ExecError) {
        for owner in &self.owners {
            results[*owner as usize] = Err(error.clone());
        }
    }
}

/// A batch for each map; of slot 0 only, or of everything else.
struct Batches {
    services: [Batch; 2],
    reverse_nat: [Batch; 2],
    source_ranges: [Batch; 2],
    kept: Batch,
    tables: Batch,
}

impl Batches {
    fn new() -> Self {
        let both = |map: fn(bool) -> MapName| [false, true].map(|ipv6| Batch::of(map(ipv6)));
        Self {
            services: both(map),
            reverse_nat: both(reverse_nat_map),
            source_ranges: both(source_range_map),
            kept: Batch::of(MapName::of_abi(CILIUM_LB_AFFINITY_MATCH)),
            tables: Batch::of(MapName::of_abi(CILIATE_MAGLEV_INDEX)),
        }
    }

    /// Slots first: they tell whose the number is, should this be all that is written.
    fn all(&self) -> impl Iterator<Item = &Batch> {
        let families = self.services.iter().chain(&self.reverse_nat).chain(&self.source_ranges);
        families.chain([&self.kept, &self.tables])
    }

    /// What `state` has beside slot 0, and `other` has not.
    fn add_pieces(&mut self, owner: usize, key: Key, state: &State, other: &State) {
        let v6 = usize::from(key.is_ipv6());
        if let Key::Frontend(frontend) = key {
            for slot in &state.slots {
                // Slots stand at their own numbers but where somebody else has been at work.
                let same = other.slots.get(usize::from(slot.number).wrapping_sub(1));
                let same = same.is_some_and(|same| same == slot) || other.slots.contains(slot);
                if !same {
                    self.services[v6].slot(owner, frontend, slot);
                }
            }
        }
        let Some(id) = key.number(state) else { return };
        let none = State::default();
        let same_number = key.number(other) == Some(id);
        self.add_by_number(
            owner,
            (id, key.is_ipv6()),
            state,
            if same_number { other } else { &none },
        );
    }

    /// What `state` has under a number, and `other` has not.
    fn add_by_number(
        &mut self,
        owner: usize,
        (id, ipv6): (u16, bool),
        state: &State,
        other: &State,
    ) {
        let v6 = usize::from(ipv6);
        if let Some(address) = state.reverse_nat.filter(|_| state.reverse_nat != other.reverse_nat)
        {
            self.reverse_nat[v6].reverse_nat(owner, id, address);
        }
        for range in state.source_ranges.iter().filter(|range| !other.source_ranges.contains(range))
        {
            self.source_ranges[v6].source_range(owner, id, range);
        }
        for backend in
            state.kept.iter().filter(|backend| other.kept.binary_search(backend).is_err())
        {
            let key = LbAffinityMatch { backend_id: *backend, rev_nat: id, pad: 0 };
            self.kept.add(owner, &key.to_bytes(), &[1]);
        }
        if state.table != 0 && state.table != other.table {
            self.tables.add(owner, &u32::from(id).to_ne_bytes(), &state.table.to_ne_bytes());
        }
    }
}

impl Batch {
    fn head(&mut self, owner: usize, frontend: Frontend, head: &Head) {
        let algorithm = u32::from(head.algorithm) << LB_ALGORITHM_SHIFT;
        let value = LbValue {
            backend_id: algorithm | head.affinity_s,
            count: head.count,
            rev_nat: head.id,
            flags: head.flags,
            flags2: head.flags2,
            quarantined: head.quarantined,
        };
        let (key, length) = frontend.bytes(0);
        self.add(owner, &key[..length], &value.to_bytes());
    }

    fn slot(&mut self, owner: usize, frontend: Frontend, slot: &Slot) {
        let value = LbValue { backend_id: slot.backend, rev_nat: slot.id, ..LbValue::default() };
        let (key, length) = frontend.bytes(slot.number);
        self.add(owner, &key[..length], &value.to_bytes());
    }

    fn reverse_nat(&mut self, owner: usize, id: u16, address: SocketAddr) {
        let key = RevNat { rev_nat: id }.to_bytes();
        let port_be = address.port().to_be_bytes();
        match address.ip() {
            IpAddr::V4(v4) => {
                let value = Lb4ReverseNat { address_be: v4.octets(), port_be };
                self.add(owner, &key, &value.to_bytes());
            }
            IpAddr::V6(v6) => {
                let value = Lb6ReverseNat { address_be: v6.octets(), port_be };
                self.add(owner, &key, &value.to_bytes());
            }
        }
    }

    fn source_range(&mut self, owner: usize, id: u16, range: &IpNet) {
        let prefix_len = RANGE_STATIC_BITS + u32::from(range.prefix_len());
        match range.addr() {
            IpAddr::V4(v4) => {
                let address_be = v4.octets();
                let key = Lb4SourceRange { prefix_len, rev_nat: id, pad: 0, address_be };
                self.add(owner, &key.to_bytes(), &[1]);
            }
            IpAddr::V6(v6) => {
                let address_be = v6.octets();
                let key = Lb6SourceRange { prefix_len, rev_nat: id, pad: 0, address_be };
                self.add(owner, &key.to_bytes(), &[1]);
            }
        }
    }
}

/// Makes the changes.
pub(super) fn exec(
    kernel: &mut Kernel,
    changes: &[&Change<LbService>],
) -> Vec<Result<(), ExecError>> {
    let mut results: Vec<Result<(), ExecError>> = changes.iter().map(|_| Ok(())).collect();
    let none = State::default();
    let from = |change: &'_ Change<LbService>| change.expects().cloned();
    let mut writes = Batches::new();
    for (owner, change) in changes.iter().enumerate() {
        let Some(to) = change.spec() else { continue };
        writes.add_pieces(owner, change.key, to, from(change).as_deref().unwrap_or(&none));
    }
    writes.all().for_each(|batch| batch.write(kernel, &mut results));
    write_heads(kernel, changes, &mut results);
    kernel.beat();
    delete_heads(kernel, changes, &mut results);
    // What is removed by its key, whatever it holds.
    let mut removals = Batches::new();
    for (owner, change) in changes.iter().enumerate().filter(|(owner, _)| results[*owner].is_ok()) {
        let Some(from) = from(change) else { continue };
        let to = change.spec().map_or(&none, |to| to);
        add_removals(&mut removals, owner, change.key, &from, to);
    }
    removals.all().for_each(|batch| batch.delete(kernel, &mut results));
    results
}

fn write_heads(kernel: &mut Kernel, changes: &[&Change<LbService>], results: &mut Results) {
    let mut heads = [false, true].map(|ipv6| Batch::of(map(ipv6)));
    for (owner, change) in changes.iter().enumerate().filter(|(owner, _)| results[*owner].is_ok()) {
        let (Key::Frontend(frontend), Some(to)) = (change.key, change.spec()) else { continue };
        let before = change.expects().and_then(|from| from.head);
        if let Some(head) = to.head.filter(|head| before != Some(*head)) {
            heads[usize::from(frontend.address.is_ipv6())].head(owner, frontend, &head);
        }
    }
    heads.iter().for_each(|batch| batch.write(kernel, results));
}

fn delete_heads(kernel: &mut Kernel, changes: &[&Change<LbService>], results: &mut Results) {
    let mut heads = [false, true].map(|ipv6| Batch::of(map(ipv6)));
    for (owner, change) in changes.iter().enumerate() {
        let (Key::Frontend(frontend), None) = (change.key, change.spec()) else { continue };
        let (key, length) = frontend.bytes(0);
        heads[usize::from(frontend.address.is_ipv6())].add(owner, &key[..length], &[]);
    }
    heads.iter().for_each(|batch| batch.delete(kernel, results));
}

/// What is there and no longer wanted under its key.
fn add_removals(batches: &mut Batches, owner: usize, key: Key, from: &State, to: &State) {
    if let Key::Frontend(frontend) = key {
        let batch = &mut batches.services[usize::from(key.is_ipv6())];
        for slot in &from.slots {
            if !to.slots.iter().any(|wanted| wanted.number == slot.number) {
                batch.slot(owner, frontend, slot);
            }
        }
    }
    let Some(id) = key.number(from) else { return };
    let none = State::default();
    let to = if key.number(to) == Some(id) { to } else { &none };
    // Under this number another value has been written, if there is to be one.
    let state = State {
        reverse_nat: from.reverse_nat.filter(|_| to.reverse_nat.is_none()),
        table: if to.table == 0 { from.table } else { 0 },
        ..from.clone()
    };
    batches.add_by_number(owner, (id, key.is_ipv6()), &state, to);
}
