//! A WireGuard public key, as text.
//!
//! Pure. The base64 crate does the letters: it refuses what isn't written as `wg` writes it.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Bytes of a key of Curve25519.
pub const KEY_BYTES: usize = 32;

/// What tells a WireGuard peer from others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; KEY_BYTES]);

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key is 32 bytes in base64: 43 letters, digits, `+` and `/`, and one `=`")]
    NotBase64,
    #[error("a key is 32 bytes, this one has {0}")]
    Length(usize),
    #[error("all bytes of it are zero, which is no key")]
    Zero,
}

/// The bytes of a key that is given as text.
///
/// # Errors
/// It is none.
pub fn key_bytes(text: &str) -> Result<[u8; KEY_BYTES], KeyError> {
    let bytes = STANDARD.decode(text).map_err(|_| KeyError::NotBase64)?;
    let bytes: [u8; KEY_BYTES] =
        bytes.try_into().map_err(|bytes: Vec<u8>| KeyError::Length(bytes.len()))?;
    if bytes == [0; KEY_BYTES] { Err(KeyError::Zero) } else { Ok(bytes) }
}

/// A key as text.
pub fn key_text(bytes: &[u8; KEY_BYTES]) -> String {
    STANDARD.encode(bytes)
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        key_bytes(text).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&key_text(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_they_are_read() {
        let text = "IKwg++mojsgZ5mw3McPgcg5Cq9qe/dfNOz3det8U12o=";
        let key: PublicKey = text.parse().unwrap();
        assert_eq!((key.0[0], key.to_string()), (0x20, text.to_string()));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let zero = key_text(&[0; KEY_BYTES]);
        for (text, error) in [
            ("", KeyError::Length(0)),
            ("AAAA", KeyError::Length(3)),
            ("not a key", KeyError::NotBase64),
            // Bits behind the last byte.
            ("IKwg++mojsgZ5mw3McPgcg5Cq9qe/dfNOz3det8U12p=", KeyError::NotBase64),
            (&zero, KeyError::Zero),
        ] {
            assert_eq!(text.parse::<PublicKey>(), Err(error), "{text}");
        }
    }
}
