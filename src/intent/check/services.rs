//! Services: each frontend belongs to one, none is an address of something else, and all of them fit.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::networks::{Network, Owner, endpoint_networks, holding};
use crate::config::{Diagnostic, Span};
use crate::intent::draft::{At, Draft, DraftService, Problems};
use crate::intent::limits;
use crate::intent::service::is_of_family;
use crate::intent::{Backend, Frontend, FrontendKind, Protocol, Service};

pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    frontends(draft, problems);
    ports(draft, problems);
    let networks = endpoint_networks(draft);
    let holders = holders(draft);
    for service in &draft.services {
        let of_networks = |frontend: &&At<Frontend>| frontend.value.kind != FrontendKind::HostPort;
        for frontend in service.frontends.iter().filter(of_networks) {
            problems.extend(taken(service, frontend, &networks, &holders));
        }
    }
    for budget in BUDGETS {
        problems.extend(excess(draft, budget));
    }
    problems.extend(backends(draft));
}

/// Each address, port and protocol belongs to one service, once.
fn frontends(draft: &Draft, problems: &mut Problems) {
    let mut seen: BTreeMap<(SocketAddr, Protocol), (&DraftService, Span)> = BTreeMap::new();
    for service in &draft.services {
        for frontend in &service.frontends {
            let address = frontend.value.address;
            let key = (address, service.protocol);
            let Some((earlier, span)) = seen.get(&key) else {
                seen.insert(key, (service, frontend.span));
                continue;
            };
            let what = format!("{address}/{}", service.protocol.name());
            problems.extend(twice(&what, (earlier, *span), (service, frontend.span)));
        }
    }
}

/// The complaint about something that two services have, or one has twice.
fn twice(
    what: &str,
    (earlier, before): (&DraftService, Span),
    (later, span): (&DraftService, Span),
) -> Option<Diagnostic> {
    if std::ptr::eq(earlier, later) {
        let message = format!("service `{}` has {what} twice", later.name.value);
        let problem = Diagnostic::new(span, message).related(before, "the first time");
        return Some(problem.help("remove one of the two"));
    }
    // The same table twice is complained about by name.
    (earlier.name.value != later.name.value).then(|| {
        let (one, other) = (&earlier.name.value, &later.name.value);
        Diagnostic::new(span, format!("{what} belongs to both services `{one}` and `{other}`"))
            .related(before, format!("that of `{one}`"))
            .help("each address and port is of one service: change one of the two")
    })
}

/// Node ports are in their range, and each is of one service; so are the host ports, which would be at the
/// same addresses.
fn ports(draft: &Draft, problems: &mut Problems) {
    let range = &draft.load_balancing.node_ports;
    let mut seen: BTreeMap<(u16, Protocol), (&DraftService, Span)> = BTreeMap::new();
    for service in &draft.services {
        let Some(port) = &service.node_port else { continue };
        if !range.contains(&port.value) {
            let (first, last) = (range.start(), range.end());
            let message = format!("node-port {} is outside {first} to {last}", port.value);
            problems.push(Diagnostic::new(port.span, message).help(
                "choose a port in the range, or change `node-port-range` of [load-balancing]",
            ));
        }
        let key = (port.value, service.protocol);
        let Some((earlier, span)) = seen.get(&key) else {
            seen.insert(key, (service, port.span));
            continue;
        };
        let what = format!("node-port {}/{}", port.value, service.protocol.name());
        problems.extend(twice(&what, (earlier, *span), (service, port.span)));
    }
    let everywhere = everywhere(draft);
    for (service, frontend) in host_ports(draft) {
        let address = frontend.value.address;
        let port = address.port();
        let wildcard = everywhere.get(&(port, service.protocol, address.is_ipv6()));
        if let Some((other, span)) = wildcard.filter(|_| !address.ip().is_unspecified()) {
            let what = format!("{address}/{}", service.protocol.name());
            problems.extend(twice(&what, (other, *span), (service, frontend.span)));
        }
        if let Some((other, span)) = seen.get(&(port, service.protocol)) {
            let message = format!(
                "host port {port}/{} of service `{}` is the node port of `{}`",
                service.protocol.name(),
                service.name.value,
                other.name.value
            );
            let problem = Diagnostic::new(frontend.span, message).related(*span, "the node port");
            problems.push(problem.help("choose another port for one of them"));
        }
    }
}

