//! The control socket, `<paths.runtime>/ciliate.sock`: one JSON object a line in, one a line out.
//!
//! ```text
//! → {"command":"status"}
//! ← {"format_version":1,"converged":true,…}
//! → {"command":"reload"}
//! ← {"reloaded":true}   or   {"reloaded":false,"error":"…"}
//! ```
//!
//! Access is the socket file's: root, and its group. Imports nothing of the daemon but [`Wake`]. That a daemon runs is
//! known by its lock, not by this: the socket says how it stands.

mod client;
mod seats;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Wake;
use super::checks::Found;
use super::gc::Collections;
use super::health::table::Health;
use crate::engine::{Loaded, View};
use crate::kernel::lock::daemon::{self as daemon_lock, DaemonLock};
use crate::kernel::{KernelError, lock};
use crate::kinds::bpf_link::Mode;
use crate::lower::Summary;
use crate::plan::FORMAT_VERSION;
use client::connect;
use seats::{Seat, Seats};

pub use client::{Daemon, ask, reload};

/// Where the answer to a reload goes.
pub type Reply = Sender<Result<(), String>>;

/// The name of the daemon's loop among the controllers.
pub const CONVERGE: &str = "converge";

/// A line is at most this long, its end included.
const LINE_BYTES_MAX: u64 = 4096;
/// A client that says nothing for this long is let go.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Accepting is tried again this long after it failed, for want of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Something that is not as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub object: String,
    pub error: String,
    /// The kernel's error number, if it was the kernel that refused.
    #[serde(skip)]
    pub errno: Option<i32>,
}

impl Problem {
    /// One that is not about a refusal of the kernel.
    pub fn new(object: impl ToString, error: impl Into<String>) -> Self {
        Self { object: object.to_string(), error: error.into(), errno: None }
    }
}

/// How the daemon stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub format_version: u32,
    pub version: String,
    pub pid: u32,
    pub converged: bool,
    /// Raised with each configuration that differs from the one before.
    pub generation: u64,
    /// Why the configuration on disk is not in force.
    pub config_error: Option<String>,
    pub rounds: u64,
    pub last_round_ms: u64,
    /// Ops done since the start.
    pub repaired: u64,
    /// Objects of ours in the kernel, by kind.
    pub objects: BTreeMap<String, usize>,
    pub summary: Summary,
    /// Work that goes on in the daemon, by name, and why the last attempt failed.
    #[serde(default)]
    pub controllers: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub health: Health,
    /// What health checks found of services' backends.
    #[serde(default)]
    pub backend_checks: Found,
    pub problems: Vec<Problem>,
    /// Removal of flows that are over; zeros where no daemon runs.
    pub conntrack_gc: Collections,
}

impl Status {
    /// Before the first round.
    pub fn new(loaded: &Loaded) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            converged: false,
            generation: 1,
            config_error: None,
            rounds: 0,
            last_round_ms: 0,
            repaired: 0,
            objects: BTreeMap::new(),
            summary: Summary { attach: Mode::Tcx, ..Summary::of(&loaded.intent, None) },
            controllers: BTreeMap::new(),
            health: Health { enabled: loaded.intent.health.enabled, ..Health::default() },
            backend_checks: Found::default(),
            problems: Vec::new(),
            conntrack_gc: Collections::default(),
        }
    }

    /// Takes over what a look at the kernel shows.
    pub fn describe(&mut self, view: &View) {
        let counts = view.observed.owned_counts().into_iter();
        self.objects = counts.map(|(kind, count)| (kind.to_string(), count)).collect();
        self.summary = view.summary.clone().in_force(&view.observed);
    }

    /// One line.
    pub fn summary(&self) -> String {
        let objects: usize = self.objects.values().sum();
        let generation = self.generation;
        let config =
            if self.config_error.is_some() { "; configuration on disk refused" } else { "" };
        match (self.converged, self.problems.first()) {
            (true, _) => format!("converged: generation {generation}, {objects} objects{config}"),
            // What keeps a round from its end is a problem: without one, it is under way.
            (false, None) => format!("converging: generation {generation}{config}"),
            (false, Some(problem)) => format!(
                "not converged: generation {generation}, {} problems, first: {}: {}{config}",
                self.problems.len(),
                problem.object,
                problem.error
            ),
        }
    }
}

