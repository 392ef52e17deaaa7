//! `ciliate bpf …`: the BPF maps, decoded, in the layout of `cilium bpf …`.

mod ct;
mod lb;
mod nat;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::output::table;
use super::{EXIT_OK, Failure, Format, Output, load, open};
use crate::bpf_abi::{
    CILIUM_IPCACHE, CILIUM_LXC, CILIUM_METRICS, DIRECTION_EGRESS, DIRECTION_INGRESS,
    ENDPOINT_FLAG_HOST, EndpointKey, EndpointValue, IDENTITY_WORLD, IDENTITY_WORLD_IPV4,
    IDENTITY_WORLD_IPV6, IpcacheKey, IpcacheValue, MetricsKey, MetricsValue, reason_text,
    source_file,
};
use crate::config::Search;
use crate::kernel::Kernel;
use crate::kinds::bpf_map::MapName;
use crate::kinds::bpf_map_entry::{dump, ipcache_flags};
use crate::net::Mac;
use crate::plan::FORMAT_VERSION;

/// Show the content of BPF maps
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    map: Map,
}

#[derive(Debug, clap::Subcommand)]
enum Map {
    /// Endpoints and addresses of this node
    #[command(subcommand)]
    Endpoint(Verb),
    /// Which identity is behind which prefix
    #[command(subcommand)]
    Ipcache(Verb),
    /// Which node's end of the tunnel other nodes' CIDRs are behind
    #[command(subcommand)]
    Tunnel(Verb),
    /// Flows that are tracked
    #[command(subcommand)]
    Ct(ct::Verb),
    /// Services: frontends, backends and what belongs to them
    #[command(subcommand)]
    Lb(lb::Verb),
    /// Flows that go by an address and port of this node
    #[command(subcommand)]
    Nat(nat::Verb),
    /// Packets forwarded and dropped, by reason and direction
    #[command(subcommand)]
    Metrics(Verb),
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List all entries
    List {
        /// Output format
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Format,
    },
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let loaded = load(search)?;
    let mut kernel = open(&loaded)?;
    match &arguments.map {
        Map::Endpoint(verb) => show(verb, endpoints(&kernel)?, output),
        Map::Ipcache(verb) => show(verb, ipcache(&kernel)?, output),
        Map::Tunnel(verb) => show(verb, tunnels(&kernel)?, output),
        Map::Ct(verb) => ct::run(verb, &loaded, &mut kernel, output),
        Map::Lb(verb) => print(verb.format(), lb::listing(verb, &kernel)?, output),
        Map::Nat(verb) => nat::run(verb, &kernel, output),
        Map::Metrics(verb) => show(verb, metrics(&kernel)?, output),
    }
}

/// A decoded map: as a table, and as JSON objects.
struct Listing {
    headings: &'static [&'static str],
    rows: Vec<Vec<String>>,
    objects: Vec<Value>,
}

fn show(verb: &Verb, listing: Listing, output: &mut Output) -> Result<u8, Failure> {
    let Verb::List { output: format } = verb;
    print(*format, listing, output)
}

fn print(format: Format, listing: Listing, output: &mut Output) -> Result<u8, Failure> {
    match format {
        Format::Json => output.json(&json!({
            "format_version": FORMAT_VERSION,
            "entries": listing.objects,
        }))?,
        Format::Text => {
            for line in table(listing.headings, &listing.rows) {
                output.line(&line)?;
            }
        }
    }
    Ok(EXIT_OK)
}

fn colons(mac: [u8; 6]) -> String {
    Mac(mac).to_string().to_uppercase()
}

fn endpoints(kernel: &Kernel) -> Result<Listing, Failure> {
    let mut entries = BTreeMap::new();
    for (key, value) in dump(kernel, MapName::of_abi(CILIUM_LXC))? {
        let (Ok(key), Ok(value)) = (key.as_slice().try_into(), value.as_slice().try_into()) else {
            continue;
        };
        if let Some(address) = EndpointKey::from_bytes(key).address() {
            entries.insert(address, EndpointValue::from_bytes(value));
        }
    }
    let mut listing = Listing {
        headings: &["IP ADDRESS", "LOCAL ENDPOINT INFO"],
        rows: Vec::new(),
        objects: Vec::new(),
    };
    for (address, value) in entries {
        let host = value.flags & ENDPOINT_FLAG_HOST != 0;
        let shown = with_port_0(address);
        let info = if host {
            "(localhost)".to_string()
        } else {
            format!(
                "id={:<5} sec_id={:<5} flags=0x{:04X} ifindex={:<3} mac={} nodemac={} parent_ifindex={}",
                value.endpoint_id,
                value.identity,
                value.flags,
                value.ifindex,
                colons(value.mac),
                colons(value.node_mac),
                value.parent_ifindex,
            )
        };
        listing.rows.push(vec![shown, info]);
        listing.objects.push(json!({
            "address": address,
            "id": value.endpoint_id,
            "identity": value.identity,
            "flags": value.flags,
            "localhost": host,
            "ifindex": value.ifindex,
            "mac": Mac(value.mac),
            "node_mac": Mac(value.node_mac),
        }));
    }
    Ok(listing)
}

