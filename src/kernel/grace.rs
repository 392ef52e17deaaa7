//! The kernel's grace period: waits until no CPU runs a program that is no longer attached.

use std::thread;
use std::time::Duration;

/// Where the kernel doesn't offer the wait (`nohz_full`). A program runs for microseconds.
const SLEEP: Duration = Duration::from_millis(20);

/// Returns once every program that ran when it was called has returned (`synchronize_rcu` in the kernel).
pub fn wait() {
    // SAFETY: membarrier(2) takes no addresses.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        thread::sleep(SLEEP);
    }
}
