//! Reading the [`Facts`] about a machine. Changes nothing.
//!
//! Imports `facts`, `intent`, `kinds` and `kernel`. Which settings matter, the caller knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Round;
use crate::bpf_abi::{CILIATE_DEVICE, DeviceKey, DeviceValue};
use crate::facts::{
    Facts, Namespaces, NetnsProblem, NextHop, Remembered, ServiceIds, Wireguard, WireguardKey,
};
use crate::intent::{AttachMode, Endpoint, Intent};
use crate::kernel::netns::{self, NetnsError};
use crate::kernel::{Kernel, KernelError, bpf, cgroup, chain, private_key, wireguard};
use crate::kinds::bpf_link::exec::filter::{self, Qdisc};
use crate::kinds::bpf_map::{MapName, exec::open};
use crate::kinds::{address, bpf_map_entry, lb_backend, lb_service, record, sysctl};
use crate::net::{IfName, Netns};

/// The name of this namespace, which has to be that of the node whose pins these are.
///
/// # Errors
/// They are of a node in another one.
pub fn home(kernel: &Kernel, before: &BTreeMap<String, String>) -> Result<String, KernelError> {
    let here =
        netns::own_name().map_err(|source| KernelError::Netns { netns: Netns::HOST, source })?;
    match before.get(record::NAMESPACE) {
        Some(home) if *home != here => {
            let root = kernel.bpf_root().to_path_buf();
            let advice = match netns::place_of(home).filter(|_| !same_inode(home, &here)) {
                Some(place) => format!("run ciliate there, by `nsenter --net={}`", place.display()),
                None => format!(
                    "no process and no mount has that one: if it has ended, remove what is left by `rm -r {}`",
                    root.display()
                ),
            };
            Err(KernelError::OtherNamespace { root, home: home.clone(), here, advice })
        }
        _ => Ok(here),
    }
}

/// Whether one of the two has the number of the other, which has ended then.
fn same_inode(home: &str, here: &str) -> bool {
    home.split(' ').next() == here.split(' ').next()
}

/// The same for whoever has read nothing yet.
///
/// # Errors
/// They are of a node in another one, or the records can't be read.
pub fn at_home(kernel: &Kernel) -> Result<(), KernelError> {
    home(kernel, &bpf_map_entry::exec::records(kernel)?).map(drop)
}

/// Reads the facts an intent calls for. Of the settings, those that are of `interest`. What the caller has
/// `remembered` is passed on.
///
/// # Errors
/// Something that has to be known can't be read.
pub fn read(
    round: &mut Round<'_>,
    intent: &Intent,
    remembered: &Remembered,
    interest: impl FnOnce(&Intent, &Facts) -> Vec<Arc<str>>,
) -> Result<Facts, KernelError> {
    let links: BTreeMap<_, _> =
        round.links(&Netns::HOST)?.iter().map(|link| (link.ifname, link.clone())).collect();
    let addresses = address::exec::addresses(round, &Netns::HOST)?;
    let before = bpf_map_entry::exec::records(round.kernel)?;
    let netns = home(round.kernel, &before)?;
    let mut facts = Facts {
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        addresses: addresses.into_iter().map(|(ifname, net, _)| (ifname, net)).collect(),
        next_hops: next_hops(round, intent)?,
        devices: devices(round.kernel)?,
        services: services(round)?,
        tcx: intent.datapath.attach_mode != AttachMode::Clsact && bpf::has_tcx(),
        links,
        netns,
        before,
        remembered: remembered.records.clone(),
        dead: remembered.dead.clone(),
        ..Facts::default()
    };
    (facts.namespaces, facts.health) = namespaces(round, intent)?;
    if intent.balances_sockets() {
        let found = cgroup::find(&intent.paths.cgroup)?;
        facts.cgroup = found.map(|(path, id)| (path.to_string_lossy().into(), id));
    }
    if intent.node.addresses.is_empty() {
        facts.default_devices = default_devices(round)?;
    }
    facts.wireguard = encryption(round.kernel, intent)?;
    if !facts.tcx {
        for (ifname, qdisc) in filter::qdiscs(round)?.into_values() {
            match qdisc {
                Qdisc::Clsact => facts.clsact.insert(ifname),
                Qdisc::Ingress => facts.ingress.insert(ifname),
            };
        }
    }
    let paths = interest(intent, &facts);
    let values = sysctl::exec::read(round.kernel, &Netns::HOST, paths)?;
    facts.sysctls = values.into_iter().collect();
    Ok(facts)
}

/// What there is to encrypt with, if that is asked for.
fn encryption(kernel: &mut Kernel, intent: &Intent) -> Result<Option<Wireguard>, KernelError> {
    let Some(asked) = &intent.encryption else { return Ok(None) };
    let path = private_key::place(asked.key_file.as_deref(), &intent.paths.state);
    let key = match private_key::read(&path) {
        Ok(None) => WireguardKey::Missing,
        Ok(Some(key)) => WireguardKey::Usable(key.public()),
        Err(error) => WireguardKey::Refused(chain(&error)),
    };
    let available = wireguard::is_there(kernel)?;
    Ok(Some(Wireguard { available, key_file: path.to_string_lossy().into(), key }))
}

