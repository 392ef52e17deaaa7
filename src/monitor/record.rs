//! Records of a ring, as bytes, to typed events.
//!
//! Pure. Imports `bpf_abi`. A record that is cut off, or of a version that this program does not know,
//! is an error: guessing would show packets that never were.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bpf_abi::{
    CaptureEvent, DROP_EVENT_VERSION, DebugEvent, DropEvent, EVENT_CAPTURE, EVENT_DEBUG,
    EVENT_DROP, EVENT_FLAG_IPV6, EVENT_TRACE, EventCapture, EventCommon, EventHead,
    TRACE_ENCRYPTED, TRACE_EVENT_VERSION, TraceEvent,
};

/// Something the programs said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// Of the monotonic clock.
    pub time_ns: u64,
    pub cpu: u32,
    /// Id of the endpoint whose program it was.
    pub source: u16,
    /// Of the flow.
    pub hash: u32,
    pub body: Body,
    /// Length of the packet, of which [`Self::packet`] is the beginning.
    pub bytes: u32,
    pub packet: &'a [u8],
}

/// What was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Drop(Drop),
    Debug(Debug),
    Capture(Capture),
    Trace(Trace),
}

/// A packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drop {
    pub reason: u8,
    pub identities: Identities,
    /// Endpoint it was for, or 0.
    pub destination: u32,
    pub line: u16,
    pub file: u8,
    /// More about the reason, or 0.
    pub ext_error: i8,
    pub ifindex: u32,
    pub flags: u8,
}

/// A packet passed an observation point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Index of [`OBSERVATION_POINTS`](crate::bpf_abi::OBSERVATION_POINTS).
    pub point: u8,
    pub identities: Identities,
    /// Endpoint it is for, or 0; the port of a proxy, on the way to one.
    pub destination: u16,
    /// Index of [`TRACE_STATES`](crate::bpf_abi::TRACE_STATES).
    pub state: u8,
    pub encrypted: bool,
    pub flags: u8,
    pub ifindex: u32,
    /// Source address before it was translated.
    pub original_source: IpAddr,
}

/// A message for those who work on the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Debug {
    pub number: u8,
    pub arguments: [u32; 3],
}

/// A packet as it was at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    pub number: u8,
    pub arguments: [u32; 2],
}

/// Security identities of the two ends of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identities {
    pub source: u32,
    pub destination: u32,
}

/// Why a record is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("an event of {0} bytes is cut off")]
    CutOff(usize),
    #[error("events of type {0} are not known to this version of ciliate")]
    Type(u8),
    #[error(
        "version {version} of events of type {event_type} is not known to this version of ciliate"
    )]
    Version { event_type: u8, version: u16 },
}

/// Reads a record, as it lies in a ring.
///
/// # Errors
/// It is cut off, or of another version.
pub fn decode(bytes: &[u8]) -> Result<Event<'_>, RecordError> {
    let cut_off = RecordError::CutOff(bytes.len());
    let (head, record) = bytes.split_first_chunk().ok_or(cut_off)?;
    let head = EventHead::from_bytes(head);
    // Rings hold multiples of eight bytes, and a program may reserve more than it fills.
    let record = record.get(..head.len as usize).ok_or(cut_off)?;
    let common = EventCommon::from_bytes(record.first_chunk().ok_or(cut_off)?);
    let parts = match common.r#type {
        EVENT_DROP => drop(record),
        EVENT_DEBUG => debug(record),
        EVENT_CAPTURE => capture(record),
        EVENT_TRACE => trace(record),
        other => Err(RecordError::Type(other)),
    };
    let (body, bytes, packet) = parts?;
    Ok(Event {
        time_ns: head.time_ns,
        cpu: head.cpu,
        source: common.source,
        hash: common.hash,
        body,
        bytes,
        packet,
    })
}

/// What was said, the length of the packet, and the beginning of it.
type Parts<'a> = (Body, u32, &'a [u8]);

/// The fields and what follows them.
fn split<const SIZE: usize>(record: &[u8]) -> Result<(&[u8; SIZE], &[u8]), RecordError> {
    record.split_first_chunk().ok_or(RecordError::CutOff(record.len()))
}

/// The captured part of the packet behind the fields.
fn captured<'a>(head: &EventCapture, rest: &'a [u8]) -> Result<&'a [u8], RecordError> {
    rest.get(..usize::from(head.len_captured)).ok_or(RecordError::CutOff(rest.len()))
}

