//! What is kept of the API's objects: what the configuration is made of, and nothing else. A thousand
//! endpoints of the API take a megabyte, what is kept of them thirty kilobytes; and an object that changed
//! only in what is not kept has not changed. Nothing is kept of one that the configuration doesn't depend on.
//!
//! The only file that knows the API's types. Pure; imports `page`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Serialize;

use crate::page::short;

/// Cilium's, so that nodes of both exchange their keys.
pub const KEY_ANNOTATION: &str = "network.cilium.io/wg-pub-key";
/// On a service that is somebody else's to serve.
const PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// On the API's picture of a static pod: the uid that the kubelet knows it by.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Labels that say which of many equal pods it is. An identity stands for all of them.
const UNLIKE: &str = "apps.kubernetes.io/pod-index batch.kubernetes.io/controller-uid \
    batch.kubernetes.io/job-completion-index batch.kubernetes.io/job-name controller-revision-hash \
    controller-uid job-name pod-template-generation pod-template-hash statefulset.kubernetes.io/pod-name";

pub type Labels = BTreeMap<String, String>;

/// A node: this one or a peer, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Node {
    pub name: String,
    /// `InternalIP`s, the first of each family.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<IpNet>,
    pub public_key: Option<String>,
}

/// A service that has addresses to balance: its ports, and what is left out of it.
pub type Service = (Vec<Port>, Vec<String>);

/// A port of a service, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Port {
    pub name: String,
    /// Its name in slices: empty for the only port of a service.
    #[serde(skip)]
    pub short: String,
    pub protocol: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<SocketAddr>,
    pub node_port: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_ips: Vec<SocketAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_ips: Vec<SocketAddr>,
    pub session_affinity: Option<String>,
    pub external_traffic_policy: Option<&'static str>,
    pub internal_traffic_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub source_ranges: BTreeSet<IpNet>,
    pub backends: Vec<Backend>,
}

/// A backend, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Backend {
    Active(SocketAddr),
    Other { address: SocketAddr, state: &'static str },
}

/// A slice of a service's endpoints.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The service, as `namespace/name`.
    pub service: String,
    /// Names, protocols, numbers: in an order of their own, and with numbers where the service has names.
    pub ports: Vec<(String, &'static str, u16)>,
    /// Those that can be used; the better ones, which are not terminating, are the smaller.
    pub endpoints: Vec<(IpAddr, bool)>,
}

/// A pod of this node that has a network namespace and addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub uid: String,
    pub namespace: String,
    pub addresses: Vec<IpAddr>,
    pub labels: Labels,
}

pub fn node(of: api::Node) -> Option<Node> {
    let listed = of.status.unwrap_or_default().addresses.unwrap_or_default();
    let internal = listed.iter().filter(|address| address.type_ == "InternalIP");
    // The API has at most one of each family, and sees to that.
    let cidrs = of.spec.unwrap_or_default().pod_cidrs.unwrap_or_default();
    Some(Node {
        name: short(&of.metadata.name?),
        addresses: first_of_each(internal.map(|address| &address.address)),
        cidrs: cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
        public_key: of.metadata.annotations.and_then(|mut all| all.remove(KEY_ANNOTATION)),
    })
}

pub fn service(of: api::Service) -> Option<Service> {
    let (meta, spec) = (of.metadata, of.spec?);
    let kind = spec.type_.unwrap_or_default();
    // A headless one has the text "None" there.
    let cluster_ips = addresses(spec.cluster_ips.iter().flatten());
    let foreign = meta.labels.is_some_and(|labels| labels.contains_key(PROXY_LABEL));
    if foreign || kind == "ExternalName" || cluster_ips.is_empty() {
        return None;
    }
    // The API takes `10.0.0.7/8` and blanks around it. One that can't be read lets nobody in, instead of everybody.
    let ranges = spec.load_balancer_source_ranges.into_iter().flatten();
    let ranges = ranges.map(|text| text.trim().parse::<IpNet>().ok().map(|net| net.trunc()));
    let ranges: Option<BTreeSet<_>> = ranges.collect();
    let open = ranges.is_some();
    // Of a proxy the packets come to the node under the node's address, not this one.
    let ingress = of.status.and_then(|status| status.load_balancer?.ingress).unwrap_or_default();
    let is_vip = |at: &api::LoadBalancerIngress| at.ip_mode.as_deref() != Some("Proxy");
    let balanced = ingress.into_iter().filter(|at| open && kind == "LoadBalancer" && is_vip(at));
    let balanced = addresses(balanced.filter_map(|at| at.ip));
    let external = addresses(spec.external_ips.iter().flatten().filter(|_| open));
    let seconds = spec.session_affinity_config.and_then(|config| config.client_ip?.timeout_seconds);
    let sticky = spec.session_affinity.filter(|affinity| affinity == "ClientIP");
    let local = |policy: Option<String>| policy.filter(|policy| policy == "Local").map(|_| "local");
    let common = Port {
        session_affinity: sticky.map(|_| format!("{}s", seconds.unwrap_or(10_800))),
        external_traffic_policy: local(spec.external_traffic_policy),
        internal_traffic_policy: local(spec.internal_traffic_policy),
        source_ranges: ranges.unwrap_or_default(),
        ..Port::default()
    };
    let service = format!("{}/{}", meta.namespace?, meta.name?);
    let port = |port: api::ServicePort| {
        let (number, short) = (number(port.port)?, port.name.unwrap_or_default());
        let at = |ips: &[IpAddr]| ips.iter().map(|ip| SocketAddr::new(*ip, number)).collect();
        Some(Port {
            name: if short.is_empty() { service.clone() } else { format!("{service}:{short}") },
            short,
            protocol: protocol(port.protocol)?,
            cluster_ips: at(&cluster_ips),
            node_port: port.node_port.and_then(self::number).filter(|_| open),
            external_ips: at(&external),
            load_balancer_ips: at(&balanced),
            ..common.clone()
        })
    };
    let why = (!open).then(|| format!("{service} from outside: can't read its source ranges"));
    let ports = spec.ports.into_iter().flatten().filter_map(port).collect();
    Some((ports, Vec::from_iter(why)))
}