pub fn devices(kernel: &Kernel) -> Result<BTreeMap<u32, DeviceValue>, KernelError> {
    let map = MapName::of_abi(CILIATE_DEVICE);
    let Some(open) = open(kernel, map)? else { return Ok(BTreeMap::new()) };
    let entries = open.entries().map_err(|source| KernelError::Bpf {
        operation: "read the entries of",
        object: format!("map {map}"),
        source,
    })?;
    Ok(entries
        .iter()
        .filter_map(|(key, value)| {
            let key = DeviceKey::from_bytes(key.as_slice().try_into().ok()?);
            Some((key.ifindex, DeviceValue::from_bytes(value.as_slice().try_into().ok()?)))
        })
        .collect())
}

/// The numbers of services and backends.
fn services(round: &mut Round<'_>) -> Result<ServiceIds, KernelError> {
    lb_service::exec::read(round)?;
    lb_backend::exec::read(round)?;
    let (services, backends) = (&mut round.lb_services, &mut round.lb_backends);
    Ok(ServiceIds::of(services.get_or_insert_default(), backends.get_or_insert_default()))
}

/// The endpoints' namespaces, and what is wrong with that of the health endpoint.
fn namespaces(
    round: &mut Round<'_>,
    intent: &Intent,
) -> Result<(Namespaces, Option<NetnsProblem>), KernelError> {
    let endpoints = || intent.endpoints.values();
    let (health_name, health_netns) = (Arc::from("health"), intent.paths.health_netns());
    let users = endpoints().map(|endpoint| (&endpoint.name, &endpoint.netns));
    let mut problems = unusable(users.chain([(&health_name, &health_netns)]))?;
    let health_problem = problems.pop().flatten();
    let mut found = BTreeMap::new();
    for (endpoint, problem) in endpoints().zip(problems) {
        // Whatever is wrong with it, the other endpoints don't have to wait.
        let state = match problem {
            Some(problem) => Err(problem),
            None => enter(round, endpoint)?,
        };
        found.insert(endpoint.name.clone(), state);
    }
    Ok((found, health(round, intent, health_problem)?))
}

/// What is wrong with the namespace of the health endpoint and isn't mended by making it.
fn health(
    round: &mut Round<'_>,
    intent: &Intent,
    found: Option<NetnsProblem>,
) -> Result<Option<NetnsProblem>, KernelError> {
    let netns = intent.paths.health_netns();
    if intent.node.health_addresses.is_empty() {
        return Ok(None);
    }
    // Somebody may have mounted an endpoint's there.
    if matches!(found, Some(NetnsProblem::IsOf(_))) {
        return Ok(found);
    }
    match round.kernel.netlink(&netns).map(drop) {
        Err(KernelError::Netns { netns, source }) => Ok(match problem(&netns, &source) {
            refused @ NetnsProblem::Refused(_) => Some(refused),
            _ => None,
        }),
        other => other.map(|()| None),
    }
}

/// Of each of these endpoints, in their order, why its namespace can't be used, as far as that shows
/// without entering it.
///
/// # Errors
/// The node's own namespace can't be told.
pub fn unusable<'a>(
    endpoints: impl Iterator<Item = (&'a Arc<str>, &'a Netns)>,
) -> Result<Vec<Option<NetnsProblem>>, KernelError> {
    let failed = |netns: &Netns, source| KernelError::Netns { netns: netns.clone(), source };
    let own = netns::own_identity().map_err(|source| failed(&Netns::HOST, source))?;
    // Where it can't be looked at, as in a container, no endpoint can be it either.
    let machines = netns::open("/proc/1/ns/net").and_then(|file| netns::identity(&file)).ok();
    let mut users: BTreeMap<netns::Identity, &Arc<str>> = BTreeMap::new();
    let problem = |(name, netns): (&'a Arc<str>, &Netns)| match identity(netns) {
        Err(problem) => Some(problem),
        Ok(identity) if identity == own => Some(NetnsProblem::IsNodesOwn),
        Ok(identity) if Some(identity) == machines => Some(NetnsProblem::IsMachinesOwn),
        Ok(identity) => {
            let user = *users.entry(identity).or_insert(name);
            (!std::ptr::eq(user, name)).then(|| NetnsProblem::IsOf(user.clone()))
        }
    };
    Ok(endpoints.map(problem).collect())
}

/// Which namespace it is.
fn identity(netns: &Netns) -> Result<netns::Identity, NetnsProblem> {
    let file = netns::open(netns.path().unwrap_or_default());
    file.and_then(|file| netns::identity(&file)).map_err(|error| problem(netns, &error))
}

fn problem(netns: &Netns, error: &NetnsError) -> NetnsProblem {
    match error {
        NetnsError::Missing if netns.pid().is_some() => NetnsProblem::NoSuchPid,
        NetnsError::Missing => NetnsProblem::NoSuchPath,
        NetnsError::NotANamespace => NetnsProblem::NotANetns,
        error => NetnsProblem::Refused(chain(error)),
    }
}

