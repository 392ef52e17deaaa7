//! nftables through the `nftables` crate, which runs `nft`. The ruleset's generation, which the
//! kernel counts, tells without starting a process whether anything changed since the last listing.

mod limit;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nftables::helper::{NftablesError, get_current_ruleset_raw};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::Value;

use super::KernelError;

/// What is run: found by PATH; or where distributions install it, which is not in the PATH of every
/// user, cron job and container.
const PROGRAMS: [&str; 4] = ["nft", "/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft"];

/// How long `nft` may take. It hangs where somebody's wrapper does, or the kernel's lock is held for good.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs the first of the programs that is there, and ends it when it takes too long.
fn with_nft<T: Send + 'static>(
    run: impl Fn(&str) -> Result<T, NftablesError> + Send + 'static,
) -> Result<T, KernelError> {
    let result = limit::within(LIMIT, move || first_of(&PROGRAMS, run));
    result.unwrap_or(Err(KernelError::NftHangs { limit_s: LIMIT.as_secs() }))
}

fn first_of<T>(
    programs: &[&str],
    run: impl Fn(&str) -> Result<T, NftablesError>,
) -> Result<T, KernelError> {
    for program in programs {
        match run(program) {
            Err(NftablesError::NftExecution { inner, .. })
                if inner.kind() == io::ErrorKind::NotFound => {}
            other => return other.map_err(|error| failure(&error)),
        }
    }
    Err(KernelError::NftMissing)
}

/// The last listing and the generation it was made at.
#[derive(Debug, Default)]
pub struct Cache {
    listing: Option<(u32, Option<Listing>)>,
}

/// What there is of a table.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The JSON of `nft`, which says nothing of the table itself up to nft 1.0.6 at least.
    pub json: Value,
    /// `NFTA_TABLE_FLAGS`.
    pub flags: u32,
    /// Whether somebody wrote a comment or other data on it.
    pub annotated: bool,
}

