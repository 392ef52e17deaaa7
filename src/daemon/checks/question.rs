//! One question to one backend: a connection, and with HTTP a `GET`.
//!
//! Imports `intent` for what is asked, and from `daemon::health` how answers of HTTP are read. Nothing here waits: the
//! loop says what is ready and what time it is.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
    sockopt,
};

use crate::daemon::health::{HEAD_BYTES_MAX, failed, status_of};
use crate::intent::{HealthCheck, Question};

/// Why a backend is thought to be dead, or nothing.
pub type Answer = Result<(), String>;

/// A question on its way.
pub struct Asking {
    state: State,
    deadline: Instant,
}

enum State {
    Connecting(OwnedFd),
    Reading(OwnedFd, Vec<u8>),
    Done(Answer),
}

impl Asking {
    /// Begins.
    pub fn start(address: SocketAddr, check: &HealthCheck, now: Instant) -> Self {
        let state = match begin(address) {
            Ok(socket) => State::Connecting(socket),
            Err(error) => State::Done(Err(error)),
        };
        Self { state, deadline: now + check.timeout }
    }

    /// What to wait for.
    pub fn waits(&self) -> Option<PollFd<'_>> {
        match &self.state {
            State::Connecting(socket) => Some(PollFd::new(socket, PollFlags::OUT)),
            State::Reading(socket, _) => Some(PollFd::new(socket, PollFlags::IN)),
            State::Done(_) => None,
        }
    }

    /// When to give up.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The answer, once it is there.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.state {
            State::Done(answer) => Some(answer),
            _ => None,
        }
    }

    /// The socket is ready.
    pub fn ready(&mut self, address: SocketAddr, check: &HealthCheck) {
        let state = std::mem::replace(&mut self.state, State::Done(Ok(())));
        self.state = match state {
            State::Connecting(socket) => match connected(&socket, address, check) {
                Ok(true) => State::Reading(socket, Vec::new()),
                Ok(false) => State::Done(Ok(())),
                Err(error) => State::Done(Err(error)),
            },
            State::Reading(socket, mut received) => match read(&socket, &mut received, check) {
                None => State::Reading(socket, received),
                Some(answer) => State::Done(answer),
            },
            done @ State::Done(_) => done,
        };
    }

    /// Gives up, if it is time.
    pub fn tick(&mut self, check: &HealthCheck, now: Instant) {
        let what = match &self.state {
            _ if now < self.deadline => return,
            State::Connecting(_) => "connection",
            State::Reading(..) => "answer",
            State::Done(_) => return,
        };
        let limit = humantime::format_duration(check.timeout);
        self.state = State::Done(Err(format!("no {what} within {limit}")));
    }
}

fn begin(address: SocketAddr) -> Result<OwnedFd, String> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)
        .map_err(|error| failed("open a socket", error))?;
    // Ended by a reset: of thousands of questions a minute no socket stays behind (TIME_WAIT).
    let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(error) => Err(failed("connect", error)),
    }
}

/// Whether there is more to ask.
fn connected(socket: &OwnedFd, address: SocketAddr, check: &HealthCheck) -> Result<bool, String> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => {}
        Ok(Err(error)) | Err(error) => return Err(failed("connect", error)),
    }
    let Question::Http { path, .. } = &check.question else { return Ok(false) };
    let version = env!("CARGO_PKG_VERSION");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: ciliate/{version}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    // As little fits into what a new socket can take.
    let sent = send(socket, request.as_bytes(), SendFlags::NOSIGNAL);
    sent.map(|_| true).map_err(|error| failed("send", error))
}

/// Reads on; `None` as long as the answer can't be judged.
fn read(socket: &OwnedFd, received: &mut Vec<u8>, check: &HealthCheck) -> Option<Answer> {
    let mut buffer = [0; HEAD_BYTES_MAX];
    match recv(socket, &mut buffer, RecvFlags::empty()) {
        Ok((_, 0)) => Some(Err("the connection was closed without an answer".to_owned())),
        Ok((_, size)) => {
            received.extend_from_slice(&buffer[..size]);
            let (code, said) = match status_of(received)? {
                Ok(status) => status,
                Err(error) => return Some(Err(error)),
            };
            let good = match check.question {
                Question::Http { status: (first, last), .. } => (first..=last).contains(&code),
                Question::Tcp => true,
            };
            Some(if good { Ok(()) } else { Err(format!("the answer is {said}")) })
        }
        Err(Errno::AGAIN | Errno::INTR) => None,
        Err(error) => Some(Err(failed("read", error))),
    }
}
