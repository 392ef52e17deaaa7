//! What of an old map's entries goes into the new one. Pure; imports `bpf_abi`.

use std::collections::BTreeMap;

use crate::bpf_abi::{
    CILIUM_CT_ANY4, CILIUM_CT_ANY6, CILIUM_CT4, CILIUM_CT6, CILIUM_FRAG4, CILIUM_FRAG6,
    CILIUM_LB4_AFFINITY, CILIUM_LB4_REVERSE_SK, CILIUM_LB6_AFFINITY, CILIUM_LB6_REVERSE_SK,
    CILIUM_METRICS, CILIUM_SNAT4, CILIUM_SNAT6, CtValue, Snat4Value, Snat6Value,
};
use crate::kinds::bpf_map::MapName;

/// How the entries of a map that programs fill are carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Unless they are over; of two under one key the one that was used last.
    Flows,
    /// Of two under one key the one that was used last. Whether one is over, only its flow tells.
    Nat,
    /// The larger number.
    Counters,
    /// Those that the new map doesn't have.
    Missing,
    /// Not at all: made by whoever fills the map, or worth nothing.
    Nothing,
}

impl Rule {
    pub(super) fn of(map: MapName) -> Self {
        match map.def().name {
            CILIUM_CT4 | CILIUM_CT6 | CILIUM_CT_ANY4 | CILIUM_CT_ANY6 => Self::Flows,
            CILIUM_SNAT4 | CILIUM_SNAT6 => Self::Nat,
            CILIUM_METRICS => Self::Counters,
            CILIUM_FRAG4
            | CILIUM_FRAG6
            | CILIUM_LB4_AFFINITY
            | CILIUM_LB6_AFFINITY
            | CILIUM_LB4_REVERSE_SK
            | CILIUM_LB6_REVERSE_SK => Self::Missing,
            _ => Self::Nothing,
        }
    }

    /// Whether some of its entries are worth more than others.
    pub(super) fn knows_ranks(self) -> bool {
        matches!(self, Self::Flows | Self::Nat)
    }

    /// By what entries are put in order where there is no room for all: when a flow ends, or was used last. `None`
    /// for what needs no room.
    fn rank(self, value: &[u8], now: u32) -> Option<u32> {
        match self {
            Self::Flows => flow(value).map(|flow| flow.lifetime).filter(|end| *end >= now),
            Self::Nat => last_used(value).map(|used| u32::try_from(used).unwrap_or(u32::MAX)),
            Self::Counters | Self::Missing | Self::Nothing => None,
        }
    }
}

/// Whether a map of another layout is filled from the one before it.
pub fn is_carried(map: MapName) -> bool {
    Rule::of(map) != Rule::Nothing
}

/// What to write to the new map, if anything. `now`: seconds of the clock of lifetimes.
pub(super) fn carried(rule: Rule, old: &[u8], new: Option<&[u8]>, now: u32) -> Option<Vec<u8>> {
    match (rule, new) {
        (Rule::Nothing, _) | (Rule::Missing, Some(_)) => None,
        (Rule::Missing | Rule::Counters, None) => Some(old.to_vec()),
        (Rule::Counters, Some(new)) => {
            let larger = larger_each(old, new);
            (larger != new).then_some(larger)
        }
        (Rule::Nat, new) => {
            let used = last_used(old)?;
            let is_newer = |new| last_used(new).is_none_or(|new| used > new);
            new.is_none_or(is_newer).then(|| old.to_vec())
        }
        (Rule::Flows, new) => {
            let old_flow = flow(old)?;
            let goes_on = old_flow.lifetime >= now;
            let is_newer = |new| flow(new).is_none_or(|new| used(&old_flow) > used(&new));
            (goes_on && new.is_none_or(is_newer)).then(|| old.to_vec())
        }
    }
}

fn flow(bytes: &[u8]) -> Option<CtValue> {
    Some(CtValue::from_bytes(bytes.try_into().ok()?))
}

