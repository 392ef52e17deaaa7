//! What is kept of the API's objects: what the configuration is made of, and nothing else. A thousand
//! endpoints of the API take a megabyte, what is kept of them thirty kilobytes; and an object that changed
//! only in what is not kept has not changed.
//!
//! The only file that knows the API's types. Pure; imports nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};
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

pub type Labels = BTreeMap<String, String>;

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
    pub protocol: &'static str,
    /// What it asks for, with the keys that they stand at.
    pub claims: Vec<(&'static str, Claim)>,
}

pub const CLUSTER_IPS: &str = "cluster-ips";
pub const NODE_PORT: &str = "node-port";
/// Of addresses for everybody.
pub const OUTSIDE: [&str; 2] = ["external-ips", "load-balancer-ips"];

/// What only one service can have: a port of an address, or of all nodes, of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim(pub Option<IpAddr>, pub u16, pub &'static str);

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self(Some(ip), port, protocol) => write!(f, "{}/{protocol}", SocketAddr::new(ip, port)),
            Self(None, port, protocol) => write!(f, "node port {port}/{protocol}"),
        }
    }
}

/// A slice of a service's endpoints.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Slice {
    /// The service, as `namespace/name`.
    pub service: String,
    /// Names, protocols, numbers: in an order of their own, and with numbers where the service has names.
    pub ports: Vec<(String, &'static str, u16)>,
    /// Those that can be used; the better ones, which are not terminating, are the smaller.
    pub endpoints: Vec<(IpAddr, bool)>,
}

/// A pod of this node that has a network namespace and addresses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pod {
    pub created: i64,
    pub uid: String,
    pub namespace: String,
    pub addresses: Vec<IpAddr>,
    pub labels: Labels,
}

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
        let cluster_ips = addresses(spec.cluster_ips.iter().flatten());
        if foreign || kind == "ExternalName" || cluster_ips.is_empty() {
            return None;
        }
        let status = self.status.and_then(|status| status.load_balancer);
        let ingress = status.filter(|_| kind == "LoadBalancer").and_then(|status| status.ingress);
        // Of a proxy the packets come to the node under the node's address, not this one.
        let vips = ingress.iter().flatten();
        let vips = vips.filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"));
        let vips = addresses(vips.filter_map(|entry| entry.ip.as_ref()));
        let external = addresses(spec.external_ips.iter().flatten());
        let source_ranges = ranges(&spec.load_balancer_source_ranges.unwrap_or_default());
        let closed = source_ranges.is_none();
        let port = |port: api::ServicePort| {
            let (number, protocol) = (number(port.port)?, protocol(port.protocol)?);
            let claims = |(key, ips): (_, &Vec<IpAddr>)| {
                let ips = ips.iter().map(|ip| (key, Claim(Some(*ip), number, protocol)));
                ips.collect::<Vec<_>>()
            };
            let of_keys =
                [(CLUSTER_IPS, &cluster_ips), (OUTSIDE[0], &external), (OUTSIDE[1], &vips)];
            let mut claims: Vec<_> = of_keys.into_iter().flat_map(claims).collect();
            let node_port = port.node_port.and_then(self::number);
            claims.extend(node_port.map(|number| (NODE_PORT, Claim(None, number, protocol))));
            claims.retain(|(key, _)| !closed || *key == CLUSTER_IPS);
            Some(Port { name: port.name.unwrap_or_default(), protocol, claims })
        };
        let timeout = spec.session_affinity_config.and_then(|config| config.client_ip);
        let timeout = timeout.and_then(|client| client.timeout_seconds).unwrap_or(AFFINITY_S);
        let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
        let policies = [
            ("external-traffic-policy", spec.external_traffic_policy),
            ("internal-traffic-policy", spec.internal_traffic_policy),
        ];
        let local = policies.into_iter().filter(|(_, policy)| policy.as_deref() == Some("Local"));
        Some(Service {
            created,
            ports: spec.ports.into_iter().flatten().filter_map(port).collect(),
            affinity: sticky.then(|| format!("{timeout}s")),
            local: local.map(|(key, _)| key).collect(),
            source_ranges,
        })
    }
}

