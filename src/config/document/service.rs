//! `[load-balancing]` and `[[service]]`, as types. See the parent module; imports only it.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_spanned::Spanned;

use super::{CIDR, Maybe, SOCKET};

const NAME: &str = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,252}$";
const PATH: &str = r"^/[!-~]*$";
const TIME: &str = r"^[0-9]+ ?[A-Za-z]+( ?[0-9]+ ?[A-Za-z]+)*$";

/// `[load-balancing]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LoadBalancing {
    /// How a backend is chosen for traffic from outside; for traffic from endpoints and this host it is
    /// at random.
    #[schemars(with = "Option<Algorithm>")]
    pub algorithm: Maybe<Algorithm>,
    /// How traffic from outside gets to a backend on another node.
    #[schemars(with = "Option<LoadBalancingMode>")]
    pub mode: Maybe<LoadBalancingMode>,
    /// Whether the driver of the underlay's devices sends on what is for a backend elsewhere, before the kernel
    /// has it (XDP). A veth needs a program at its other end, too, or loses what is sent.
    #[schemars(with = "Option<Acceleration>")]
    pub acceleration: Maybe<Acceleration>,
    /// Translate at connect(2), for the processes of this host's cgroup tree. Default: true.
    #[schemars(with = "Option<bool>")]
    pub socket: Maybe<bool>,
    /// Serve everything that a service has. If false, only its cluster IPs, and only for endpoints; the
    /// rest is left to a kube-proxy beside. Default: true.
    #[schemars(with = "Option<bool>")]
    pub replace_kube_proxy: Maybe<bool>,
    /// First and last port that a `node-port` can be. Default: 30000 and 32767.
    #[schemars(with = "Option<Vec<i64>>", inner(range(min = 1, max = 65535)))]
    pub node_port_range: Maybe<Vec<Spanned<i64>>>,
    /// Entries of a Maglev table: 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521 or 131071. It
    /// should be a hundred times the most backends of a service. Default: 16381.
    #[schemars(with = "Option<i64>", range(min = 251, max = 131_071))]
    pub maglev_table_size: Maybe<i64>,
    /// What a client of a service without backends is told.
    #[schemars(with = "Option<NoBackend>")]
    pub no_backend: Maybe<NoBackend>,
}

/// `[load-balancing] algorithm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Any, each as likely as the others; the default.
    Random,
    /// By consistent hashing: every node chooses the same one for a flow, and few flows move when
    /// backends change.
    Maglev,
}

/// `[load-balancing] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoadBalancingMode {
    /// Under this node's address, so that replies come back through it; the default.
    Snat,
    /// As it is: the backend sees the client, and its replies go there straight away, from the service. All nodes
    /// need it, native routing, and no encryption.
    Dsr,
}

/// `[load-balancing] acceleration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Acceleration {
    /// No; the default.
    Disabled,
    /// It does; a device whose driver can't is a problem, and goes without.
    Native,
    /// Where the driver can't, the kernel runs the same program a little later, and `status` says so.
    BestEffort,
}

/// `[load-balancing] no-backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoBackend {
    /// That the port is unreachable, by ICMP; the default.
    Reject,
    /// Nothing.
    Drop,
}

/// `[[service]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Service {
    /// Name of the service; one with several ports is several services.
    #[schemars(with = "String", regex(pattern = NAME))]
    pub name: Spanned<String>,
    /// What is balanced.
    #[schemars(with = "Option<ServiceProtocol>")]
    pub protocol: Maybe<ServiceProtocol>,
    /// Addresses and ports for endpoints and this host.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = SOCKET)))]
    pub cluster_ips: Maybe<Vec<Spanned<String>>>,
    /// A port of every underlay address of this node, for everybody.
    #[schemars(with = "Option<i64>", range(min = 1, max = 65535))]
    pub node_port: Maybe<i64>,
    /// Addresses and ports for everybody, which the network brings to this node.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = SOCKET)))]
    pub external_ips: Maybe<Vec<Spanned<String>>>,
    /// The same, of a load balancer.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = SOCKET)))]
    pub load_balancer_ips: Maybe<Vec<Spanned<String>>>,
    /// Addresses of this node and ports, for everybody, with the backends that are on this node. `0.0.0.0`
    /// and `[::]` stand for every underlay address of the family.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = SOCKET)))]
    pub host_ports: Maybe<Vec<Spanned<String>>>,
    /// How long a client stays at its backend after it was last heard of, like "3h" or "90s"; at most a
    /// day. Default: each connection is balanced by itself.
    #[schemars(with = "Option<String>", regex(pattern = TIME))]
    pub session_affinity: Maybe<String>,
    /// Which backends traffic from outside goes to.
    #[schemars(with = "Option<TrafficPolicy>")]
    pub external_traffic_policy: Maybe<TrafficPolicy>,
    /// Which backends traffic from endpoints and this host goes to.
    #[schemars(with = "Option<TrafficPolicy>")]
    pub internal_traffic_policy: Maybe<TrafficPolicy>,
    /// Who may use the service from outside. Default: everybody.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = CIDR)))]
    pub source_ranges: Maybe<Vec<Spanned<String>>>,
    /// Where the traffic goes: addresses and ports, or tables that say more. Default: nowhere, clients are
    /// told what `no-backend` says.
    #[schemars(with = "Option<Vec<BackendEntry>>")]
    pub backends: Maybe<Vec<Spanned<BackendEntry>>>,
    /// Asks the backends again and again, from this node, whether they are alive: those that are found dead get
    /// nothing new. Only the daemon asks. Default: the backends are as `backends` says.
    #[schemars(with = "Option<HealthCheck>")]
    pub health_check: Maybe<HealthCheck>,
}

