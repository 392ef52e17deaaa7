//! Where our routes are to be. A route of somebody else's in such a place has taken it, or gives it back; all others
//! are none of our business, and there may be a million of them. Imports `kinds`.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::kinds::WantedMap;
use crate::kinds::owner;
use crate::kinds::route::{self, Route};
use crate::net::Netns;

/// `RTM_NEWROUTE` and `RTM_DELROUTE`; `rtm_dst_len` is the second byte after the header, `rtm_protocol` the sixth.
const ROUTE_MESSAGES: [u16; 2] = [24, 25];
const HEADER_BYTES: usize = 16;
const PREFIX_OFFSET: usize = HEADER_BYTES + 1;
const PROTOCOL_OFFSET: usize = HEADER_BYTES + 5;

/// Tables and destinations of our routes, in whatever namespace.
#[derive(Debug, Default)]
pub struct Places {
    /// How many routes they are of.
    routes: usize,
    places: BTreeSet<(u32, IpNet)>,
}

impl Places {
    /// Takes over what is asked for now.
    pub fn follow(&mut self, wanted: &WantedMap<Route>) {
        let of = |key: &route::Key| (key.table, key.dst);
        // As a rule nothing has changed.
        if self.routes != wanted.len() || !wanted.keys().all(|key| self.places.contains(&of(key))) {
            self.routes = wanted.len();
            self.places = wanted.keys().map(of).collect();
        }
    }

    /// Whether a message is about a route that isn't ours, and in nobody's way.
    pub fn are_spared_by(&self, message: &[u8]) -> bool {
        let kind = message.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
        kind.is_some_and(|kind| ROUTE_MESSAGES.contains(&kind))
            && message.get(PROTOCOL_OFFSET).is_some_and(|p| *p != owner::PROTOCOL)
            // A default route of the kernel or of a manager may be how we reach a peer.
            && message.get(PREFIX_OFFSET).is_some_and(|prefix_len| *prefix_len != 0)
            && !self.has(message)
    }

    fn has(&self, message: &[u8]) -> bool {
        let length = message.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length) as usize);
        let payload = message.get(HEADER_BYTES..length.min(message.len()));
        let decoded =
            payload.and_then(|bytes| route::decode(&Netns::HOST, bytes, &BTreeMap::new()));
        decoded.is_some_and(|route| self.places.contains(&(route.key.table, route.key.dst)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::route::{Key, Scope, Way};
    use crate::kinds::{Origin, Wanted};

    /// A message about a route of somebody else's.
    fn foreign(key: &Key) -> Vec<u8> {
        let way = Way { via: None, dev: None, src: None, scope: Scope::Link, mtu_bytes: None };
        let mut payload = Vec::new();
        route::encode(key, &way, 7, &mut payload);
        let mut message = ((HEADER_BYTES + payload.len()) as u32).to_ne_bytes().to_vec();
        message.extend(ROUTE_MESSAGES[0].to_ne_bytes());
        message.resize(HEADER_BYTES, 0);
        message.extend(payload);
        assert_eq!(std::mem::replace(&mut message[PROTOCOL_OFFSET], 4), owner::PROTOCOL);
        message
    }

    #[test]
    fn foreign_routes_matter_in_the_places_of_ours_alone() {
        let key =
            |table, dst: &str| Key::in_table(Netns::HOST, table, dst.parse().expect("a CIDR"));
        let way = Way { via: None, dev: None, src: None, scope: Scope::Link, mtu_bytes: None };
        let spec = route::Spec { route: way, link: None };
        let of = |keys: &[Key]| {
            let wanted =
                |key: &Key| (key.clone(), Wanted { spec: spec.clone(), origin: Origin::Routing });
            keys.iter().map(wanted).collect::<WantedMap<Route>>()
        };
        let ours = [key(254, "10.244.1.0/24"), key(300, "fd00:10:244:1::/80")];
        let mut places = Places::default();
        places.follow(&of(&ours));
        for key in &ours {
            assert!(!places.are_spared_by(&foreign(key)), "{key}");
            // Whatever its metric.
            assert!(!places.are_spared_by(&foreign(&Key { metric: 7, ..key.clone() })), "{key}");
        }
        let others = [
            key(300, "10.244.1.0/24"),
            key(254, "fd00:10:244:1::/80"),
            key(254, "10.244.1.0/25"),
            key(254, "10.244.2.0/24"),
        ];
        for key in &others {
            assert!(places.are_spared_by(&foreign(key)), "{key}");
        }
        for default in [key(254, "0.0.0.0/0"), key(254, "::/0")] {
            assert!(!places.are_spared_by(&foreign(&default)), "{default}");
        }
        places.follow(&of(&others[3..]));
        assert!(places.are_spared_by(&foreign(&ours[0])));
        assert!(!places.are_spared_by(&foreign(&others[3])));
    }
}
