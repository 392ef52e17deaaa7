//! Routes in the kernel: listing and changing. The only file of this kind that may import `kernel`.

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Decoded, Key, Route, Seen, Spec, Way, decode, encode, encode_removal};
use crate::apply::{Apply, ExecError};
use crate::kernel::netlink::Outgoing;
use crate::kernel::{Kernel, KernelError};
use crate::kinds::{Action, BlockedReason, Change, Desired, owner};
use crate::net::{IfName, Netns};
use crate::observe::{Observe, Round, namespaces};

impl Observe for Route {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let (mut listed, mut spaces) = (Vec::new(), BTreeMap::new());
        for netns in namespaces(desired) {
            let space = Space::new(round, netns.clone(), desired)?;
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                list_family(round, &space, family, &mut listed)?;
            }
            spaces.insert(netns, space);
        }
        let mut seen = collect(listed);
        in_the_way(round, desired, &spaces, &mut seen)?;
        Ok(seen)
    }
}

/// A namespace, and what tells its routes.
struct Space {
    netns: Netns,
    names: BTreeMap<u32, IfName>,
    /// [`Round::ends`].
    ends: Option<BTreeSet<IfName>>,
}

impl Space {
    fn new(round: &mut Round<'_>, netns: Netns, desired: &Desired) -> Result<Self, KernelError> {
        let names = round.names(&netns)?;
        let ends = round.ends(&netns, desired)?;
        Ok(Self { netns, names, ends })
    }

    /// A route; one that bears our mark and leads through another's device is another's.
    fn decode(&self, payload: &[u8]) -> Option<Decoded> {
        let mut route = decode(&self.netns, payload, &self.names)?;
        if let Some(ends) = &self.ends {
            // One that somebody altered may have no device, or a strange one.
            let dev = route.seen.way.dev.filter(|_| route.seen.strange.is_empty());
            route.seen.foreign |= dev.map_or(ends.is_empty(), |dev| !ends.contains(&dev));
        }
        Some(route)
    }
}

/// Routes by key. Of several for the same packets the kernel uses the first one listed.
fn collect(mut listed: Vec<(Key, Seen)>) -> BTreeMap<Key, Seen> {
    // Equal ones stay in their order.
    listed.sort_by(|(one, _), (other, _)| one.cmp(other));
    listed.dedup_by(|(later, _), (first, route)| {
        let is_equal = later == first;
        route.more += u32::from(is_equal);
        is_equal
    });
    listed.into_iter().collect()
}

/// Looks for foreign routes where desired ones are missing.
fn in_the_way(
    round: &mut Round<'_>,
    desired: &Desired,
    spaces: &BTreeMap<Netns, Space>,
    seen: &mut BTreeMap<Key, Seen>,
) -> Result<(), KernelError> {
    let missing = desired.routes.keys().filter(|key| !seen.contains_key(key));
    let places: BTreeSet<(&Netns, u32, bool)> =
        missing.map(|key| (&key.netns, key.table, key.dst.addr().is_ipv6())).collect();
    for (netns, table, ipv6) in places {
        // Ours are looked for in no other namespace either.
        let Some(space) = spaces.get(netns) else { continue };
        let wanted = |key: &Key| desired.routes.contains_key(key);
        let decode = |payload: &[u8]| {
            let route = space.decode(payload)?;
            (route.seen.foreign && wanted(&route.key)).then_some((route.key, route.seen))
        };
        let found = match dump(round, &space.netns, of_table(table, ipv6), decode) {
            Ok(found) => found,
            // The kernel makes a table along with its first route.
            Err(KernelError::Netlink { source, .. }) if source.errno() == Some(libc::ENOENT) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        for (key, route) in found {
            seen.entry(key).or_insert(route);
        }
    }
    Ok(())
}

fn of_table(table: u32, ipv6: bool) -> RouteMessage {
    let mut request = RouteMessage::default();
    request.header.address_family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    request.header.table = 0;
    request.attributes = vec![RouteAttribute::Table(table)];
    request
}

/// Our routes of one family: the kernel filters by protocol (strict checking, Linux 4.20).
fn list_family(
    round: &mut Round<'_>,
    space: &Space,
    family: AddressFamily,
    seen: &mut Vec<(Key, Seen)>,
) -> Result<(), KernelError> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.header.protocol = RouteProtocol::from(owner::PROTOCOL);
    let routes = dump(round, &space.netns, request, |payload| {
        let route = space.decode(payload)?;
        (!route.seen.foreign).then_some((route.key, route.seen))
    })?;
    if seen.is_empty() {
        *seen = routes;
    } else {
        seen.extend(routes);
    }
    Ok(())
}

