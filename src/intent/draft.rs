//! The intent while it is being judged: values as types, each with the place it was written at.
//!
//! Every concern's file turns its tables into a part of the [`Draft`]; the checks across objects look
//! at the whole; and if nothing is wrong, [`Draft::finish`] drops the places. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::{
    Backend, Conntrack, Datapath, Encryption, Endpoint, Frontend, Health, HealthCheck, Identity,
    Intent, LoadBalancing, Masquerade, Node, Paths, Peer, PeerEndpoint, Protocol, Routing,
    RoutingMode, Tunnel, Underlay, Wireguard, datapath, encryption, endpoint, health, node, peer,
    routing, service,
};
use crate::config::{Diagnostic, Document, Span};
use crate::net::{IfName, Mac, Netns, PublicKey};

/// A value and the place it was written at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub value: T,
    pub span: Span,
}

pub(super) type Problems = Vec<Diagnostic>;

#[derive(Debug)]
pub(super) struct Draft {
    pub node: DraftNode,
    pub routing: DraftRouting,
    pub masquerade: Masquerade,
    pub datapath: Datapath,
    pub conntrack: Conntrack,
    pub health: Health,
    pub load_balancing: LoadBalancing,
    pub encryption: DraftEncryption,
    pub paths: Paths,
    pub peers: Vec<DraftPeer>,
    pub endpoints: Vec<DraftEndpoint>,
    pub services: Vec<DraftService>,
}

#[derive(Debug)]
pub(super) struct DraftNode {
    pub name: Option<At<Arc<str>>>,
    pub addresses: Vec<At<IpAddr>>,
    /// False if an entry of `addresses` had to be left out.
    pub addresses_complete: bool,
    pub devices: Vec<IfName>,
    pub cidrs: Vec<At<IpNet>>,
    /// False if an entry of `cidrs` had to be left out: then nothing follows from its absence.
    pub cidrs_complete: bool,
    /// Written or derived; a derived one has the place of its CIDR.
    pub routers: Vec<At<IpAddr>>,
    /// Addresses of the health endpoint, likewise.
    pub health: Vec<At<IpAddr>>,
    pub span: Span,
}

#[derive(Debug)]
pub(super) struct DraftRouting {
    pub value: Routing,
    pub native_cidrs: Vec<At<IpNet>>,
    pub mtu_bytes: Option<At<u32>>,
    pub underlay: Option<At<Underlay>>,
    /// False if what leads to the peers had to be left out, so that it is not the default either.
    pub way_known: bool,
    /// Where `table` is.
    pub table_span: Option<Span>,
    /// Where `auto-direct-node-routes` is switched on.
    pub auto_direct: Option<Span>,
}

#[derive(Debug)]
pub(super) struct DraftEncryption {
    /// `None`: off.
    pub value: Option<Encryption>,
    /// For peers that say nothing of it.
    pub keepalive_s: u16,
}

#[derive(Debug, Default)]
pub(super) struct DraftWireguard {
    pub public_key: Option<At<PublicKey>>,
    pub endpoint: Option<SocketAddr>,
    pub keepalive_s: Option<u16>,
}

#[derive(Debug)]
pub(super) struct DraftPeer {
    pub name: At<Arc<str>>,
    pub addresses: Vec<At<IpAddr>>,
    /// False if an entry of `addresses` had to be left out.
    pub addresses_complete: bool,
    pub cidrs: Vec<At<IpNet>>,
    /// False if an entry of `cidrs` had to be left out.
    pub cidrs_complete: bool,
    /// Written or derived; a derived one has the place of its CIDR.
    pub routers: Vec<At<IpAddr>>,
    /// Addresses of the health endpoint, likewise.
    pub health: Vec<At<IpAddr>>,
    pub mac: Option<Mac>,
    pub wireguard: DraftWireguard,
    pub endpoints: Vec<DraftPeerEndpoint>,
    pub span: Span,
}

#[derive(Debug)]
pub(super) struct DraftPeerEndpoint {
    pub name: At<Arc<str>>,
    pub addresses: Vec<At<IpAddr>>,
    pub role: Role,
}

#[derive(Debug)]
pub(super) struct DraftEndpoint {
    pub name: At<Arc<str>>,
    pub netns: Option<At<Netns>>,
    pub ifname: IfName,
    pub addresses: Vec<At<IpAddr>>,
    pub role: Role,
    pub span: Span,
}

#[derive(Debug)]
pub(super) struct DraftService {
    pub name: At<Arc<str>>,
    pub protocol: Protocol,
    pub frontends: Vec<At<Frontend>>,
    pub node_port: Option<At<u16>>,
    pub session_affinity_s: Option<u32>,
    pub external_local: bool,
    pub internal_local: bool,
    pub source_ranges: Vec<IpNet>,
    /// By address.
    pub backends: Vec<Backend>,
    pub health_check: Option<Arc<HealthCheck>>,
    pub span: Span,
}

/// What an endpoint is to security.
#[derive(Debug)]
pub(super) struct Role {
    pub labels: BTreeMap<String, String>,
    /// With the place of `identity`, or if that is derived, of `labels` or the table.
    pub identity: At<Identity>,
    pub derived: bool,
}

