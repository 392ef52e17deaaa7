//! `[[service]]`: text → [`Service`], each value by itself.
//!
//! `humantime` reads times as operators write them for systemd and Kubernetes. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_spanned::Spanned;

use super::{
    Backend, BackendState, Frontend, FrontendKind, Protocol, Service, health_check, socket_address,
};
use crate::config::{self, BackendEntry, Diagnostic, Span};
use crate::intent::address::{self, shown};
use crate::intent::draft::{At, DraftService, Problems};
use crate::intent::routing::number;
use crate::intent::{limits, name};

/// Reads the tables.
pub(in crate::intent) fn read(
    services: &[Spanned<config::Service>],
    problems: &mut Problems,
) -> Vec<DraftService> {
    services.iter().filter_map(|service| one(service, problems)).collect()
}

fn one(written: &Spanned<config::Service>, problems: &mut Problems) -> Option<DraftService> {
    let service = written.get_ref();
    let name = name::of_service(&service.name, problems);
    let protocol = match service.protocol.as_ref().map(Spanned::get_ref) {
        Some(config::ServiceProtocol::Udp) => Protocol::Udp,
        Some(config::ServiceProtocol::Sctp) => Protocol::Sctp,
        Some(config::ServiceProtocol::Tcp) | None => Protocol::Tcp,
    };
    let mut frontends: Vec<At<Frontend>> = Vec::new();
    for (list, kind) in [
        (&service.cluster_ips, FrontendKind::ClusterIp),
        (&service.external_ips, FrontendKind::ExternalIp),
        (&service.load_balancer_ips, FrontendKind::LoadBalancerIp),
        (&service.host_ports, FrontendKind::HostPort),
    ] {
        let wildcard = kind == FrontendKind::HostPort;
        let read = socket_address::list(list.as_ref(), wildcard, problems);
        let frontend =
            |at: At<SocketAddr>| At { value: Frontend { address: at.value, kind }, span: at.span };
        frontends.extend(read.into_iter().map(frontend));
    }
    let node_port = service.node_port.as_ref().and_then(|port| {
        let read = number(port, "`node-port`", 1, 65_535, problems)?;
        Some(At { value: u16::try_from(read).ok()?, span: port.into() })
    });
    let affinity = service.session_affinity.as_ref();
    let checked = service.health_check.as_ref();
    let is_local = |policy: &Option<Spanned<config::TrafficPolicy>>| {
        policy.as_ref().is_some_and(|policy| *policy.get_ref() == config::TrafficPolicy::Local)
    };
    let (source_ranges, _) = address::cidrs(service.source_ranges.as_ref(), problems);
    Some(DraftService {
        protocol,
        frontends,
        node_port,
        session_affinity_s: affinity.and_then(|text| affinity_s(text, problems)),
        external_local: is_local(&service.external_traffic_policy),
        internal_local: is_local(&service.internal_traffic_policy),
        source_ranges: unique_ranges(source_ranges, problems),
        backends: backends(service.backends.as_ref(), problems),
        health_check: checked
            .and_then(|table| health_check::read(table, protocol, problems))
            .map(Arc::new),
        span: written.into(),
        name: name?,
    })
}

fn unique_ranges(read: Vec<At<ipnet::IpNet>>, problems: &mut Problems) -> Vec<ipnet::IpNet> {
    let mut seen = BTreeMap::new();
    for range in read {
        let Some(earlier) = seen.insert(range.value, range.span) else { continue };
        let problem = Diagnostic::new(range.span, format!("{} is listed twice", range.value));
        problems.push(problem.related(earlier, "the first time").help("remove one of the two"));
    }
    seen.into_keys().collect()
}

