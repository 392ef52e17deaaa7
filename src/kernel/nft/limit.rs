//! A time limit for what the `nftables` crate runs: it waits for `nft` as long as that takes, and tells nobody the
//! process's number.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::gettid;

/// How long a killed process may take to end. Others that it has started may still hold its output.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Runs something on a thread of its own, for so long at most. Then the processes that it waits for are killed.
/// `None`: they were, or there can't be a thread.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    run: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = mpsc::channel();
    let (finish, finished) = mpsc::channel();
    let work = move || {
        // Who has given up listens no more.
        let _ = tell.send(gettid());
        let _ = finish.send(run());
    };
    thread::Builder::new().name("nft".into()).spawn(work).ok()?;
    let thread = told.recv().ok()?;
    if let Ok(result) = finished.recv_timeout(limit) {
        return Some(result);
    }
    for child in children(thread) {
        let Ok(process) = pidfd_open(child, PidfdFlags::empty()) else { continue };
        // It may have ended, and its number be another's: not while it is a child of that thread.
        if children(thread).contains(&child) {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
    let _ = finished.recv_timeout(END_PATIENCE);
    None
}

/// The processes that a thread of this one has started (proc_pid_task_children(5)). None where the kernel doesn't say.
fn children(thread: Pid) -> Vec<Pid> {
    let path = format!("/proc/self/task/{thread}/children");
    let listed = fs::read_to_string(path).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    #[test]
    fn what_hangs_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let hang = format!("echo $$ >{}; exec sleep 1000", file.display());
        let run = move || Command::new("sh").args(["-c", &hang]).output();
        let limit = Duration::from_secs(1);
        assert!(within(limit, run).is_none());
        let pid = fs::read_to_string(file).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists());
        let run = || Command::new("echo").arg("here").output();
        assert_eq!(within(limit * 100, run).unwrap().unwrap().stdout, b"here\n");
    }
}
