//! `ciliate bpf lb list`: what the maps of services hold, in the layout of `cilium bpf lb list`.
//!
//! Imports what `super` imports, and how the kinds read these maps.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::super::{Failure, Format};
use super::Listing;
use crate::bpf_abi::{
    CILIATE_MAGLEV, CILIUM_LB4_AFFINITY, CILIUM_LB6_AFFINITY, Lb4AffinityKey, Lb6AffinityKey,
    LbAffinityValue,
};
use crate::kernel::Kernel;
use crate::kinds::SeenMap;
use crate::kinds::bpf_map::MapName;
use crate::kinds::bpf_map_entry::dump;
use crate::kinds::lb_backend::{self, LbBackend};
use crate::kinds::lb_service::{self, Key, LbService, State, algorithm_name, flag_names};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List frontends and their backends
    List {
        /// What replies are translated back to
        #[arg(long, group = "what")]
        revnat: bool,
        /// Which backends clients are kept at
        #[arg(long, group = "what")]
        affinity: bool,
        /// Maglev tables
        #[arg(long, group = "what")]
        maglev: bool,
        /// Who may use a service
        #[arg(long, group = "what")]
        source_ranges: bool,
        /// Output format
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Format,
    },
}

impl Verb {
    pub fn format(&self) -> Format {
        let Self::List { output, .. } = self;
        *output
    }
}

pub(super) fn listing(verb: &Verb, kernel: &Kernel) -> Result<Listing, Failure> {
    let Verb::List { revnat, affinity, maglev, source_ranges, .. } = verb;
    let services = lb_service::exec::dump(kernel)?;
    if *revnat {
        return Ok(reverse_nat(&services));
    }
    if *source_ranges {
        return Ok(ranges(&services));
    }
    if *maglev {
        return tables(kernel, &services);
    }
    if *affinity {
        return clients(kernel);
    }
    Ok(frontends(&services, &lb_backend::exec::dump(kernel)?))
}

fn of(headings: &'static [&'static str]) -> Listing {
    Listing { headings, rows: Vec::new(), objects: Vec::new() }
}

/// Slot 0 of each frontend, and the others below it.
fn frontends(services: &SeenMap<LbService>, backends: &SeenMap<LbBackend>) -> Listing {
    let mut listing = of(&["SERVICE ADDRESS", "BACKEND ADDRESS (REVNAT_ID) (SLOT)"]);
    for (key, state) in services {
        let Key::Frontend(frontend) = key else { continue };
        let backend = |id| backends.get(&lb_backend::Key { id, ipv6: key.is_ipv6() });
        let mut slots: Vec<Value> = Vec::new();
        if let Some(head) = state.head {
            let flags = flag_names(head.flags, head.flags2);
            let unspecified = if key.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let text = format!("{unspecified} ({}) (0) [{}]", head.id, flags.join(", "));
            listing.rows.push(vec![format!("{frontend} (0)"), text]);
        }
        for slot in &state.slots {
            let address = backend(slot.backend).map(|seen| seen.backend.address);
            let shown = address.map_or_else(
                || format!("backend {} not found", slot.backend),
                |address| format!("{address}/{}", crate::bpf_abi::protocol_name(frontend.protocol)),
            );
            let number = slot.number;
            listing.rows.push(vec![
                format!("{frontend} ({number})"),
                format!("{shown} ({}) ({number})", slot.id),
            ]);
            slots.push(json!({"slot": number, "backend_id": slot.backend, "address": address}));
        }
        listing.objects.push(json!({
            "frontend": frontend.to_string(),
            "id": state.id(),
            "algorithm": state.head.map(|head| algorithm_name(head.algorithm)),
            "affinity_s": state.head.map(|head| head.affinity_s),
            "flags": state.head.map(|head| flag_names(head.flags, head.flags2)),
            "count": state.head.map(|head| head.count),
            "quarantined": state.head.map(|head| head.quarantined),
            "slots": slots,
        }));
    }
    listing
}

/// The number that an object is about.
fn number(key: &Key, state: &State) -> Option<u16> {
    match key {
        Key::Frontend(_) => state.id(),
        Key::Number { id, .. } => Some(*id),
    }
}

