//! `ciliate get …`: what the configuration asks for beside what the kernel has, as tables.

mod services;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::output::table;
use super::{EXIT_OK, Failure, Format, Output, found, load, look, open};
use crate::bpf_abi::{CILIUM_IPCACHE, DeviceValue, IpcacheKey, IpcacheValue};
use crate::config::Search;
use crate::engine::{Loaded, View};
use crate::facts::NextHop;
use crate::intent::{Endpoint, Identity};
use crate::kernel::{Kernel, wireguard};
use crate::kinds::bpf_map::MapName;
use crate::kinds::route::Route;
use crate::kinds::{Kind, Origin, bpf_map_entry};
use crate::lower::{CILIUM_WG0, LXC_HEALTH, lxc_name};
use crate::plan::FORMAT_VERSION;

/// Show endpoints, peers, services, routes or other objects
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to show
    what: What,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Endpoints with their ids, identities, addresses and state
    Endpoints,
    /// Peers with their addresses, CIDRs and how they are reached
    Peers,
    /// Identities with their labels, and the endpoints here and on peers that have them
    Identities,
    /// Services: every frontend with its backends, as `cilium service list`
    Services,
    /// Our routes
    Routes,
    /// Our links
    Links,
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let loaded = load(search)?;
    let mut kernel = open(&loaded)?;
    let found = found(&loaded.intent);
    let view = look(&mut kernel, &loaded.intent, &found)?;
    let (name, headings, rows): (_, &[&str], Vec<Vec<Value>>) = match arguments.what {
        What::Endpoints => ("endpoints", ENDPOINTS, endpoints(&loaded, &view)),
        What::Peers if loaded.intent.encryption.is_some() => {
            ("peers", PEERS_ENCRYPTED, peers_encrypted(&mut kernel, &loaded, &view)?)
        }
        What::Peers => ("peers", PEERS, peers(&loaded, &view)),
        What::Identities => ("identities", IDENTITIES, identities(&loaded)),
        What::Services => ("services", services::HEADINGS, services::rows(&view, &found)),
        What::Routes => ("routes", ROUTES, routes(&view)),
        What::Links => ("links", LINKS, links(&view)),
    };
    match arguments.output {
        Format::Text => {
            let cells: Vec<Vec<String>> = match arguments.what {
                What::Services => rows.iter().flat_map(|row| services::lines(row)).collect(),
                _ => rows.iter().map(|row| row.iter().map(cell).collect()).collect(),
            };
            for line in table(headings, &cells) {
                output.line(&line)?;
            }
        }
        Format::Json => {
            let objects: Vec<Value> = rows
                .into_iter()
                .map(|row| {
                    let names = headings.iter().map(|h| h.to_lowercase().replace(' ', "_"));
                    names.zip(row).collect()
                })
                .collect();
            output.json(&json!({"format_version": FORMAT_VERSION, name: objects}))?;
        }
    }
    Ok(EXIT_OK)
}

/// A value as a cell of a table.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            // A label without a value is its key.
            let fields = fields.iter().map(|(key, value)| match cell(value) {
                value if value.is_empty() => key.clone(),
                value => format!("{key}={value}"),
            });
            fields.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// The state of what an origin asks for: how many changes are left, or why it is blocked.
fn state(view: &View, origin: &Origin) -> String {
    if let Some(blocked) = view.plan.blocked.iter().find(|b| b.origin == *origin) {
        return format!("blocked: {}", blocked.reason);
    }
    match view.plan.ops.iter().filter(|op| op.origin() == origin).count() {
        0 => "ready".into(),
        n => format!("{n} changes pending"),
    }
}

const ENDPOINTS: &[&str] =
    &["NAME", "ENDPOINT", "IDENTITY", "LABELS", "IPV6", "IPV4", "DEVICE", "STATE"];

/// What the programs are told about an endpoint; `None` before it was applied.
pub(super) fn device<'a>(view: &'a View, endpoint: &Endpoint) -> Option<&'a DeviceValue> {
    device_of(view, lxc_name(&endpoint.netns, &endpoint.ifname).as_str())
}

