//! What is kept of the API's objects: what the configuration is made of, and nothing else. A thousand
//! endpoints of the API take a megabyte, what is kept of them thirty kilobytes; and an object that changed
//! only in what is not kept has not changed.
//!
//! The only file that knows the API's types. Pure; imports nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Cilium's, so that nodes of both exchange their keys.
pub const KEY_ANNOTATION: &str = "network.cilium.io/wg-pub-key";

/// Labels that say which of many equal pods it is. An identity stands for all of them.
const UNLIKE: &str = "apps.kubernetes.io/pod-index batch.kubernetes.io/controller-uid \
    batch.kubernetes.io/job-completion-index batch.kubernetes.io/job-name controller-revision-hash \
    controller-uid job-name pod-template-generation pod-template-hash \
    statefulset.kubernetes.io/pod-name";

/// How long a client stays at its backend unless the service says how long.
const AFFINITY_S: i32 = 10_800;

/// An object of the API of which something is kept.
pub trait Keep {
    type Kept: PartialEq + Send;

    /// `None` if nothing of the configuration depends on the object.
    fn keep(self) -> Option<Self::Kept>;
}

/// A node: this one or a peer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    pub created: i64,
    /// `InternalIP`s, the first of each family.
    pub addresses: Vec<IpAddr>,
    pub cidrs: Vec<IpNet>,
    pub public_key: Option<String>,
}

/// A service that has addresses to balance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Service {
    pub created: i64,
    pub ports: Vec<Port>,
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses for everybody, with the key that they stand at.
    pub outside: [(&'static str, Vec<IpAddr>); 2],
    /// `session-affinity`.
    pub affinity: Option<String>,
    /// Traffic policies that are not the default, by their keys.
    pub local: Vec<&'static str>,
    /// `None` if one of them can't be read: nobody is let in then, instead of everybody.
    pub source_ranges: Option<Vec<IpNet>>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Empty for the only port of a service.
    pub name: String,
    pub protocol: String,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// A slice of a service's endpoints.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Slice {
    /// The service, as `namespace/name`.
    pub service: String,
    /// Names, protocols, numbers.
    pub ports: Vec<(String, String, u16)>,
    pub endpoints: Vec<(IpAddr, State)>,
}

/// What may be sent to a backend; the better one is the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Active,
    Terminating,
}

/// A pod of this node that has a network namespace and addresses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pod {
    pub created: i64,
    pub uid: String,
    pub namespace: String,
    pub addresses: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
}

/// A namespace's labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Namespace(pub BTreeMap<String, String>);

impl Keep for api::Node {
    type Kept = Node;

    fn keep(self) -> Option<Node> {
        let created = created(&self.metadata);
        let spec = self.spec.unwrap_or_default();
        let listed = self.status.and_then(|status| status.addresses).unwrap_or_default();
        let internal = listed.iter().filter(|address| address.type_ == "InternalIP");
        let addresses = first_of_each(internal.map(|address| &address.address));
        // The API has at most one of each family, and sees to that.
        let cidrs = spec.pod_cidrs.unwrap_or_default();
        let cidrs = cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect();
        let public_key = self.metadata.annotations.and_then(|mut all| all.remove(KEY_ANNOTATION));
        Some(Node { created, addresses, cidrs, public_key })
    }
}

impl Keep for api::Service {
    type Kept = Service;

    fn keep(self) -> Option<Service> {
        let created = created(&self.metadata);
        // One that is somebody else's to serve.
        let proxy = "service.kubernetes.io/service-proxy-name";
        let foreign = self.metadata.labels.is_some_and(|labels| labels.contains_key(proxy));
        let spec = self.spec.unwrap_or_default();
        let kind = spec.type_.unwrap_or_default();
        // A headless one has the text "None" there.
        let cluster_ips = addresses(&spec.cluster_ips.unwrap_or_default());
        if foreign || kind == "ExternalName" || cluster_ips.is_empty() {
            return None;
        }
        let status = self.status.and_then(|status| status.load_balancer);
        let ingress = status.filter(|_| kind == "LoadBalancer").and_then(|status| status.ingress);
        // Of a proxy the packets come to the node under the node's address, not this one.
        let vips = ingress.into_iter().flatten();
        let vips = vips.filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"));
        let vips: Vec<String> = vips.filter_map(|entry| entry.ip).collect();
        let timeout = spec.session_affinity_config.and_then(|config| config.client_ip);
        let timeout = timeout.and_then(|client| client.timeout_seconds).unwrap_or(AFFINITY_S);
        let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
        let policies = [
            ("external-traffic-policy", spec.external_traffic_policy),
            ("internal-traffic-policy", spec.internal_traffic_policy),
        ];
        let local = policies.into_iter().filter(|(_, policy)| policy.as_deref() == Some("Local"));
        let external = spec.external_ips.unwrap_or_default();
        Some(Service {
            created,
            ports: spec.ports.unwrap_or_default().into_iter().filter_map(port).collect(),
            cluster_ips,
            outside: [
                ("external-ips", addresses(&external)),
                ("load-balancer-ips", addresses(&vips)),
            ],
            affinity: sticky.then(|| format!("{timeout}s")),
            local: local.map(|(key, _)| key).collect(),
            source_ranges: ranges(&spec.load_balancer_source_ranges.unwrap_or_default()),
        })
    }
}

