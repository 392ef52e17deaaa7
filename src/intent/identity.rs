//! Security identities: numbers that stand for sets of labels.
//!
//! The reserved ones are Cilium's (pkg/identity/numericidentity.go). Pure; imports nothing of this
//! crate.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A security identity. The datapath carries it in 24 bits: VNI, packet mark, map keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Identity(u32);

/// Name and number of the identities that exist without labels.
const RESERVED: &[(&str, u32)] = &[
    ("unknown", 0),
    ("host", 1),
    ("world", 2),
    ("unmanaged", 3),
    ("health", 4),
    ("init", 5),
    ("remote-node", 6),
    ("kube-apiserver", 7),
    ("ingress", 8),
    ("world-ipv4", 9),
    ("world-ipv6", 10),
    ("encrypted-overlay", 11),
];

impl Identity {
    /// No identity yet.
    pub const UNKNOWN: Self = Self(0);
    /// This node's own addresses.
    pub const HOST: Self = Self(1);
    /// Whatever is not known, where only one family is in use.
    pub const WORLD: Self = Self(2);
    /// The health endpoint.
    pub const HEALTH: Self = Self(4);
    /// Endpoints without labels.
    pub const INIT: Self = Self(5);
    /// Addresses of other nodes.
    pub const REMOTE_NODE: Self = Self(6);
    /// The ingress listener.
    pub const INGRESS: Self = Self(8);
    /// Whatever is not known, IPv4, where both families are in use.
    pub const WORLD_IPV4: Self = Self(9);
    /// Whatever is not known, IPv6, where both families are in use.
    pub const WORLD_IPV6: Self = Self(10);

    /// First identity an operator may hand out; those up to 255 have no labels of their own.
    pub const USER_MIN: u32 = 128;
    /// First and last identity that stands for a set of labels.
    pub const LABELS_MIN: u32 = 256;
    pub const LABELS_MAX: u32 = 65_535;
    /// Largest number that fits the wire.
    pub const MAX: u32 = (1 << 24) - 1;

    /// The identity with a number; `None` if it doesn't fit into 24 bits.
    pub const fn new(number: u32) -> Option<Self> {
        if number <= Self::MAX { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Names and numbers of the identities that exist without labels.
    pub fn reserved() -> impl Iterator<Item = (&'static str, Self)> {
        RESERVED.iter().map(|(name, number)| (*name, Self(*number)))
    }

    /// The name of a reserved identity.
    pub fn name(self) -> Option<&'static str> {
        RESERVED.iter().find(|(_, number)| *number == self.0).map(|(name, _)| *name)
    }

    /// The reserved identity with a name.
    pub fn named(name: &str) -> Option<Self> {
        RESERVED.iter().find(|(reserved, _)| *reserved == name).map(|(_, number)| Self(*number))
    }
}

/// A number that doesn't fit into 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an identity: the largest is {max}", max = Identity::MAX)]
pub struct IdentityError(u32);

impl TryFrom<u32> for Identity {
    type Error = IdentityError;

    fn try_from(number: u32) -> Result<Self, IdentityError> {
        Self::new(number).ok_or(IdentityError(number))
    }
}

impl From<Identity> for u32 {
    fn from(identity: Identity) -> Self {
        identity.number()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Derives the identity of a set of labels: the first four bytes, big-endian, of SHA-256 over
/// `key=value;` for each label in the order of the keys, reduced to 256–65535. Every node derives the
/// same number from the same labels, without having to ask anyone. No labels: [`Identity::INIT`].
///
/// Two sets may get the same number. Among the endpoints of one node that is refused when the document
/// is read; across nodes only an explicit `identity` rules it out.
pub fn identity_of_labels(labels: &BTreeMap<String, String>) -> Identity {
    if labels.is_empty() {
        return Identity::INIT;
    }
    let mut hash = Sha256::new();
    for (key, value) in labels {
        for part in [key.as_str(), "=", value.as_str(), ";"] {
            hash.update(part.as_bytes());
        }
    }
    let hash = hash.finalize();
    let number = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let span = Identity::LABELS_MAX - Identity::LABELS_MIN + 1;
    Identity(Identity::LABELS_MIN + number % span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_number_of_a_label_set_never_changes() {
        // Other nodes and earlier versions have derived these: a change here cuts a network in two.
        let app = identity_of_labels(&labels(&[("app", "client")]));
        assert_eq!(app.number(), 22_965);
        let both = [("app", "client"), ("k8s:io.kubernetes.pod.namespace", "default")];
        let turned = [both[1], both[0]];
        assert_eq!(identity_of_labels(&labels(&both)), identity_of_labels(&labels(&turned)));
        assert_ne!(identity_of_labels(&labels(&both)), app);
        assert_eq!(identity_of_labels(&labels(&[])), Identity::INIT);
    }

    #[test]
    fn derived_numbers_are_in_range() {
        for n in 0..10_000 {
            let number = identity_of_labels(&labels(&[("n", &n.to_string())])).number();
            assert!((Identity::LABELS_MIN..=Identity::LABELS_MAX).contains(&number));
        }
    }

    #[test]
    fn reserved_names_and_numbers_agree() {
        for (name, number) in RESERVED {
            let identity = Identity::named(name).unwrap();
            assert_eq!((identity.number(), identity.name()), (*number, Some(*name)));
        }
        assert_eq!(Identity::named("host"), Some(Identity::HOST));
        assert_eq!(Identity::named("world-ipv6"), Some(Identity::WORLD_IPV6));
        assert_eq!(Identity::new(256).unwrap().name(), None);
        assert_eq!(Identity::new(1 << 24), None);
        assert_eq!(format!("{:>4}", Identity::HOST), "   1");
        assert_eq!(serde_json::to_string(&Identity::HOST).unwrap(), "1");
        assert!(serde_json::from_str::<Identity>("16777216").is_err());
    }
}