fn expect_version(head: &EventCapture, event_type: u8, known: u16) -> Result<(), RecordError> {
    let version = head.version;
    if version == known { Ok(()) } else { Err(RecordError::Version { event_type, version }) }
}

fn drop(record: &[u8]) -> Result<Parts<'_>, RecordError> {
    let (fields, rest) = split(record)?;
    let fields = DropEvent::from_bytes(fields);
    let head = EventCapture::from_bytes(&fields.head);
    expect_version(&head, EVENT_DROP, DROP_EVENT_VERSION)?;
    let body = Drop {
        reason: EventCommon::from_bytes(&head.common).subtype,
        identities: Identities {
            source: fields.source_identity,
            destination: fields.destination_identity,
        },
        destination: fields.destination_id,
        line: fields.line,
        file: fields.file,
        ext_error: fields.ext_error,
        ifindex: fields.ifindex,
        flags: fields.flags,
    };
    Ok((Body::Drop(body), head.len_original, captured(&head, rest)?))
}

fn trace(record: &[u8]) -> Result<Parts<'_>, RecordError> {
    let (fields, rest) = split(record)?;
    let fields = TraceEvent::from_bytes(fields);
    let head = EventCapture::from_bytes(&fields.head);
    expect_version(&head, EVENT_TRACE, TRACE_EVENT_VERSION)?;
    let address = fields.original_source;
    let original_source = if fields.flags & EVENT_FLAG_IPV6 == 0 {
        Ipv4Addr::new(address[0], address[1], address[2], address[3]).into()
    } else {
        Ipv6Addr::from(address).into()
    };
    let body = Trace {
        point: EventCommon::from_bytes(&head.common).subtype,
        identities: Identities {
            source: fields.source_identity,
            destination: fields.destination_identity,
        },
        destination: fields.destination_id,
        state: fields.reason & !TRACE_ENCRYPTED,
        encrypted: fields.reason & TRACE_ENCRYPTED != 0,
        flags: fields.flags,
        ifindex: fields.ifindex,
        original_source,
    };
    Ok((Body::Trace(body), head.len_original, captured(&head, rest)?))
}

fn debug(record: &[u8]) -> Result<Parts<'_>, RecordError> {
    let (fields, _) = split(record)?;
    let fields = DebugEvent::from_bytes(fields);
    let body = Debug {
        number: EventCommon::from_bytes(&fields.common).subtype,
        arguments: [fields.arg1, fields.arg2, fields.arg3],
    };
    Ok((Body::Debug(body), 0, &[]))
}

fn capture(record: &[u8]) -> Result<Parts<'_>, RecordError> {
    let (fields, rest) = split(record)?;
    let fields = CaptureEvent::from_bytes(fields);
    let head = EventCapture::from_bytes(&fields.head);
    let body = Capture {
        number: EventCommon::from_bytes(&head.common).subtype,
        arguments: [fields.arg1, fields.arg2],
    };
    Ok((Body::Capture(body), head.len_original, captured(&head, rest)?))
}

impl Event<'_> {
    /// `EVENT_*`.
    pub fn event_type(&self) -> u8 {
        match self.body {
            Body::Drop(_) => EVENT_DROP,
            Body::Debug(_) => EVENT_DEBUG,
            Body::Capture(_) => EVENT_CAPTURE,
            Body::Trace(_) => EVENT_TRACE,
        }
    }

    /// Endpoint the packet is for; 0 where the event does not say.
    pub fn destination(&self) -> u32 {
        match &self.body {
            Body::Drop(drop) => drop.destination,
            Body::Trace(trace) => trace.destination.into(),
            Body::Debug(_) | Body::Capture(_) => 0,
        }
    }

    /// The device that the event names, or 0.
    pub fn ifindex(&self) -> u32 {
        match &self.body {
            Body::Drop(drop) => drop.ifindex,
            Body::Trace(trace) => trace.ifindex,
            Body::Capture(capture) => capture.arguments[0],
            Body::Debug(_) => 0,
        }
    }

    /// `EVENT_FLAG_*`: how to read the packet.
    pub fn flags(&self) -> u8 {
        match &self.body {
            Body::Drop(drop) => drop.flags,
            Body::Trace(trace) => trace.flags,
            Body::Debug(_) | Body::Capture(_) => 0,
        }
    }
}
