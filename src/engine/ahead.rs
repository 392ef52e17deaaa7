//! What a change of a few services asks for, by what the last look saw: planned from the part of the world that it is
//! about, so that tens of thousands of others cost nothing. A look at everything follows at once. Pure.
//!
//! Only where the last look found nothing to do, and only as long as nobody else had the lock since. The ops are those
//! that a look at everything would lead to, for these services, their backends and their tables; where that can't be
//! told from the part, there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::View;
use crate::facts::{Dead, Facts, ServiceIds};
use crate::intent::{Amended, Intent, Service};
use crate::kinds::lb_backend::LbBackend;
use crate::kinds::lb_service::LbService;
use crate::kinds::maglev_table::MaglevTable;
use crate::kinds::{Desired, Kind, Observed, Origin, SeenMap, WantedMap};
use crate::lower::lower;
use crate::plan::{Plan, check};

/// Most services that are looked at by themselves.
const SERVICES_MAX: usize = 1000;

/// What the last look saw, where it found nothing to do.
#[derive(Debug)]
pub struct Last {
    facts: Facts,
    observed: Observed,
}

impl Last {
    /// Of a look that found nothing to do; what it saw is taken from it.
    pub fn of(view: View) -> Option<Self> {
        let View { facts, observed, plan, .. } = view;
        plan.is_converged().then(|| Self::new(facts, observed))
    }

    /// Of what a look saw. The numbers of services are told from the objects.
    pub fn new(facts: Facts, observed: Observed) -> Self {
        Self { facts: Facts { services: ServiceIds::default(), ..facts }, observed }
    }

    /// The ops that a change of services asks for. `intent` is that of after the change.
    pub fn plan(&self, intent: &Intent, amended: &Amended, dead: &Arc<Dead>) -> Option<Plan> {
        let changed = amended.before.len().max(amended.now.len());
        if changed == 0 || changed > SERVICES_MAX {
            return None;
        }
        let mut facts = self.facts.clone();
        facts.services = ServiceIds::of(&self.observed.lb_services, &self.observed.lb_backends);
        facts.dead = dead.clone();
        let touched = Touched::of(intent, amended);
        let now = touched
            .part(intent, amended.now.iter().filter_map(|name| intent.services.get(name)))?;
        let was = touched.part(intent, amended.before.iter())?;
        let (was, now) = (touched.lower(&was, &facts), touched.lower(&now, &facts));
        // If what is there doesn't follow from the part, neither does what comes.
        let all = &self.observed;
        let seen = Observed {
            lb_backends: seen_of::<LbBackend>(
                [&was.lb_backends, &now.lb_backends],
                &all.lb_backends,
            ),
            maglev_tables: seen_of::<MaglevTable>(
                [&was.maglev_tables, &now.maglev_tables],
                &all.maglev_tables,
            ),
            lb_services: seen_of::<LbService>(
                [&was.lb_services, &now.lb_services],
                &all.lb_services,
            ),
            ..Observed::default()
        };
        if !Plan::make(&was, seen.clone()).0.ops.is_empty() {
            return None;
        }
        // Two sets of backends whose tables would have one number are told apart by looking at all sets.
        let is_taken = |number| self.observed.maglev_tables.contains_key(number);
        let mut new = now.maglev_tables.keys().filter(|key| !was.maglev_tables.contains_key(key));
        if new.any(is_taken) {
            return None;
        }
        let (plan, _) = Plan::make(&now, seen.clone());
        check::check(&plan.ops, &seen).ok()?;
        Some(plan)
    }
}

/// What was seen of the objects that are asked for, or were.
fn seen_of<K: Kind>(wanted: [&WantedMap<K>; 2], seen: &SeenMap<K>) -> SeenMap<K> {
    let keys = wanted.into_iter().flat_map(BTreeMap::keys);
    keys.filter_map(|key| Some((key.clone(), seen.get(key)?.clone()))).collect()
}

/// The services that change, and their backends, then and now.
struct Touched<'a> {
    services: BTreeSet<&'a Arc<str>>,
    backends: BTreeSet<(SocketAddr, u8)>,
}

impl<'a> Touched<'a> {
    fn of(intent: &'a Intent, amended: &'a Amended) -> Self {
        let now = amended.now.iter().filter_map(|name| intent.services.get(name));
        let all = || amended.before.iter().chain(now.clone());
        let services = all().map(|service| &service.name).collect();
        Self { services, backends: all().flat_map(backends).collect() }
    }

    /// The intent with the changed services as they were or are, and those that share a backend with them: these
    /// decide with them what becomes of it.
    fn part<'s>(
        &self,
        intent: &Intent,
        changed: impl Iterator<Item = &'s Service>,
    ) -> Option<Intent> {
        let shares = |service: &&Service| {
            !self.services.contains(&service.name)
                && backends(service).any(|backend| self.backends.contains(&backend))
        };
        let others = intent.services.values().filter(shares).take(SERVICES_MAX + 1);
        let named = |service: &Service| (service.name.clone(), service.clone());
        let mut services: BTreeMap<Arc<str>, Service> = others.map(named).collect();
        if services.len() > SERVICES_MAX {
            return None;
        }
        services.extend(changed.map(named));
        Some(intent.with_services(services))
    }

    /// What is asked for, of what may change: objects of the others, and of backends that only they have, stay as they
    /// are.
    fn lower(&self, part: &Intent, facts: &Facts) -> Desired {
        let (all, _) = lower(part, facts);
        let (mut backends, mut services) = (all.lb_backends, all.lb_services);
        backends.retain(|_, wanted| {
            self.backends.contains(&(wanted.spec.address, wanted.spec.protocol))
        });
        services.retain(|_, wanted| match &wanted.origin {
            Origin::Service(name) => self.services.contains(name),
            _ => false,
        });
        let maglev_tables = all.maglev_tables;
        Desired {
            lb_backends: backends,
            maglev_tables,
            lb_services: services,
            ..Desired::default()
        }
    }
}

fn backends(service: &Service) -> impl Iterator<Item = (SocketAddr, u8)> {
    service.backends.iter().map(|backend| (backend.address, service.protocol.number()))
}
