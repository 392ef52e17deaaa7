//! Services and their slices → `[[service]]`, one for each port. Pure; imports `mapping`, `networks`,
//! `objects`, `page`, `stores`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use crate::mapping::{Files, Settings, by_age};
use crate::networks::{Networks, unusable};
use crate::objects::{Port, Service, Slice, State};
use crate::page::{Page, file};
use crate::stores::Stores;

/// Most backends of one service.
const SERVICE_BACKENDS_MAX: usize = 1310;
/// Most pairs of frontend and backend. ciliate has several limits for all services together; they are kept if
/// what half or a quarter of this fit into is counted twice or four times.
const COST_MAX: usize = 262_144;
/// How often a node port and another address for everybody can be in the kernel: for either scope, at the wildcard
/// and the node's addresses of both families.
const NODE_PORT_FRONTENDS: usize = 8;
const OUTSIDE_FRONTENDS: usize = 2;

/// The files of all services.
pub fn files(stores: &Stores, settings: &Settings, networks: &Networks, files: &mut Files) {
    let mut slices: BTreeMap<&str, Vec<&Slice>> = BTreeMap::new();
    for slice in stores.slices.objects.values() {
        slices.entry(&slice.service).or_default().push(slice);
    }
    let services = by_age(&stores.services.objects, |service| service.created);
    let mut claims =
        Claims { settings, networks, holders: BTreeMap::new(), given: BTreeSet::new(), cost: 0 };
    // Cluster IPs are given out by the API server; the other addresses are whatever somebody writes.
    for (name, service) in &services {
        for port in &service.ports {
            let claim = |ip| Claim(Some(ip), port.port, &port.protocol);
            let own = service.cluster_ips.iter().map(|ip| (claim(*ip), name.as_str()));
            own.for_each(|(claim, name)| _ = claims.holders.entry(claim).or_insert(name));
        }
    }
    for (name, service) in services {
        let mut page = Page::of(format!("Service {name} and its EndpointSlices"));
        let slices = slices.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        service.ports.iter().for_each(|port| claims.table(name, service, port, slices, &mut page));
        files.insert(file("service", name), page.text());
    }
}

/// What only one service can have: a port of an address, or of all nodes, of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim<'a>(Option<IpAddr>, u16, &'a str);

/// Who has what. Of two that want the same, the one that was there first gets it.
struct Claims<'a> {
    settings: &'a Settings,
    networks: &'a Networks,
    holders: BTreeMap<Claim<'a>, &'a str>,
    given: BTreeSet<Claim<'a>>,
    cost: usize,
}

impl<'a> Claims<'a> {
    fn table(
        &mut self,
        name: &'a str,
        service: &'a Service,
        port: &'a Port,
        slices: &[&Slice],
        page: &mut Page,
    ) {
        let dash = if port.name.is_empty() { "" } else { ":" };
        let title = format!("{name}{dash}{}", port.name);
        let (count, backends) = backends(service, port, slices, &title, page);
        let closed = service.source_ranges.is_none();
        if closed {
            page.left_out.push(format!("{title} for the outside: can't read its source ranges"));
        }
        let mut given = |ips: &[IpAddr]| -> Vec<SocketAddr> {
            let claim = |ip: &&IpAddr| Claim(Some(**ip), port.port, &port.protocol);
            let ips = ips.iter().filter(|ip| page.allows(self.claim(name, claim(ip))));
            ips.map(|ip| SocketAddr::new(*ip, port.port)).collect()
        };
        let cluster_ips = given(&service.cluster_ips);
        let outside = service.outside.each_ref();
        let outside = outside.map(|(key, ips)| (key, given(if closed { &[] } else { ips })));
        let node_port = port.node_port.filter(|number| {
            !closed && page.allows(self.claim(name, Claim(None, *number, &port.protocol)))
        });
        let ranges = service.source_ranges.as_deref().unwrap_or_default();
        let others = OUTSIDE_FRONTENDS * (outside[0].1.len() + outside[1].1.len());
        let frontends = cluster_ips.len() + others + node_port.map_or(0, |_| NODE_PORT_FRONTENDS);
        let pairs = (1 + count) << usize::from(service.affinity.is_some());
        let cost = self.cost + (frontends * pairs.max(4 + 4 * ranges.len())).max(2 * count);
        if frontends == 0 || cost > COST_MAX {
            let full = format!("{title}: with it there are too many frontends and backends");
            return page.left_out.extend((frontends > 0).then_some(full));
        }
        self.cost = cost;
        page.table("[[service]]");
        page.put("name", title);
        page.put("protocol", &port.protocol);
        page.list("cluster-ips", &cluster_ips);
        node_port.into_iter().for_each(|number| page.put_bare("node-port", number));
        outside.iter().for_each(|(key, sockets)| page.list(key, sockets));
        service.affinity.iter().for_each(|time| page.put("session-affinity", time));
        service.local.iter().for_each(|key| page.put(key, "local"));
        page.list("source-ranges", ranges);
        page.put_bare("backends", format!("[{backends}]"));
    }

