//! Services: the frontends that each has on this node, how they are balanced, over which backends. Pure.
//!
//! Numbers are those that the kernel has, so that established flows go on; `ids` chooses the others. All lists
//! are sorted once and walked in step: there may be thirty thousand services.

mod frontends;
mod ids;
mod tables;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use self::frontends::{Role, roles};
use self::tables::Tables;
use super::{Lowering, want_all};
use crate::bpf_abi::{
    BACKEND_ACTIVE, BACKEND_MAINTENANCE, BACKEND_QUARANTINED, BACKEND_TERMINATING, CILIUM_LXC,
    EndpointKey, LB_ALGORITHM_MAGLEV, LB_ALGORITHM_RANDOM, SERVICE_FLAG_AFFINITY,
};
use crate::facts::Dead;
use crate::intent::{Algorithm, Backend, BackendState, Service};
use crate::kinds::bpf_map::MapName;
use crate::kinds::lb_backend::{self, LbBackend};
use crate::kinds::lb_service::{Head, Key, LbService, Slot, State};
use crate::kinds::maglev_table::Member;
use crate::kinds::{BlockedReason, Desired, Origin, Wanted};

/// Adds frontends, backends and Maglev tables.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let roles = roles(lowering.intent, &lowering.node.addresses);
    if roles.is_empty() {
        return;
    }
    let dead = lowering.facts.dead.clone();
    let backends = Backends::of(&roles, &dead, lowering);
    let local = local_addresses(&lowering.desired);
    let held = &lowering.facts.services;
    let frontends: Vec<_> = roles.iter().map(|role| role.frontend).collect();
    let ids = ids::assign(&frontends, &held.frontends, &held.numbers, u16::MAX);
    let mut tables = Tables::new(lowering.intent.load_balancing.maglev_table_size);
    let mut states = Vec::with_capacity(roles.len());
    for (role, id) in roles.iter().zip(ids) {
        let Some(id) = id else {
            let reason = BlockedReason::NoFreeServiceId { frontend: role.frontend.to_string() };
            lowering.block(Origin::Service(role.service.name.clone()), reason);
            continue;
        };
        let chosen = Chosen::of(role, &backends, &local, &dead);
        let maglev = lowering.intent.load_balancing.algorithm == Algorithm::Maglev;
        // From inside, clients are not to be told apart by a hash.
        let members = (maglev && role.is_wide()).then(|| chosen.members(role));
        let table = members.filter(|members| !members.is_empty()).map(|m| tables.set(m, role));
        states.push((role, chosen.state(role, id), table));
    }
    let numbers = tables.lower(&mut lowering.desired);
    let services = states.into_iter().map(|(role, mut state, table)| {
        if let (Some(table), Some(head)) = (table, &mut state.head) {
            state.table = numbers[table];
            head.algorithm = LB_ALGORITHM_MAGLEV as u8;
        }
        let origin = Origin::Service(role.service.name.clone());
        (Key::Frontend(role.frontend), Wanted { spec: Arc::new(state), origin })
    });
    want_all::<LbService>(&mut lowering.desired.lb_services, services.collect());
}

/// What is on this node: its endpoints' addresses and its own.
fn local_addresses(desired: &Desired) -> BTreeSet<IpAddr> {
    let map = MapName::of_abi(CILIUM_LXC);
    let keys = desired.bpf_map_entries.keys().filter(|key| key.map == map);
    let address = |bytes: &[u8]| EndpointKey::from_bytes(bytes.try_into().ok()?).address();
    keys.filter_map(|key| address(&key.key)).collect()
}

/// The state of a backend of a service: what the configuration says, unless a health check says that it is dead.
fn state_of(service: &Service, backend: &Backend, dead: &Dead) -> BackendState {
    let checked = service.health_check.is_some() && backend.state == BackendState::Active;
    // Most of the time there is none, and a name needn't be counted.
    if checked && !dead.is_empty() && dead.contains(&(service.name.clone(), backend.address)) {
        return BackendState::Quarantined;
    }
    backend.state
}

/// The state of a backend that several services have, as the programs see it: the best that one of them says.
fn state(state: BackendState) -> u8 {
    match state {
        BackendState::Active => BACKEND_ACTIVE,
        BackendState::Terminating => BACKEND_TERMINATING,
        BackendState::Quarantined => BACKEND_QUARANTINED,
        BackendState::Maintenance => BACKEND_MAINTENANCE,
    }
}

/// Backends by address and protocol, with their numbers.
struct Backends(Vec<((SocketAddr, u8), u32)>);

