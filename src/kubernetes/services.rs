//! Services and their slices → `[[service]]`, one for each port. Pure; imports `mapping`, `networks`,
//! `objects`, `page`, `settings`.

use std::collections::BTreeMap;
use std::mem::replace;
use std::net::SocketAddr;

use toml::Value;

use crate::mapping::by_age;
use crate::networks::{Networks, unusable};
use crate::objects::{CLUSTER_IPS, Claim, NODE_PORT, OUTSIDE, Port, Service, Slice};
use crate::page::Page;
use crate::settings::Settings;

/// Most backends of one service.
const SERVICE_BACKENDS_MAX: usize = 1310;
/// Most pairs of frontend and backend. ciliate has several limits for all services together; they are kept if
/// what half or a quarter of this fit into is counted twice or four times.
const COST_MAX: usize = 262_144;
/// How often a node port and another address for everybody can be in the kernel: for either scope, at the wildcard
/// and the node's addresses of both families.
const NODE_PORT_FRONTENDS: usize = 8;
const OUTSIDE_FRONTENDS: usize = 2;

/// What a service doesn't get, by the number of its port and that of the claim, or none for the whole port; and why.
type Refusals = BTreeMap<(usize, Option<usize>), String>;
/// The services that don't get all they ask for.
pub type Refused = BTreeMap<String, Refusals>;
/// The slices of services.
pub type Slices<'a> = BTreeMap<&'a str, Vec<&'a Slice>>;

/// Puts slices to their services.
pub fn by_service(slices: &BTreeMap<String, Slice>) -> Slices<'_> {
    let mut of = Slices::new();
    slices.values().for_each(|slice| of.entry(&slice.service).or_default().push(slice));
    of
}

/// What services don't get. Of two that want the same, the one that was there first gets it.
pub fn refused(
    services: &BTreeMap<String, Service>,
    slices: &Slices,
    networks: &Networks,
    settings: &Settings,
) -> Refused {
    let services = by_age(services, |service| service.created);
    let ports = services.iter().flat_map(|(name, service)| {
        service.ports.iter().enumerate().map(move |(at, port)| (*name, at, *service, port))
    });
    // Whose it is, and whether it has been given already.
    let mut holders: BTreeMap<Claim, (&String, bool)> = BTreeMap::new();
    // Cluster IPs are given out by the API server; the other addresses are whatever somebody writes.
    for (name, .., port) in ports.clone() {
        let own = port.claims.iter().filter(|(key, _)| *key == CLUSTER_IPS);
        own.for_each(|(_, claim)| _ = holders.entry(*claim).or_insert((name, false)));
    }
    let (mut refused, mut cost) = (Refused::new(), 0);
    for (name, at, service, port) in ports {
        let mut refuse =
            |what, why| _ = refused.entry(name.clone()).or_default().insert((at, what), why);
        let mut frontends = 0;
        for (number, (key, claim)) in port.claims.iter().enumerate() {
            let (holder, given) = holders.entry(*claim).or_insert((name, false));
            let why = unfit(claim, networks, settings)
                .or_else(|| (*holder != name).then(|| format!("{holder} has it")))
                .or_else(|| replace(given, true).then(|| "it is there already".to_owned()));
            match why {
                Some(why) => refuse(Some(number), format!("{claim}: {why}")),
                None if *key == CLUSTER_IPS => frontends += 1,
                None if *key == NODE_PORT => frontends += NODE_PORT_FRONTENDS,
                None => frontends += OUTSIDE_FRONTENDS,
            }
        }
        // As many as there can be: counting them is done where they are written.
        let slices = slices.get(name.as_str()).into_iter().flatten();
        let backends: usize = slices.map(|slice| slice.backends(port).count()).sum();
        let backends = backends.min(SERVICE_BACKENDS_MAX);
        let pairs = (1 + backends) << usize::from(service.affinity.is_some());
        let ranges = service.source_ranges.as_ref().map_or(0, Vec::len);
        let more = (frontends * pairs.max(4 + 4 * ranges)).max(2 * backends);
        match cost + more {
            _ if frontends == 0 => {}
            sum if sum <= COST_MAX => cost = sum,
            _ => refuse(None, "with it there are too many frontends and backends".to_owned()),
        }
    }
    refused
}

