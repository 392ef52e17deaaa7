//! The records in a ring of events, the numbers in them, and what Cilium calls those.
//!
//! Pure. Imports the parent module only. In front of each record stands an
//! [`EventHead`](super::EventHead), behind it the first bytes of the packet; debug records have none.

use super::records::{Field, Record, Scalar};

/// [`EventCommon`]'s type: a packet that was dropped.
pub const EVENT_DROP: u8 = 1;
/// [`EventCommon`]'s type: a step of a program, for those who work on it.
pub const EVENT_DEBUG: u8 = 2;
/// [`EventCommon`]'s type: a packet as it was at a step of a program.
pub const EVENT_CAPTURE: u8 = 3;
/// [`EventCommon`]'s type: a packet that passes an observation point.
pub const EVENT_TRACE: u8 = 4;

/// [`DropEvent::flags`] and [`TraceEvent::flags`]: the addresses are IPv6.
pub const EVENT_FLAG_IPV6: u8 = 1;
/// The packet begins with its IP header: it was seen on a device without Ethernet.
pub const EVENT_FLAG_L3_DEVICE: u8 = 2;
/// The packet is VXLAN with another packet inside.
pub const EVENT_FLAG_VXLAN: u8 = 4;
/// The packet is Geneve with another packet inside.
pub const EVENT_FLAG_GENEVE: u8 = 8;

/// Version of [`DropEvent`] in [`EventCapture::version`].
pub const DROP_EVENT_VERSION: u16 = 2;
/// Version of [`TraceEvent`] in [`EventCapture::version`].
pub const TRACE_EVENT_VERSION: u16 = 1;

/// Observation points, the subtype of [`EVENT_TRACE`], by number.
pub const OBSERVATION_POINTS: &[&str] = &[
    "to-endpoint",
    "to-proxy",
    "to-host",
    "to-stack",
    "to-overlay",
    "from-endpoint",
    "from-proxy",
    "from-host",
    "from-stack",
    "from-overlay",
    "from-network",
    "to-network",
    "from-crypto",
    "to-crypto",
];

/// [`TraceEvent::reason`]: what conntrack knows of the flow, by number.
pub const TRACE_STATES: &[&str] = &[
    "new",
    "established",
    "reply",
    "related",
    "reopened",
    "unknown",
    "srv6-encap",
    "srv6-decap",
    "encrypt-overlay",
];

/// [`TraceEvent::reason`]: beside the state, the packet is or was encrypted.
pub const TRACE_ENCRYPTED: u8 = 0x80;

record! {
    /// What each record begins with.
    EventCommon, 8 {
        /// `EVENT_*`.
        r#type: u8,
        /// Drop reason, observation point, or the number of a debug message.
        subtype: u8,
        /// Id of the endpoint whose program wrote the record.
        source: u16,
        /// Of the flow.
        hash: u32,
    }
}

record! {
    /// What records with a packet begin with.
    EventCapture, 16 {
        /// [`EventCommon`].
        common: [u8; 8],
        /// In bytes, of the packet.
        len_original: u32,
        /// In bytes, of what follows the record.
        len_captured: u16,
        version: u16,
    }
}

record! {
    /// A packet that was dropped; the subtype is the reason.
    DropEvent, 40 {
        /// [`EventCapture`].
        head: [u8; 16],
        source_identity: u32,
        destination_identity: u32,
        /// Endpoint the packet was for, or 0.
        destination_id: u32,
        /// Where in the programs.
        line: u16,
        /// See [`source_file`](super::source_file).
        file: u8,
        /// More about the reason, or 0.
        ext_error: i8,
        ifindex: u32,
        /// `EVENT_FLAG_*`.
        flags: u8,
        pad: [u8; 3],
    }
}

record! {
    /// A packet at an observation point, which is the subtype.
    TraceEvent, 48 {
        /// [`EventCapture`].
        head: [u8; 16],
        source_identity: u32,
        destination_identity: u32,
        /// Endpoint the packet is for, or 0.
        destination_id: u16,
        /// Index of [`TRACE_STATES`], and [`TRACE_ENCRYPTED`].
        reason: u8,
        /// `EVENT_FLAG_*`.
        flags: u8,
        /// Of the device that the packet goes to, or 0.
        ifindex: u32,
        /// Source address before it was translated. IPv4 in the first four bytes.
        original_source: [u8; 16],
    }
}

record! {
    /// A message; the subtype says which, and what its arguments mean.
    DebugEvent, 20 {
        /// [`EventCommon`].
        common: [u8; 8],
        arg1: u32,
        arg2: u32,
        arg3: u32,
    }
}

record! {
    /// A packet at a step, which is the subtype.
    CaptureEvent, 24 {
        /// [`EventCapture`].
        head: [u8; 16],
        arg1: u32,
        arg2: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_leave_no_gap() {
        fn check<R: Record>() {
            let end = R::FIELDS.iter().fold(0, |at, field| {
                assert_eq!(field.offset, at, "{field:?}");
                at + field.size
            });
            assert_eq!(end, R::SIZE);
        }
        check::<EventCommon>();
        check::<EventCapture>();
        check::<DropEvent>();
        check::<TraceEvent>();
        check::<DebugEvent>();
        check::<CaptureEvent>();
    }

    #[test]
    fn signed_fields_keep_their_sign() {
        let event = DropEvent { ext_error: -2, ..DropEvent::default() };
        assert_eq!(event.to_bytes()[31], 0xfe);
        assert_eq!(DropEvent::from_bytes(&event.to_bytes()).ext_error, -2);
    }
}
