//! Events as lines of text, as `cilium monitor` prints them.
//!
//! Pure. Imports its siblings. Writes into a buffer that the caller uses again: a busy node says
//! hundreds of thousands of things a second.

use std::fmt::Write;

use super::connection::Connection;
use super::layers::{layers, tunnel};
use super::packet::Packet;
use super::record::{Body, Event};
use super::words::{Arrow, Between, Reason};
use super::{debug, words};

/// What stands between two events that take several lines.
const SEPARATOR: &str =
    "------------------------------------------------------------------------------";
/// Bytes in a line of a hexadecimal dump.
const HEX_WIDTH: usize = 16;

/// How events are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// All there is to know, over several lines.
    pub full: bool,
    /// Identities as numbers, also those that have names.
    pub numeric: bool,
    /// In full: the packet as bytes, instead of its headers.
    pub hex: bool,
}

/// Appends an event; `link` is the name of the device it names.
pub fn write(out: &mut String, event: &Event<'_>, link: &str, style: Style) {
    let written = match (&event.body, style.full) {
        (Body::Debug(message), _) => {
            let (hash, source) = (event.hash, event.source);
            let said = debug::message(message);
            writeln!(out, "CPU {:02}: MARK {hash:#x} FROM {source} DEBUG: {said}", event.cpu)
        }
        (_, false) => brief(out, event, link, style.numeric),
        (_, true) => full(out, event, link, style),
    };
    // Writing to a text can't fail.
    debug_assert!(written.is_ok());
}

fn brief(out: &mut String, event: &Event<'_>, link: &str, numeric: bool) -> std::fmt::Result {
    let packet = Packet::read(event.packet, event.flags());
    let connection = Connection(&packet);
    match &event.body {
        Body::Drop(drop) => writeln!(
            out,
            "xx drop ({}) flow {:#x} to endpoint {}, ifindex {}, file {}:{}, , {}: {connection}",
            Reason(drop),
            event.hash,
            drop.destination,
            drop.ifindex,
            words::file(drop),
            drop.line,
            Between(drop.identities, numeric),
        ),
        Body::Trace(trace) => writeln!(
            out,
            "{} {}flow {:#x} , {} state {} ifindex {link} orig-ip {}: {connection}",
            Arrow(trace, event.source),
            if trace.encrypted { "encrypted " } else { "" },
            event.hash,
            Between(trace.identities, numeric),
            words::state(trace),
            trace.original_source,
        ),
        Body::Capture(capture) => match words::capture(capture, link).1 {
            short if short.is_empty() => Ok(()),
            short => writeln!(out, "{short}: {connection}"),
        },
        Body::Debug(_) => Ok(()),
    }
}

fn full(out: &mut String, event: &Event<'_>, link: &str, style: Style) -> std::fmt::Result {
    writeln!(out, "{SEPARATOR}")?;
    write!(out, "CPU {:02}: MARK {:#x} FROM {} ", event.cpu, event.hash, event.source)?;
    let (bytes, captured) = (event.bytes, event.packet.len());
    match &event.body {
        Body::Drop(drop) => {
            write!(out, "DROP: {bytes} bytes, reason {}", Reason(drop))?;
            write!(out, ", {}", Between(drop.identities, style.numeric))?;
            if drop.destination > 0 {
                write!(out, ", to endpoint {}", drop.destination)?;
            }
            writeln!(out, ", ifindex {}, file {}:{}", drop.ifindex, words::file(drop), drop.line)?;
        }
        Body::Trace(trace) => {
            let (point, state) = (words::point(trace), words::state(trace));
            write!(out, "{point}: {bytes} bytes ({captured} captured), state {state}")?;
            if trace.encrypted {
                out.push_str(", encrypted");
            }
            if trace.ifindex > 0 {
                write!(out, ", interface {link}")?;
            }
            write!(out, ", {}", Between(trace.identities, style.numeric))?;
            write!(out, ", orig-ip {}", trace.original_source)?;
            if trace.destination > 0 {
                let to = if trace.point == 1 { "proxy-port" } else { "endpoint" };
                write!(out, ", to {to} {}", trace.destination)?;
            }
            out.push('\n');
        }
        Body::Capture(capture) => {
            let (long, _) = words::capture(capture, link);
            writeln!(out, "DEBUG: {bytes} bytes ({captured} captured), {long}")?;
        }
        Body::Debug(_) => {}
    }
    if style.hex { hex(out, event.packet) } else { headers(out, event) }
}

/// The headers of the packet, a line each, from the outside in.
fn headers(out: &mut String, event: &Event<'_>) -> std::fmt::Result {
    let packet = Packet::read(event.packet, event.flags());
    if let Some(around) = &packet.tunnel {
        layers(&around.outer).iter().try_for_each(|layer| writeln!(out, "{}", layer.line))?;
        writeln!(out, "{}", tunnel(around))?;
    }
    layers(&packet.layers).iter().try_for_each(|layer| writeln!(out, "{}", layer.line))
}

/// Bytes as `hexdump -C` shows them.
fn hex(out: &mut String, bytes: &[u8]) -> std::fmt::Result {
    for (number, line) in bytes.chunks(HEX_WIDTH).enumerate() {
        write!(out, "{:08x} ", number * HEX_WIDTH)?;
        for at in 0..HEX_WIDTH {
            if at % 8 == 0 {
                out.push(' ');
            }
            match line.get(at) {
                Some(byte) => write!(out, "{byte:02x} ")?,
                None => out.push_str("   "),
            }
        }
        out.push_str(" |");
        out.extend(line.iter().map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        }));
        out.push_str("|\n");
    }
    Ok(())
}

/// Appends how many events a CPU had no room for.
pub fn write_lost(out: &mut String, cpu: usize, events: u64) {
    let written = writeln!(out, "CPU {cpu:02}: Lost {events} events");
    debug_assert!(written.is_ok());
}

/// What is said before the first event.
pub fn banner(cpus: usize) -> [String; 2] {
    let (pages, bytes) = (super::PAGES_PER_CPU, super::PAGE_BYTES);
    [
        format!("Listening for events on {cpus} CPUs with {pages}x{bytes} of shared memory"),
        "Press Ctrl-C to quit".to_string(),
    ]
}
