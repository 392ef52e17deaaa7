//! The intent while it is being judged: values as types, each with the place it was written at.
//!
//! Every concern's file turns its tables into a part of the [`Draft`]; the checks across objects look
//! at the whole; and if nothing is wrong, [`Draft::finish`] drops the places. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{
    Datapath, Endpoint, Identity, Intent, Masquerade, Node, Paths, Peer, Routing, endpoint, node,
    peer, routing,
};
use crate::config::{Diagnostic, Document, Span};
use crate::net::{IfName, Mac, Netns};

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
    pub paths: Paths,
    pub peers: Vec<DraftPeer>,
    pub endpoints: Vec<DraftEndpoint>,
}

#[derive(Debug)]
pub(super) struct DraftNode {
    pub name: Option<At<Arc<str>>>,
    pub addresses: Vec<At<IpAddr>>,
    pub devices: Vec<IfName>,
    pub cidrs: Vec<At<IpNet>>,
    /// False if an entry of `cidrs` had to be left out: then nothing follows from its absence.
    pub cidrs_complete: bool,
    /// Written or derived; a derived one has the place of its CIDR.
    pub routers: Vec<At<IpAddr>>,
    pub span: Span,
}

#[derive(Debug)]
pub(super) struct DraftRouting {
    pub value: Routing,
    pub native_cidrs: Vec<At<IpNet>>,
    pub mtu_bytes: Option<At<u32>>,
}

#[derive(Debug)]
pub(super) struct DraftPeer {
    pub name: At<Arc<str>>,
    pub addresses: Vec<At<IpAddr>>,
    /// False if an entry of `addresses` had to be left out.
    pub addresses_complete: bool,
    pub cidrs: Vec<At<IpNet>>,
    pub mac: Option<Mac>,
    pub span: Span,
}

#[derive(Debug)]
pub(super) struct DraftEndpoint {
    pub name: At<Arc<str>>,
    pub netns: Option<At<Netns>>,
    pub ifname: IfName,
    pub addresses: Vec<At<IpAddr>>,
    pub labels: BTreeMap<String, String>,
    /// With the place of `identity`, or if that is derived, of `labels` or the table.
    pub identity: At<Identity>,
    pub identity_is_derived: bool,
    pub span: Span,
}

/// Judges every value on its own.
pub(super) fn draft(document: &Document, problems: &mut Problems) -> Draft {
    let root = document.root();
    let (masquerade, datapath, paths) = (
        routing::masquerade(root.masquerade.as_ref()),
        routing::datapath(root.datapath.as_ref()),
        super::paths::read(root.paths.as_ref(), problems),
    );
    Draft {
        node: node::read(document, problems),
        routing: routing::read(document, problems),
        masquerade,
        datapath,
        paths,
        peers: peer::read(&root.peer, problems),
        endpoints: endpoint::read(document, problems),
    }
}

impl Draft {
    /// The intent. Only to be called if there are no problems: what is incomplete is left out.
    pub(super) fn finish(self) -> Intent {
        let peers = self.peers.into_iter().map(DraftPeer::finish);
        let endpoints = self.endpoints.into_iter().filter_map(DraftEndpoint::finish);
        Intent {
            node: self.node.finish(),
            routing: Routing {
                native_cidrs: values(self.routing.native_cidrs),
                mtu_bytes: self.routing.mtu_bytes.map(|mtu| mtu.value),
                ..self.routing.value
            },
            masquerade: self.masquerade,
            datapath: self.datapath,
            paths: self.paths,
            peers: peers.map(|peer| (peer.name.clone(), peer)).collect(),
            endpoints: endpoints.map(|endpoint| (endpoint.name.clone(), endpoint)).collect(),
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
            span: self.span,
        }
    }
}

impl DraftPeer {
    fn finish(self) -> Peer {
        Peer {
            name: self.name.value,
            addresses: values(self.addresses),
            cidrs: values(self.cidrs),
            mac: self.mac,
            span: self.span,
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
            labels: self.labels,
            identity: self.identity.value,
            span: self.span,
        })
    }
}

fn values<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|at| at.value).collect()
}