impl Cache {
    /// The listing of a table of family inet, or `None` if there is none.
    ///
    /// # Errors
    /// `nft` is missing or fails.
    pub fn table(&mut self, name: &str) -> Result<Option<Listing>, KernelError> {
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

fn list(name: &str) -> Result<Option<Listing>, KernelError> {
    // Asked of the kernel first: where there is no table, `nft` isn't needed to say so.
    let found =
        find(name).map_err(|error| KernelError::Nft(format!("find table inet {name}: {error}")))?;
    let Some(attributes) = found else { return Ok(None) };
    let flags = attribute(&attributes, TABLE_FLAGS).and_then(|value| value.try_into().ok());
    let flags = flags.map_or(0, u32::from_be_bytes);
    let annotated = attribute(&attributes, TABLE_USERDATA).is_some();
    let table = name.to_owned();
    let text =
        with_nft(move |nft| get_current_ruleset_raw(Some(nft), ["list", "table", "inet", &table]))?;
    serde_json::from_str(&text)
        .map(|json| Some(Listing { json, flags, annotated }))
        .map_err(|error| KernelError::Nft(format!("listing table inet {name}: {error}")))
}

/// Applies a JSON document in one transaction. The crate's own function for that leaves what `nft` complains of to
/// our standard error, where it is in no error of ours; the one that lists runs `nft -j` with any arguments.
///
/// # Errors
/// `nft` is missing, or the kernel refuses the whole document.
pub fn apply(document: &Value) -> Result<(), KernelError> {
    let text = document.to_string();
    let place = || -> io::Result<File> {
        let mut file = File::from(memfd_create("ciliate-nft", MemfdFlags::CLOEXEC)?);
        file.write_all(text.as_bytes())?;
        Ok(file)
    };
    let file = place().map_err(|error| KernelError::Nft(format!("hand over: {error}")))?;
    // With whoever runs `nft`: what is late must not find another file by this number.
    with_nft(move |nft| {
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        get_current_ruleset_raw(Some(nft), ["-f", &path]).map(drop)
    })
}

fn failure(error: &NftablesError) -> KernelError {
    match error {
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

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE`.
const GET_TABLE: u16 = (10 << 8) | 1;
/// `NFTA_TABLE_NAME`.
const TABLE_NAME: u16 = 1;
/// `NFTA_TABLE_FLAGS`, a big-endian u32.
const TABLE_FLAGS: u16 = 2;
/// `NFTA_TABLE_USERDATA`.
const TABLE_USERDATA: u16 = 6;
/// `NFPROTO_INET` (linux/netfilter.h).
const FAMILY_INET: u8 = 1;
/// `sizeof(struct nlmsghdr)` and `sizeof(struct nfgenmsg)`.
const HEADERS_BYTES: usize = 16 + 4;

/// Asks nf_tables one thing and returns the answer: its type and what follows both headers, or the
/// kernel's error.
fn ask(kind: u16, family: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = Vec::with_capacity(HEADERS_BYTES + attributes.len());
    request.extend(((HEADERS_BYTES + attributes.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(netlink_packet_core::NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port; then family, version and resource id.
    request.extend([0; 8]);
    request.extend([family, 0, 0, 0]);
    request.extend(attributes);
    socket.send(&request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    if kind == Some(netlink_packet_core::NLMSG_ERROR) {
        let code = answer.get(16..20).and_then(|code| code.try_into().ok());
        return Err(io::Error::from_raw_os_error(-code.map_or(0, i32::from_ne_bytes)));
    }
    Ok(answer.get(HEADERS_BYTES..).unwrap_or_default().to_vec())
}

/// The attributes of the table of family inet with that name, if there is one.
fn find(name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut attribute = ((4 + name.len() + 1) as u16).to_ne_bytes().to_vec();
    attribute.extend(TABLE_NAME.to_ne_bytes());
    attribute.extend(name.as_bytes());
    attribute.push(0);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    match ask(GET_TABLE, FAMILY_INET, &attribute) {
        Ok(attributes) => Ok(Some(attributes)),
        Err(error) => match error.raw_os_error() {
            // No such table; or a kernel without nf_tables, which can't have one.
            Some(libc::ENOENT | libc::EPROTONOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP) => {
                Ok(None)
            }
            _ => Err(error),
        },
    }
}

/// The number the kernel raises with each change of any ruleset of the namespace.
fn generation() -> io::Result<u32> {
    let answer = ask(GET_GENERATION, 0, &[])?;
    let id = attribute(&answer, GENERATION_ID).and_then(|value| value.try_into().ok());
    id.map(u32::from_be_bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The value of an attribute, of those in a row.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [a, b, c, d, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([a, b])).max(4);
        if u16::from_ne_bytes([c, d]) & 0x3fff == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(programs: &[&str]) -> (Result<String, KernelError>, usize) {
        let tried = std::cell::Cell::new(0);
        let result = first_of(programs, |nft| {
            tried.set(tried.get() + 1);
            // Any program will do that says something when it is given an option and a word.
            get_current_ruleset_raw(Some(nft), ["found"])
        });
        (result, tried.get())
    }

    #[test]
    fn the_first_program_that_is_there_is_run() {
        let (said, tried) =
            run(&["/nonexistent/nft", "/nonexistent/sbin/nft", "/bin/echo", "/bin/true"]);
        assert_eq!((said.unwrap().trim(), tried), ("-j found", 3));
    }

    #[test]
    fn one_that_fails_is_not_passed_over() {
        let (said, tried) = run(&["/bin/false", "/bin/echo"]);
        assert!(matches!(said, Err(KernelError::Nft(_))), "{said:?}");
        assert_eq!(tried, 1);
    }

    #[test]
    fn none_is_told_from_one_that_fails() {
        assert!(matches!(run(&["/nonexistent/nft"]).0, Err(KernelError::NftMissing)));
    }
}
