//! Which events a reader wants, for the programs and for what they can't be told.
//!
//! Pure. Imports `bpf_abi`. The programs compare with one endpoint in each role; of several they are told
//! none, and the rest is sorted out here.

use super::record::Event;
use crate::bpf_abi::{EVENT_CAPTURE, EVENT_DEBUG, EVENT_DROP, EVENT_TRACE, MonitorFilter};

/// What a reader wants to see. Empty lists: any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// `EVENT_*`.
    pub types: Vec<u8>,
    /// Endpoints whose program it was.
    pub from: Vec<u16>,
    /// Endpoints that the packet is for.
    pub to: Vec<u16>,
    /// Either.
    pub related: Vec<u16>,
}

/// Without a list of types: where packets come by, and where they end.
const USUAL_TYPES: &[u8] = &[EVENT_DROP, EVENT_TRACE];

/// The same, with the steps in between: several for each packet.
const ALL_TYPES: &[u8] = &[EVENT_DROP, EVENT_DEBUG, EVENT_CAPTURE, EVENT_TRACE];

impl Selection {
    /// The types that are wanted when none is named, with or without those for debugging.
    pub fn usual_types(debug: bool) -> Vec<u8> {
        if debug { ALL_TYPES.to_vec() } else { USUAL_TYPES.to_vec() }
    }

    /// What the programs are told: at least everything that [`Self::takes`].
    pub fn filter(&self) -> MonitorFilter {
        let only = |list: &[u16]| if let [one] = list { *one } else { 0 };
        MonitorFilter {
            types: self.types.iter().fold(0, |types, event_type| types | 1 << event_type),
            from: only(&self.from),
            to: only(&self.to),
            related: only(&self.related),
            ..MonitorFilter::default()
        }
    }

    /// Whether an event is wanted.
    pub fn takes(&self, event: &Event<'_>) -> bool {
        let any = |list: &[u16], id: u32| list.iter().any(|wanted| u32::from(*wanted) == id);
        let (source, destination) = (event.source.into(), event.destination());
        self.types.contains(&event.event_type())
            && (self.from.is_empty() || any(&self.from, source))
            && (self.to.is_empty() || any(&self.to, destination))
            && (self.related.is_empty()
                || any(&self.related, source)
                || any(&self.related, destination))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Body, Debug, Drop, Identities};
    use super::*;

    fn drop_event(source: u16, destination: u32) -> Event<'static> {
        let identities = Identities { source: 0, destination: 0 };
        let body = Body::Drop(Drop {
            reason: 132,
            identities,
            destination,
            line: 1,
            file: 2,
            ext_error: 0,
            ifindex: 0,
            flags: 0,
        });
        Event { time_ns: 0, cpu: 0, source, hash: 0, body, bytes: 0, packet: &[] }
    }

    fn selection(from: &[u16], to: &[u16], related: &[u16]) -> Selection {
        Selection {
            types: Selection::usual_types(false),
            from: from.to_vec(),
            to: to.to_vec(),
            related: related.to_vec(),
        }
    }

    #[test]
    fn one_endpoint_is_for_the_programs_and_several_are_for_us() {
        let filter = selection(&[7], &[8], &[]).filter();
        assert_eq!((filter.types, filter.from, filter.to), (0b10010, 7, 8));
        let filter = selection(&[7, 9], &[], &[5]).filter();
        assert_eq!((filter.from, filter.to, filter.related), (0, 0, 5));
    }

    #[test]
    fn every_named_role_has_to_fit() {
        let event = drop_event(7, 8);
        for (from, to, related, wanted) in [
            (&[][..], &[][..], &[][..], true),
            (&[7], &[], &[], true),
            (&[6, 7], &[9, 8], &[8], true),
            (&[8], &[], &[], false),
            (&[7], &[7], &[], false),
            (&[], &[], &[7], true),
            (&[], &[], &[8], true),
            (&[], &[], &[1, 2], false),
        ] {
            let selection = selection(from, to, related);
            assert_eq!(selection.takes(&event), wanted, "{selection:?}");
        }
    }

    #[test]
    fn debug_is_for_those_who_ask() {
        let body = Body::Debug(Debug { number: 2, arguments: [0; 3] });
        let event = Event { body, ..drop_event(7, 8) };
        assert!(!selection(&[], &[], &[]).takes(&event));
        let asked = Selection { types: Selection::usual_types(true), ..Selection::default() };
        assert!(asked.takes(&event) && asked.filter().types == 0b11110);
    }
}