impl Backends {
    /// Those of all services, which are asked for.
    fn of(roles: &[Role<'_>], dead: &Dead, lowering: &mut Lowering<'_>) -> Self {
        let mut used = Vec::new();
        for role in roles {
            let ipv6 = role.frontend.address.is_ipv6();
            let protocol = role.frontend.protocol;
            let of_family = role.service.backends.iter().filter(|b| b.address.is_ipv6() == ipv6);
            used.extend(of_family.map(|b| {
                let state = state(state_of(role.service, b, dead));
                ((b.address, protocol), state, role.service)
            }));
        }
        used.sort_unstable_by_key(|(backend, state, service)| (*backend, *state, &service.name));
        used.dedup_by_key(|(backend, ..)| *backend);
        let keys: Vec<(SocketAddr, u8)> = used.iter().map(|(backend, ..)| *backend).collect();
        let held = &lowering.facts.services;
        let ids = ids::assign(&keys, &held.backends, &held.backend_ids, u32::MAX);
        let numbered = used.into_iter().zip(ids).filter_map(|(used, id)| Some((used, id?)));
        let (mut list, mut wanted) = (Vec::new(), Vec::new());
        for (((address, protocol), state, service), id) in numbered {
            list.push(((address, protocol), id));
            let key = lb_backend::Key { id, ipv6: address.is_ipv6() };
            let spec = lb_backend::Spec { address, protocol, state };
            wanted.push((key, Wanted { spec, origin: Origin::Service(service.name.clone()) }));
        }
        want_all::<LbBackend>(&mut lowering.desired.lb_backends, wanted);
        Self(list)
    }

    fn id(&self, address: SocketAddr, protocol: u8) -> Option<u32> {
        let at = self.0.binary_search_by_key(&(address, protocol), |(backend, _)| *backend).ok()?;
        Some(self.0[at].1)
    }
}

/// The backends of a frontend, by number.
struct Chosen<'a> {
    in_use: Vec<(u32, &'a Backend)>,
    quarantined: Vec<u32>,
}

impl<'a> Chosen<'a> {
    fn of(role: &Role<'a>, backends: &Backends, local: &BTreeSet<IpAddr>, dead: &Dead) -> Self {
        let (ipv6, protocol) = (role.frontend.address.is_ipv6(), role.frontend.protocol);
        let candidates = role.service.backends.iter().filter(|backend| {
            let address = backend.address;
            address.is_ipv6() == ipv6 && (!role.only_local || local.contains(&address.ip()))
        });
        let numbered = candidates.filter_map(|b| Some((backends.id(b.address, protocol)?, b)));
        let mut all: Vec<(u32, &Backend)> = numbered.collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        let state = |backend| state_of(role.service, backend, dead);
        let of_state = |wanted| all.iter().filter(move |(_, b)| state(b) == wanted).copied();
        let mut in_use: Vec<_> = of_state(BackendState::Active).collect();
        if in_use.is_empty() {
            in_use = of_state(BackendState::Terminating).collect();
        }
        let quarantined = of_state(BackendState::Quarantined).map(|(id, _)| id).collect();
        Self { in_use, quarantined }
    }

    /// What a Maglev table is made of.
    fn members(&self, role: &Role<'_>) -> Vec<Member> {
        let protocol = role.frontend.protocol;
        let member = |(id, b): &(u32, &Backend)| Member {
            id: *id,
            address: b.address,
            protocol,
            weight: b.weight,
        };
        self.in_use.iter().map(member).collect()
    }

    /// What the maps say, but for the table.
    fn state(&self, role: &Role<'_>, id: u16) -> State {
        let Service { session_affinity_s, source_ranges, .. } = role.service;
        let backends =
            self.in_use.iter().map(|(id, _)| *id).chain(self.quarantined.iter().copied());
        let slots = (1..).zip(backends).map(|(number, backend)| Slot {
            number,
            backend,
            id,
            strange: false,
        });
        let kept = if session_affinity_s.is_some() { self.in_use.as_slice() } else { &[] };
        let mut flags = role.flags;
        if session_affinity_s.is_some() {
            flags |= SERVICE_FLAG_AFFINITY;
        }
        let mut ranges = Vec::new();
        if role.has_ranges() {
            let ipv6 = role.frontend.address.is_ipv6();
            ranges.extend(source_ranges.iter().filter(|range| range.addr().is_ipv6() == ipv6));
        }
        let head = Head {
            id,
            algorithm: LB_ALGORITHM_RANDOM as u8,
            affinity_s: session_affinity_s.unwrap_or_default(),
            count: self.in_use.len() as u16,
            quarantined: self.quarantined.len() as u16,
            flags,
            flags2: role.flags2,
        };
        State {
            head: Some(head),
            slots: slots.collect(),
            reverse_nat: Some(role.frontend.socket()),
            source_ranges: ranges,
            kept: kept.iter().map(|(id, _)| *id).collect(),
            table: 0,
        }
    }
}
