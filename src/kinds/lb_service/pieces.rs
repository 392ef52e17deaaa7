//! Objects ↔ what is in the maps. A map is read by itself; which frontend an entry belongs to shows when all are
//! there. Pure; imports its siblings.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Frontend, Head, Key, LbService, Slot, State, map, reverse_nat_map, source_range_map};
use crate::bpf_abi::{CILIATE_MAGLEV_INDEX, CILIUM_LB_AFFINITY_MATCH};
use crate::kinds::bpf_map::MapName;
use crate::kinds::{Observed, SeenMap};

/// A frontend's number in the maps of a family.
type Number = (u16, bool);

/// The entries of all maps, decoded.
#[derive(Debug, Default)]
pub struct Pieces {
    pub heads: Vec<(Frontend, Head)>,
    pub slots: Vec<(Frontend, Slot)>,
    pub reverse_nat: BTreeMap<Number, SocketAddr>,
    pub source_ranges: BTreeMap<Number, Vec<IpNet>>,
    pub kept: BTreeMap<u16, Vec<u32>>,
    pub tables: BTreeMap<u16, u32>,
}

impl Pieces {
    /// Takes objects apart.
    fn of(seen: &SeenMap<LbService>) -> Self {
        let mut pieces = Self::default();
        for (key, state) in seen {
            if let Key::Frontend(frontend) = key {
                pieces.heads.extend(state.head.map(|head| (*frontend, head)));
                pieces.slots.extend(state.slots.iter().map(|slot| (*frontend, *slot)));
            }
            let Some(id) = key.number(state) else { continue };
            let number = (id, key.is_ipv6());
            pieces.reverse_nat.extend(state.reverse_nat.map(|address| (number, address)));
            if !state.source_ranges.is_empty() {
                let ranges = pieces.source_ranges.entry(number).or_default();
                ranges.extend(&state.source_ranges);
            }
            if !state.kept.is_empty() {
                pieces.kept.entry(id).or_default().extend(&state.kept);
            }
            if state.table != 0 {
                pieces.tables.insert(id, state.table);
            }
        }
        pieces
    }

    /// Without what is in a map.
    fn without(mut self, gone: MapName) -> Self {
        for ipv6 in [false, true] {
            if gone == map(ipv6) {
                self.heads.retain(|(frontend, _)| frontend.address.is_ipv6() != ipv6);
                self.slots.retain(|(frontend, _)| frontend.address.is_ipv6() != ipv6);
            }
            if gone == reverse_nat_map(ipv6) {
                self.reverse_nat.retain(|(_, v6), _| *v6 != ipv6);
            }
            if gone == source_range_map(ipv6) {
                self.source_ranges.retain(|(_, v6), _| *v6 != ipv6);
            }
        }
        if gone == MapName::of_abi(CILIUM_LB_AFFINITY_MATCH) {
            self.kept.clear();
        }
        if gone == MapName::of_abi(CILIATE_MAGLEV_INDEX) {
            self.tables.clear();
        }
        self
    }

    /// Puts objects together. Of frontends with one number the first has what is under it.
    pub fn join(mut self) -> SeenMap<LbService> {
        self.heads.sort_unstable_by_key(|(frontend, _)| *frontend);
        self.slots.sort_unstable_by_key(|(frontend, slot)| (*frontend, slot.number));
        let mut heads = std::mem::take(&mut self.heads).into_iter().peekable();
        let slots = std::mem::take(&mut self.slots);
        let mut slots = slots.chunk_by(|a, b| a.0 == b.0).peekable();
        let mut found = Vec::with_capacity(heads.len());
        loop {
            let by_head = heads.peek().map(|(frontend, _)| *frontend);
            let by_slot = slots.peek().map(|chunk| chunk[0].0);
            let Some(frontend) = [by_head, by_slot].into_iter().flatten().min() else { break };
            let head = heads.next_if(|(next, _)| *next == frontend).map(|(_, head)| head);
            let of_frontend = slots.next_if(|chunk| chunk[0].0 == frontend).unwrap_or_default();
            let slots = of_frontend.iter().map(|(_, slot)| *slot).collect();
            let mut state = State { head, slots, ..State::default() };
            let key = Key::Frontend(frontend);
            if let Some(id) = state.id() {
                self.hand_over(id, key.is_ipv6(), &mut state);
            }
            found.push((key, Arc::new(state)));
        }
        found.extend(self.rest());
        found.into_iter().collect()
    }

    /// Gives a frontend what is under its number.
    fn hand_over(&mut self, id: u16, ipv6: bool, state: &mut State) {
        state.reverse_nat = self.reverse_nat.remove(&(id, ipv6));
        state.source_ranges = self.source_ranges.remove(&(id, ipv6)).unwrap_or_default();
        state.source_ranges.sort_unstable();
        state.kept = self.kept.remove(&id).unwrap_or_default();
        state.kept.sort_unstable();
        state.table = self.tables.remove(&id).unwrap_or_default();
    }

    /// What belongs to no frontend.
    fn rest(mut self) -> Vec<(Key, Arc<State>)> {
        let numbers = self.reverse_nat.keys().chain(self.source_ranges.keys()).copied();
        let plain = self.kept.keys().chain(self.tables.keys()).map(|id| (*id, false));
        let mut numbers: Vec<Number> = numbers.chain(plain).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let one = |(id, ipv6)| {
            let mut state = State::default();
            self.hand_over(id, ipv6, &mut state);
            // The maps of both families are done with when the first has been given all.
            (Key::Number { id, ipv6 }, Arc::new(state))
        };
        numbers.into_iter().map(one).collect()
    }
}

/// A map goes, with what is in it.
pub fn lose(gone: MapName, observed: &mut Observed) {
    observed.lb_services = Pieces::of(&observed.lb_services).without(gone).join();
}
