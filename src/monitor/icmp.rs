//! Names of ICMP and ICMPv6 messages: the type, and the code in brackets where it says more.
//!
//! Pure. Imports nothing. Numbers are IANA's; a number without a name is shown as it is.

use std::fmt;

/// A type and a code, shown as one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub v6: bool,
    pub kind: u8,
    pub code: u8,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, code) = if self.v6 { self.v6() } else { self.v4() };
        match kind {
            Some(kind) => f.write_str(kind)?,
            None => write!(f, "Type{}", self.kind)?,
        }
        match (code, self.code) {
            (Some(code), _) => write!(f, "({code})"),
            (None, 0) => Ok(()),
            (None, code) => write!(f, "(Code{code})"),
        }
    }
}

type Names = (Option<&'static str>, Option<&'static str>);

impl Message {
    fn v4(self) -> Names {
        let kind = match self.kind {
            0 => "EchoReply",
            3 => "DestinationUnreachable",
            4 => "SourceQuench",
            5 => "Redirect",
            8 => "EchoRequest",
            9 => "RouterAdvertisement",
            10 => "RouterSolicitation",
            11 => "TimeExceeded",
            12 => "ParameterProblem",
            13 => "TimestampRequest",
            14 => "TimestampReply",
            17 => "AddressMaskRequest",
            18 => "AddressMaskReply",
            _ => return (None, None),
        };
        let code = match (self.kind, self.code) {
            (3 | 5, 0) => "Net",
            (3 | 5, 1) => "Host",
            (3, 2) => "Protocol",
            (3, 3) => "Port",
            (3, 4) => "FragmentationNeeded",
            (3, 5) => "SourceRoutingFailed",
            (3, 6) => "NetUnknown",
            (3, 7) => "HostUnknown",
            (3, 9) => "NetAdminProhibited",
            (3, 10) => "HostAdminProhibited",
            (3, 13) => "CommAdminProhibited",
            (11, 0) => "TTLExceeded",
            (11, 1) => "FragmentReassemblyTimeExceeded",
            (12, 0) => "PointerIndicatesError",
            _ => return (Some(kind), None),
        };
        (Some(kind), Some(code))
    }

    fn v6(self) -> Names {
        let kind = match self.kind {
            1 => "DestinationUnreachable",
            2 => "PacketTooBig",
            3 => "TimeExceeded",
            4 => "ParameterProblem",
            128 => "EchoRequest",
            129 => "EchoReply",
            130 => "MLDv1MulticastListenerQueryMessage",
            131 => "MLDv1MulticastListenerReportMessage",
            132 => "MLDv1MulticastListenerDoneMessage",
            133 => "RouterSolicitation",
            134 => "RouterAdvertisement",
            135 => "NeighborSolicitation",
            136 => "NeighborAdvertisement",
            137 => "Redirect",
            143 => "MLDv2MulticastListenerReportMessageV2",
            _ => return (None, None),
        };
        let code = match (self.kind, self.code) {
            (1, 0) => "NoRouteToDst",
            (1, 1) => "AdminProhibited",
            (1, 2) => "BeyondScopeOfSrc",
            (1, 3) => "AddressUnreachable",
            (1, 4) => "PortUnreachable",
            (1, 5) => "SrcAddressFailedPolicy",
            (1, 6) => "RejectRouteToDst",
            (3, 0) => "HopLimitExceeded",
            (3, 1) => "FragmentReassemblyTimeExceeded",
            (4, 0) => "ErroneousHeader",
            (4, 1) => "UnrecognizedNextHeader",
            (4, 2) => "UnrecognizedIPv6Option",
            _ => return (Some(kind), None),
        };
        (Some(kind), Some(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_codes_have_names_or_numbers() {
        for (v6, kind, code, shown) in [
            (false, 8, 0, "EchoRequest"),
            (false, 3, 4, "DestinationUnreachable(FragmentationNeeded)"),
            (false, 11, 0, "TimeExceeded(TTLExceeded)"),
            (false, 42, 0, "Type42"),
            (false, 42, 7, "Type42(Code7)"),
            (true, 128, 0, "EchoRequest"),
            (true, 2, 0, "PacketTooBig"),
            (true, 3, 0, "TimeExceeded(HopLimitExceeded)"),
            (true, 136, 0, "NeighborAdvertisement"),
            (true, 1, 99, "DestinationUnreachable(Code99)"),
        ] {
            assert_eq!(Message { v6, kind, code }.to_string(), shown);
        }
    }
}