/// When an entry of a NAT map was used last, in seconds.
fn last_used(bytes: &[u8]) -> Option<u64> {
    if let Ok(bytes) = bytes.try_into() {
        return Some(Snat4Value::from_bytes(bytes).last_used);
    }
    Some(Snat6Value::from_bytes(bytes.try_into().ok()?).last_used)
}

/// Grows with what happens to a flow: reports and flags with each new flag, and every few seconds; packets
/// where they are counted; the lifetime with each packet but the last ones, which shorten it.
fn used(flow: &CtValue) -> (u32, u32, u64, u32) {
    let reported = flow.last_tx_report.max(flow.last_rx_report);
    let flags = flow.tx_flags.count_ones() + flow.rx_flags.count_ones();
    (reported, flags, flow.packets, flow.lifetime)
}

/// The larger of each two 64-bit numbers.
fn larger_each(old: &[u8], new: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    let pairs = old.chunks_exact(8).zip(new.chunks_exact(8));
    pairs.flat_map(|(old, new)| number(old).max(number(new)).to_ne_bytes()).collect()
}

/// How many flows end in which second, or were used last, to tell which to leave behind when the new map is smaller.
#[derive(Debug)]
pub(super) struct Ends {
    rule: Rule,
    ranks: BTreeMap<u32, u64>,
}

impl Ends {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, ranks: BTreeMap::new() }
    }

    /// Counts an entry, unless it is over or no flow.
    pub(super) fn add(&mut self, value: &[u8], now: u32) {
        if let Some(rank) = self.rule.rank(value, now) {
            *self.ranks.entry(rank).or_default() += 1;
        }
    }

    /// Which flows have room in a map, those that end last first. An eighth of it is left for flows to
    /// come, which would else push out established ones.
    pub(super) fn with_room(&self, max_entries: u32) -> Room {
        let mut left = u64::from(max_entries - max_entries / 8);
        for (rank, flows) in self.ranks.iter().rev() {
            if *flows > left {
                return Room { rule: self.rule, first: *rank, left };
            }
            left -= flows;
        }
        Room::plenty(self.rule)
    }
}

/// Room for some of the flows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Room {
    rule: Rule,
    /// Flows that end later have room,
    first: u32,
    /// and so many of those that end then.
    left: u64,
}

impl Room {
    /// For everything.
    pub(super) fn plenty(rule: Rule) -> Self {
        Self { rule, first: 0, left: u64::MAX }
    }