/// How long a client is kept, in seconds.
fn affinity_s(text: &Spanned<String>, problems: &mut Problems) -> Option<u32> {
    const FORM: &str = "write it like \"3h\", \"10m\" or \"90s\": whole seconds, at most a day";
    const ZERO: &str = "remove it: without it each connection is balanced by itself";
    let written = text.get_ref();
    let (message, help) = match humantime::parse_duration(written) {
        Err(_) => (format!("{} is not a time", shown(written)), FORM),
        Ok(time) if time.is_zero() => ("`session-affinity` can't be 0".to_owned(), ZERO),
        Ok(time) if time.subsec_nanos() != 0 => {
            (format!("{written} is not a number of whole seconds"), FORM)
        }
        Ok(time) => match u32::try_from(time.as_secs()) {
            Ok(seconds) if seconds <= limits::AFFINITY_S_MAX => return Some(seconds),
            _ => (format!("{written} is too long for `session-affinity`"), FORM),
        },
    };
    let problem = Diagnostic::new(text, message);
    problems.push(match written.parse::<u32>() {
        Ok(seconds) if seconds > 0 => problem.help(format!("add a unit, like \"{seconds}s\"")),
        _ => problem.help(help),
    });
    None
}

fn backends(
    list: Option<&Spanned<Vec<Spanned<BackendEntry>>>>,
    problems: &mut Problems,
) -> Vec<Backend> {
    let written = list.map_or(&[][..], |list| list.get_ref().as_slice());
    if let Some(excess) = written.get(limits::SERVICE_BACKENDS_MAX) {
        let problem = Diagnostic::new(excess, "this is the first backend too many");
        let most = limits::SERVICE_BACKENDS_MAX;
        problems.push(problem.help(format!("a service has at most {most} backends")));
    }
    let within = written.iter().take(limits::SERVICE_BACKENDS_MAX);
    let mut read: Vec<At<Backend>> = within.filter_map(|entry| backend(entry, problems)).collect();
    read.sort_by_key(|backend| (backend.value.address, backend.span.start));
    for pair in read.windows(2).filter(|pair| pair[0].value.address == pair[1].value.address) {
        let message = format!("{} is a backend twice", pair[1].value.address);
        let problem =
            Diagnostic::new(pair[1].span, message).related(pair[0].span, "the first time");
        problems.push(problem.help("remove one of the two; a backend gets more with a `weight`"));
    }
    read.into_iter().map(|backend| backend.value).collect()
}

fn backend(entry: &Spanned<BackendEntry>, problems: &mut Problems) -> Option<At<Backend>> {
    let span = Span::from(entry);
    let plain = |at: At<SocketAddr>| Backend {
        address: at.value,
        weight: limits::WEIGHT_DEFAULT,
        state: BackendState::Active,
    };
    let table = match entry.get_ref() {
        BackendEntry::Address(text) => {
            let address = socket_address::one(text, span, false, problems)?;
            return Some(At { value: plain(address), span });
        }
        BackendEntry::Table(table) => table,
    };
    let text = &table.address;
    let address = socket_address::one(text.get_ref(), text.into(), false, problems);
    let most = i64::from(limits::WEIGHT_MAX);
    let weight =
        table.weight.as_ref().and_then(|weight| number(weight, "`weight`", 1, most, problems));
    let state = match table.state.as_ref().map(Spanned::get_ref) {
        Some(config::BackendState::Terminating) => BackendState::Terminating,
        Some(config::BackendState::Quarantined) => BackendState::Quarantined,
        Some(config::BackendState::Maintenance) => BackendState::Maintenance,
        Some(config::BackendState::Active) | None => BackendState::Active,
    };
    let weight = weight.and_then(|weight| u16::try_from(weight).ok());
    let backend = plain(address?);
    Some(At { value: Backend { weight: weight.unwrap_or(backend.weight), state, ..backend }, span })
}

impl DraftService {
    /// The service; only if nothing is wrong.
    pub(in crate::intent) fn finish(mut self) -> Service {
        let mut frontends: Vec<Frontend> = self.frontends.into_iter().map(|at| at.value).collect();
        frontends.sort();
        // Lists that have grown have room for more, and there may be tens of thousands.
        frontends.shrink_to_fit();
        self.backends.shrink_to_fit();
        Service {
            name: self.name.value,
            protocol: self.protocol,
            frontends,
            node_port: self.node_port.map(|port| port.value),
            session_affinity_s: self.session_affinity_s,
            external_local: self.external_local,
            internal_local: self.internal_local,
            source_ranges: self.source_ranges,
            backends: self.backends,
            health_check: self.health_check,
            span: self.span,
        }
    }
}
