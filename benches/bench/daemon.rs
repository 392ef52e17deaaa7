//! The daemon as a process of its own: what it takes of memory, and how long it takes from a saved file to the first
//! packet that is translated.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ciliate::daemon::control;

use super::traffic::enter;

/// Where the echo server listens, in its namespace.
pub const PORT: u16 = 5300;
/// It rests when no round has ended for so long.
const QUIET: Duration = Duration::from_millis(1000);
/// How long the daemon may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// A daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    runtime: PathBuf,
}

impl Daemon {
    /// Starts it in this process's namespace, and waits until it has converged.
    pub fn start(config: &Path, runtime: PathBuf) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ciliate"));
        command.arg("-c").arg(config).arg("run").stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = Self { child: command.spawn().expect("run ciliate"), runtime };
        daemon.rest();
        daemon
    }

    /// Waits until it has converged and does nothing more.
    pub fn rest(&self) {
        let (begin, mut before) = (Instant::now(), None);
        loop {
            let status = control::ask(&self.runtime).answer().filter(|status| status.converged);
            let rounds = status.map(|status| status.rounds);
            if rounds.is_some() && rounds == before {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "the daemon does not get there");
            before = rounds;
            thread::sleep(QUIET);
        }
    }

    /// `VmRSS` and `VmHWM`, in MB.
    pub fn memory_mb(&self) -> [u64; 2] {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(path).expect("the daemon lives");
        ["VmRSS:", "VmHWM:"].map(|name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            let kb = line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok());
            kb.unwrap_or_default() / 1024
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends back what comes, in a namespace.
pub fn echo(namespace: &str) {
    let namespace = namespace.to_owned();
    thread::spawn(move || {
        enter(&namespace);
        let socket = UdpSocket::bind(("0.0.0.0", PORT)).expect("bind");
        let mut buffer = [0; 64];
        while let Ok((size, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..size], peer);
        }
    });
}

/// From `change` until a datagram from a namespace to `service` comes back. Each is of a flow of its own.
pub fn until_answered(
    namespace: &str,
    service: SocketAddr,
    change: impl FnOnce() + Send,
) -> Duration {
    let ask = || {
        enter(namespace);
        let begin = Instant::now();
        change();
        let mut buffer = [0; 64];
        loop {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("bind");
            socket.set_read_timeout(Some(Duration::from_millis(1))).expect("set a timeout");
            let sent = socket.send_to(b"anybody?", service);
            if sent.is_ok() && socket.recv_from(&mut buffer).is_ok() {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < PATIENCE, "{service} is never translated");
        }
    };
    thread::scope(|scope| scope.spawn(ask).join().expect("no panic"))
}
