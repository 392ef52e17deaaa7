//! `ciliate bpf ct …`: the flows in the conntrack maps, in the layout of `cilium bpf ct list global`.
//!
//! Imports what `super` imports, and the clock that lifetimes are told by.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::super::{EXIT_OK, Failure, Format, LOCK_PATIENCE, Output};
use crate::bpf_abi::{
    CILIUM_CT_ANY4, CILIUM_CT_ANY6, CILIUM_CT4, CILIUM_CT6, CT_BITS, CT_FLAG_IN, CT_FLAG_RELATED,
    CT_FLAG_SERVICE, Ct4Key, Ct6Key, CtValue,
};
use crate::engine::{self, Loaded};
use crate::kernel::{Kernel, clock};
use crate::kinds::bpf_map::MapName;
use crate::kinds::bpf_map_entry::{dump, flush};
use crate::plan::FORMAT_VERSION;

/// The maps, in the order in which they are shown.
const MAPS: [&str; 4] = [CILIUM_CT4, CILIUM_CT_ANY4, CILIUM_CT6, CILIUM_CT_ANY6];

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List all flows
    List {
        /// Output format
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Format,
    },
    /// Forget all flows: those that go on are met as new ones
    Flush {
        /// Output format
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Format,
    },
}

pub(super) fn run(
    verb: &Verb,
    loaded: &Loaded,
    kernel: &mut Kernel,
    output: &mut Output,
) -> Result<u8, Failure> {
    match verb {
        Verb::List { output: format } => list(kernel, *format, output)?,
        Verb::Flush { output: format } => {
            let scope = engine::lock(&loaded.intent.paths.runtime, LOCK_PATIENCE)?;
            let mut flushed = 0;
            for map in MAPS.map(MapName::of_abi) {
                flushed += flush(&scope, kernel, map)?;
            }
            match format {
                Format::Json => {
                    output.json(&json!({"format_version": FORMAT_VERSION, "flushed": flushed}))?;
                }
                Format::Text => output.line(&format!("{flushed} flows forgotten"))?,
            }
        }
    }
    Ok(EXIT_OK)
}

fn list(kernel: &Kernel, format: Format, output: &mut Output) -> Result<(), Failure> {
    let mut flows = Vec::new();
    for name in MAPS {
        let entries = dump(kernel, MapName::of_abi(name))?;
        flows.extend(entries.iter().filter_map(|(key, value)| Flow::read(name, key, value)));
    }
    let now = clock::monotonic_seconds();
    flows.sort();
    match format {
        Format::Json => {
            let entries: Vec<Value> = flows.iter().map(|flow| flow.json(now)).collect();
            output.json(&json!({"format_version": FORMAT_VERSION, "entries": entries}))?;
        }
        Format::Text => {
            for flow in &flows {
                output.line(&Line { flow, now }.to_string())?;
            }
        }
    }
    Ok(())
}

/// An entry. The order of the fields is that of the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    ipv6: bool,
    protocol: u8,
    /// Who began it, and whom with.
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    map: &'static str,
    value: CtValue,
}

impl Flow {
    /// `None` for bytes of another size.
    fn read(map: &'static str, key: &[u8], value: &[u8]) -> Option<Self> {
        let value = CtValue::from_bytes(value.try_into().ok()?);
        // Addresses are those of the replies, which go to who began the flow; ports are the flow's own.
        let (source, destination, sport, dport, protocol, flags): (IpAddr, IpAddr, _, _, _, _) =
            if let Ok(bytes) = key.try_into() {
                let k = Ct4Key::from_bytes(bytes);
                let (source, destination) = (k.daddr_be.into(), k.saddr_be.into());
                (source, destination, k.sport_be, k.dport_be, k.protocol, k.flags)
            } else {
                let k = Ct6Key::from_bytes(key.try_into().ok()?);
                let (source, destination) = (k.daddr_be.into(), k.saddr_be.into());
                (source, destination, k.sport_be, k.dport_be, k.protocol, k.flags)
            };
        Some(Self {
            ipv6: source.is_ipv6(),
            protocol,
            source: SocketAddr::new(source, u16::from_be_bytes(sport)),
            destination: SocketAddr::new(destination, u16::from_be_bytes(dport)),
            flags,
            map,
            value,
        })
    }

    fn direction(&self) -> &'static str {
        if self.flags & CT_FLAG_IN != 0 { "IN" } else { "OUT" }
    }

    fn bits(&self) -> impl Iterator<Item = &'static str> {
        CT_BITS.iter().filter(|(bit, _)| self.value.bits & bit != 0).map(|(_, name)| *name)
    }

    /// Seconds left, less than nothing for an entry that waits for the collector.
    fn remaining(&self, now: u32) -> i64 {
        i64::from(self.value.lifetime) - i64::from(now)
    }

    fn json(&self, now: u32) -> Value {
        let value = &self.value;
        json!({
            "map": self.map,
            "protocol": protocol(self.protocol).unwrap_or("unknown"),
            "protocol_number": self.protocol,
            "direction": self.direction().to_lowercase(),
            "related": self.flags & CT_FLAG_RELATED != 0,
            "service": self.flags & CT_FLAG_SERVICE != 0,
            "source": self.source.ip(),
            "source_port": self.source.port(),
            "destination": self.destination.ip(),
            "destination_port": self.destination.port(),
            "expires": value.lifetime,
            "remaining_s": self.remaining(now),
            "packets": value.packets,
            "bytes": value.bytes,
            "rx_flags_seen": value.rx_flags,
            "last_rx_report": value.last_rx_report,
            "tx_flags_seen": value.tx_flags,
            "last_tx_report": value.last_tx_report,
            "flags": value.bits,
            "flag_names": self.bits().collect::<Vec<_>>(),
            "rev_nat": value.rev_nat,
            "source_identity": value.source_identity,
            "backend_id": value.backend_id,
        })
    }
}