/// Why nobody can have something.
fn unfit(Claim(ip, port, _): &Claim, networks: &Networks, settings: &Settings) -> Option<String> {
    let (first, last) = settings.node_ports;
    match ip {
        Some(ip) => unusable(*ip).or_else(|| networks.holder(*ip)),
        None if (first..=last).contains(port) => None,
        None => Some(format!("it is outside {first} to {last}")),
    }
}

/// The text of a service's file.
pub fn text(
    name: &str,
    service: &Service,
    slices: &[&Slice],
    refused: Option<&Refusals>,
) -> String {
    let mut page = Page::of(format!("Service {name} and its EndpointSlices"));
    for (at, port) in service.ports.iter().enumerate() {
        let dash = if port.name.is_empty() { "" } else { ":" };
        let title = format!("{name}{dash}{}", port.name);
        let why = |what| refused.and_then(|all| all.get(&(at, what)));
        let mut backends = backends(port, slices);
        let excess = backends.len().saturating_sub(SERVICE_BACKENDS_MAX);
        if excess > 0 {
            let most = format!("a service has at most {SERVICE_BACKENDS_MAX}");
            page.left_out.push(format!("{excess} backends of {title}: {most}"));
            backends.truncate(SERVICE_BACKENDS_MAX);
        }
        if service.source_ranges.is_none() {
            page.left_out.push(format!("{title} for the outside: can't read its source ranges"));
        }
        page.left_out.extend((0..port.claims.len()).filter_map(|claim| why(Some(claim)).cloned()));
        page.left_out.extend(why(None).map(|why| format!("{title}: {why}")));
        let given = port.claims.iter().enumerate().filter(|(claim, _)| why(Some(*claim)).is_none());
        let given: Vec<_> = given.map(|(_, claim)| claim).collect();
        if given.is_empty() || why(None).is_some() {
            continue;
        }
        let sockets = |key| -> Vec<SocketAddr> {
            let of = given.iter().filter(|(other, _)| *other == key);
            of.filter_map(|(_, Claim(ip, port, _))| Some(SocketAddr::new((*ip)?, *port))).collect()
        };
        page.table("[[service]]");
        page.put("name", title);
        page.put("protocol", port.protocol);
        page.list(CLUSTER_IPS, &sockets(CLUSTER_IPS));
        let node_port = given.iter().find(|(key, _)| *key == NODE_PORT);
        node_port.into_iter().for_each(|(key, Claim(_, number, _))| page.put(key, number));
        OUTSIDE.into_iter().for_each(|key| page.list(key, &sockets(key)));
        service.affinity.iter().for_each(|time| page.put("session-affinity", time));
        service.local.iter().for_each(|key| page.put(key, "local"));
        page.list("source-ranges", service.source_ranges.as_deref().unwrap_or_default());
        page.put("backends", backends);
    }
    page.text()
}

/// The endpoints of all slices that have the port, each once and in its best state.
fn backends(port: &Port, slices: &[&Slice]) -> Vec<Value> {
    let mut found: Vec<_> = slices.iter().flat_map(|slice| slice.backends(port)).collect();
    found.retain(|(address, _)| port.has_family(address.ip()) && unusable(address.ip()).is_none());
    found.sort_unstable();
    found.dedup_by_key(|(address, _)| *address);
    let written = |(address, is_terminating): (SocketAddr, bool)| {
        let address = ("address".to_owned(), Value::from(address.to_string()));
        if !is_terminating {
            return address.1;
        }
        Value::Table([address, ("state".to_owned(), "terminating".into())].into_iter().collect())
    };
    found.into_iter().map(written).collect()
}
