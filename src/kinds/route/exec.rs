//! Routes in the kernel: listing and changing. The only file of this kind that may import `kernel`.

use std::collections::BTreeMap;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Key, Route, Seen, decode, encode};
use crate::apply::{Apply, ExecError};
use crate::kernel::netlink::Outgoing;
use crate::kernel::{Kernel, KernelError};
use crate::kinds::{Action, Change, Desired, owner};
use crate::net::{IfName, Netns};
use crate::observe::{Observe, Round, namespaces};

impl Observe for Route {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let mut seen = Vec::new();
        for netns in namespaces(desired) {
            let names = round.names(&netns)?;
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                list_family(round, &netns, family, &names, &mut seen)?;
            }
        }
        Ok(seen.into_iter().collect())
    }
}

/// Our routes of one family: the kernel filters by protocol (strict checking, Linux 4.20).
fn list_family(
    round: &mut Round<'_>,
    netns: &Netns,
    family: AddressFamily,
    names: &BTreeMap<u32, IfName>,
    seen: &mut Vec<(Key, Seen)>,
) -> Result<(), KernelError> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.header.protocol = RouteProtocol::from(owner::PROTOCOL);
    let routes = dump(round, netns, request, |payload| {
        let route = decode(netns, payload, names)?;
        (route.protocol == owner::PROTOCOL).then_some((route.key, route.seen))
    })?;
    seen.extend(routes);
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

/// What is asked of the kernel for one change.
struct Asked<'a> {
    change: &'a Change<Route>,
    route: &'a Seen,
    ifindex: u32,
}

impl Outgoing for Asked<'_> {
    fn header(&self) -> (u16, u16) {
        match &self.change.action {
            Action::Delete { .. } => (libc::RTM_DELROUTE, 0),
            Action::Create { .. } => (libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL),
            Action::Update { .. } | Action::Replace { .. } => {
                (libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE)
            }
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        encode(&self.change.key, self.route, self.ifindex, bytes);
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
        let change = changes[*index];
        let (route, removal) = match (change.spec(), change.expects()) {
            (Some(to), _) => (&to.route, false),
            (None, Some(from)) => (from, true),
            (None, None) => continue,
        };
        let Some(ifindex) = names.get(&route.dev) else {
            if !removal {
                let error = ExecError::refused(format!("device {}", route.dev), "no such device");
                results[*index] = Err(error);
            }
            continue;
        };
        if let Action::Update { .. } | Action::Replace { .. } = change.action
            && let Err(error) = guard_replace(kernel, netns, &change.key)
        {
            results[*index] = Err(error);
            continue;
        }
        requests.push(Asked { change, route, ifindex: *ifindex });
        order.push(*index);
    }
    let outcomes = crate::apply::send(kernel, netns, "change a route", requests);
    for (index, outcome) in order.into_iter().zip(outcomes) {
        results[index] = outcome.or_else(|error| forgive(changes[index], error));
    }
}

/// A removal of what is gone is done. A creation that finds a route says whose it may be.
fn forgive(change: &Change<Route>, error: ExecError) -> Result<(), ExecError> {
    match (&change.action, error.errno()) {
        (Action::Delete { .. }, Some(libc::ESRCH)) => Ok(()),
        (Action::Create { .. }, Some(libc::EEXIST)) => Err(ExecError::Failed {
            error: format!(
                "{error}: a route to {} that ciliate doesn't own is in the way; remove it or change its metric",
                change.key
            ),
            errno: Some(libc::EEXIST),
        }),
        _ => Err(error),
    }
}

/// `NLM_F_REPLACE` replaces the first route of the same destination and metric, whoever made it. So
/// it is used only where every route there is ours.
fn guard_replace(kernel: &mut Kernel, netns: &Netns, key: &Key) -> Result<(), ExecError> {
    let mut request = RouteMessage::default();
    request.header.address_family = family(key);
    request.header.table = 0;
    request.attributes = vec![RouteAttribute::Table(key.table)];
    let mut round = Round::new(kernel);
    let names = round.names(netns).map_err(ExecError::from)?;
    let routes = dump(&mut round, netns, request, |payload| decode(netns, payload, &names))
        .map_err(ExecError::from)?;
    match routes.iter().find(|r| r.key == *key && r.protocol != owner::PROTOCOL) {
        None => Ok(()),
        Some(route) => Err(ExecError::refused(
            "only routes of ours",
            format!("one of protocol {}", route.protocol),
        )),
    }
}

fn family(key: &Key) -> AddressFamily {
    if key.dst.addr().is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet }
}
