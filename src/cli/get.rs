//! `ciliate get …`: what the configuration asks for beside what the kernel has, as tables.

use serde_json::{Value, json};

use super::output::table;
use super::{EXIT_OK, Failure, Format, Output, load, open};
use crate::bpf_abi::DeviceValue;
use crate::config::Search;
use crate::engine::{self, Loaded, View};
use crate::facts::NextHop;
use crate::intent::Endpoint;
use crate::kinds::Origin;
use crate::lower::lxc_name;
use crate::plan::FORMAT_VERSION;

/// Show endpoints, peers, routes or other objects
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
    /// Our routes
    Routes,
    /// Our links
    Links,
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let loaded = load(search)?;
    let mut kernel = open(&loaded)?;
    let view = engine::view(&mut kernel, &loaded.intent)?;
    let (name, headings, rows): (_, &[&str], Vec<Vec<Value>>) = match arguments.what {
        What::Endpoints => ("endpoints", ENDPOINTS, endpoints(&loaded, &view)),
        What::Peers => ("peers", PEERS, peers(&loaded, &view)),
        What::Routes => ("routes", ROUTES, routes(&view)),
        What::Links => ("links", LINKS, links(&view)),
    };
    match arguments.output {
        Format::Text => {
            let cells: Vec<Vec<String>> =
                rows.iter().map(|row| row.iter().map(cell).collect()).collect();
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
            let fields = fields.iter().map(|(key, value)| format!("{key}={}", cell(value)));
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
    let wanted = view.desired.links.get(&lxc_name(&endpoint.netns, &endpoint.ifname))?;
    view.facts.devices.get(&wanted.spec.ifindex)
}

fn endpoints(loaded: &Loaded, view: &View) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for endpoint in loaded.intent.endpoints.values() {
        let lxc = lxc_name(&endpoint.netns, &endpoint.ifname);
        let value = device(view, endpoint);
        let id = value.map(|value| value.endpoint_id);
        let unset = DeviceValue::default();
        let value = value.unwrap_or(&unset);
        let address = |address: std::net::IpAddr| (!address.is_unspecified()).then_some(address);
        rows.push(vec![
            json!(endpoint.name),
            json!(id),
            json!(endpoint.identity),
            json!(endpoint.labels),
            json!(address(value.ipv6_be.into())),
            json!(address(value.ipv4_be.into())),
            json!(lxc),
            json!(state(view, &Origin::Endpoint(endpoint.name.clone()))),
        ]);
    }
    rows
}

const PEERS: &[&str] = &["NAME", "ADDRESSES", "CIDRS", "REACHED", "STATE"];

fn peers(loaded: &Loaded, view: &View) -> Vec<Vec<Value>> {
    let reached = |hop: Option<&NextHop>| match hop {
        Some(NextHop::OnLink(dev)) => format!("on-link {dev}"),
        Some(NextHop::Gateway { gateway, dev }) => format!("via {gateway} dev {dev}"),
        Some(NextHop::Local) => "is this host".into(),
        Some(NextHop::Unreachable) | None => "no route".into(),
    };
    let row = |peer: &crate::intent::Peer| {
        let hops = peer.addresses.iter().map(|a| reached(view.facts.next_hops.get(a)));
        vec![
            json!(peer.name),
            json!(peer.addresses),
            json!(peer.cidrs),
            json!(hops.collect::<Vec<_>>()),
            json!(state(view, &Origin::Peer(peer.name.clone()))),
        ]
    };
    loaded.intent.peers.values().map(row).collect()
}

const ROUTES: &[&str] = &["ROUTE", "PATH", "FOR", "STATE"];

fn routes(view: &View) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for (key, wanted) in &view.desired.routes {
        let state = match view.observed.routes.get(key) {
            None => "missing",
            Some(seen) if *seen == wanted.spec.route => "ok",
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
