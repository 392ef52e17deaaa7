//! Numbers of events in words.
//!
//! Pure. Imports `bpf_abi` and `intent` (the names of identities).

use std::borrow::Cow;

use super::record::{Capture, Drop, Identities, Trace};
use crate::bpf_abi::{OBSERVATION_POINTS, TRACE_STATES, reason_text, source_file};
use crate::intent::Identity;

/// An entry of a table, or the number where it has none.
fn entry(table: &[&'static str], number: u8) -> Cow<'static, str> {
    match table.get(usize::from(number)) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(number.to_string()),
    }
}

/// Where a packet was seen: `from-endpoint`.
pub fn point(trace: &Trace) -> Cow<'static, str> {
    entry(OBSERVATION_POINTS, trace.point)
}

/// What conntrack knows of its flow: `new`.
pub fn state(trace: &Trace) -> Cow<'static, str> {
    entry(TRACE_STATES, trace.state)
}

/// Where it was seen as an arrow: `<- endpoint 32`.
pub fn summary(trace: &Trace, source: u16) -> Cow<'static, str> {
    let fixed = match trace.point {
        0 => return Cow::Owned(format!("-> endpoint {}", trace.destination)),
        1 if trace.destination > 0 => {
            return Cow::Owned(format!("-> proxy port {}", trace.destination));
        }
        5 => return Cow::Owned(format!("<- endpoint {source}")),
        1 => "-> proxy",
        2 => "-> host from",
        3 => "-> stack",
        4 => "-> overlay",
        6 => "<- proxy",
        7 => "<- host",
        8 => "<- stack",
        9 => "<- overlay",
        10 => "<- network",
        11 => "-> network",
        12 => "<- crypto",
        13 => "-> crypto",
        other => return Cow::Owned(format!("point {other}")),
    };
    Cow::Borrowed(fixed)
}

/// Why a packet was dropped: `Invalid source ip`, with the extension behind it where there is one.
pub fn reason(drop: &Drop) -> Cow<'static, str> {
    match (reason_text(drop.reason), drop.ext_error) {
        (Some(text), 0) => Cow::Borrowed(text),
        (Some(text), more) => Cow::Owned(format!("{text}, {more}")),
        (None, 0) => Cow::Owned(drop.reason.to_string()),
        (None, more) => Cow::Owned(format!("{}, {more}", drop.reason)),
    }
}

/// The source file that dropped it.
pub fn file(drop: &Drop) -> Cow<'static, str> {
    source_file(drop.file).map_or_else(|| Cow::Owned(drop.file.to_string()), Cow::Borrowed)
}

/// An identity by the name that reserved ones have, or by number.
pub fn identity(number: u32, numeric: bool) -> Cow<'static, str> {
    let name = if numeric { None } else { Identity::new(number).and_then(Identity::name) };
    name.map_or_else(|| Cow::Owned(number.to_string()), Cow::Borrowed)
}

/// `identity host->30501`.
pub fn identities(of: Identities, numeric: bool) -> String {
    let (source, destination) = (identity(of.source, numeric), identity(of.destination, numeric));
    format!("identity {source}->{destination}")
}

/// What a capture shows, and the short form of it; `link` is the device it names.
pub fn capture(capture: &Capture, link: &str) -> (String, String) {
    let [first, _] = capture.arguments;
    // A port in network order.
    let port = u16::from_be(first as u16);
    match capture.number {
        4 => (format!("Delivery to ifindex {first}"), format!("-> {link}")),
        5 => (
            format!("To the load balancer from ifindex {first}"),
            format!("<- load-balancer {link}"),
        ),
        6 => (format!("IPv4 became IPv6 on ifindex {first}"), format!("== v4->v6 {first}")),
        7 => (format!("IPv6 became IPv4 on ifindex {first}"), format!("== v6->v4 {first}")),
        8 => (format!("Before the proxy on port {port}"), String::new()),
        9 => (format!("To the proxy on port {port}"), format!("-> proxy port {port}")),
        10 => (format!("Before SNAT on ifindex {first}"), format!("-> snat {link}")),
        11 => (format!("After SNAT on ifindex {first}"), format!("<- snat {link}")),
        other => (format!("Capture {other} with {first}"), String::new()),
    }
}
