//! What commands ask a daemon. Nobody runs only where nobody listens: who closes without an answer, or takes no more
//! connections, is busy, and is asked again for a while.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Status, path};

/// How long a daemon may take to say how it stands: it has that at hand.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// How long a daemon that is busy is asked again to read its configuration.
const RELOAD_PATIENCE: Duration = Duration::from_secs(30);
/// How often a daemon that is busy is asked again.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(20);

/// What there is of a daemon.
#[derive(Debug)]
pub enum Daemon<T = Box<Status>> {
    /// What it says.
    Answers(T),
    /// It has the socket and says nothing: stopped, stuck, busy, or of another version. Its pid, if the kernel
    /// tells.
    Silent { pid: Option<i32> },
    /// Nobody has the socket.
    Absent,
}

impl<T> Daemon<T> {
    /// What it says, if anything.
    pub fn answer(self) -> Option<T> {
        match self {
            Daemon::Answers(answer) => Some(answer),
            Daemon::Silent { .. } | Daemon::Absent => None,
        }
    }
}

/// What became of a question.
enum Attempt {
    Answered(String),
    /// Somebody listens and is too busy: it closed, or takes no more connections.
    Busy,
    /// Somebody listens, and did not answer in time, or not to us.
    Silent,
    Absent,
}

/// Asks a daemon how it stands.
pub fn ask(runtime: &Path) -> Daemon {
    let until = Instant::now() + ANSWER_PATIENCE;
    persist(runtime, "status", until, Some(until))
}

/// Has a daemon read its configuration again, and waits for the round that follows, however long it takes. It answers
/// what is wrong with it, or that it is in force.
pub fn reload(runtime: &Path) -> Daemon<Result<(), String>> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<String>,
    }
    let until = Instant::now() + RELOAD_PATIENCE;
    // One that is stopped would be waited for without end.
    let there: Daemon<IgnoredAny> = persist(runtime, "status", until, Some(until));
    if let Daemon::Silent { pid } = there {
        return Daemon::Silent { pid };
    }
    match persist(runtime, "reload", until, None) {
        Daemon::Answers(Answer { error }) => Daemon::Answers(error.map_or(Ok(()), Err)),
        Daemon::Silent { pid } => Daemon::Silent { pid },
        Daemon::Absent => Daemon::Absent,
    }
}

/// Asks until there is an answer, or somebody was busy `until` then. Without an end `answered_by` the answer is waited
/// for as long as it takes.
fn persist<T: DeserializeOwned>(
    runtime: &Path,
    command: &str,
    until: Instant,
    answered_by: Option<Instant>,
) -> Daemon<T> {
    let mut pid = None;
    loop {
        match attempt(runtime, command, answered_by, &mut pid) {
            Attempt::Answered(line) => {
                let answer = serde_json::from_str(&line);
                return answer.map_or(Daemon::Silent { pid }, Daemon::Answers);
            }
            Attempt::Absent => return Daemon::Absent,
            Attempt::Busy if Instant::now() < until => thread::sleep(ATTEMPT_INTERVAL),
            Attempt::Busy | Attempt::Silent => return Daemon::Silent { pid },
        }
    }
}

/// Asks once. Without an end the answer is waited for as long as it takes.
fn attempt(
    runtime: &Path,
    command: &str,
    until: Option<Instant>,
    pid: &mut Option<i32>,
) -> Attempt {
    let stream = match connect(&path(runtime)) {
        Ok(stream) => stream,
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => return Attempt::Absent,
        // So many questions are unanswered that the kernel takes no more.
        Err(Errno::AGAIN) => return Attempt::Busy,
        Err(_) => return Attempt::Silent,
    };
    *pid = sockopt::socket_peercred(&stream).ok().map(|of| of.pid.as_raw_nonzero().get());
    match question(&stream, command, until) {
        // It has ended meanwhile, which the next attempt shows, or had to make room.
        Ok(line) if line.is_empty() => Attempt::Busy,
        Ok(line) => Attempt::Answered(line),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Attempt::Silent,
        Err(_) => Attempt::Busy,
    }
}

/// Connects without waiting: whoever is stopped accepts nobody.
pub(super) fn connect(path: &Path) -> rustix::io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket.into())
}

fn question(mut stream: &UnixStream, command: &str, until: Option<Instant>) -> io::Result<String> {
    if let Some(until) = until {
        // None at all would be no limit.
        let left = until.saturating_duration_since(Instant::now()).max(ATTEMPT_INTERVAL);
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))?;
    }
    stream.write_all(format!("{{\"command\":\"{command}\"}}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}
