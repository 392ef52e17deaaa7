//! What an intent becomes when files change: services whose tables are kept stay, everything else is read as always.
//! Pure.
//!
//! The result is that of reading all of it, or there is none: then all of it has to be read, as for every complaint.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::draft::draft;
use super::{Intent, Service, check};
use crate::config::{Document, Kept};

/// What became another.
#[derive(Debug, Default, PartialEq)]
pub struct Amended {
    /// Anything at all, places included.
    pub changed: bool,
    /// Services as they were that are gone, or are no longer the same.
    pub before: Vec<Service>,
    /// The names of those that are new, or are no longer the same.
    pub now: Vec<Arc<str>>,
}

impl Intent {
    /// Makes this the intent of a document that has the tables that are `kept`, and the `rest`. `None` leaves it as
    /// it is.
    pub fn amend(&mut self, rest: &Document, kept: &Kept) -> Option<Amended> {
        let mut problems = rest.problems().to_vec();
        let draft = draft(rest, &mut problems);
        check::check(&draft, &mut problems);
        if !problems.is_empty() {
            return None;
        }
        let mut rest = draft.finish();
        let stay = self.services.values().filter(|service| kept.moved(service.span).is_some());
        let all_there = stay.clone().count() == kept.count();
        if !all_there || !self.is_among_the_same(&rest) || !check::fit(stay, &rest.services) {
            return None;
        }
        let new = std::mem::take(&mut rest.services);
        let mut amended = Amended::default();
        let mut gone = BTreeMap::new();
        self.services.retain(|name, service| {
            let Some(span) = kept.moved(service.span) else {
                gone.insert(name.clone(), service.clone());
                return false;
            };
            amended.changed |= service.span != span;
            service.span = span;
            true
        });
        for (name, service) in new {
            let was = gone.remove(&name);
            amended.changed |= was.as_ref() != Some(&service);
            let same = was
                .as_ref()
                .is_some_and(|was| *was == Service { span: was.span, ..service.clone() });
            if !same {
                amended.before.extend(was);
                amended.now.push(name.clone());
            }
            self.services.insert(name, service);
        }
        amended.changed |= !gone.is_empty();
        amended.before.extend(gone.into_values());
        let services = std::mem::take(&mut self.services);
        amended.changed |= *self != rest;
        *self = Intent { services, ..rest };
        Some(amended)
    }

    /// Whether all that services are judged by, beside each other, is the same.
    fn is_among_the_same(&self, other: &Intent) -> bool {
        let peers = |intent: &Intent| -> Vec<_> {
            let of = |peer: &super::Peer| (peer.addresses.clone(), peer.cidrs.clone());
            intent.peers.values().map(of).collect()
        };
        let endpoints = |intent: &Intent| -> Vec<_> {
            intent.endpoints.values().map(|endpoint| endpoint.addresses.clone()).collect()
        };
        self.node.addresses == other.node.addresses
            && self.node.cidrs == other.node.cidrs
            && self.load_balancing == other.load_balancing
            && self.encryption == other.encryption
            && peers(self) == peers(other)
            && endpoints(self) == endpoints(other)
    }
}
