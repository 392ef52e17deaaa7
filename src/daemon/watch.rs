//! Threads that notice changes and wake the loop up: files, netlink, nftables, signals. What they see is
//! not passed on; the loop looks for itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::warn;

use super::concerns::Concerns;
use super::control::{self, Reply};
use super::places::Places;
use crate::config::Search;
use crate::intent::Intent;
use crate::kernel::KernelError;
use crate::kernel::lock::daemon;
use crate::kernel::netlink::widen;

/// Why the loop wakes up.
#[derive(Debug)]
pub enum Wake {
    /// Files of the configuration may have changed; what is there now is whole, or more of it is to come.
    Config { is_whole: bool },
    /// Something in the kernel may have changed.
    Kernel,
    /// A backend was found dead or alive.
    Backends,
    /// Somebody asked for the configuration to be read, and may wait for an answer.
    Reload(Option<Reply>),
    /// SIGTERM or SIGINT.
    Terminate,
}

/// Multicast groups of rtnetlink (linux/rtnetlink.h, `RTNLGRP_*`): links, addresses, routes, rules and
/// per-device settings. Neighbours are left out: they change all the time.
const ROUTE_GROUPS: &[u32] = &[
    1,  // LINK
    5,  // IPV4_IFADDR
    7,  // IPV4_ROUTE
    8,  // IPV4_RULE
    9,  // IPV6_IFADDR
    11, // IPV6_ROUTE
    19, // IPV6_RULE
    24, // IPV4_NETCONF
    25, // IPV6_NETCONF
];
/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const NFTABLES_GROUP: u32 = 7;
const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;

/// How often folders that appear while watching begins are gone after at once; later ones wake the loop.
const FOLLOW_ATTEMPTS: usize = 8;

/// What is watched.
pub struct Watchers {
    files: RecommendedWatcher,
    /// What matters. The events' thread reads it.
    concerns: Arc<Mutex<Concerns>>,
    watched: BTreeSet<PathBuf>,
    /// Folders that are there and can't be watched, which was said.
    refused: BTreeSet<PathBuf>,
    /// Why nftables can't be watched.
    nftables: Option<String>,
}

impl Watchers {
    /// Starts the threads. Of routes that aren't ours, those in `places` wake the loop.
    ///
    /// # Errors
    /// A socket, the signal handlers or inotify can't be had.
    pub fn start(wakes: Sender<Wake>, places: Arc<Mutex<Places>>) -> Result<Self, KernelError> {
        let failed = |operation: &'static str, error: &dyn std::fmt::Display| KernelError::File {
            operation,
            path: PathBuf::from("of the daemon"),
            source: std::io::Error::other(error.to_string()),
        };
        signals(wakes.clone()).map_err(|e| failed("handle the signals", &e))?;
        listen(NETLINK_ROUTE, ROUTE_GROUPS, wakes.clone(), places.clone())
            .map_err(|e| failed("watch the routes", &e))?;
        // Without nf_tables in the kernel there is nothing to watch.
        let nftables = listen(NETLINK_NETFILTER, &[NFTABLES_GROUP], wakes.clone(), places).err();
        if let Some(error) = &nftables {
            warn!("nftables can't be watched, drift is found by the timer: {error}");
        }
        let nftables = nftables.map(|error| error.to_string());
        let concerns: Arc<Mutex<Concerns>> = Arc::default();
        let shared = concerns.clone();
        let files = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let concerns = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let Ok(event) = event else { return };
            if changes(&event.kind) && concerns.touched(&event.paths) {
                let _ = wakes.send(Wake::Config { is_whole: is_whole(&event.kind) });
            }
        });
        let files = files.map_err(|e| failed("watch the files", &e))?;
        let (watched, refused) = (BTreeSet::new(), BTreeSet::new());
        Ok(Self { files, concerns, watched, refused, nftables })
    }

    /// How the watching goes: what is watched, and why it isn't.
    pub fn controllers(&self) -> [(String, Option<String>); 3] {
        let refused = self.refused.first();
        let files = refused.map(|path| format!("{} can't be watched", path.display()));
        [
            ("watch-files".into(), files),
            ("watch-nftables".into(), self.nftables.clone()),
            ("watch-routes".into(), None),
        ]
    }

    /// Watches the folders that matter for a configuration: those of its files, those of the endpoints'
    /// namespaces, the pins, and the runtime folder. For a folder that isn't there the nearest one above it
    /// is watched, in which it, or the next one on the way to it, will appear.
    pub fn follow(&mut self, search: &Search, intent: &Intent) {
        let mut whole = BTreeSet::new();
        for endpoint in intent.endpoints.values() {
            let parent = endpoint.netns.path().and_then(|path| Path::new(path).parent());
            whole.extend(parent.filter(|p| !p.starts_with("/proc")).map(Path::to_path_buf));
        }
        if !intent.node.health_addresses.is_empty() {
            let netns = intent.paths.health_netns();
            let parent = netns.path().and_then(|path| Path::new(path).parent());
            whole.extend(parent.map(Path::to_path_buf));
        }
        let pins = &intent.paths.bpf;
        for folder in ["maps", "programs", "links"].map(|folder| pins.join(folder)) {
            // A build's programs and a device's links have folders of their own.
            let inner = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let inner = inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            whole.extend(inner.map(|entry| entry.path()));
            whole.insert(folder);
        }
        whole.insert(pins.clone());
        let mut names = search.link_names();
        names.insert(control::path(&intent.paths.runtime));
        names.insert(daemon::path(&intent.paths.runtime));
        let mut wanted = search.watch_directories();
        wanted.insert(intent.paths.runtime.clone());
        // A file may be a link to elsewhere. A folder is watched by one name: the kernel tells of it once.
        let real: BTreeSet<_> = wanted.iter().flat_map(|folder| folder.canonicalize()).collect();
        let parents = names.iter().filter_map(|name| name.parent());
        let elsewhere =
            parents.filter(|parent| !wanted.contains(*parent) && !real.contains(*parent));
        let elsewhere: Vec<_> = elsewhere.map(Path::to_path_buf).collect();
        wanted.extend(elsewhere);
        let (whole, names) = (absolute(&whole), absolute(&names));
        let wanted = &absolute(&wanted) | &whole;
        *self.concerns.lock().unwrap_or_else(PoisonError::into_inner) =
            Concerns { folders: wanted.clone(), whole, names, search: search.absolute().ok() };
        let mut before = BTreeSet::new();
        // Again, until no folder has appeared between the look for it and the watch on the one above.
        for _ in 0..FOLLOW_ATTEMPTS {
            let standing: BTreeSet<_> = wanted.iter().filter_map(|path| standing(path)).collect();
            if standing == before {
                break;
            }
            self.watch(&standing);
            before = standing;
        }
    }

    fn watch(&mut self, folders: &BTreeSet<PathBuf>) {
        for gone in self.watched.difference(folders) {
            let _ = self.files.unwatch(gone);
        }
        self.watched.clear();
        for folder in folders {
            // Also if it was watched before: it may be another folder of the same name.
            match self.files.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder.clone());
                    self.refused.remove(folder);
                }
                Err(error) if folder.is_dir() && self.refused.insert(folder.clone()) => {
                    let folder = folder.display();
                    warn!("{folder} can't be watched, SIGHUP reads what changes there: {error}");
                }
                Err(_) => {}
            }
        }
    }
}

