//! Work in other network namespaces: one thread that goes where it is told and comes back.
//!
//! A thread inside a namespace keeps it alive, so the thread returns to its own namespace after each
//! job. /proc/sys/net follows the thread; a netlink socket stays in the namespace it was made in.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use rustix::fs::{Mode, OFlags, fstatfs};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::net::Netns;

/// `NSFS_MAGIC` (linux/magic.h): the file system of namespace files.
pub(super) const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Why a namespace can't be worked in.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("no such file")]
    Missing,
    #[error("the file is not a network namespace")]
    NotANamespace,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the thread that works in namespaces ended")]
    ThreadEnded,
}

/// Opens a namespace file and makes sure that it is one. `ip netns add` makes the file first and
/// mounts the namespace over it after, so a plain file is a namespace that is not there yet.
///
/// # Errors
/// It isn't there, or isn't a namespace.
pub fn open(path: &str) -> Result<File, NetnsError> {
    // Looked at before it is opened: opening a FIFO, or a file on a dead server, may never return.
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let place = place.map_err(|error| match error {
        Errno::NOENT | Errno::SRCH | Errno::NOTDIR => NetnsError::Missing,
        error => NetnsError::Io(error.into()),
    })?;
    let fs = fstatfs(&place).map_err(io::Error::from)?;
    if fs.f_type as u64 != NSFS_MAGIC {
        return Err(NetnsError::NotANamespace);
    }
    let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    if is_of_network(&file) { Ok(file) } else { Err(NetnsError::NotANamespace) }
}

/// `NS_GET_NSTYPE`, `_IO(0xb7, 3)` (linux/nsfs.h, Linux 4.11).
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// Whether a namespace file is that of a network namespace.
pub(super) fn is_of_network(file: &File) -> bool {
    // SAFETY: the request takes no argument and writes nothing; the descriptor is open.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
    kind == libc::CLONE_NEWNET
}

/// What tells namespaces apart: device and inode of their files.
pub type Identity = (u64, u64);

/// The identity of the namespace behind a file.
///
/// # Errors
/// The file can't be looked at.
pub fn identity(file: &File) -> Result<Identity, NetnsError> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The identity of the calling thread's namespace.
///
/// # Errors
/// /proc is not mounted.
pub fn own_identity() -> Result<Identity, NetnsError> {
    identity(&File::open("/proc/thread-self/ns/net")?)
}

/// `SO_NETNS_COOKIE` (asm-generic/socket.h, Linux 5.14).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The calling thread's namespace as text that no other has until the next boot. Inodes are used again
/// at once; cookies are not. Kernels without cookies give 0.
///
/// # Errors
/// /proc is not mounted, or no socket can be had.
pub fn own_name() -> Result<String, NetnsError> {
    let (_, inode) = own_identity()?;
    let socket = UnixDatagram::unbound()?;
    let mut cookie = 0_u64;
    let mut size = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to `cookie`, which has as many; the descriptor is open.
    unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    Ok(format!("net:[{inode}] cookie {cookie}"))
}

/// A file by which the namespace of that name can be entered, if a process or a mount here has it.
pub fn place_of(name: &str) -> Option<PathBuf> {
    let link = name.split(' ').next()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        (fields.next()? == link).then_some(PathBuf::from(fields.next()?))
    });
    mounted.or_else(|| {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut files = processes.map(|process| process.path().join("ns/net"));
        files.find(|file| fs::read_link(file).is_ok_and(|found| found.as_os_str() == link))
    })
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread.
pub struct NetnsThread {
    jobs: mpsc::Sender<(File, Job)>,
    entered: mpsc::Receiver<Result<(), io::Error>>,
}

impl NetnsThread {
    /// Starts the thread in the caller's namespace.
    ///
    /// # Errors
    /// The thread or its namespace file can't be had.
    pub fn start() -> Result<Self, NetnsError> {
        let home = File::open("/proc/thread-self/ns/net")?;
        let (jobs, inbox) = mpsc::channel::<(File, Job)>();
        let (report, entered) = mpsc::channel();
        thread::Builder::new().name("netns".into()).spawn(move || {
            for (target, job) in inbox {
                let kind = Some(LinkNameSpaceType::Network);
                let went = move_into_link_name_space(target.as_fd(), kind);
                drop(target);
                if went.is_ok() {
                    job();
                    // A thread that can't go home must not do the next job in the wrong place.
                    if move_into_link_name_space(home.as_fd(), kind).is_err() {
                        return;
                    }
                }
                if report.send(went.map_err(io::Error::from)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, entered })
    }

    /// Runs `job` in the namespace and waits for its result.
    ///
    /// # Errors
    /// The namespace isn't there or may not be entered; the job did not run.
    pub fn run<T: Send + 'static>(
        &self,
        netns: &Netns,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NetnsError> {
        let target = open(netns.path().unwrap_or("/proc/thread-self/ns/net"))?;
        let (sender, result) = mpsc::channel();
        let job = Box::new(move || drop(sender.send(job())));
        self.jobs.send((target, job)).map_err(|_| NetnsError::ThreadEnded)?;
        self.entered.recv().map_err(|_| NetnsError::ThreadEnded)??;
        result.recv().map_err(|_| NetnsError::ThreadEnded)
    }
}
