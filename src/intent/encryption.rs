//! `[encryption]`, and what a peer's table says of WireGuard.
//!
//! Pure: the key files are read elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_spanned::Spanned;

use super::address::shown;
use super::draft::{At, DraftEncryption, DraftWireguard, Problems};
use super::{Encryption, limits, paths, routing};
use crate::config::{self, Diagnostic, EncryptionMode};
use crate::net::PublicKey;

/// Reads the section. What is wrong in it is a mistake also where encryption is off.
pub(super) fn read(
    section: Option<&Spanned<config::Encryption>>,
    problems: &mut Problems,
) -> DraftEncryption {
    let empty = config::Encryption::default();
    let encryption = section.map_or(&empty, Spanned::get_ref);
    let port = encryption.port.as_ref();
    let port = port.and_then(|port| routing::number(port, "`port`", 1, 65_535, problems));
    let port = port.and_then(|port| u16::try_from(port).ok());
    let key_file = encryption.private_key_file.as_ref().filter(|path| {
        paths::absolute(path, "`private-key-file`", limits::PATH_BYTES_MAX, problems)
    });
    let on = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|on| *on.get_ref());
    let mode = encryption.mode.as_ref().map(|mode| *mode.get_ref());
    let value = Encryption {
        port: port.unwrap_or(limits::WIREGUARD_PORT_DEFAULT),
        key_file: key_file.map(|path| PathBuf::from(path.get_ref())),
        nodes: on(&encryption.encrypt_nodes),
        strict: on(&encryption.strict),
    };
    DraftEncryption {
        value: (mode == Some(EncryptionMode::Wireguard)).then_some(value),
        keepalive_s: keepalive(encryption.persistent_keepalive.as_ref(), problems).unwrap_or(0),
    }
}

fn keepalive(written: Option<&Spanned<i64>>, problems: &mut Problems) -> Option<u16> {
    let read = routing::number(written?, "`persistent-keepalive`", 0, 65_535, problems)?;
    u16::try_from(read).ok()
}

/// Reads what a peer's table says.
pub(super) fn peer(peer: &config::Peer, problems: &mut Problems) -> DraftWireguard {
    DraftWireguard {
        public_key: peer.public_key.as_ref().and_then(|text| public_key(text, problems)),
        endpoint: peer.wireguard_endpoint.as_ref().and_then(|text| endpoint(text, problems)),
        keepalive_s: keepalive(peer.persistent_keepalive.as_ref(), problems),
    }
}

fn public_key(text: &Spanned<String>, problems: &mut Problems) -> Option<At<PublicKey>> {
    match text.get_ref().parse() {
        Ok(value) => Some(At { value, span: text.into() }),
        Err(why) => {
            let problem = Diagnostic::new(text, "this is not a public key");
            problems.push(problem.label(format!("{why}")).help(
                "write what `ciliate wireguard pubkey` says on the peer; keys are in base64, as `wg` writes them",
            ));
            None
        }
    }
}

fn endpoint(text: &Spanned<String>, problems: &mut Problems) -> Option<SocketAddr> {
    let read = text.get_ref().parse::<SocketAddr>();
    let usable =
        |at: &SocketAddr| at.port() != 0 && !at.ip().is_unspecified() && !at.ip().is_multicast();
    if let Some(endpoint) = read.ok().filter(usable) {
        return Some(endpoint);
    }
    let message = format!("{} is not an address with a port", shown(text.get_ref()));
    problems.push(Diagnostic::new(text, message).help(
        "write an address and a UDP port, like \"192.0.2.1:51871\" or \"[2001:db8::1]:51871\"",
    ));
    None
}