fn host_ports(draft: &Draft) -> impl Iterator<Item = (&DraftService, &At<Frontend>)> {
    let is_host_port = |at: &&At<Frontend>| at.value.kind == FrontendKind::HostPort;
    draft.services.iter().flat_map(move |service| {
        service.frontends.iter().filter(is_host_port).map(move |frontend| (service, frontend))
    })
}

/// The host ports of every address of a family, and whose they are.
fn everywhere(draft: &Draft) -> BTreeMap<(u16, Protocol, bool), (&DraftService, Span)> {
    let unspecified =
        |(_, at): &(&DraftService, &At<Frontend>)| at.value.address.ip().is_unspecified();
    let port = |(service, at): (_, &At<Frontend>)| {
        let address = at.value.address;
        let service: &DraftService = service;
        ((address.port(), service.protocol, address.is_ipv6()), (service, at.span))
    };
    host_ports(draft).filter(unspecified).map(port).collect()
}

/// What has an address, whether that is a node, and where that is said.
struct Holder {
    what: String,
    is_node: bool,
    span: Span,
}

fn holders(draft: &Draft) -> BTreeMap<IpAddr, Holder> {
    let one = |at: &At<IpAddr>, is_node, what: &str| {
        (at.value, Holder { what: what.to_owned(), is_node, span: at.span })
    };
    let own = draft.node.addresses.iter().map(|at| one(at, true, "this node"));
    let peers = draft.peers.iter().flat_map(|peer| {
        let what = format!("peer `{}`", peer.name.value);
        peer.addresses.iter().map(move |at| one(at, true, &what))
    });
    let endpoints = draft.endpoints.iter().flat_map(|endpoint| {
        let what = format!("endpoint `{}`", endpoint.name.value);
        endpoint.addresses.iter().map(move |at| one(at, false, &what))
    });
    own.chain(peers).chain(endpoints).collect()
}

/// A frontend at an address that is something else's.
fn taken(
    service: &DraftService,
    frontend: &At<Frontend>,
    networks: &[Network<'_>],
    holders: &BTreeMap<IpAddr, Holder>,
) -> Option<Diagnostic> {
    const HELP: &str = "a service has an address of its own, outside all `cidrs`";
    const PORTS: &str = "; ports of this node's own addresses are `node-port` and `host-ports`";
    let address = frontend.value.address.ip();
    let what = format!("{address} of service `{}`", service.name.value);
    if let Some(holder) = holders.get(&address) {
        let message = format!("{what} is the address of {}", holder.what);
        let problem = Diagnostic::new(frontend.span, message).related(holder.span, "its address");
        let help = format!("{HELP}{}", if holder.is_node { PORTS } else { "" });
        return Some(problem.help(help));
    }
    let network = holding(networks, address)?;
    let whose = match network.owner {
        Owner::Node => "this node's endpoints".to_owned(),
        other => format!("the endpoints of {other}"),
    };
    let message = format!("{what} is inside {}, the CIDR of {whose}", network.cidr);
    Some(Diagnostic::new(frontend.span, message).related(network.span, "this CIDR").help(HELP))
}

/// What all services together may have at most.
struct Budget {
    max: usize,
    /// What a service takes of it.
    of: fn(Size) -> usize,
    what: &'static str,
}

/// How large a service is in the kernel.
#[derive(Debug, Clone, Copy)]
struct Size {
    frontends: usize,
    /// Of those, the ones that have source ranges.
    outside: usize,
    backends: usize,
    source_ranges: usize,
    has_affinity: bool,
}

const BUDGETS: &[Budget] = &[
    Budget { max: limits::FRONTENDS_MAX, of: |size| size.frontends, what: "frontends" },
    Budget {
        max: limits::SLOTS_MAX,
        of: |size| size.frontends * (1 + size.backends),
        what: "pairs of frontend and backend",
    },
    Budget {
        max: limits::AFFINITY_PAIRS_MAX,
        of: |size| if size.has_affinity { size.frontends * size.backends } else { 0 },
        what: "pairs of frontend and backend with `session-affinity`",
    },
    Budget {
        max: limits::SOURCE_RANGES_MAX,
        of: |size| size.outside * size.source_ranges,
        what: "pairs of frontend and source range",
    },
];

impl Size {
    /// Without what follows from the service alone. A node port is a frontend at the underlay address and the
    /// wildcard of each family; with policies that differ, what is used from outside is there twice.
    fn of<'a>(
        frontends: impl ExactSizeIterator<Item = &'a Frontend> + Clone,
        backends: &[Backend],
        has_port: bool,
        policies_differ: bool,
    ) -> Self {
        let all = || frontends.clone();
        let addresses = || {
            let own = all().map(|frontend| frontend.address);
            own.chain(backends.iter().map(|backend| backend.address))
        };
        let families = || [false, true].into_iter().filter(|v6| is_of_family(addresses(), *v6));
        let node_ports = if has_port { 2 * families().count() } else { 0 };
        let kind = |kind| all().filter(|frontend| frontend.kind == kind).count();
        let (inside, hosts) = (kind(FrontendKind::ClusterIp), kind(FrontendKind::HostPort));
        let wild = all().filter(|frontend| frontend.address.ip().is_unspecified()).count();
        let scopes = if policies_differ { 2 } else { 1 };
        let outside = scopes * (frontends.len() - inside - hosts + node_ports);
        Self {
            frontends: inside + hosts + wild + outside,
            outside,
            backends: backends.len(),
            source_ranges: 0,
            has_affinity: false,
        }
    }

    fn of_draft(service: &DraftService) -> Self {
        let frontends = service.frontends.iter().map(|frontend| &frontend.value);
        let differ = service.external_local != service.internal_local;
        Self {
            source_ranges: service.source_ranges.len(),
            has_affinity: service.session_affinity_s.is_some(),
            ..Self::of(frontends, &service.backends, service.node_port.is_some(), differ)
        }
    }

    fn of_service(service: &Service) -> Self {
        let frontends = service.frontends.iter();
        let differ = service.external_local != service.internal_local;
        Self {
            source_ranges: service.source_ranges.len(),
            has_affinity: service.session_affinity_s.is_some(),
            ..Self::of(frontends, &service.backends, service.node_port.is_some(), differ)
        }
    }
}

