//! `ciliate bpf nat list`: the flows that go by an address of the node's, in the layout of `cilium bpf nat list`.
//!
//! Imports what `super` imports, and the clock that ages are told by.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::super::{EXIT_OK, Failure, Format, Output};
use crate::bpf_abi::{
    CILIUM_SNAT4, CILIUM_SNAT6, Ct4Key, Ct6Key, SNAT_FLAG_IN, Snat4Value, Snat6Value, protocol_name,
};
use crate::kernel::{Kernel, clock};
use crate::kinds::bpf_map::MapName;
use crate::kinds::bpf_map_entry::dump;
use crate::plan::FORMAT_VERSION;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List all flows
    List {
        /// Output format
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Format,
    },
}

pub(super) fn run(verb: &Verb, kernel: &Kernel, output: &mut Output) -> Result<u8, Failure> {
    let Verb::List { output: format } = verb;
    let mut entries = Vec::new();
    for name in [CILIUM_SNAT4, CILIUM_SNAT6] {
        let found = dump(kernel, MapName::of_abi(name))?;
        entries.extend(found.iter().filter_map(|(key, value)| Entry::read(key, value)));
    }
    let now = u64::from(clock::monotonic_seconds());
    entries.sort();
    match format {
        Format::Json => {
            let entries: Vec<Value> = entries.iter().map(|entry| entry.json(now)).collect();
            output.json(&json!({"format_version": FORMAT_VERSION, "entries": entries}))?;
        }
        Format::Text => {
            for entry in &entries {
                output.line(&Line { entry, now }.to_string())?;
            }
        }
    }
    Ok(EXIT_OK)
}

/// An entry. The order of the fields is that of the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    ipv6: bool,
    protocol: u8,
    /// Of what comes back.
    inward: bool,
    source: SocketAddr,
    destination: SocketAddr,
    /// What takes the place of the source, or, inward, of the destination.
    translated: SocketAddr,
    /// Of a client outside; otherwise of the node itself.
    client: bool,
    created: u64,
    last_used: u64,
}

impl Entry {
    /// `None` for bytes of another size.
    fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        let socket = |address: IpAddr, port| SocketAddr::new(address, u16::from_be_bytes(port));
        if let Ok(key) = key.try_into() {
            let k = Ct4Key::from_bytes(key);
            let v = Snat4Value::from_bytes(value.try_into().ok()?);
            return Some(Self {
                ipv6: false,
                protocol: k.protocol,
                inward: k.flags & SNAT_FLAG_IN != 0,
                source: socket(k.saddr_be.into(), k.sport_be),
                destination: socket(k.daddr_be.into(), k.dport_be),
                translated: socket(v.address_be.into(), v.port_be),
                client: v.needs_ct != 0,
                created: v.created,
                last_used: v.last_used,
            });
        }
        let k = Ct6Key::from_bytes(key.try_into().ok()?);
        let v = Snat6Value::from_bytes(value.try_into().ok()?);
        Some(Self {
            ipv6: true,
            protocol: k.protocol,
            inward: k.flags & SNAT_FLAG_IN != 0,
            source: socket(k.saddr_be.into(), k.sport_be),
            destination: socket(k.daddr_be.into(), k.dport_be),
            translated: socket(v.address_be.into(), v.port_be),
            client: v.needs_ct != 0,
            created: v.created,
            last_used: v.last_used,
        })
    }

    fn direction(&self) -> &'static str {
        if self.inward { "IN" } else { "OUT" }
    }

    fn json(&self, now: u64) -> Value {
        json!({
            "protocol": protocol_name(self.protocol),
            "direction": self.direction().to_lowercase(),
            "source": self.source,
            "destination": self.destination,
            "translated": self.translated,
            "client": self.client,
            "created_s_ago": now.saturating_sub(self.created),
            "used_s_ago": now.saturating_sub(self.last_used),
        })
    }
}

/// An entry as text.
struct Line<'a> {
    entry: &'a Entry,
    now: u64,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { source, destination, translated, inward, client, created, .. } = self.entry;
        let (protocol, direction) = (protocol_name(self.entry.protocol), self.entry.direction());
        let what = if *inward { "DST" } else { "SRC" };
        write!(
            f,
            "{protocol} {direction} {source} -> {destination} XLATE_{what} {translated} Created={}sec ago NeedsCT={}",
            self.now.saturating_sub(*created),
            u8::from(*client),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_read_as_what_a_packet_meets() {
        let key = Ct4Key {
            daddr_be: [10, 244, 1, 9],
            saddr_be: [192, 0, 2, 7],
            dport_be: 80_u16.to_be_bytes(),
            sport_be: 51_000_u16.to_be_bytes(),
            protocol: 6,
            flags: 0,
        };
        let value = Snat4Value {
            created: 100,
            needs_ct: 1,
            last_used: 107,
            address_be: [172, 18, 0, 3],
            port_be: 40_000_u16.to_be_bytes(),
            ..Snat4Value::default()
        };
        let entry = Entry::read(&key.to_bytes(), &value.to_bytes()).expect("an entry");
        assert_eq!(
            Line { entry: &entry, now: 110 }.to_string(),
            "TCP OUT 192.0.2.7:51000 -> 10.244.1.9:80 XLATE_SRC 172.18.0.3:40000 Created=10sec ago NeedsCT=1"
        );
        let back = Ct4Key { flags: SNAT_FLAG_IN, ..key };
        let own = Snat4Value { needs_ct: 0, ..value };
        let entry = Entry::read(&back.to_bytes(), &own.to_bytes()).expect("an entry");
        let line = Line { entry: &entry, now: 110 }.to_string();
        assert!(line.starts_with("TCP IN ") && line.ends_with("NeedsCT=0"), "{line}");
        assert_eq!(entry.json(110)["used_s_ago"], 3);
        assert_eq!(Entry::read(&[0; 3], &[0; 40]), None);
        assert_eq!(Entry::read(&key.to_bytes(), &[0; 3]), None);
    }
}