/// Where the socket is.
pub fn path(runtime: &Path) -> PathBuf {
    runtime.join("ciliate.sock")
}

/// The socket; removed when dropped.
pub struct Control {
    path: PathBuf,
    /// Its device and inode, which tell it from one that was made later.
    file: (u64, u64),
    listener: Arc<UnixListener>,
}

impl Control {
    /// Whether clients still find it.
    pub fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|file| file == self.file)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
        // Ends the thread that accepts.
        let _ = net::shutdown(&self.listener, net::Shutdown::Both);
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Removes the socket of a daemon that was killed.
pub fn remove_stale(runtime: &Path) {
    let path = path(runtime);
    if !is_answered(&path) {
        let _ = fs::remove_file(&path);
    }
}

/// Whether somebody accepts, or would if there were fewer who wait.
fn is_answered(path: &Path) -> bool {
    matches!(connect(path), Ok(_) | Err(Errno::AGAIN))
}

/// Takes the node for this daemon. A `destroy` that is at work is waited for.
///
/// # Errors
/// Another daemon runs, or `destroy` is still at work after `patience`.
pub fn alone(runtime: &Path, patience: Duration) -> Result<DaemonLock, KernelError> {
    match DaemonLock::of_daemon(runtime, patience) {
        Err(KernelError::Locked { path }) => Err(match daemon_lock::holder(runtime) {
            Some(pid) => another(&path, &format!(" (pid {pid})")),
            None => KernelError::Locked { path },
        }),
        outcome => outcome,
    }
}

fn another(path: &Path, pid: &str) -> KernelError {
    let text = format!("another ciliate{pid} runs with this runtime folder");
    KernelError::File { operation: "open", path: path.into(), source: io::Error::other(text) }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
enum Request {
    Status,
    Reload,
}

/// Opens the socket and answers in threads of its own.
///
/// # Errors
/// The socket can't be made, or another daemon answers on it.
pub fn serve(
    runtime: &Path,
    status: Arc<Mutex<Status>>,
    wakes: Sender<Wake>,
) -> Result<Control, KernelError> {
    let path = path(runtime);
    let failed =
        |source: io::Error| KernelError::File { operation: "open", path: path.clone(), source };
    lock::make_runtime(runtime)?;
    if is_answered(&path) {
        return Err(another(&path, ""));
    }
    let _ = fs::remove_file(&path);
    let listener = Arc::new(UnixListener::bind(&path).map_err(failed)?);
    let file = identity(&path).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    let accepting = listener.clone();
    let accept = move || {
        let seats = Arc::new(Seats::default());
        for stream in accepting.incoming() {
            let stream = match stream {
                Ok(stream) => stream,
                // Shut down.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                Err(_) => {
                    thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
            };
            // Until there is a seat the next ones wait in the kernel's queue.
            let seat = seats.take(stream);
            let (status, wakes) = (status.clone(), wakes.clone());
            let _ = thread::Builder::new().name("control".into()).spawn(move || {
                let _ = answer_all(&seat, &status, &wakes);
            });
        }
    };
    thread::Builder::new().name("accept".into()).spawn(accept).map_err(failed)?;
    Ok(Control { path, file, listener })
}

fn answer_all(seat: &Seat, status: &Mutex<Status>, wakes: &Sender<Wake>) -> io::Result<()> {
    let stream = seat.stream();
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        // One byte more than a line may have tells a long one from one that just fits.
        if reader.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let too_long = line.len() as u64 > LINE_BYTES_MAX;
        let answer = match serde_json::from_slice(&line) {
            _ if too_long => {
                json!({"error": format!("a request is at most {LINE_BYTES_MAX} bytes long")})
            }
            Ok(request) => seat.at_work(|| answer(&request, status, wakes)),
            Err(error) => json!({"error": format!("not a request: {error}")}),
        };
        let mut writer = stream;
        writer.write_all(format!("{answer}\n").as_bytes())?;
        if too_long {
            // Where the next request begins can't be told.
            return stream.shutdown(Shutdown::Both);
        }
    }
}