/// The same by the name of the endpoint's device.
pub(super) fn device_of<'a>(view: &'a View, lxc: &str) -> Option<&'a DeviceValue> {
    let (_, wanted) = view.desired.links.iter().find(|(ifname, _)| ifname.as_str() == lxc)?;
    view.facts.devices.get(&wanted.spec.ifindex)
}

fn endpoints(loaded: &Loaded, view: &View) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for endpoint in loaded.intent.endpoints.values() {
        let lxc = lxc_name(&endpoint.netns, &endpoint.ifname);
        let (labels, identity) = (json!(endpoint.labels), endpoint.identity);
        let origin = Origin::Endpoint(endpoint.name.clone());
        let who = (&*endpoint.name, &*endpoint.addresses);
        rows.push(endpoint_row(view, who, (identity, labels), lxc.as_str(), &origin));
    }
    if !loaded.intent.node.health_addresses.is_empty() {
        let role = (Identity::HEALTH, json!({"reserved:health": ""}));
        let who = ("health", &*loaded.intent.node.health_addresses);
        rows.push(endpoint_row(view, who, role, LXC_HEALTH, &Origin::Health));
    }
    rows
}

/// The addresses are those that the programs know, or that the files give before it was applied.
fn endpoint_row(
    view: &View,
    (name, given): (&str, &[IpAddr]),
    (identity, labels): (Identity, Value),
    lxc: &str,
    origin: &Origin,
) -> Vec<Value> {
    let value = device_of(view, lxc);
    let id = value.map(|value| value.endpoint_id);
    let (v4, v6) = value.map_or(([0; 4], [0; 16]), |value| (value.ipv4_be, value.ipv6_be));
    let address = |known: IpAddr| {
        let given = || given.iter().copied().find(|given| given.is_ipv6() == known.is_ipv6());
        if known.is_unspecified() { given() } else { Some(known) }
    };
    vec![
        json!(name),
        json!(id),
        json!(identity),
        labels,
        json!(address(v6.into())),
        json!(address(v4.into())),
        json!(lxc),
        json!(state(view, origin)),
    ]
}

const PEERS: &[&str] =
    &["NAME", "ADDRESSES", "CIDRS", "ROUTERS", "ENDPOINTS", "TUNNEL", "REACHED", "STATE"];

fn peers(loaded: &Loaded, view: &View) -> Vec<Vec<Value>> {
    let reached = |hop: Option<&NextHop>| match hop {
        Some(NextHop::OnLink(dev)) => format!("on-link {dev}"),
        Some(NextHop::Gateway { gateway, dev }) => format!("via {gateway} dev {dev}"),
        Some(NextHop::Local) => "is this host".into(),
        Some(NextHop::Unreachable) | None => "no route".into(),
    };
    let row = |peer: &crate::intent::Peer| {
        let hops = peer.addresses.iter().map(|a| reached(view.facts.next_hops.get(a)));
        let endpoints = peer.endpoints.iter().map(|endpoint| &endpoint.name);
        vec![
            json!(peer.name),
            json!(peer.addresses),
            json!(peer.cidrs),
            json!(peer.routers),
            json!(endpoints.collect::<Vec<_>>()),
            json!(tunnel_endpoint(peer, view)),
            json!(hops.collect::<Vec<_>>()),
            json!(state(view, &Origin::Peer(peer.name.clone()))),
        ]
    };
    loaded.intent.peers.values().map(row).collect()
}

const PEERS_ENCRYPTED: &[&str] = &[
    "NAME",
    "ADDRESSES",
    "CIDRS",
    "ROUTERS",
    "ENDPOINTS",
    "TUNNEL",
    "REACHED",
    "STATE",
    "PUBLIC KEY",
    "WIREGUARD ENDPOINT",
    "LAST HANDSHAKE",
    "RECEIVED BYTES",
    "SENT BYTES",
];

