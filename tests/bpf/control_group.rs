//! A control group for one thread: its sockets are those of the group, and nobody else's.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A process is in one group: tests of one process that need another take turns.
static TURN: Mutex<()> = Mutex::new(());

/// The calling thread is in it while it lives.
pub struct ControlGroup {
    /// Where the hierarchy is mounted, in the sandbox alone.
    root: PathBuf,
    /// Where the process was.
    home: PathBuf,
    /// The process is here now, and the thread in the group below.
    domain: PathBuf,
    pub group: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

/// Tells the thread's sockets by a group; the mount namespace has to be a sandbox's.
pub fn enter() -> ControlGroup {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let pid = std::process::id();
    let root = tempfile::Builder::new().prefix("ciliate-cgroup-").tempdir();
    let root = root.expect("create the mount point").keep();
    mount("cgroup2", &root, "cgroup2", MountFlags::empty(), None).expect("mount cgroup2");
    let own = fs::read_to_string("/proc/self/cgroup").expect("read the process's group");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("a group");
    // As a namespace of control groups shows what is outside of it: no path from the mount.
    let home = root.join(own.trim_start_matches("../"));
    let domain = root.join(format!("ciliate-test-{pid}"));
    let group = domain.join("thread");
    fs::create_dir_all(&group).expect("create a group");
    // In this order: what has threads of its own can't become a domain of threads any more.
    fs::write(group.join("cgroup.type"), "threaded").expect("make it a group of threads");
    fs::write(domain.join("cgroup.procs"), pid.to_string()).expect("enter the domain");
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    fs::write(group.join("cgroup.threads"), thread).expect("enter the group");
    ControlGroup { root, home, domain, group, _turn: turn }
}

impl ControlGroup {
    pub fn open(&self) -> File {
        File::open(&self.group).expect("open the group")
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Errors have nowhere to go here. An empty group that is left does no harm.
        let _ = fs::write(self.home.join("cgroup.procs"), std::process::id().to_string());
        let _ = fs::remove_dir(&self.group);
        let _ = fs::remove_dir(&self.domain);
        let _ = unmount(&self.root, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.root);
    }
}