/// What the routes that answer a request are to `decode`.
fn dump<T>(
    round: &mut Round<'_>,
    netns: &Netns,
    request: RouteMessage,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, KernelError> {
    round.dump_with(netns, "list routes", &RouteNetlinkMessage::GetRoute(request), decode)
}

/// What is asked of the kernel.
enum Asked<'a> {
    /// A route, and flags beyond `NLM_F_CREATE`.
    Make {
        key: &'a Key,
        way: &'a Way,
        ifindex: u32,
        flags: u16,
    },
    Remove(&'a Key),
}

impl Outgoing for Asked<'_> {
    fn header(&self) -> (u16, u16) {
        match self {
            Asked::Remove(_) => (libc::RTM_DELROUTE, 0),
            Asked::Make { flags, .. } => (libc::RTM_NEWROUTE, NLM_F_CREATE | flags),
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Asked::Remove(key) => encode_removal(key, bytes),
            Asked::Make { key, way, ifindex, .. } => encode(key, way, *ifindex, bytes),
        }
    }
}

impl Apply for Route {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let mut results: Vec<Result<(), ExecError>> = changes.iter().map(|_| Ok(())).collect();
        for (netns, indexes) in crate::apply::by_netns(changes, |key| &key.netns) {
            let names = match Round::new(kernel).names(netns) {
                Ok(names) => names.into_iter().map(|(index, name)| (name, index)).collect(),
                Err(error) => {
                    let error = ExecError::from(error);
                    indexes.iter().for_each(|index| results[*index] = Err(error.clone()));
                    continue;
                }
            };
            exec_in(kernel, netns, changes, &indexes, &names, &mut results);
        }
        results
    }
}

fn exec_in(
    kernel: &mut Kernel,
    netns: &Netns,
    changes: &[&Change<Route>],
    indexes: &[usize],
    names: &BTreeMap<IfName, u32>,
    results: &mut [Result<(), ExecError>],
) {
    let mut requests = Vec::with_capacity(indexes.len());
    let mut order = Vec::with_capacity(indexes.len());
    for index in indexes {
        if let Err(error) = ask(kernel, netns, changes[*index], names, &mut requests) {
            results[*index] = Err(error);
        }
        order.resize(requests.len(), *index);
    }
    let removals: Vec<bool> = requests.iter().map(|r| matches!(r, Asked::Remove(_))).collect();
    let outcomes = crate::apply::send(kernel, netns, "change a route", requests);
    for ((index, removal), outcome) in order.into_iter().zip(removals).zip(outcomes) {
        let outcome = outcome.or_else(|error| forgive(changes[index], removal, error));
        results[index] = std::mem::replace(&mut results[index], Ok(())).and(outcome);
    }
}

/// Adds the messages for a change; none where it can't be asked for.
fn ask<'a>(
    kernel: &mut Kernel,
    netns: &Netns,
    change: &'a Change<Route>,
    names: &BTreeMap<IfName, u32>,
    requests: &mut Vec<Asked<'a>>,
) -> Result<(), ExecError> {
    let key = &change.key;
    let remove = |from: &Seen| (0..=from.more).map(|_| Asked::Remove(key));
    let make = |to: &'a Spec, flags| {
        let ifindex = to.route.dev.and_then(|dev| names.get(&dev).copied());
        let Some(ifindex) = ifindex else {
            let dev = to.route.dev.map_or_else(String::new, |dev| dev.to_string());
            return Err(ExecError::refused(format!("device {dev}"), "no such device"));
        };
        Ok(Asked::Make { key, way: &to.route, ifindex, flags })
    };
    match &change.action {
        Action::Delete { from } => requests.extend(remove(from)),
        Action::Create { to } => requests.push(make(to, NLM_F_EXCL)?),
        Action::Update { to, .. } => {
            guard_replace(kernel, netns, key)?;
            requests.push(make(to, NLM_F_REPLACE)?);
        }
        Action::Replace { from, to, .. } => {
            let made = make(to, NLM_F_EXCL)?;
            requests.extend(remove(from).chain([made]));
        }
    }
    Ok(())
}

/// A removal of what is gone is done. A creation that finds a route says whose it may be.
fn forgive(change: &Change<Route>, removal: bool, error: ExecError) -> Result<(), ExecError> {
    match (removal, error.errno()) {
        (true, Some(libc::ESRCH)) => Ok(()),
        (false, Some(libc::EEXIST)) => {
            let reason = BlockedReason::RouteTaken { route: change.key.to_string() };
            let error = format!("{error}: {reason}");
            Err(ExecError::Failed { error, errno: Some(libc::EEXIST) })
        }
        _ => Err(error),
    }
}

/// `NLM_F_REPLACE` replaces the first route of the same destination and metric, whoever made it. So
/// it is used only where every route there is ours.
fn guard_replace(kernel: &mut Kernel, netns: &Netns, key: &Key) -> Result<(), ExecError> {
    let request = of_table(key.table, key.dst.addr().is_ipv6());
    let mut round = Round::new(kernel);
    let names = round.names(netns).map_err(ExecError::from)?;
    let routes = dump(&mut round, netns, request, |payload| decode(netns, payload, &names))
        .map_err(ExecError::from)?;
    match routes.iter().find(|r| r.key == *key && r.seen.foreign) {
        None => Ok(()),
        Some(route) => Err(ExecError::refused(
            "only routes of ours",
            format!("one of protocol {}", route.protocol),
        )),
    }
}
