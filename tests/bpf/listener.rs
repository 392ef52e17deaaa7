//! A listener to events, as `ciliate monitor` is one.

use aya::maps::{Array, ArrayOfMaps, Map, MapData, RingBuf};
use ciliate::bpf_abi::*;

use crate::lab::Lab;
use crate::model::Told;

/// `BPF_MAP_TYPE_RINGBUF` (linux/bpf.h).
const RINGBUF: u32 = 27;
/// Of a ring: more than any test lets pile up.
const RING_LEN: u32 = 1 << 20;

/// What a listener wants; by default drops and traces of any endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    pub types: u32,
    pub from: u16,
    pub to: u16,
    pub related: u16,
    pub ring_len: u32,
}

impl Default for Filter {
    fn default() -> Self {
        let types = 1 << EVENT_DROP | 1 << EVENT_TRACE;
        Self { types, from: 0, to: 0, related: 0, ring_len: RING_LEN }
    }
}

/// A record of a ring, without what stands in front of it.
pub struct Record {
    pub head: EventHead,
    pub bytes: Vec<u8>,
}

pub struct Listener {
    ring: RingBuf<MapData>,
}

impl Listener {
    /// Listens in a slot.
    pub fn new(lab: &mut Lab, slot: u32, filter: Filter) -> Self {
        let map = aya_obj::Map::new_from_params(RINGBUF, 0, 0, filter.ring_len, 0);
        let ring = MapData::create(map, "ring", None).expect("make a ring");
        let mut rings: ArrayOfMaps<_, MapData> =
            lab.map(CILIATE_EVENTS).try_into().expect("array of maps");
        rings.set(slot, &ring, 0).expect("take the slot");
        let ring = RingBuf::try_from(Map::RingBuf(ring)).expect("a ring");
        let mut map: Array<_, [u8; 104]> = lab.map(CILIATE_MONITOR).try_into().expect("array");
        let mut monitor = MonitorValue::from_bytes(&map.get(&0, 0).expect("read the filters"));
        let Filter { types, from, to, related, .. } = filter;
        let filter = MonitorFilter { types, from, to, related, ..MonitorFilter::default() };
        monitor.filters[slot as usize * 12..][..12].copy_from_slice(&filter.to_bytes());
        monitor.readers |= 1 << slot;
        monitor.types |= types;
        map.set(0, monitor.to_bytes(), 0).expect("set the filters");
        Self { ring }
    }

    /// What came since the last call.
    pub fn records(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        while let Some(item) = self.ring.next() {
            let (head, rest) = item.split_first_chunk().expect("a head");
            let head = EventHead::from_bytes(head);
            records.push(Record { head, bytes: rest[..head.len as usize].to_vec() });
        }
        records
    }

    /// The same, of drops and traces, as far as the model knows.
    pub fn told(&mut self) -> Vec<Told> {
        self.records().iter().map(Record::told).collect()
    }
}

fn part<const SIZE: usize>(bytes: &[u8]) -> &[u8; SIZE] {
    bytes.first_chunk().expect("as long as the record says")
}

impl Record {
    pub fn common(&self) -> EventCommon {
        EventCommon::from_bytes(part(&self.bytes))
    }

    pub fn capture_head(&self) -> EventCapture {
        EventCapture::from_bytes(part(&self.bytes))
    }

    pub fn trace(&self) -> TraceEvent {
        TraceEvent::from_bytes(part(&self.bytes))
    }

    pub fn drop(&self) -> DropEvent {
        DropEvent::from_bytes(part(&self.bytes))
    }

    pub fn debug(&self) -> DebugEvent {
        DebugEvent::from_bytes(part(&self.bytes))
    }

    pub fn capture(&self) -> CaptureEvent {
        CaptureEvent::from_bytes(part(&self.bytes))
    }

    fn told(&self) -> Told {
        let common = self.common();
        let kind = (common.r#type, common.subtype);
        let (destination, identities, state) = if common.r#type == EVENT_DROP {
            let event = self.drop();
            let identities = (event.source_identity, event.destination_identity);
            (event.destination_id as u16, identities, 0)
        } else {
            let event = self.trace();
            let identities = (event.source_identity, event.destination_identity);
            (event.destination_id, identities, event.reason)
        };
        Told { kind, source: common.source, destination, identities, state }
    }
}