/// Judges every value on its own.
pub(super) fn draft(document: &Document, problems: &mut Problems) -> Draft {
    let root = document.root();
    let (masquerade, datapath, conntrack, paths) = (
        routing::masquerade(root.masquerade.as_ref()),
        datapath::read(root.datapath.as_ref()),
        datapath::conntrack(root.conntrack.as_ref(), problems),
        super::paths::read(root.paths.as_ref(), problems),
    );
    let health = health::read(root.health.as_ref(), problems);
    let load_balancing = service::load_balancing::read(document, problems);
    Draft {
        node: node::read(document, health.enabled, problems),
        routing: routing::read(document, problems),
        masquerade,
        datapath,
        conntrack,
        health,
        load_balancing,
        encryption: encryption::read(root.encryption.as_ref(), problems),
        paths,
        peers: peer::read(document, health.enabled, problems),
        endpoints: endpoint::read(document, problems),
        services: service::read::read(&root.service, problems),
    }
}

impl Draft {
    /// The family of the addresses that tunnels lead to, as far as the files say.
    pub(super) fn underlay(&self) -> Option<Underlay> {
        let written = self.routing.underlay.as_ref().map(|underlay| underlay.value);
        let has = |v4: bool| self.node.addresses.iter().any(|a| a.value.is_ipv4() == v4);
        let found = match (has(true), has(false)) {
            (true, _) => Some(Underlay::Ipv4),
            (false, true) if self.node.addresses_complete => Some(Underlay::Ipv6),
            (false, _) => None,
        };
        written.or(found)
    }

    fn mode(&self) -> RoutingMode {
        match self.routing.value.mode {
            RoutingMode::Native => RoutingMode::Native,
            RoutingMode::Tunnel(tunnel) => {
                RoutingMode::Tunnel(Tunnel { underlay: self.underlay(), ..tunnel })
            }
        }
    }

    /// The intent. Only to be called if there are no problems: what is incomplete is left out.
    pub(super) fn finish(mut self) -> Intent {
        if !self.health.enabled {
            self.node.health.clear();
            self.peers.iter_mut().for_each(|peer| peer.health.clear());
        }
        let mode = self.mode();
        let keepalive_s = self.encryption.keepalive_s;
        let peers = self.peers.into_iter().map(|peer| peer.finish(keepalive_s));
        let endpoints = self.endpoints.into_iter().filter_map(DraftEndpoint::finish);
        let services = self.services.into_iter().map(DraftService::finish);
        Intent {
            node: self.node.finish(),
            routing: Routing {
                mode,
                native_cidrs: values(self.routing.native_cidrs),
                mtu_bytes: self.routing.mtu_bytes.map(|mtu| mtu.value),
                ..self.routing.value
            },
            masquerade: self.masquerade,
            datapath: self.datapath,
            conntrack: self.conntrack,
            health: self.health,
            load_balancing: self.load_balancing,
            encryption: self.encryption.value,
            paths: self.paths,
            peers: peers.map(|peer| (peer.name.clone(), peer)).collect(),
            endpoints: endpoints.map(|endpoint| (endpoint.name.clone(), endpoint)).collect(),
            services: services.map(|service| (service.name.clone(), service)).collect(),
        }
    }
}

impl DraftNode {
    fn finish(self) -> Node {
        Node {
            name: self.name.map(|name| name.value),
            addresses: values(self.addresses),
            devices: self.devices,
            cidrs: values(self.cidrs),
            routers: values(self.routers),
            health_addresses: values(self.health),
            span: self.span,
        }
    }
}

impl DraftPeer {
    /// Without a word on it, a sign of life comes after as many seconds.
    fn finish(self, keepalive_s: u16) -> Peer {
        Peer {
            name: self.name.value,
            addresses: values(self.addresses),
            cidrs: values(self.cidrs),
            routers: values(self.routers),
            health_addresses: values(self.health),
            mac: self.mac,
            wireguard: Wireguard {
                public_key: self.wireguard.public_key.map(|key| key.value),
                endpoint: self.wireguard.endpoint,
                keepalive_s: self.wireguard.keepalive_s.unwrap_or(keepalive_s),
            },
            endpoints: self.endpoints.into_iter().map(DraftPeerEndpoint::finish).collect(),
            span: self.span,
        }
    }
}

impl DraftPeerEndpoint {
    fn finish(self) -> PeerEndpoint {
        PeerEndpoint {
            name: self.name.value,
            addresses: values(self.addresses),
            labels: self.role.labels,
            identity: self.role.identity.value,
        }
    }
}

impl DraftEndpoint {
    fn finish(self) -> Option<Endpoint> {
        let netns = self.netns?;
        Some(Endpoint {
            name: self.name.value,
            netns: netns.value,
            netns_span: netns.span,
            ifname: self.ifname,
            addresses: values(self.addresses),
            labels: self.role.labels,
            identity: self.role.identity.value,
            span: self.span,
        })
    }
}

fn values<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|at| at.value).collect()
}