fn port(port: api::ServicePort) -> Option<Port> {
    Some(Port {
        name: port.name.unwrap_or_default(),
        protocol: port.protocol.unwrap_or_else(|| "TCP".to_owned()),
        port: number(port.port)?,
        node_port: port.node_port.and_then(number),
    })
}

/// The API takes `10.0.0.7/8` and blanks around it.
fn ranges(written: &[String]) -> Option<Vec<IpNet>> {
    let one = |text: &String| text.trim().parse::<IpNet>().ok().map(|net| net.trunc());
    let mut ranges: Vec<IpNet> = written.iter().map(one).collect::<Option<_>>()?;
    ranges.sort();
    ranges.dedup();
    Some(ranges)
}

impl Keep for EndpointSlice {
    type Kept = Slice;

    fn keep(self) -> Option<Slice> {
        let service = self.metadata.labels?.remove("kubernetes.io/service-name")?;
        let ports = self.ports.unwrap_or_default().into_iter().filter_map(|port| {
            let protocol = port.protocol.unwrap_or_else(|| "TCP".to_owned());
            Some((port.name.unwrap_or_default(), protocol, number(port.port?)?))
        });
        // Of several addresses of one endpoint the first counts. Names (`FQDN`) are no addresses.
        let endpoints = self.endpoints.into_iter().filter_map(|endpoint| {
            let address = endpoint.addresses.first()?.parse().ok()?;
            let conditions = endpoint.conditions.unwrap_or_default();
            Some((address, state(conditions.ready, conditions.serving, conditions.terminating)?))
        });
        Some(Slice {
            service: format!("{}/{service}", self.metadata.namespace.unwrap_or_default()),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        })
    }
}

/// What may be sent to an endpoint; `None` for one that is not to be used. What is not said is a yes for
/// `ready`, the same as `ready` for `serving`, and a no for `terminating`. `publishNotReadyAddresses` of the
/// service has made `ready` true already.
fn state(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>) -> Option<State> {
    let ready = ready.unwrap_or(true);
    match (ready, serving.unwrap_or(ready), terminating.unwrap_or(false)) {
        (true, ..) => Some(State::Active),
        (false, true, true) => Some(State::Terminating),
        (false, ..) => None,
    }
}

impl Keep for api::Pod {
    type Kept = Pod;

    fn keep(self) -> Option<Pod> {
        let created = created(&self.metadata);
        let (spec, status) = (self.spec?, self.status?);
        let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let listed = status.pod_ips.unwrap_or_default();
        let addresses = first_of_each(listed.iter().map(|entry| &entry.ip));
        if over || spec.host_network == Some(true) || addresses.is_empty() {
            return None;
        }
        let namespace = self.metadata.namespace?;
        let account = spec.service_account_name.unwrap_or_else(|| "default".to_owned());
        let own = self.metadata.labels.unwrap_or_default().into_iter();
        let own = own.filter(|(key, _)| UNLIKE.split_whitespace().all(|unlike| unlike != key));
        let mut labels: BTreeMap<_, _> =
            own.map(|(key, value)| (format!("k8s:{key}"), value)).collect();
        labels.insert("k8s:io.cilium.k8s.policy.serviceaccount".to_owned(), account);
        labels.insert("k8s:io.kubernetes.pod.namespace".to_owned(), namespace.clone());
        Some(Pod { created, uid: self.metadata.uid?, namespace, addresses, labels })
    }
}

impl Keep for api::Namespace {
    type Kept = Namespace;

    fn keep(self) -> Option<Namespace> {
        let labels = self.metadata.labels.unwrap_or_default().into_iter();
        let key = |key| format!("k8s:io.cilium.k8s.namespace.labels.{key}");
        Some(Namespace(labels.map(|(name, value)| (key(name), value)).collect()))
    }
}

fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second())
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

fn addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn first_of_each<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for address in texts.filter_map(|text| text.parse::<IpAddr>().ok()) {
        if found.iter().all(|other| other.is_ipv4() != address.is_ipv4()) {
            found.push(address);
        }
    }
    found
}