/// Whether services that are right by themselves can stand beside others: false also where only looking at all of
/// them at once tells.
pub(in crate::intent) fn fit<'a>(
    others: impl Iterator<Item = &'a Service> + Clone,
    new: &'a BTreeMap<Arc<str>, Service>,
) -> bool {
    let ports = |service: &'a Service| {
        let is_host_port = |frontend: &&Frontend| frontend.kind == FrontendKind::HostPort;
        let host_ports = service.frontends.iter().filter(is_host_port);
        let host_ports = host_ports.map(|frontend| frontend.address.port());
        host_ports.chain(service.node_port).map(|port| (port, service.protocol))
    };
    let frontends = |service: &'a Service| {
        service.frontends.iter().map(|frontend| (frontend.address, service.protocol))
    };
    let own_ports: BTreeSet<_> = new.values().flat_map(ports).collect();
    let own_frontends: BTreeSet<_> = new.values().flat_map(frontends).collect();
    let collides = |service: &'a Service| {
        new.contains_key(&service.name)
            || frontends(service).any(|frontend| own_frontends.contains(&frontend))
            || ports(service).any(|port| own_ports.contains(&port))
    };
    if others.clone().any(collides) {
        return false;
    }
    let mut sums = [0; BUDGETS.len()];
    let mut backends = 0;
    for service in others.chain(new.values()) {
        let size = Size::of_service(service);
        BUDGETS.iter().zip(&mut sums).for_each(|(budget, sum)| *sum += (budget.of)(size));
        // Those that several have count once: that is not looked at.
        backends += size.backends;
    }
    let within = BUDGETS.iter().zip(sums).all(|(budget, sum)| sum <= budget.max);
    within && backends <= limits::BACKENDS_MAX
}

/// The complaint about the first service that goes beyond what there may be of something.
fn excess(draft: &Draft, budget: &Budget) -> Option<Diagnostic> {
    let mut sum = 0;
    for service in &draft.services {
        sum += (budget.of)(Size::of_draft(service));
        if sum > budget.max {
            let message =
                format!("with service `{}` there are too many {}", service.name.value, budget.what);
            let help = format!("all services together have at most {}", budget.max);
            return Some(Diagnostic::new(service.name.span, message).help(help));
        }
    }
    None
}

/// The same for backends, which services share.
fn backends(draft: &Draft) -> Option<Diagnostic> {
    let mut seen = BTreeSet::new();
    for service in &draft.services {
        seen.extend(service.backends.iter().map(|backend| (backend.address, service.protocol)));
        if seen.len() > limits::BACKENDS_MAX {
            let message =
                format!("with service `{}` there are too many backends", service.name.value);
            let help = format!(
                "all services together have at most {} different ones",
                limits::BACKENDS_MAX
            );
            return Some(Diagnostic::new(service.name.span, message).help(help));
        }
    }
    None
}
