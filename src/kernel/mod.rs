//! All I/O with the kernel, and all `unsafe`.
//!
//! Imports `net` only. Above it, only `observe`, `apply`, `daemon` and the `exec.rs` of the kinds may
//! import it; a test reads the `use` lines. Nothing in here decides anything: callers bring finished
//! messages and keys.

pub mod bpf;
pub mod bpf_map;
pub mod cgroup;
pub mod clock;
pub mod genl;
pub mod grace;
pub mod icmp;
pub mod ifname;
pub mod lock;
pub mod memory;
pub mod namespace;
mod needs;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod pins;
pub mod place;
pub mod private_key;
pub mod program;
pub mod ring;
pub mod sysctl;
pub mod wireguard;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netlink::Netlink;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netns::NetnsThread;

use crate::net::Netns;

/// How many namespaces' sockets are kept open at once; well below the usual limit of 1024 files.
const NETNS_SOCKETS_MAX: usize = 256;

/// An operation on the kernel that failed: what was tried on what, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("netlink: {operation}")]
    Netlink { operation: &'static str, source: netlink::NetlinkError },
    #[error("network namespace {netns}")]
    Netns { netns: Netns, source: netns::NetnsError },
    #[error("bpf: {operation} {object}")]
    Bpf { operation: &'static str, object: String, source: io::Error },
    #[error("{operation} {path}")]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} is not on a BPF file system; run `mount -t bpf bpf /sys/fs/bpf`, or set paths.bpf to a folder on one; `ip netns exec` hides it, `nsenter --net=/run/netns/NAME` doesn't"
    )]
    NotBpffs { path: PathBuf },
    /// Others put something where a pin of ours has to be.
    #[error("{path} is {what}, which is in the place of a pin of ciliate's; remove it")]
    PinTaken { path: PathBuf, what: &'static str },
    #[error("nft: {0}")]
    Nft(String),
    #[error(
        "`nft` is not found, in PATH nor in /usr/sbin, /sbin and /usr/local/sbin; install the package `nftables`, or set masquerade.mode = \"off\""
    )]
    NftMissing,
    #[error(
        "`nft` did not answer within {limit_s} s, and was ended; see whether `nft list tables` does, and what `nft` in PATH is"
    )]
    NftHangs { limit_s: u64 },
    #[error("program {program} is refused by the kernel: {reason}")]
    Verifier { program: String, reason: String },
    /// The driver can't, or not as the device is.
    #[error(
        "{ifname} runs no XDP program at its driver, which has no XDP, or none with this MTU or so few queues; set acceleration = \"best-effort\" or \"disabled\" in [load-balancing]"
    )]
    NoNativeXdp { ifname: String, source: io::Error },
    #[error("another ciliate is changing this node (lock {path}); try again when it is done")]
    Locked { path: PathBuf },
    #[error("{path}: {problem}")]
    PrivateKey { path: PathBuf, problem: private_key::KeyProblem },
    #[error("{object} is in use by {by}, which could not be swapped; it goes when that is done")]
    InUse { object: String, by: String },
    /// Another namespace's node would be taken for this one's leftovers.
    #[error(
        "{root} has the pins of a node in another network namespace, {home}, and this is {here}; {advice}, or give this node [paths] of its own"
    )]
    OtherNamespace { root: PathBuf, home: String, here: String, advice: String },
    #[error("this is Linux {release}, and ciliate needs {oldest} or later: boot a newer kernel")]
    TooOld { release: String, oldest: String },
    #[error(
        "this process lacks {missing}: run ciliate as root; in a service or a container, have it allowed (CapabilityBoundingSet= of ciliated.service)"
    )]
    Incapable { missing: String },
    #[error("expected {expected}, found {found}")]
    Refused { expected: String, found: String },
}