/// The ipcache: address and length of each prefix, and what is known of it.
fn prefixes(kernel: &Kernel) -> Result<BTreeMap<(IpAddr, u8), IpcacheValue>, Failure> {
    let mut entries = BTreeMap::new();
    for (key, value) in dump(kernel, MapName::of_abi(CILIUM_IPCACHE))? {
        let (Ok(key), Ok(value)) = (key.as_slice().try_into(), value.as_slice().try_into()) else {
            continue;
        };
        if let Some(prefix) = IpcacheKey::from_bytes(key).prefix() {
            entries.insert(prefix, IpcacheValue::from_bytes(value));
        }
    }
    Ok(entries)
}

fn ipcache(kernel: &Kernel) -> Result<Listing, Failure> {
    let mut listing = Listing {
        headings: &["IP PREFIX/ADDRESS", "IDENTITY"],
        rows: Vec::new(),
        objects: Vec::new(),
    };
    for ((address, length), value) in prefixes(kernel)? {
        let prefix = format!("{address}/{length}");
        let tunnel_endpoint = value.tunnel_endpoint();
        let info = format!(
            "identity={} encryptkey={} tunnelendpoint={} flags={}",
            value.identity,
            value.key,
            tunnel_endpoint.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            ipcache_flags(value.flags),
        );
        listing.rows.push(vec![prefix.clone(), info]);
        listing.objects.push(json!({
            "prefix": prefix,
            "identity": value.identity,
            "encrypt_key": value.key,
            "tunnel_endpoint": tunnel_endpoint,
            "flags": value.flags,
        }));
    }
    Ok(listing)
}

/// The CIDRs among the prefixes behind a tunnel endpoint: other than nodes and endpoints they have no
/// identity of their own.
fn tunnels(kernel: &Kernel) -> Result<Listing, Failure> {
    let mut listing =
        Listing { headings: &["TUNNEL", "VALUE"], rows: Vec::new(), objects: Vec::new() };
    let worlds = [IDENTITY_WORLD, IDENTITY_WORLD_IPV4, IDENTITY_WORLD_IPV6];
    for ((address, length), value) in prefixes(kernel)? {
        let Some(endpoint) = value.tunnel_endpoint() else { continue };
        if worlds.contains(&value.identity) {
            listing.rows.push(vec![address.to_string(), with_port_0(endpoint)]);
            listing.objects.push(json!({
                "prefix": format!("{address}/{length}"),
                "tunnel_endpoint": endpoint,
            }));
        }
    }
    Ok(listing)
}

/// An address as Cilium shows those of its maps.
fn with_port_0(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]:0") } else { format!("{address}:0") }
}

fn metrics(kernel: &Kernel) -> Result<Listing, Failure> {
    let mut entries: BTreeMap<MetricsKey, MetricsValue> = BTreeMap::new();
    for (key, values) in dump(kernel, MapName::of_abi(CILIUM_METRICS))? {
        let Ok(key) = key.as_slice().try_into() else { continue };
        let sum = entries.entry(MetricsKey::from_bytes(key)).or_default();
        // One value for each possible CPU, one after the other.
        for value in values.chunks_exact(size_of::<MetricsValue>()) {
            let Ok(value) = value.try_into() else { continue };
            let value = MetricsValue::from_bytes(value);
            sum.packets += value.packets;
            sum.bytes += value.bytes;
        }
    }
    let mut listing = Listing {
        headings: &["REASON", "DIRECTION", "PACKETS", "BYTES", "LINE", "FILE"],
        rows: Vec::new(),
        objects: Vec::new(),
    };
    for (key, value) in entries {
        let direction = match key.direction {
            DIRECTION_INGRESS => "INGRESS",
            DIRECTION_EGRESS => "EGRESS",
            _ => "UNKNOWN",
        };
        let reason = reason_text(key.reason).unwrap_or("unknown");
        let file = source_file(key.file).unwrap_or("unknown");
        listing.rows.push(vec![
            reason.to_string(),
            direction.to_string(),
            value.packets.to_string(),
            value.bytes.to_string(),
            key.line.to_string(),
            file.to_string(),
        ]);
        listing.objects.push(json!({
            "reason": reason,
            "reason_code": key.reason,
            "direction": direction.to_lowercase(),
            "packets": value.packets,
            "bytes": value.bytes,
            "line": key.line,
            "file": file,
        }));
    }
    Ok(listing)
}