fn absolute(paths: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    paths.iter().flat_map(std::path::absolute).collect()
}

/// A folder, or the nearest one above it that is there.
fn standing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|path| path.is_dir()).map(Path::to_path_buf)
}

/// Whether an event can mean a change. Our own reading must not wake us up.
fn changes(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

/// Whether an event says that a file is there as it is to be: closed after writing, or renamed to its name. What was
/// begun, or is gone, comes back in a moment where it is an editor's doing.
fn is_whole(kind: &EventKind) -> bool {
    use notify::event::{ModifyKind, RenameMode};
    matches!(
        kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
    )
}

fn signals(wakes: Sender<Wake>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let forward = move || {
        for signal in signals.forever() {
            let wake = if signal == SIGHUP { Wake::Reload(None) } else { Wake::Terminate };
            if wakes.send(wake).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(forward).map(drop)
}

/// Wakes the loop for each message of some multicast groups. What happens in the endpoints' namespaces
/// is heard too, as far as they have an id in this one, and those with a veth to it have.
fn listen(
    protocol: isize,
    groups: &'static [u32],
    wakes: Sender<Wake>,
    places: Arc<Mutex<Places>>,
) -> std::io::Result<()> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    socket.set_listen_all_namespaces(true)?;
    widen(&socket, RECEIVE_BUFFER_BYTES);
    let forward = move || {
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            buffer.clear();
            // ENOBUFS says that messages were lost: a reason to look, like any message.
            let heard = socket.recv(&mut buffer, 0);
            if heard.is_ok() && protocol == NETLINK_ROUTE {
                let places = places.lock().unwrap_or_else(PoisonError::into_inner);
                if places.are_spared_by(&buffer) {
                    continue;
                }
            }
            let fatal = heard.is_err_and(|e| e.raw_os_error() == Some(libc::EBADF));
            if fatal || wakes.send(Wake::Kernel).is_err() {
                return;
            }
        }
    };
    let name = format!("watch-{}", socket_name(protocol));
    thread::Builder::new().name(name).spawn(forward).map(drop)
}

fn socket_name(protocol: isize) -> &'static str {
    if protocol == NETLINK_ROUTE { "route" } else { "nft" }
}
