//! Value types every stage shares: interface names, MAC addresses, network namespaces, WireGuard keys.
//!
//! Pure. Imports nothing of this crate; everything may import it. Each type is validated once, when
//! it is built, so that no later stage has to ask again.

mod public_key;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use public_key::{KEY_BYTES, KeyError, PublicKey, key_bytes, key_text};

/// Longest interface name, without the terminating NUL (`IFNAMSIZ` − 1, linux/if.h).
pub const IFNAME_LEN_MAX: usize = 15;

/// An interface name the kernel would accept (`dev_valid_name`, net/core/dev.c): 1–15 bytes, not
/// `.` or `..`, no `/`, `:` or white space. We also ask for ASCII.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName {
    bytes: [u8; IFNAME_LEN_MAX],
    len: u8,
}

/// Why a text is not an interface name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IfNameError {
    #[error("an interface name has 1 to {IFNAME_LEN_MAX} bytes, this one has {0}")]
    Length(usize),
    #[error("`{0}` can't be in an interface name")]
    Character(char),
    #[error("`.` and `..` are not interface names")]
    Dots,
}

impl IfName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len as usize]).unwrap_or("")
    }
}

impl FromStr for IfName {
    type Err = IfNameError;

    fn from_str(text: &str) -> Result<Self, IfNameError> {
        if text.is_empty() || text.len() > IFNAME_LEN_MAX {
            return Err(IfNameError::Length(text.len()));
        }
        if text == "." || text == ".." {
            return Err(IfNameError::Dots);
        }
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic() || "/:".contains(*c)) {
            return Err(IfNameError::Character(bad));
        }
        let mut bytes = [0; IFNAME_LEN_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, len: text.len() as u8 })
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// Why a text is not an Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an Ethernet address is six hexadecimal bytes, like 4a:de:3b:33:f8:4b")]
pub struct MacError;

impl Mac {
    /// True for an address that can belong to one station: not a group address, not all zero.
    pub fn is_unicast(&self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(MacError)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(MacError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        if parts.next().is_some() { Err(MacError) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A network namespace as plans name it: the one the process runs in, or a file that refers to one
/// (`/run/netns/client`, `/proc/1234/ns/net`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Netns(Option<Arc<str>>);

impl Netns {
    /// The namespace the process runs in.
    pub const HOST: Netns = Netns(None);

    /// The namespace behind a file.
    pub fn at(path: impl Into<Arc<str>>) -> Self {
        Self(Some(path.into()))
    }

    /// The file, or `None` for the process's own namespace.
    pub fn path(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// The process, if the file is that of one.
    pub fn pid(&self) -> Option<u32> {
        self.path()?.strip_prefix("/proc/")?.strip_suffix("/ns/net")?.parse().ok()
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path().unwrap_or("host"))
    }
}

/// Text in and out for the types that are written as text in TOML and in JSON.
macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(IfName, Mac);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "a", "lxceaefdfbf8f50", "eth0.100", "br-lan"] {
            assert_eq!(good.parse::<IfName>().unwrap().as_str(), good);
        }
        assert_eq!("".parse::<IfName>(), Err(IfNameError::Length(0)));
        assert_eq!("sixteen-bytes-xx".parse::<IfName>(), Err(IfNameError::Length(16)));
        assert_eq!("..".parse::<IfName>(), Err(IfNameError::Dots));
        assert_eq!("a/b".parse::<IfName>(), Err(IfNameError::Character('/')));
        assert_eq!("a b".parse::<IfName>(), Err(IfNameError::Character(' ')));
    }

    #[test]
    fn processes_are_told_from_files() {
        assert_eq!(Netns::at("/proc/1234/ns/net").pid(), Some(1234));
        for other in ["/run/netns/1234", "/proc/self/ns/net", "/proc/1234/ns/mnt"] {
            assert_eq!(Netns::at(other).pid(), None, "{other}");
        }
        assert_eq!(Netns::HOST.pid(), None);
    }

    #[test]
    fn mac_text_round_trips() {
        let mac: Mac = "4A:de:3b:33:f8:4b".parse().unwrap();
        assert_eq!(mac.to_string(), "4a:de:3b:33:f8:4b");
        assert!(mac.is_unicast());
        for bad in
            ["", "4a:de:3b:33:f8", "4a:de:3b:33:f8:4b:00", "+a:de:3b:33:f8:4b", "4a-de-3b-33-f8-4b"]
        {
            assert_eq!(bad.parse::<Mac>(), Err(MacError), "{bad}");
        }
    }
}