/// The same with what WireGuard says of each.
fn peers_encrypted(
    kernel: &mut Kernel,
    loaded: &Loaded,
    view: &View,
) -> Result<Vec<Vec<Value>>, Failure> {
    let mut links = view.observed.links.iter();
    let link = links.find(|(ifname, link)| link.owned && ifname.as_str() == CILIUM_WG0);
    let device = match link {
        Some((_, link)) => wireguard::device(kernel, link.ifindex)?.unwrap_or_default(),
        None => wireguard::Device::default(),
    };
    let mut rows = peers(loaded, view);
    for (peer, row) in loaded.intent.peers.values().zip(&mut rows) {
        let key = peer.wireguard.public_key;
        let seen = key.and_then(|key| device.peers.get(&key));
        let handshake = seen.map(|seen| seen.last_handshake).filter(|time| !time.is_zero());
        let handshake =
            handshake.map(|time| humantime::format_rfc3339_seconds(UNIX_EPOCH + time).to_string());
        row.extend([
            json!(key),
            json!(seen.and_then(|seen| seen.endpoint)),
            json!(handshake),
            json!(seen.map(|seen| seen.rx_bytes)),
            json!(seen.map(|seen| seen.tx_bytes)),
        ]);
    }
    Ok(rows)
}

/// The peer's address that the tunnel leads to, as the programs are told.
fn tunnel_endpoint(peer: &crate::intent::Peer, view: &View) -> Option<IpAddr> {
    peer.cidrs.iter().find_map(|cidr| {
        let key = IpcacheKey::new(cidr.addr(), cidr.prefix_len()).to_bytes().to_vec();
        let key = bpf_map_entry::Key { map: MapName::of_abi(CILIUM_IPCACHE), key };
        let value = &view.desired.bpf_map_entries.get(&key)?.spec.value;
        IpcacheValue::from_bytes(value.as_slice().try_into().ok()?).tunnel_endpoint()
    })
}

const IDENTITIES: &[&str] = &["ID", "LABELS", "ENDPOINTS"];

/// Reserved identities first, as far as they have a name; then those of endpoints.
fn identities(loaded: &Loaded) -> Vec<Vec<Value>> {
    let mut found: BTreeMap<Identity, (Value, Vec<String>)> = BTreeMap::new();
    for (name, identity) in Identity::reserved() {
        found.insert(identity, (json!({format!("reserved:{name}"): ""}), Vec::new()));
    }
    let own = loaded.intent.endpoints.values();
    let own = own.map(|endpoint| (endpoint.identity, &endpoint.labels, endpoint.name.to_string()));
    let of_peers = loaded.intent.peers.values().flat_map(|peer| {
        peer.endpoints.iter().map(|endpoint| {
            (endpoint.identity, &endpoint.labels, format!("{}@{}", endpoint.name, peer.name))
        })
    });
    for (identity, labels, name) in own.chain(of_peers) {
        let entry = found.entry(identity).or_insert_with(|| (json!(labels), Vec::new()));
        entry.1.push(name);
    }
    found
        .into_iter()
        .map(|(identity, (labels, endpoints))| vec![json!(identity), labels, json!(endpoints)])
        .collect()
}

const ROUTES: &[&str] = &["ROUTE", "PATH", "FOR", "STATE"];

fn routes(view: &View) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for (key, wanted) in &view.desired.routes {
        let state = match view.observed.routes.get(key) {
            None => "missing",
            Some(seen) if Route::is_as_asked(key, &wanted.spec, seen) => "ok",
            Some(seen) if seen.foreign => "blocked",
            Some(_) => "differs",
        };
        let path = wanted.spec.route.to_string();
        rows.push(vec![
            json!(key.to_string()),
            json!(path),
            json!(wanted.origin.to_string()),
            json!(state),
        ]);
    }
    for (key, seen) in &view.observed.routes {
        if !view.desired.routes.contains_key(key) {
            let (key, path) = (key.to_string(), seen.to_string());
            rows.push(vec![json!(key), json!(path), Value::Null, json!("leftover")]);
        }
    }
    rows
}

const LINKS: &[&str] = &["LINK", "INDEX", "MTU", "MAC", "ALIAS"];

fn links(view: &View) -> Vec<Vec<Value>> {
    let ours = view.observed.links.iter().filter(|(_, seen)| seen.owned);
    ours.map(|(name, seen)| {
        vec![
            json!(name),
            json!(seen.ifindex),
            json!(seen.end.mtu_bytes),
            json!(seen.end.mac),
            json!(seen.end.alias),
        ]
    })
    .collect()
}