/// Our addresses in a namespace, as far as they matter, or why it can't be entered.
fn enter(
    round: &mut Round<'_>,
    endpoint: &Endpoint,
) -> Result<Result<Vec<IpAddr>, NetnsProblem>, KernelError> {
    match round.kernel.netlink(&endpoint.netns).map(drop) {
        Err(KernelError::Netns { netns, source }) => Ok(Err(problem(&netns, &source))),
        Err(error) => Err(error),
        Ok(()) if !endpoint.addresses.is_empty() => Ok(Ok(Vec::new())),
        Ok(()) => held_addresses(round, endpoint).map(Ok),
    }
}

/// The addresses that earlier rounds gave to an endpoint, as its device has them.
fn held_addresses(round: &mut Round<'_>, endpoint: &Endpoint) -> Result<Vec<IpAddr>, KernelError> {
    // What another ciliate has there bears the same marks; neither leads a link of this node there, nor does it know.
    if !round.paired(&endpoint.netns, |_| false)?.contains(&endpoint.ifname)
        && !is_recorded(round, endpoint)?
    {
        return Ok(Vec::new());
    }
    Ok(address::exec::addresses(round, &endpoint.netns)?
        .into_iter()
        .filter(|(ifname, _, found)| *ifname == endpoint.ifname && found.seen.owned)
        .map(|(_, net, _)| net.addr())
        .collect())
}

/// Whether this node has wired the device that an endpoint has now.
fn is_recorded(round: &mut Round<'_>, endpoint: &Endpoint) -> Result<bool, KernelError> {
    let there = round.links(&endpoint.netns)?;
    let Some(device) = there.iter().find(|link| link.ifname == endpoint.ifname) else {
        return Ok(false);
    };
    let records = devices(round.kernel)?;
    Ok(records.values().any(|record| record.mac == device.end.mac.0))
}

/// Asks the kernel how it would reach each peer, all in one system call.
fn next_hops(
    round: &mut Round<'_>,
    intent: &Intent,
) -> Result<BTreeMap<IpAddr, NextHop>, KernelError> {
    let addresses: BTreeSet<IpAddr> =
        intent.peers.values().flat_map(|peer| peer.addresses.iter().copied()).collect();
    let names = round.names(&Netns::HOST)?;
    let requests = addresses.iter().map(|address| lookup(*address)).collect();
    let answers = round.kernel.netlink(&Netns::HOST)?.get_all(requests);
    let answers = answers
        .map_err(|source| KernelError::Netlink { operation: "look up the peers", source })?;
    Ok(addresses
        .into_iter()
        .zip(answers)
        .map(|(address, answer)| {
            let hop = match answer {
                Ok(RouteNetlinkMessage::NewRoute(message)) => next_hop(&message, &names),
                _ => None,
            };
            (address, hop.unwrap_or(NextHop::Unreachable))
        })
        .collect())
}

fn lookup(address: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    let (family, length) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.header.flags = RouteFlags::empty();
    message.attributes = vec![RouteAttribute::Destination(RouteAddress::from(address))];
    RouteNetlinkMessage::GetRoute(message)
}

fn next_hop(message: &RouteMessage, names: &BTreeMap<u32, IfName>) -> Option<NextHop> {
    if message.header.kind == RouteType::Local {
        return Some(NextHop::Local);
    }
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut dev, mut gateway) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => dev = names.get(index).copied(),
            RouteAttribute::Gateway(RouteAddress::Inet(v4)) => gateway = Some(IpAddr::from(*v4)),
            RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => gateway = Some(IpAddr::from(*v6)),
            _ => {}
        }
    }
    let dev = dev?;
    Some(match gateway {
        Some(gateway) => NextHop::Gateway { gateway, dev },
        None => NextHop::OnLink(dev),
    })
}

/// The devices of the default routes in the main table, lowest metric first.
fn default_devices(round: &mut Round<'_>) -> Result<Vec<IfName>, KernelError> {
    let names = round.names(&Netns::HOST)?;
    let mut devices = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        request.attributes = vec![RouteAttribute::Table(crate::kinds::route::TABLE_MAIN)];
        let request = RouteNetlinkMessage::GetRoute(request);
        let mut found: Vec<(u32, IfName)> = Vec::new();
        for message in round.dump(&Netns::HOST, "list routes", &request)? {
            let RouteNetlinkMessage::NewRoute(message) = message else { continue };
            if message.header.destination_prefix_length != 0
                || message.header.kind != RouteType::Unicast
            {
                continue;
            }
            let metric = message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Priority(metric) => Some(*metric),
                _ => None,
            });
            let dev = message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => names.get(index).copied(),
                _ => None,
            });
            found.extend(dev.map(|dev| (metric.unwrap_or(0), dev)));
        }
        found.sort();
        devices.extend(found.first().map(|(_, dev)| *dev));
    }
    devices.dedup();
    Ok(devices)
}