pub fn slice(of: EndpointSlice) -> Option<Slice> {
    let service = of.metadata.labels?.remove("kubernetes.io/service-name")?;
    let ports = of.ports.into_iter().flatten().filter_map(|port| {
        let protocol = protocol(port.protocol)?;
        Some((port.name.unwrap_or_default(), protocol, number(port.port?)?))
    });
    // Of several addresses of one endpoint the first counts. Names (`FQDN`) are no addresses.
    let endpoints = of.endpoints.into_iter().filter_map(|endpoint| {
        let address = endpoint.addresses.first()?.parse().ok()?;
        // What is not said is a yes for `ready`, the same as `ready` for `serving`, and a no for `terminating`.
        // `publishNotReadyAddresses` of the service has made `ready` true already.
        let is = endpoint.conditions.unwrap_or_default();
        let ready = is.ready.unwrap_or(true);
        let leaving = is.serving.unwrap_or(ready) && is.terminating.unwrap_or(false);
        (ready || leaving).then_some((address, !ready))
    });
    let service = format!("{}/{service}", of.metadata.namespace?);
    Some(Slice { service, ports: ports.collect(), endpoints: endpoints.collect() })
}

impl Slice {
    /// What serves a port of the service.
    pub fn backends(&self, port: &Port) -> impl Iterator<Item = (SocketAddr, bool)> {
        let mut ports = self.ports.iter();
        let port =
            ports.find(|(name, protocol, _)| (name, *protocol) == (&port.short, port.protocol));
        port.into_iter().flat_map(|(.., number)| {
            self.endpoints.iter().map(|(ip, state)| (SocketAddr::new(*ip, *number), *state))
        })
    }
}

pub fn pod(of: api::Pod) -> Option<Pod> {
    let (meta, spec, status) = (of.metadata, of.spec?, of.status?);
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let addresses = first_of_each(status.pod_ips.iter().flatten().map(|entry| &entry.ip));
    if over || spec.host_network == Some(true) || addresses.is_empty() {
        return None;
    }
    let (uid, namespace) = (meta.uid?, meta.namespace?);
    // Whoever makes a pod may write that, and it becomes a path.
    let mirrored = meta.annotations.and_then(|mut all| all.remove(MIRROR_ANNOTATION));
    let is_uid = |uid: &String| uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let uid = mirrored.filter(is_uid).unwrap_or(uid);
    let account = spec.service_account_name.unwrap_or_else(|| "default".to_owned());
    let own = meta.labels.into_iter().flatten();
    let own = own.filter(|(key, _)| UNLIKE.split_whitespace().all(|unlike| unlike != key));
    let mut labels: Labels = own.map(|(key, value)| (format!("k8s:{key}"), value)).collect();
    labels.insert("k8s:io.cilium.k8s.policy.serviceaccount".to_owned(), account);
    labels.insert("k8s:io.kubernetes.pod.namespace".to_owned(), namespace.clone());
    Some(Pod { uid, namespace, addresses, labels })
}

/// A namespace's labels, as the endpoints in it have them.
pub fn namespace(of: api::Namespace) -> Option<Labels> {
    let label = |(key, value)| (format!("k8s:io.cilium.k8s.namespace.labels.{key}"), value);
    Some(of.metadata.labels.into_iter().flatten().map(label).collect())
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

fn protocol(name: Option<String>) -> Option<&'static str> {
    let known = ["TCP", "UDP", "SCTP"];
    known.into_iter().find(|known| name.as_ref().is_none_or(|name| name == known))
}

fn addresses(texts: impl Iterator<Item = impl AsRef<str>>) -> Vec<IpAddr> {
    texts.filter_map(|text| text.as_ref().parse().ok()).collect()
}

fn first_of_each(texts: impl Iterator<Item = impl AsRef<str>>) -> Vec<IpAddr> {
    let mut found = addresses(texts);
    found.sort_by_key(IpAddr::is_ipv6);
    found.dedup_by_key(|ip| ip.is_ipv6());
    found
}
