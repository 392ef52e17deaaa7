//! Which frontends a service has on this node. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bpf_abi::{
    LB_SCOPE_EXT, LB_SCOPE_INT, SERVICE_FLAG_EXT_LOCAL, SERVICE_FLAG_EXTERNAL_IP,
    SERVICE_FLAG_HOST_PORT, SERVICE_FLAG_LOAD_BALANCER, SERVICE_FLAG_NODE_PORT,
    SERVICE_FLAG_ROUTABLE, SERVICE_FLAG_SOURCE_RANGE, SERVICE_FLAG2_INT_LOCAL,
    SERVICE_FLAG2_TWO_SCOPES,
};
use crate::intent::{FrontendKind, Intent, Service};
use crate::kinds::lb_service::Frontend;

/// A frontend, and what it is to its service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role<'a> {
    pub frontend: Frontend,
    pub service: &'a Service,
    /// `SERVICE_FLAG_*`, without those that follow from the service alone.
    pub flags: u8,
    pub flags2: u8,
    /// Only backends on this node.
    pub only_local: bool,
}

impl Role<'_> {
    /// Whether there is a way to it from outside.
    pub fn is_wide(&self) -> bool {
        const WIDE: u8 = SERVICE_FLAG_EXTERNAL_IP
            | SERVICE_FLAG_NODE_PORT
            | SERVICE_FLAG_HOST_PORT
            | SERVICE_FLAG_LOAD_BALANCER;
        self.flags & WIDE != 0
    }

    /// Whether it is for the sources listed alone.
    pub fn has_ranges(&self) -> bool {
        self.flags & SERVICE_FLAG_SOURCE_RANGE != 0
    }
}

/// All frontends, in their order. `underlay` are the node's addresses.
pub(super) fn roles<'a>(intent: &'a Intent, underlay: &[IpAddr]) -> Vec<Role<'a>> {
    let mut roles = Vec::with_capacity(intent.services.len());
    for service in intent.services.values() {
        for frontend in &service.frontends {
            let (address, port) = (frontend.address.ip(), frontend.address.port());
            match frontend.kind {
                FrontendKind::ClusterIp => roles.push(inside(service, address, port)),
                // The rest is the other's.
                _ if !intent.load_balancing.replace_kube_proxy => {}
                FrontendKind::ExternalIp => {
                    wide(&mut roles, service, (address, port), SERVICE_FLAG_EXTERNAL_IP);
                }
                FrontendKind::LoadBalancerIp => {
                    wide(&mut roles, service, (address, port), SERVICE_FLAG_LOAD_BALANCER);
                }
                FrontendKind::HostPort if address.is_unspecified() => {
                    let own = addresses(underlay, address.is_ipv6());
                    roles.extend(own.map(|own| of_host(service, own, port)));
                }
                FrontendKind::HostPort => roles.push(of_host(service, address, port)),
            }
        }
        let port = service.node_port.filter(|_| intent.load_balancing.replace_kube_proxy);
        for ipv6 in [false, true].into_iter().filter(|ipv6| service.is_of_family(*ipv6)) {
            for own in addresses(underlay, ipv6).filter(|_| port.is_some()) {
                let at = (own, port.unwrap_or_default());
                wide(&mut roles, service, at, SERVICE_FLAG_NODE_PORT);
            }
        }
    }
    // The same twice, by its address and by the one that stands for all, is of one service.
    roles.sort_by_key(|role| role.frontend);
    roles.dedup_by_key(|role| role.frontend);
    roles
}

/// The node's addresses of a family, and the one that stands for any. None where there is no underlay.
fn addresses(underlay: &[IpAddr], ipv6: bool) -> impl Iterator<Item = IpAddr> {
    let own: Vec<IpAddr> =
        underlay.iter().filter(|address| address.is_ipv6() == ipv6).copied().collect();
    let any: IpAddr =
        if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let any = (!own.is_empty()).then_some(any);
    own.into_iter().chain(any)
}

fn frontend(service: &Service, address: IpAddr, port: u16, scope: u8) -> Frontend {
    Frontend { address, port, protocol: service.protocol.number(), scope }
}

fn flags2(service: &Service) -> u8 {
    if service.internal_local { SERVICE_FLAG2_INT_LOCAL } else { 0 }
}

/// For endpoints and this host.
fn inside(service: &Service, address: IpAddr, port: u16) -> Role<'_> {
    let only_local = service.internal_local;
    let frontend = frontend(service, address, port, LB_SCOPE_EXT);
    Role { frontend, service, flags: 0, flags2: flags2(service), only_local }
}

/// For everybody: once, or with policies that differ, for outside and inside.
fn wide<'a>(
    roles: &mut Vec<Role<'a>>,
    service: &'a Service,
    (address, port): (IpAddr, u16),
    kind: u8,
) {
    let (outside, within) = (service.external_local, service.internal_local);
    let mut flags = kind;
    // What stands for any address is no address to be reached by.
    flags |= if address.is_unspecified() { 0 } else { SERVICE_FLAG_ROUTABLE };
    flags |= if outside { SERVICE_FLAG_EXT_LOCAL } else { 0 };
    flags |= if service.source_ranges.is_empty() { 0 } else { SERVICE_FLAG_SOURCE_RANGE };
    let scopes = if outside == within { 0 } else { SERVICE_FLAG2_TWO_SCOPES };
    let flags2 = flags2(service) | scopes;
    let role = |scope, only_local| {
        let frontend = frontend(service, address, port, scope);
        Role { frontend, service, flags, flags2, only_local }
    };
    roles.push(role(LB_SCOPE_EXT, outside));
    if outside != within {
        roles.push(role(LB_SCOPE_INT, within));
    }
}

/// For everybody, at this host, to what is on this host.
fn of_host(service: &Service, address: IpAddr, port: u16) -> Role<'_> {
    let routable = if address.is_unspecified() { 0 } else { SERVICE_FLAG_ROUTABLE };
    let flags = SERVICE_FLAG_HOST_PORT | routable;
    let frontend = frontend(service, address, port, LB_SCOPE_EXT);
    Role { frontend, service, flags, flags2: 0, only_local: true }
}
