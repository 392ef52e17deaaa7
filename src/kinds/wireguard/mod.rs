//! What a WireGuard device is: its private key, port and mark. The device itself is a link, and its peers are
//! objects of their own. Goes with the device.
//!
//! The private key is not here: a spec names the file, and what was seen says whether the device has the key of
//! that file. Only the file that touches the kernel reads it.
//!
//! Pure but for `exec.rs`.

pub mod exec;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Field, Kind, ObjectKey};
use crate::net::IfName;

/// The kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Wireguard;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The file with the private key.
    pub key_file: Arc<str>,
    /// UDP port.
    pub port: u16,
    /// Mark of the packets that it makes.
    pub fwmark: u32,
}

/// Which private key a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrivateKey {
    Missing,
    OfFile,
    Another,
}

impl PrivateKey {
    fn text(self) -> &'static str {
        match self {
            PrivateKey::Missing => "missing",
            PrivateKey::OfFile => "of the file",
            PrivateKey::Another => "another",
        }
    }
}

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub private_key: PrivateKey,
    pub port: u16,
    pub fwmark: u32,
}

impl Kind for Wireguard {
    type Key = IfName;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "wireguard";
    const REMOVABLE: bool = false;

    fn realise(_key: &IfName, spec: &Spec) -> Seen {
        Seen { private_key: PrivateKey::OfFile, port: spec.port, fwmark: spec.fwmark }
    }

    fn fields(_key: &IfName, spec: &Spec, seen: &Seen) -> Vec<Field> {
        let mark = |mark: u32| format!("{mark:#x}");
        let key = (seen.private_key.text(), PrivateKey::OfFile.text());
        [
            Field::differs("private key", &key.0, &key.1),
            Field::differs("port", &seen.port, &spec.port),
            Field::differs("fwmark", &mark(seen.fwmark), &mark(spec.fwmark)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn describe_spec(_key: &IfName, spec: &Spec) -> String {
        format!("port {} fwmark {:#x} private key {}", spec.port, spec.fwmark, spec.key_file)
    }

    fn describe_seen(_key: &IfName, seen: &Seen) -> String {
        format!("port {} fwmark {:#x}", seen.port, seen.fwmark)
    }

    fn needs(key: &IfName, spec: &Spec) -> Vec<ObjectKey> {
        vec![ObjectKey::Link(*key), ObjectKey::WireguardKey(spec.key_file.clone())]
    }
}
