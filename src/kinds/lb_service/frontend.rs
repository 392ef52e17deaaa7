//! What tells one frontend from another. Pure; imports `bpf_abi`.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::State;
use crate::bpf_abi::{LB_SCOPE_INT, Lb4Key, Lb6Key, protocol_name};

/// An address, port and protocol, for the senders of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    pub address: IpAddr,
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// `LB_SCOPE_*`.
    pub scope: u8,
}

/// By address, port, protocol and scope. As numbers, because tens of thousands are sorted and looked for in each
/// round, and addresses are compared byte by byte otherwise.
impl Ord for Frontend {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Frontend {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Frontend {
    fn rank(&self) -> (bool, u128, u32) {
        let rest =
            u32::from(self.port) << 16 | u32::from(self.protocol) << 8 | u32::from(self.scope);
        match self.address {
            IpAddr::V4(v4) => (false, u32::from(v4).into(), rest),
            IpAddr::V6(v6) => (true, v6.into(), rest),
        }
    }

    /// Address and port.
    pub fn socket(self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// The key of one of its slots in the map of its family; how many of the bytes count is the map's business.
    pub(super) fn bytes(self, slot: u16) -> ([u8; 24], usize) {
        let mut bytes = [0; 24];
        let port_be = self.port.to_be_bytes();
        let (protocol, scope, pad) = (self.protocol, self.scope, [0; 2]);
        match self.address {
            IpAddr::V4(v4) => {
                let address_be = v4.octets();
                let key = Lb4Key { address_be, port_be, slot, protocol, scope, pad };
                bytes[..12].copy_from_slice(&key.to_bytes());
                (bytes, 12)
            }
            IpAddr::V6(v6) => {
                let address_be = v6.octets();
                let key = Lb6Key { address_be, port_be, slot, protocol, scope, pad };
                (key.to_bytes(), 24)
            }
        }
    }

    /// The frontend and slot of a key; `None` for one that we never write.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<(Self, u16)> {
        let (address, port_be, slot, protocol, scope, pad): (IpAddr, _, _, _, _, _) =
            match bytes.len() {
                12 => {
                    let key = Lb4Key::from_bytes(bytes.try_into().ok()?);
                    let address = key.address_be.into();
                    (address, key.port_be, key.slot, key.protocol, key.scope, key.pad)
                }
                _ => {
                    let key = Lb6Key::from_bytes(bytes.try_into().ok()?);
                    let address = key.address_be.into();
                    (address, key.port_be, key.slot, key.protocol, key.scope, key.pad)
                }
            };
        let port = u16::from_be_bytes(port_be);
        (pad == [0; 2]).then_some((Self { address, port, protocol, scope }, slot))
    }
}

/// As Cilium shows it.
impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.socket(), protocol_name(self.protocol))?;
        if self.scope == LB_SCOPE_INT { f.write_str("/i") } else { Ok(()) }
    }
}

/// Which object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Key {
    Frontend(Frontend),
    /// What is left under a number, in the maps of a family, that no frontend has.
    Number {
        id: u16,
        ipv6: bool,
    },
}

impl Key {
    /// The family of the maps.
    pub fn is_ipv6(self) -> bool {
        match self {
            Self::Frontend(frontend) => frontend.address.is_ipv6(),
            Self::Number { ipv6, .. } => ipv6,
        }
    }

    /// The number that things are under.
    pub(super) fn number(self, state: &State) -> Option<u16> {
        match self {
            Self::Frontend(_) => state.id(),
            Self::Number { id, .. } => Some(id),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frontend(frontend) => frontend.fmt(f),
            Self::Number { id, ipv6 } => {
                write!(f, "number {id}{} without frontend", if *ipv6 { " ipv6" } else { "" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontends_are_ordered_by_their_fields() {
        let mut all = Vec::new();
        for address in ["0.0.0.1", "1.0.0.0", "255.0.0.2", "::", "::1", "1::", "ff00::"] {
            for port in [0, 1, 256, 65_535] {
                for (protocol, scope) in [(0, 0), (0, 1), (6, 0), (17, 1), (132, 255)] {
                    let address = address.parse().unwrap();
                    all.push(Frontend { address, port, protocol, scope });
                }
            }
        }
        let fields = |f: &Frontend| (f.address, f.port, f.protocol, f.scope);
        for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other))) {
            assert_eq!(one.cmp(other), fields(one).cmp(&fields(other)), "{one} {other}");
        }
    }
}
