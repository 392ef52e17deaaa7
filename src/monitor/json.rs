//! Events as lines of JSON, with the keys of `cilium monitor --json`.
//!
//! Pure. Imports `plan` (the version that all of our JSON has) and its siblings. One object a line, in
//! the order of the fields here; `docs/json.md` describes them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::packet::{Layers, Packet};
use super::record::{Body, Event};
use super::words::{Arrow, Reason};
use super::{debug, layers, words};
use crate::net::Mac;
use crate::plan::FORMAT_VERSION;

#[derive(Serialize)]
struct Line<'a> {
    format_version: u32,
    cpu: String,
    #[serde(flatten)]
    event: Shown<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Shown<'a> {
    #[serde(rename_all = "camelCase")]
    Trace {
        mark: String,
        ifindex: &'a str,
        state: String,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        encrypted: bool,
        observation_point: String,
        trace_summary: String,
        source: u16,
        bytes: u32,
        src_label: u32,
        dst_label: u32,
        #[serde(rename = "dstID")]
        dst_id: u16,
        #[serde(rename = "originalIP")]
        original_ip: IpAddr,
        summary: Summary,
    },
    #[serde(rename_all = "camelCase")]
    Drop {
        mark: String,
        reason: String,
        source: u16,
        bytes: u32,
        src_label: u32,
        dst_label: u32,
        #[serde(rename = "dstID")]
        dst_id: u32,
        #[serde(rename = "Line")]
        line: u16,
        #[serde(rename = "File")]
        file: String,
        #[serde(rename = "ExtError")]
        ext_error: i8,
        #[serde(rename = "Ifindex")]
        ifindex: u32,
        summary: Summary,
    },
    Debug {
        message: String,
    },
    Capture {
        mark: String,
        message: String,
        prefix: String,
        source: u16,
        bytes: u32,
        summary: Summary,
    },
    Lost {
        events: u64,
    },
}

/// A packet: a line for each header, and who talks to whom on each layer.
#[derive(Default, Serialize)]
struct Summary {
    #[serde(flatten)]
    layers: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l2: Option<Flow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l3: Option<Flow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l4: Option<Flow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Around>,
}

#[derive(Serialize)]
struct Flow {
    src: String,
    dst: String,
}

impl Flow {
    fn of<T: ToString>((source, destination): (T, T)) -> Self {
        Self { src: source.to_string(), dst: destination.to_string() }
    }
}

/// The tunnel a packet is in.
#[derive(Serialize)]
struct Around {
    protocol: &'static str,
    vni: u32,
    #[serde(flatten)]
    summary: Box<Summary>,
}

impl Summary {
    fn of(event: &Event<'_>) -> Self {
        let packet = Packet::read(event.packet, event.flags());
        let tunnel = packet.tunnel.as_ref().map(|tunnel| Around {
            protocol: tunnel.protocol.name(),
            vni: tunnel.vni,
            summary: Box::new(Self::of_layers(&tunnel.outer)),
        });
        Self { tunnel, ..Self::of_layers(&packet.layers) }
    }

    fn of_layers(found: &Layers<'_>) -> Self {
        let lines = layers::layers(found);
        let macs = found.ethernet.as_ref().map(|e| (Mac(e.source()), Mac(e.destination())));
        Self {
            layers: lines.into_iter().map(|layer| (layer.key, layer.line)).collect(),
            l2: macs.map(Flow::of),
            l3: found.addresses().map(Flow::of),
            l4: found.ports().map(Flow::of),
            tunnel: None,
        }
    }
}

/// Appends an event; `link` is the name of the device it names.
pub fn write(out: &mut String, event: &Event<'_>, link: &str) {
    let mark = format!("{:#x}", event.hash);
    let (source, bytes) = (event.source, event.bytes);
    match &event.body {
        Body::Trace(trace) => append(
            out,
            event.cpu as usize,
            Shown::Trace {
                mark,
                ifindex: link,
                state: words::state(trace).to_string(),
                encrypted: trace.encrypted,
                observation_point: words::point(trace).to_string(),
                trace_summary: Arrow(trace, source).to_string(),
                source,
                bytes,
                src_label: trace.identities.source,
                dst_label: trace.identities.destination,
                dst_id: trace.destination,
                original_ip: trace.original_source,
                summary: Summary::of(event),
            },
        ),
        Body::Drop(drop) => append(
            out,
            event.cpu as usize,
            Shown::Drop {
                mark,
                reason: Reason(drop).to_string(),
                source,
                bytes,
                src_label: drop.identities.source,
                dst_label: drop.identities.destination,
                dst_id: drop.destination,
                line: drop.line,
                file: words::file(drop).to_string(),
                ext_error: drop.ext_error,
                ifindex: drop.ifindex,
                summary: Summary::of(event),
            },
        ),
        Body::Debug(message) => {
            append(out, event.cpu as usize, Shown::Debug { message: debug::message(message) });
        }
        Body::Capture(capture) => {
            let (message, prefix) = words::capture(capture, link);
            let summary = Summary::of(event);
            append(
                out,
                event.cpu as usize,
                Shown::Capture { mark, message, prefix, source, bytes, summary },
            );
        }
    }
}

/// Appends how many events a CPU had no room for.
pub fn write_lost(out: &mut String, cpu: usize, events: u64) {
    append(out, cpu, Shown::Lost { events });
}

fn append(out: &mut String, cpu: usize, event: Shown<'_>) {
    let line = Line { format_version: FORMAT_VERSION, cpu: format!("CPU {cpu:02}:"), event };
    // Texts and numbers only: there is nothing in it that JSON can't have.
    let text = serde_json::to_string(&line).unwrap_or_default();
    // In JSON these stand in texts only. Escaped as Cilium does it, they can go into HTML as they are.
    let mut rest = text.as_str();
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'<' | b'>' | b'&')) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        out.push_str(match special.as_bytes()[0] {
            b'<' => "\\u003c",
            b'>' => "\\u003e",
            _ => "\\u0026",
        });
        rest = &special[1..];
    }
    out.push_str(rest);
    out.push('\n');
}
