//! nftables through the `nftables` crate, which runs `nft`. The ruleset's generation, which the
//! kernel counts, tells without starting a process whether anything changed since the last listing.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nftables::helper::{NftablesError, apply_ruleset_raw, get_current_ruleset_raw};
use serde_json::Value;

use super::KernelError;

const NO_ARGUMENTS: [&str; 0] = [];

/// The last listing and the generation it was made at.
#[derive(Debug, Default)]
pub struct Cache {
    listing: Option<(u32, Option<Value>)>,
}

impl Cache {
    /// The JSON listing of a table of family inet, or `None` if there is none.
    ///
    /// # Errors
    /// `nft` is missing or fails.
    pub fn table(&mut self, name: &str) -> Result<Option<Value>, KernelError> {
        let before = generation().ok();
        if let (Some(now), Some((then, listing))) = (before, &self.listing)
            && now == *then
        {
            return Ok(listing.clone());
        }
        let listing = list(name)?;
        self.listing = before.map(|generation| (generation, listing.clone()));
        Ok(listing)
    }
}

fn list(name: &str) -> Result<Option<Value>, KernelError> {
    match get_current_ruleset_raw(None::<&str>, ["list", "table", "inet", name]) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| KernelError::Nft(format!("listing table inet {name}: {error}"))),
        Err(NftablesError::NftFailed { stderr, .. })
            if stderr.contains("No such file or directory") =>
        {
            Ok(None)
        }
        Err(error) => Err(failure(&error)),
    }
}

/// Applies a JSON document in one transaction.
///
/// # Errors
/// `nft` is missing, or the kernel refuses the whole document.
pub fn apply(document: &Value) -> Result<(), KernelError> {
    apply_ruleset_raw(&document.to_string(), None::<&str>, NO_ARGUMENTS)
        .map(drop)
        .map_err(|error| failure(&error))
}

fn failure(error: &NftablesError) -> KernelError {
    match error {
        NftablesError::NftExecution { inner, .. } if inner.kind() == io::ErrorKind::NotFound => {
            KernelError::NftMissing
        }
        // Several lines, some of them empty or of carets.
        NftablesError::NftFailed { stderr, .. } => {
            KernelError::Nft(stderr.split_whitespace().collect::<Vec<_>>().join(" "))
        }
        other => KernelError::Nft(other.to_string()),
    }
}

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN` (linux/netfilter/nf_tables.h).
const GET_GENERATION: u16 = (10 << 8) | 16;
/// `NFTA_GEN_ID`, a big-endian u32.
const GENERATION_ID: u16 = 1;

/// The number the kernel raises with each change of any ruleset of the namespace.
fn generation() -> io::Result<u32> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // nlmsghdr (16 bytes) and nfgenmsg (4 bytes: family, version, resource id).
    let mut request = Vec::with_capacity(20);
    request.extend(20u32.to_ne_bytes());
    request.extend(GET_GENERATION.to_ne_bytes());
    request.extend(netlink_packet_core::NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 12]);
    socket.send(&request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let mut attributes = answer.get(20..).unwrap_or_default();
    while attributes.len() >= 8 {
        let length = u16::from_ne_bytes([attributes[0], attributes[1]]) as usize;
        let kind = u16::from_ne_bytes([attributes[2], attributes[3]]) & 0x3fff;
        if kind == GENERATION_ID {
            let id = [attributes[4], attributes[5], attributes[6], attributes[7]];
            return Ok(u32::from_be_bytes(id));
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    Err(io::ErrorKind::InvalidData.into())
}
