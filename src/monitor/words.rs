//! Numbers of events in words. What is shown as part of a line is written into it, without a text of its
//! own in between.
//!
//! Pure. Imports `bpf_abi` and `intent` (the names of identities).

use std::fmt;

use super::record::{Capture, Drop, Identities, Trace};
use crate::bpf_abi::{OBSERVATION_POINTS, TRACE_STATES, reason_text, source_file};
use crate::intent::Identity;

/// A name, or the number that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Name(&'static str),
    Number(u32),
}

impl Word {
    fn of(name: Option<&'static str>, number: impl Into<u32>) -> Self {
        name.map_or_else(|| Self::Number(number.into()), Self::Name)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}

fn entry(table: &[&'static str], number: u8) -> Word {
    Word::of(table.get(usize::from(number)).copied(), number)
}

/// Where a packet was seen: `from-endpoint`.
pub fn point(trace: &Trace) -> Word {
    entry(OBSERVATION_POINTS, trace.point)
}

/// What conntrack knows of its flow: `new`.
pub fn state(trace: &Trace) -> Word {
    entry(TRACE_STATES, trace.state)
}

/// The source file that dropped a packet.
pub fn file(drop: &Drop) -> Word {
    Word::of(source_file(drop.file), drop.file)
}

/// An identity by the name that reserved ones have, or by number.
pub fn identity(number: u32, numeric: bool) -> Word {
    let name = if numeric { None } else { Identity::new(number).and_then(Identity::name) };
    Word::of(name, number)
}

/// `identity host->30501`; by numbers only, if so asked.
pub struct Between(pub Identities, pub bool);

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Identities { source, destination }, numeric) = *self;
        write!(f, "identity {}->{}", identity(source, numeric), identity(destination, numeric))
    }
}

/// Where a packet was seen as an arrow: `<- endpoint 32`. The number is the event's source.
pub struct Arrow<'a>(pub &'a Trace, pub u16);

impl fmt::Display for Arrow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(trace, source) = *self;
        let fixed = match trace.point {
            0 => return write!(f, "-> endpoint {}", trace.destination),
            1 if trace.destination > 0 => {
                return write!(f, "-> proxy port {}", trace.destination);
            }
            5 => return write!(f, "<- endpoint {source}"),
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
            other => return write!(f, "point {other}"),
        };
        f.write_str(fixed)
    }
}

/// Why a packet was dropped: `Invalid source ip`, with the extension behind it where there is one.
pub struct Reason<'a>(pub &'a Drop);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Word::of(reason_text(self.0.reason), self.0.reason).fmt(f)?;
        match self.0.ext_error {
            0 => Ok(()),
            more => write!(f, ", {more}"),
        }
    }
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
