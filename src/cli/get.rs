//! `ciliate get …`: what the configuration asks for beside what the kernel has, as tables.

use serde_json::{Value, json};

use super::output::table;
use super::{EXIT_OK, Failure, Format, Output, load, open};
use crate::bpf_abi::DeviceValue;
use crate::config::Search;
use crate::engine::{self, Loaded, View};
use crate::facts::NextHop;
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
    let (name, headings, rows): (_, &[&str], Vec<Vec<String>>) = match arguments.what {
        What::Endpoints => ("endpoints", ENDPOINTS, endpoints(&loaded, &view)),
        What::Peers => ("peers", PEERS, peers(&loaded, &view)),
        What::Routes => ("routes", ROUTES, routes(&view)),
        What::Links => ("links", LINKS, links(&view)),
    };
    match arguments.output {
        Format::Text => {
            for line in table(headings, &rows) {
                output.line(&line)?;
            }
        }
        Format::Json => {
            let objects: Vec<Value> = rows
                .iter()
                .map(|row| {
                    let names = headings.iter().map(|h| h.to_lowercase().replace(' ', "_"));
                    names.zip(row).map(|(name, cell)| (name, json!(cell))).collect()
                })
                .collect();
            output.json(&json!({"format_version": FORMAT_VERSION, name: objects}))?;
        }
    }
    Ok(EXIT_OK)
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

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

const ENDPOINTS: &[&str] =
    &["NAME", "ENDPOINT", "IDENTITY", "LABELS", "IPV6", "IPV4", "DEVICE", "STATE"];

fn endpoints(loaded: &Loaded, view: &View) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for endpoint in loaded.intent.endpoints.values() {
        let lxc = lxc_name(&endpoint.netns, &endpoint.ifname);
        let value = view
            .desired
            .links
            .get(&lxc)
            .and_then(|wanted| view.facts.devices.get(&wanted.spec.ifindex));
        let unset = DeviceValue::default();
        let value = value.unwrap_or(&unset);
        let address = |address: std::net::IpAddr| {
            if address.is_unspecified() { String::new() } else { address.to_string() }
        };
        rows.push(vec![
            endpoint.name.to_string(),
            value.endpoint_id.to_string(),
            endpoint.identity.to_string(),
            join(endpoint.labels.iter().map(|(key, value)| format!("{key}={value}"))),
            address(value.ipv6_be.into()),
            address(value.ipv4_be.into()),
            lxc.to_string(),
            state(view, &Origin::Endpoint(endpoint.name.clone())),
        ]);
    }
    rows
}

const PEERS: &[&str] = &["NAME", "ADDRESSES", "CIDRS", "REACHED", "STATE"];

fn peers(loaded: &Loaded, view: &View) -> Vec<Vec<String>> {
    let reached = |hop: Option<&NextHop>| match hop {
        Some(NextHop::OnLink(dev)) => format!("on-link {dev}"),
        Some(NextHop::Gateway { gateway, dev }) => format!("via {gateway} dev {dev}"),
        Some(NextHop::Local) => "is this host".into(),
        Some(NextHop::Unreachable) | None => "no route".into(),
    };
    let row = |peer: &crate::intent::Peer| {
        vec![
            peer.name.to_string(),
            join(&peer.addresses),
            join(&peer.cidrs),
            join(peer.addresses.iter().map(|a| reached(view.facts.next_hops.get(a)))),
            state(view, &Origin::Peer(peer.name.clone())),
        ]
    };
    loaded.intent.peers.values().map(row).collect()
}

const ROUTES: &[&str] = &["ROUTE", "PATH", "FOR", "STATE"];

fn routes(view: &View) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (key, wanted) in &view.desired.routes {
        let state = match view.observed.routes.get(key) {
            None => "missing",
            Some(seen) if *seen == wanted.spec.route => "ok",
            Some(_) => "differs",
        };
        let path = wanted.spec.route.to_string();
        rows.push(vec![key.to_string(), path, wanted.origin.to_string(), state.into()]);
    }
    for (key, seen) in
        view.observed.routes.iter().filter(|(k, _)| !view.desired.routes.contains_key(k))
    {
        rows.push(vec![key.to_string(), seen.to_string(), String::new(), "leftover".into()]);
    }
    rows
}

const LINKS: &[&str] = &["LINK", "INDEX", "MTU", "MAC", "ALIAS"];

fn links(view: &View) -> Vec<Vec<String>> {
    let ours = view.observed.links.iter().filter(|(_, seen)| seen.owned);
    ours.map(|(name, seen)| {
        vec![
            name.to_string(),
            seen.ifindex.to_string(),
            seen.end.mtu_bytes.to_string(),
            seen.end.mac.to_string(),
            seen.end.alias.clone(),
        ]
    })
    .collect()
}
