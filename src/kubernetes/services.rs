//! Services and their slices → `[[service]]`, one for each port. Pure; imports `nodes`, `objects`, `page`,
//! `stores`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::nodes::{Networks, unusable};
use crate::objects::{Backend, Port, Service, Slice};
use crate::page::{self, Files, allowed, file};
use crate::stores::Stores;

/// Most backends of one service.
const SERVICE_BACKENDS_MAX: usize = 1310;
/// Most pairs of frontend and backend. ciliate has several limits for all services together; they are kept if
/// what half or a quarter of this fit into is counted twice or four times.
const COST_MAX: usize = 262_144;
/// What a service's file is made of: what the ports get, the slices, and what is left out.
type MadeOf = (Vec<Port>, Vec<Arc<Slice>>, Vec<String>);
/// What the files of services were made of.
pub type Memory = BTreeMap<String, MadeOf>;

/// The files of all services: with node ports of a range, and with addresses that no node has. Of two that want the same, the one that was there first gets it.
pub fn files(stores: &Stores, nodes: &Networks, range: (u16, u16), memory: &mut Memory) -> Files {
    let mut files = Files::new();
    let mut of: BTreeMap<_, Vec<Arc<Slice>>> = BTreeMap::new();
    for (_, slice) in stores.slices.by_age() {
        of.entry(&slice.service).or_default().push(slice.clone());
    }
    let services = stores.services.by_age();
    // Cluster IPs are given out by the API server; the other addresses are whatever somebody writes.
    let mut reserved = BTreeMap::new();
    for (name, (ports, _)) in services.iter().rev().map(|(name, of)| (*name, &***of)) {
        for port in ports {
            reserved.extend(port.cluster_ips.iter().map(|at| ((*at, port.protocol), name)));
        }
    }
    let (mut given, mut cost, before) = (BTreeMap::new(), 0, std::mem::take(memory));
    for (name, service) in services {
        let slices = of.remove(name).unwrap_or_default();
        let (mut ports, mut left_out) = Service::clone(service);
        ports.retain_mut(|port| {
            let mut gets = |what: String, at: SocketAddr, unfit: Option<String>| {
                let claim = (at, port.protocol);
                let other = reserved.get(&claim).filter(|holder| **holder != name);
                let taken = given.get(&claim).or(other).map(|holder| format!("{holder} has it"));
                let why = unfit.or(taken).map(|why| format!("{what}/{}: {why}", port.protocol));
                given.extend(why.is_none().then_some((claim, name)));
                allowed(why, &mut left_out)
            };
            let mut address = |at: &SocketAddr| {
                let unfit = unusable(at.ip()).or_else(|| nodes.holder(at.ip().into()));
                gets(at.to_string(), *at, unfit)
            };
            port.cluster_ips.retain(&mut address);
            port.external_ips.retain(&mut address);
            port.load_balancer_ips.retain(&mut address);
            let (first, last) = range;
            port.node_port = port.node_port.filter(|number| {
                let outside = !(first..=last).contains(number);
                let unfit = outside.then(|| format!("it is outside {first} to {last}"));
                gets(format!("node port {number}"), SocketAddr::from(([0; 4], *number)), unfit)
            });
            let more = room(port, &slices);
            let fits = cost + more <= COST_MAX;
            let why = "with it there are too many frontends and backends";
            cost += more * usize::from(fits);
            allowed((!fits).then(|| format!("{}: {why}", port.name)), &mut left_out) && more > 0
        });
        let made_of = (ports, slices, left_out);
        let text = (before.get(name) != Some(&made_of)).then(|| text(name, &made_of));
        files.insert(file("service", name), text);
        memory.insert(name.clone(), made_of);
    }
    files
}

/// What a port takes of the room that there is for all services. What is for everybody
/// is in the kernel in either scope, a node port at the wildcard and the node's addresses of both families.
fn room(port: &Port, slices: &[Arc<Slice>]) -> usize {
    let node_port = usize::from(port.node_port.is_some());
    let outside = port.external_ips.len() + port.load_balancer_ips.len();
    let frontends = port.cluster_ips.len() + 2 * outside + 8 * node_port;
    // As many as there can be: counting them is done where they are written.
    let backends: usize = slices.iter().map(|slice| slice.backends(port).count()).sum();
    let backends = backends.min(SERVICE_BACKENDS_MAX);
    let pairs = (1 + backends) << usize::from(port.session_affinity.is_some());
    (frontends * pairs.max(4 + 4 * port.source_ranges.len())).max(2 * backends * frontends.min(1))
}

/// The endpoints of all slices that have the port, each once and in its best state.
fn text(name: &str, (ports, slices, left_out): &MadeOf) -> String {
    let (mut ports, mut left_out) = (ports.clone(), left_out.clone());
    for port in &mut ports {
        let mut found: Vec<_> = slices.iter().flat_map(|slice| slice.backends(port)).collect();
        let is_own = |ip: IpAddr| port.cluster_ips.iter().any(|own| own.is_ipv4() == ip.is_ipv4());
        found.retain(|(at, _)| is_own(at.ip()) && unusable(at.ip()).is_none());
        found.sort_unstable();
        found.dedup_by_key(|(at, _)| *at);
        let excess = found.len().saturating_sub(SERVICE_BACKENDS_MAX);
        let most = format!("a service has at most {SERVICE_BACKENDS_MAX}");
        let why = (excess > 0).then(|| format!("{excess} backends of {}: {most}", port.name));
        allowed(why, &mut left_out);
        let written = |(address, is_terminating)| match is_terminating {
            false => Backend::Active(address),
            true => Backend::Other { address, state: "terminating" },
        };
        port.backends = found.into_iter().take(SERVICE_BACKENDS_MAX).map(written).collect();
    }
    let tables = (!ports.is_empty()).then_some(("service", ports));
    page::text(&format!("Service {name} and its EndpointSlices"), &left_out, tables)
}