    /// Whether there is room for a flow; takes the room.
    pub(super) fn admits(&mut self, value: &[u8]) -> bool {
        let Some(rank) = self.rule.rank(value, 0) else { return true };
        if rank == self.first && self.left > 0 {
            self.left -= 1;
            return true;
        }
        rank > self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::bpf_map_entry::is_managed;

    fn value(packets: u64, lifetime: u32) -> Vec<u8> {
        CtValue { packets, lifetime, ..CtValue::default() }.to_bytes().to_vec()
    }

    fn numbers(numbers: [u64; 4]) -> Vec<u8> {
        numbers.into_iter().flat_map(u64::to_ne_bytes).collect()
    }

    #[test]
    fn what_the_configuration_decides_is_not_carried() {
        for map in MapName::all() {
            assert!(!(is_managed(map) && is_carried(map)), "{map}");
        }
        assert!(is_carried(MapName::of_abi(CILIUM_CT_ANY6)));
    }

    #[test]
    fn flows_that_go_on_and_are_missing_or_newer() {
        let carried =
            |old: &[u8], new: Option<&[u8]>| carried(Rule::Flows, old, new, 100).is_some();
        assert!(carried(&value(1, 100), None));
        assert!(!carried(&value(1, 99), None), "it is over");
        assert!(!carried(&value(5, 200), Some(&value(5, 200))), "a copy");
        assert!(carried(&value(6, 200), Some(&value(5, 150))));
        assert!(!carried(&value(5, 150), Some(&value(6, 200))));
        assert!(carried(&value(6, 110), Some(&value(5, 8000))), "packets were counted");
        assert!(carried(&value(0, 200), Some(&value(0, 150))), "nobody counts packets");
    }

    #[test]
    fn a_flow_that_was_closed_is_newer_than_its_copy() {
        let copy =
            CtValue { tx_flags: 0x1a, last_tx_report: 50, lifetime: 8000, ..CtValue::default() };
        let closed = CtValue { tx_flags: 0x1b, lifetime: 110, bits: 3, ..copy };
        let later = CtValue { last_tx_report: 52, ..closed };
        let carried = |old: CtValue, new: CtValue| {
            carried(Rule::Flows, &old.to_bytes(), Some(&new.to_bytes()), 100).is_some()
        };
        assert!(carried(closed, copy) && carried(later, copy));
        assert!(!carried(copy, closed) && !carried(copy, later) && !carried(later, later));
        // A packet after the swap.
        assert!(!carried(copy, CtValue { lifetime: 8001, ..copy }));
    }

    #[test]
    fn of_nat_what_was_used_last() {
        let nat = |last_used| Snat6Value { last_used, ..Snat6Value::default() }.to_bytes();
        let carried = |old, new: Option<u64>| {
            carried(Rule::Nat, &nat(old), new.map(nat).as_ref().map(|new| &new[..]), 100).is_some()
        };
        assert!(carried(5, None), "over or not");
        assert!(carried(6, Some(5)) && !carried(5, Some(5)) && !carried(5, Some(6)));
        let mut ends = Ends::new(Rule::Nat);
        (0..16).for_each(|used| ends.add(&nat(used), 100));
        let mut room = ends.with_room(8);
        let admitted: Vec<u64> = (0..16).filter(|used| room.admits(&nat(*used))).collect();
        assert_eq!(admitted, (9..16).collect::<Vec<_>>());
    }

    #[test]
    fn counters_never_go_back() {
        let (old, new) = (numbers([5, 100, 0, 0]), numbers([3, 200, 0, 1]));
        let carried = |new| carried(Rule::Counters, &old, new, 0);
        assert_eq!(carried(Some(&new)), Some(numbers([5, 200, 0, 1])));
        let larger = numbers([5, 100, 1, 1]);
        assert_eq!(carried(Some(&larger)), None);
        assert_eq!(carried(None), Some(old.clone()));
    }

    #[test]
    fn fragments_only_where_there_are_none() {
        assert_eq!(carried(Rule::Missing, &[1; 4], Some(&[2; 4]), 0), None);
        assert_eq!(carried(Rule::Missing, &[1; 4], None, 0), Some(vec![1; 4]));
        assert_eq!(carried(Rule::Nothing, &[1; 4], None, 0), None);
    }

    #[test]
    fn the_last_to_end_have_room() {
        let mut ends = Ends::new(Rule::Flows);
        for lifetime in [10, 20, 20, 20, 30, 30, 30, 30, 30] {
            ends.add(&value(0, lifetime), 15);
        }
        let admitted = |max_entries| {
            let mut room = ends.with_room(max_entries);
            [10, 20, 20, 20, 30, 30, 30, 30, 30].map(|end| room.admits(&value(0, end)))
        };
        // 14 of 16; what is over isn't counted.
        assert_eq!(ends.with_room(16), Room::plenty(Rule::Flows));
        // 7 of 8: two of the three that end together.
        let (t, f) = (true, false);
        assert_eq!(admitted(8), [f, t, t, f, t, t, t, t, t]);
        // All that end together, more than there is room for.
        assert_eq!(admitted(4), [f, f, f, f, t, t, t, t, f]);
        assert_eq!(admitted(0), [false; 9]);
    }
}