/// IP protocols that are tracked.
fn protocol(number: u8) -> Option<&'static str> {
    match i32::from(number) {
        libc::IPPROTO_ICMP => Some("ICMP"),
        libc::IPPROTO_TCP => Some("TCP"),
        libc::IPPROTO_UDP => Some("UDP"),
        libc::IPPROTO_ICMPV6 => Some("ICMPv6"),
        libc::IPPROTO_SCTP => Some("SCTP"),
        _ => None,
    }
}

/// A flow as a line.
struct Line<'f> {
    flow: &'f Flow,
    now: u32,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flow = self.flow;
        match protocol(flow.protocol) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "{}", flow.protocol)?,
        }
        write!(f, " {} {} -> {} ", flow.direction(), flow.source, flow.destination)?;
        if flow.flags & CT_FLAG_RELATED != 0 {
            f.write_str("related ")?;
        }
        if flow.flags & CT_FLAG_SERVICE != 0 {
            f.write_str("service ")?;
        }
        let value = &flow.value;
        write!(
            f,
            "expires={} (remaining: {} sec(s)) Packets={} Bytes={} \
             RxFlagsSeen=0x{:02x} LastRxReport={} TxFlagsSeen=0x{:02x} LastTxReport={} \
             Flags=0x{:04x} [ ",
            value.lifetime,
            flow.remaining(self.now),
            value.packets,
            value.bytes,
            value.rx_flags,
            value.last_rx_report,
            value.tx_flags,
            value.last_tx_report,
            value.bits,
        )?;
        for bit in flow.bits() {
            write!(f, "{bit} ")?;
        }
        write!(
            f,
            "] RevNAT={} SourceSecurityID={} BackendID={}",
            value.rev_nat, value.source_identity, value.backend_id
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> CtValue {
        CtValue {
            packets: 7,
            bytes: 910,
            lifetime: 9000,
            bits: 16,
            rev_nat: 7,
            tx_flags: 0x1b,
            rx_flags: 0x13,
            source_identity: 17248,
            last_tx_report: 995,
            last_rx_report: 1000,
            ..CtValue::default()
        }
    }

    fn line(map: &'static str, key: &[u8], value: CtValue) -> String {
        let flow = Flow::read(map, key, &value.to_bytes()).expect("a flow");
        Line { flow: &flow, now: 1010 }.to_string()
    }

    #[test]
    fn the_line_of_the_walk_through() {
        let key = Ct4Key {
            daddr_be: [10, 244, 0, 49],
            saddr_be: [10, 244, 1, 124],
            sport_be: 57444u16.to_be_bytes(),
            dport_be: 9494u16.to_be_bytes(),
            protocol: 6,
            flags: 0,
        };
        assert_eq!(
            line(CILIUM_CT4, &key.to_bytes(), value()),
            "TCP OUT 10.244.0.49:57444 -> 10.244.1.124:9494 expires=9000 (remaining: 7990 sec(s)) \
             Packets=7 Bytes=910 RxFlagsSeen=0x13 LastRxReport=1000 TxFlagsSeen=0x1b \
             LastTxReport=995 Flags=0x0010 [ SeenNonSyn ] RevNAT=7 SourceSecurityID=17248 \
             BackendID=0"
        );
    }

    #[test]
    fn ipv6_services_and_related_flows_and_what_is_over() {
        let mut key =
            Ct6Key { protocol: 58, flags: CT_FLAG_IN | CT_FLAG_RELATED, ..Ct6Key::default() };
        key.daddr_be[15] = 1;
        key.saddr_be[15] = 2;
        let over = CtValue { lifetime: 1000, bits: 3, ..CtValue::default() };
        let text = line(CILIUM_CT_ANY6, &key.to_bytes(), over);
        let expected = "ICMPv6 IN [::1]:0 -> [::2]:0 related expires=1000 (remaining: -10 sec(s)) ";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains(" Flags=0x0003 [ RxClosing TxClosing ] "), "{text}");
        key.protocol = 200;
        key.flags = CT_FLAG_SERVICE;
        let text = line(CILIUM_CT_ANY6, &key.to_bytes(), CtValue::default());
        assert!(text.starts_with("200 OUT [::1]:0 -> [::2]:0 service expires=0 "), "{text}");
        assert!(text.contains(" Flags=0x0000 [ ] "), "{text}");
    }

    #[test]
    fn every_bit_has_its_name() {
        let all = CT_BITS.iter().fold(0, |all, (bit, _)| all | bit);
        let value = CtValue { bits: all, ..CtValue::default() };
        let text = line(CILIUM_CT4, &Ct4Key::default().to_bytes(), value);
        let names: Vec<&str> = CT_BITS.iter().map(|(_, name)| *name).collect();
        assert!(text.contains(&format!("[ {} ]", names.join(" "))), "{text}");
    }

    #[test]
    fn other_sizes_are_no_flows() {
        assert_eq!(Flow::read(CILIUM_CT4, &[0; 13], &[0; 56]), None);
        assert_eq!(Flow::read(CILIUM_CT4, &[0; 14], &[0; 55]), None);
    }
}