    fn claim(&mut self, name: &'a str, claim: Claim<'a>) -> Result<(), String> {
        let (first, last) = self.settings.node_ports;
        let (what, why_not) = match claim {
            Claim(Some(ip), port, _) => {
                let why_not = unusable(ip).or_else(|| self.networks.holder(ip));
                (SocketAddr::new(ip, port).to_string(), why_not)
            }
            Claim(None, port, _) => {
                let outside = !(first..=last).contains(&port);
                let why_not = outside.then(|| format!("it is outside {first} to {last}"));
                (format!("node port {port}"), why_not)
            }
        };
        let holder = *self.holders.entry(claim).or_insert(name);
        let taken = (holder != name).then(|| format!("{holder} has it"));
        let why_not = why_not.or(taken);
        let again = || (!self.given.insert(claim)).then(|| "it is there already".to_owned());
        match why_not.or_else(again) {
            Some(why) => Err(format!("{what}/{}: {why}", claim.2)),
            None => Ok(()),
        }
    }
}

/// The endpoints of all slices that have the port, each once and in its best state.
fn backends(
    service: &Service,
    port: &Port,
    slices: &[&Slice],
    title: &str,
    page: &mut Page,
) -> (usize, String) {
    let has_family =
        |ip: &IpAddr| service.cluster_ips.iter().any(|own| own.is_ipv4() == ip.is_ipv4());
    let mut found: Vec<(SocketAddr, State)> = Vec::new();
    for slice in slices {
        // The slice's ports are in an order of their own, and have numbers where the service has names.
        let same = |(name, protocol, _): &&(String, String, u16)| {
            *name == port.name && *protocol == port.protocol
        };
        let Some((.., number)) = slice.ports.iter().find(same) else { continue };
        let usable =
            slice.endpoints.iter().filter(|(ip, _)| has_family(ip) && unusable(*ip).is_none());
        found.extend(usable.map(|(ip, state)| (SocketAddr::new(*ip, *number), *state)));
    }
    found.sort_unstable();
    found.dedup_by_key(|(address, _)| *address);
    if found.len() > SERVICE_BACKENDS_MAX {
        let excess = found.len() - SERVICE_BACKENDS_MAX;
        let most = format!("a service has at most {SERVICE_BACKENDS_MAX}");
        page.left_out.push(format!("{excess} backends of {title}: {most}"));
        found.truncate(SERVICE_BACKENDS_MAX);
    }
    let mut list = String::new();
    for (at, (address, state)) in found.iter().enumerate() {
        list += if at == 0 { "" } else { ", " };
        let _ = match state {
            State::Active => write!(list, "\"{address}\""),
            State::Terminating => {
                write!(list, "{{ address = \"{address}\", state = \"terminating\" }}")
            }
        };
    }
    (found.len(), list)
}