/// `[service.health-check]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HealthCheck {
    /// What a backend is asked.
    #[serde(rename = "type")]
    #[schemars(with = "Option<HealthCheckType>")]
    pub kind: Maybe<HealthCheckType>,
    /// TCP port that is asked; needed unless the service's protocol is TCP. Default: that of each backend.
    #[schemars(with = "Option<i64>", range(min = 1, max = 65535))]
    pub port: Maybe<i64>,
    /// Time between two questions, like "10s" or "500ms"; 100ms to 1h. Default: 10s.
    #[schemars(with = "Option<String>", regex(pattern = TIME))]
    pub interval: Maybe<String>,
    /// Time for an answer, at most the interval. Default: 1s, or the interval where that is less.
    #[schemars(with = "Option<String>", regex(pattern = TIME))]
    pub timeout: Maybe<String>,
    /// So many good answers in a row bring a dead backend back. Default: 2.
    #[schemars(with = "Option<i64>", range(min = 1, max = 100))]
    pub rise: Maybe<i64>,
    /// So many questions in a row without a good answer, and a backend is dead. Default: 3.
    #[schemars(with = "Option<i64>", range(min = 1, max = 100))]
    pub fall: Maybe<i64>,
    /// What is asked for by HTTP. Default: /.
    #[schemars(with = "Option<String>", regex(pattern = PATH))]
    pub path: Maybe<String>,
    /// First and last status of HTTP that is a good answer. Default: 200 and 399.
    #[schemars(with = "Option<Vec<i64>>", inner(range(min = 100, max = 599)))]
    pub status: Maybe<Vec<Spanned<i64>>>,
}

/// `[service.health-check] type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealthCheckType {
    /// Whether it takes a connection; the default.
    Tcp,
    /// A `GET` of `path`.
    Http,
}

/// `[[service]] protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ServiceProtocol {
    /// TCP; the default.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// `external-traffic-policy` and `internal-traffic-policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrafficPolicy {
    /// All backends; the default.
    Cluster,
    /// Those on this node.
    Local,
}

/// An entry of `backends`: an address and port alone, or a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum BackendEntry {
    Address(String),
    Table(Backend),
}

/// A table of `backends`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Backend {
    /// Address and port.
    #[schemars(with = "String", regex(pattern = SOCKET))]
    pub address: Spanned<String>,
    /// Share of the traffic, with Maglev. Default: 100.
    #[schemars(with = "Option<i64>", range(min = 1, max = 65535))]
    pub weight: Maybe<i64>,
    /// What may be sent there.
    #[schemars(with = "Option<BackendState>")]
    pub state: Maybe<BackendState>,
}

/// `state` of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BackendState {
    /// Its share; the default.
    Active,
    /// What belongs to old connections; new ones only where no backend is active.
    Terminating,
    /// Nothing new: it was found dead.
    Quarantined,
    /// Nothing new: it was taken out of service.
    Maintenance,
}

/// Not derived: what tries one form after the other (`untagged`) loses the places of what is in a table.
impl<'de> Deserialize<'de> for BackendEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = BackendEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address and port, or a table")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BackendEntry, E> {
                Ok(BackendEntry::Address(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<BackendEntry, E> {
                Ok(BackendEntry::Address(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BackendEntry, A::Error> {
                Backend::deserialize(de::value::MapAccessDeserializer::new(map))
                    .map(BackendEntry::Table)
            }
        }
        deserializer.deserialize_any(Entry)
    }
}

impl JsonSchema for BackendEntry {
    fn schema_name() -> Cow<'static, str> {
        "BackendEntry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<Backend>();
        schemars::json_schema!({"anyOf": [{"type": "string", "pattern": SOCKET}, table]})
    }
}