impl KernelError {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            KernelError::Netlink { source, .. } => source.errno(),
            KernelError::Bpf { source, .. }
            | KernelError::File { source, .. }
            | KernelError::NoNativeXdp { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// An error and what caused it, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their source.
        if !text.ends_with(&cause_text) {
            text += &format!(": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Called each time that the kernel has answered: work that takes long shows by it that it gets on.
pub type Pulse = Arc<dyn Fn() + Send + Sync>;

/// The kernel of one node, for one round: sockets, the pins' folder, and a count of what was written.
pub struct Kernel {
    /// `<paths.bpf>`.
    bpf_root: PathBuf,
    /// `<paths.runtime>`.
    runtime: PathBuf,
    /// The socket of the node's own namespace.
    host: Netlink,
    thread: NetnsThread,
    /// Sockets of endpoints' namespaces. They hold the namespace, so they live for a round at most.
    sockets: BTreeMap<Netns, Netlink>,
    /// The kernel's WireGuard, in the node's own namespace, once it was found.
    wireguard: Option<genl::Family>,
    /// System calls that wrote to the kernel.
    pub writes: u64,
    pub(crate) nft_cache: nft::Cache,
    pulse: Option<Pulse>,
}

impl Kernel {
    /// Opens the kernel for the node whose namespace the calling thread is in, with its folders
    /// `<paths.bpf>` and `<paths.runtime>`.
    ///
    /// # Errors
    /// The kernel is too old; no capabilities (needs root); no netlink socket.
    pub fn open(bpf_root: &Path, runtime: &Path) -> Result<Self, KernelError> {
        needs::check()?;
        let host = Netlink::open()
            .map_err(|source| KernelError::Netlink { operation: "open a route socket", source })?;
        let thread = NetnsThread::start()
            .map_err(|source| KernelError::Netns { netns: Netns::HOST, source })?;
        Ok(Self {
            bpf_root: bpf_root.to_path_buf(),
            runtime: runtime.to_path_buf(),
            host,
            thread,
            sockets: BTreeMap::new(),
            wireguard: None,
            writes: 0,
            nft_cache: nft::Cache::default(),
            pulse: None,
        })
    }

    /// Whom to tell that the kernel answers.
    pub fn set_pulse(&mut self, pulse: Option<Pulse>) {
        self.host.set_pulse(pulse.clone());
        self.pulse = pulse;
    }

    /// Something is done.
    pub fn beat(&self) {
        if let Some(pulse) = &self.pulse {
            pulse();
        }
    }

    /// Where the pins are.
    pub fn bpf_root(&self) -> &Path {
        &self.bpf_root
    }

    /// Where namespaces of ours are mounted.
    pub fn namespaces(&self) -> PathBuf {
        self.runtime.join("netns")
    }

    /// Lets go of a namespace: the file is that of another one from now on.
    pub fn forget(&mut self, netns: &Netns) {
        self.sockets.remove(netns);
    }

    /// The route socket of a namespace, opened when first asked for.
    ///
    /// # Errors
    /// The namespace is gone or may not be entered.
    pub fn netlink(&mut self, netns: &Netns) -> Result<&mut Netlink, KernelError> {
        if netns.path().is_none() {
            return Ok(&mut self.host);
        }
        if !self.sockets.contains_key(netns) {
            if self.sockets.len() >= NETNS_SOCKETS_MAX {
                self.sockets.clear();
            }
            let mut socket = self.within(netns, Netlink::open)?.map_err(|source| {
                KernelError::Netlink { operation: "open a route socket", source }
            })?;
            socket.set_pulse(self.pulse.clone());
            self.sockets.insert(netns.clone(), socket);
        }
        Ok(self.sockets.entry(netns.clone()).or_insert_with(|| unreachable!("inserted above")))
    }

    /// By which id links of this namespace name another one (`IFLA_LINK_NETNSID`), if any of them does.
    ///
    /// # Errors
    /// The kernel doesn't answer. A namespace that is gone has no id.
    pub fn netnsid(&mut self, netns: &Netns) -> Result<Option<i32>, KernelError> {
        let Some(file) = netns.path().and_then(|path| netns::open(path).ok()) else {
            return Ok(None);
        };
        let mut message = NsidMessage::default();
        let fd = u32::try_from(file.as_raw_fd()).unwrap_or_default();
        message.attributes.push(NsidAttribute::Fd(fd));
        let answer = self.host.get(RouteNetlinkMessage::GetNsId(message)).map_err(|source| {
            KernelError::Netlink { operation: "look up a namespace's id", source }
        })?;
        let RouteNetlinkMessage::NewNsId(answer) = answer else { return Ok(None) };
        Ok(answer.attributes.iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(id) => (*id >= 0).then_some(*id),
            _ => None,
        }))
    }

    /// Runs `job` in a namespace.
    ///
    /// # Errors
    /// The namespace is gone or may not be entered; `job` did not run.
    pub fn within<T: Send + 'static>(
        &mut self,
        netns: &Netns,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, KernelError> {
        if netns.path().is_none() {
            return Ok(job());
        }
        let result = self.thread.run(netns, job).map_err(|source| {
            if let (netns::NetnsError::ThreadEnded, Ok(thread)) = (&source, NetnsThread::start()) {
                self.thread = thread;
            }
            KernelError::Netns { netns: netns.clone(), source }
        });
        self.beat();
        result
    }

    /// Lets go of every namespace: ends a round.
    pub fn end_round(&mut self) {
        self.sockets.clear();
    }
}