impl Port {
    /// A service has backends of the families that its own addresses are of.
    pub fn has_family(&self, ip: IpAddr) -> bool {
        let mut own = self.claims.iter().filter(|(key, _)| *key == CLUSTER_IPS);
        own.any(|(_, Claim(own, ..))| own.is_some_and(|own| own.is_ipv4() == ip.is_ipv4()))
    }
}

/// The API takes `10.0.0.7/8` and blanks around it.
fn ranges(written: &[String]) -> Option<Vec<IpNet>> {
    let one = |text: &String| text.trim().parse::<IpNet>().ok().map(|net| net.trunc());
    let ranges: BTreeSet<IpNet> = written.iter().map(one).collect::<Option<_>>()?;
    Some(ranges.into_iter().collect())
}

impl Keep for EndpointSlice {
    type Kept = Slice;

    fn keep(self) -> Option<Slice> {
        let service = self.metadata.labels?.remove("kubernetes.io/service-name")?;
        let ports = self.ports.into_iter().flatten().filter_map(|port| {
            let protocol = protocol(port.protocol)?;
            Some((port.name.unwrap_or_default(), protocol, number(port.port?)?))
        });
        // Of several addresses of one endpoint the first counts. Names (`FQDN`) are no addresses.
        let endpoints = self.endpoints.into_iter().filter_map(|endpoint| {
            let address = endpoint.addresses.first()?.parse().ok()?;
            Some((address, is_terminating(&endpoint.conditions.unwrap_or_default())?))
        });
        Some(Slice {
            service: format!("{}/{service}", self.metadata.namespace.unwrap_or_default()),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        })
    }
}

impl Slice {
    /// What serves a port of the service.
    pub fn backends(&self, port: &Port) -> impl Iterator<Item = (SocketAddr, bool)> {
        let same = |(name, protocol, _): &&(String, &str, u16)| {
            *name == port.name && *protocol == port.protocol
        };
        let number = self.ports.iter().find(same).map(|(.., number)| *number);
        number.into_iter().flat_map(|number| {
            self.endpoints.iter().map(move |(ip, state)| (SocketAddr::new(*ip, number), *state))
        })
    }
}

/// Whether an endpoint is on its way out; `None` for one that is not to be used. What is not said is a yes for
/// `ready`, the same as `ready` for `serving`, and a no for `terminating`. `publishNotReadyAddresses` of the
/// service has made `ready` true already.
fn is_terminating(conditions: &EndpointConditions) -> Option<bool> {
    let ready = conditions.ready.unwrap_or(true);
    let leaving = conditions.serving.unwrap_or(ready) && conditions.terminating.unwrap_or(false);
    (ready || leaving).then_some(!ready)
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
        let mut labels: Labels = own.map(|(key, value)| (format!("k8s:{key}"), value)).collect();
        labels.insert("k8s:io.cilium.k8s.policy.serviceaccount".to_owned(), account);
        labels.insert("k8s:io.kubernetes.pod.namespace".to_owned(), namespace.clone());
        Some(Pod { created, uid: self.metadata.uid?, namespace, addresses, labels })
    }
}

impl Keep for api::Namespace {
    type Kept = Labels;

    /// As the endpoints in it have them.
    fn keep(self) -> Option<Labels> {
        let labels = self.metadata.labels.unwrap_or_default().into_iter();
        let key = |key| format!("k8s:io.cilium.k8s.namespace.labels.{key}");
        Some(labels.map(|(name, value)| (key(name), value)).collect())
    }
}

fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second())
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

fn protocol(name: Option<String>) -> Option<&'static str> {
    let known = ["TCP", "UDP", "SCTP"];
    known.into_iter().find(|known| name.as_ref().is_none_or(|name| name == known))
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn first_of_each<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut found = addresses(texts);
    found.sort_by_key(IpAddr::is_ipv6);
    found.dedup_by_key(|ip| ip.is_ipv6());
    found
}