fn reverse_nat(services: &SeenMap<LbService>) -> Listing {
    let mut listing = of(&["ID", "SERVICE ADDRESS"]);
    let entry = |(key, state): (&Key, &std::sync::Arc<State>)| {
        Some((number(key, state)?, state.reverse_nat?))
    };
    let mut entries: Vec<(u16, SocketAddr)> = services.iter().filter_map(entry).collect();
    entries.sort_unstable();
    for (id, address) in entries {
        listing.rows.push(vec![id.to_string(), address.to_string()]);
        listing.objects.push(json!({"id": id, "address": address}));
    }
    listing
}

fn ranges(services: &SeenMap<LbService>) -> Listing {
    let mut listing = of(&["ID", "SERVICE ADDRESS", "SOURCE RANGES"]);
    for (key, state) in services.iter().filter(|(_, state)| !state.source_ranges.is_empty()) {
        let (id, ranges) = (number(key, state), &state.source_ranges);
        let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        let shown = id.map_or_else(String::new, |id| id.to_string());
        listing.rows.push(vec![shown, key.to_string(), texts.join(", ")]);
        listing.objects.push(json!({"id": id, "frontend": key.to_string(), "ranges": ranges}));
    }
    listing
}

/// The tables, with the services that use them and how many entries each backend has.
fn tables(kernel: &Kernel, services: &SeenMap<LbService>) -> Result<Listing, Failure> {
    let mut listing = of(&["TABLE", "SERVICES", "ENTRIES BY BACKEND ID"]);
    let mut entries = dump(kernel, MapName::of_abi(CILIATE_MAGLEV))?;
    entries.sort_unstable();
    for (key, table) in entries {
        let Ok(table_number) = key.as_slice().try_into().map(u32::from_ne_bytes) else { continue };
        let mut counts = std::collections::BTreeMap::<u32, u32>::new();
        for id in table.as_chunks().0 {
            *counts.entry(u32::from_ne_bytes(*id)).or_default() += 1;
        }
        let users = services.iter().filter(|(_, state)| state.table == table_number);
        let users: Vec<String> = users.map(|(key, _)| key.to_string()).collect();
        let texts: Vec<String> = counts.iter().map(|(id, n)| format!("{id}: {n}")).collect();
        let name = format!("{table_number:08x}");
        listing.rows.push(vec![name.clone(), users.join(", "), texts.join(", ")]);
        let counts: Vec<Value> =
            counts.iter().map(|(id, n)| json!({"backend_id": id, "entries": n})).collect();
        listing.objects.push(json!({"table": name, "services": users, "backends": counts}));
    }
    Ok(listing)
}

/// Clients that are kept at a backend, as the programs have written them.
fn clients(kernel: &Kernel) -> Result<Listing, Failure> {
    let mut listing = of(&["CLIENT", "ID", "BACKEND ID", "LAST USED"]);
    let mut entries = Vec::new();
    for name in [CILIUM_LB4_AFFINITY, CILIUM_LB6_AFFINITY] {
        for (key, value) in dump(kernel, MapName::of_abi(name))? {
            let Ok(value) = value.as_slice().try_into().map(LbAffinityValue::from_bytes) else {
                continue;
            };
            entries.extend(client(&key).map(|(client, id)| (id, client, value)));
        }
    }
    entries.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    for (id, client, value) in entries {
        let LbAffinityValue { backend_id, last_used, .. } = value;
        let row = [client.clone(), id.to_string(), backend_id.to_string(), last_used.to_string()];
        listing.rows.push(row.to_vec());
        listing.objects.push(json!({
            "client": client, "id": id, "backend_id": backend_id, "last_used": last_used,
        }));
    }
    Ok(listing)
}

/// Who it is, and the number of the service.
fn client(key: &[u8]) -> Option<(String, u16)> {
    let (bytes, rev_nat, is_cookie) = match key.len() {
        16 => {
            let key = Lb4AffinityKey::from_bytes(key.try_into().ok()?);
            (key.client.to_ne_bytes().to_vec(), key.rev_nat, key.is_cookie)
        }
        _ => {
            let key = Lb6AffinityKey::from_bytes(key.try_into().ok()?);
            (key.client.to_vec(), key.rev_nat, key.is_cookie)
        }
    };
    let text = match (is_cookie, bytes.len()) {
        (0, 8) => std::net::Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).to_string(),
        (0, _) => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string(),
        _ => format!("netns cookie {}", u64::from_ne_bytes(bytes[..8].try_into().ok()?)),
    };
    Some((text, rev_nat))
}