fn answer(request: &Request, status: &Mutex<Status>, wakes: &Sender<Wake>) -> Value {
    match request {
        Request::Status => {
            let status = status.lock().unwrap_or_else(PoisonError::into_inner).clone();
            serde_json::to_value(status).unwrap_or_default()
        }
        Request::Reload => {
            let (reply, result) = mpsc::channel();
            if wakes.send(Wake::Reload(Some(reply))).is_err() {
                return json!({"reloaded": false, "error": "stopping"});
            }
            match result.recv() {
                Ok(Ok(())) => json!({"reloaded": true}),
                Ok(Err(error)) => json!({"reloaded": false, "error": error}),
                Err(_) => json!({"reloaded": false, "error": "stopping"}),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Document;
    use std::os::unix::net::UnixStream;

    /// What a client that sends these bytes is answered, and what the loop is told.
    fn exchange(sent: &[u8]) -> (Vec<Value>, usize) {
        let (client, server) = UnixStream::pair().expect("a pair of sockets");
        let (wakes, woken) = mpsc::channel::<Wake>();
        let running = thread::spawn(move || {
            let text = "[node]\naddresses = [\"192.0.2.1\"]\ncidrs = [\"10.0.0.0/24\"]\n\
                        [routing]\nmode = \"native\"\n";
            let document = Document::of_texts([("a.toml", text.to_string())]);
            let intent = crate::intent::read(&document).expect("a configuration");
            let status = Mutex::new(Status::new(&Loaded { document, intent }));
            let seat = Arc::new(Seats::default()).take(server);
            let _ = answer_all(&seat, &status, &wakes);
        });
        let answering = thread::spawn(move || {
            let wakes = woken.into_iter();
            wakes
                .map(|wake| {
                    if let Wake::Reload(Some(reply)) = wake {
                        reply.send(Ok(())).ok()
                    } else {
                        None
                    }
                })
                .count()
        });
        let mut writer = &client;
        // The other side may have closed before all was sent.
        let _ = writer.write_all(sent).and_then(|()| client.shutdown(Shutdown::Write));
        let lines = BufReader::new(&client).lines().map_while(Result::ok);
        let answers = lines.map(|line| serde_json::from_str(&line).expect("JSON")).collect();
        running.join().expect("no panic");
        (answers, answering.join().expect("no panic"))
    }

    #[test]
    fn a_line_that_is_too_long_is_one_error() {
        let request = b"{\"command\":\"reload\"}\n";
        // Of what is beyond the limit, and of the next line, nothing is taken for a request.
        for excess in [1, 100, 3 * LINE_BYTES_MAX as usize] {
            let mut line = vec![b' '; LINE_BYTES_MAX as usize + excess - request.len()];
            line.extend(request);
            line.extend(request);
            let (answers, reloads) = exchange(&line);
            assert_eq!(answers, [json!({"error": "a request is at most 4096 bytes long"})]);
            assert_eq!(reloads, 0);
        }
    }

    #[test]
    fn lines_up_to_the_limit_are_requests() {
        let request = b"{\"command\":\"reload\"}\n";
        let mut lines = vec![b' '; LINE_BYTES_MAX as usize - request.len()];
        lines.extend(request);
        lines.extend(b"\xff\n");
        lines.extend(request);
        let (answers, reloads) = exchange(&lines);
        assert_eq!(answers.len(), 3, "{answers:?}");
        assert_eq!(
            (&answers[0], &answers[2]),
            (&json!({"reloaded": true}), &json!({"reloaded": true}))
        );
        assert!(answers[1]["error"].is_string(), "{}", answers[1]);
        assert_eq!(reloads, 2);
    }

    #[test]
    fn what_is_under_way_has_not_failed() {
        let text = "[node]\ncidrs = [\"10.0.0.0/24\"]\n[routing]\nmode = \"native\"\n";
        let document = Document::of_texts([("a.toml", text.to_string())]);
        let intent = crate::intent::read(&document).expect("valid");
        let mut status = Status::new(&Loaded { document, intent });
        assert!(!status.converged && status.summary().starts_with("converging: "));
        status.problems.push(Problem::new("node", "no"));
        assert!(status.summary().starts_with("not converged: "), "{}", status.summary());
    }
}
