//! Routes in the kernel: listing and changing. The only file of this kind that may import `kernel`.

use std::collections::BTreeMap;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Decoded, Key, Route, Scope, Seen, decode};
use crate::apply::{Apply, ExecError};
use crate::kernel::netlink::Request;
use crate::kernel::{Kernel, KernelError};
use crate::kinds::{Action, Change, Desired, owner};
use crate::net::{IfName, Netns};
use crate::observe::{Observe, Round, namespaces};

impl Observe for Route {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let mut seen = BTreeMap::new();
        for netns in namespaces(desired) {
            let names = round.names(&netns)?;
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                list_family(round, &netns, family, &names, &mut seen)?;
            }
        }
        Ok(seen)
    }
}

/// Our routes of one family: the kernel filters by protocol (strict checking, Linux 4.20).
fn list_family(
    round: &mut Round<'_>,
    netns: &Netns,
    family: AddressFamily,
    names: &BTreeMap<u32, IfName>,
    seen: &mut BTreeMap<Key, Seen>,
) -> Result<(), KernelError> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.header.protocol = RouteProtocol::from(owner::PROTOCOL);
    let routes = dump(round, netns, request, names)?;
    let ours = routes.into_iter().filter(|route| route.protocol == owner::PROTOCOL);
    seen.extend(ours.map(|route| (route.key, route.seen)));
    Ok(())
}

/// The routes that answer a request.
fn dump(
    round: &mut Round<'_>,
    netns: &Netns,
    request: RouteMessage,
    names: &BTreeMap<u32, IfName>,
) -> Result<Vec<Decoded>, KernelError> {
    let request = RouteNetlinkMessage::GetRoute(request);
    round.dump_with(netns, "list routes", &request, |payload| decode(netns, payload, names))
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
    let (mut requests, mut order): (Vec<Request>, Vec<usize>) = (Vec::new(), Vec::new());
    for index in indexes {
        let change = changes[*index];
        let (route, removal) = match &change.action {
            Action::Delete { from } => (from, true),
            Action::Create { to } | Action::Update { to, .. } | Action::Replace { to, .. } => {
                (&to.route, false)
            }
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
        let message = message(&change.key, route, *ifindex);
        requests.push(match &change.action {
            Action::Delete { .. } => (RouteNetlinkMessage::DelRoute(message), 0),
            Action::Create { .. } => {
                (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
            }
            _ => (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE),
        });
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
    let routes = dump(&mut round, netns, request, &names).map_err(ExecError::from)?;
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

fn message(key: &Key, route: &Seen, ifindex: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(key);
    message.header.destination_prefix_length = key.dst.prefix_len();
    message.header.protocol = RouteProtocol::from(owner::PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.scope = match route.scope {
        Scope::Universe => RouteScope::Universe,
        Scope::Link => RouteScope::Link,
        Scope::Other(scope) => RouteScope::from(scope),
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(key.table));
    if key.dst.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(RouteAddress::from(key.dst.addr())));
    }
    if key.metric != 0 {
        attributes.push(RouteAttribute::Priority(key.metric));
    }
    attributes.extend(route.via.map(|via| RouteAttribute::Gateway(RouteAddress::from(via))));
    attributes.extend(route.src.map(|src| RouteAttribute::PrefSource(RouteAddress::from(src))));
    attributes.push(RouteAttribute::Oif(ifindex));
    if let Some(mtu) = route.mtu_bytes {
        attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    message
}
