//! One probe of one address: up to three ICMP echo requests, and `GET /hello` over TCP beside them.
//!
//! Imports its siblings. Nothing here waits: the loop says what is ready and what time it is.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, sendto,
    socket_with, sockopt,
};

use super::echo::{self, Token};
use super::hello::{self, HEAD_BYTES_MAX, PORT};

/// Echo requests of a probe; one answer is enough (`health-check-icmp-failure-threshold` of Cilium).
const ECHO_REQUESTS: u8 = 3;
/// Time for an answer, and until the next request.
const ECHO_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for the connection and the answer together: SYNs are repeated after one and after three seconds.
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// Time from question to answer, or why there was none.
pub type Outcome = Result<Duration, String>;

/// The sockets for ICMP, IPv4 and IPv6, or why there is none.
pub type EchoSockets = [Result<OwnedFd, String>; 2];

/// A probe on its way.
pub struct Probe {
    address: IpAddr,
    /// With the number of the attempt it tells answers apart.
    token: Token,
    sent: Vec<Instant>,
    icmp: Option<Outcome>,
    http: Http,
    begin: Instant,
}

enum Http {
    Connecting(OwnedFd),
    Reading(OwnedFd, Vec<u8>),
    Done(Outcome),
}

/// What did not work, in the kernel's words.
pub fn failed(what: &str, error: Errno) -> String {
    // Without the number: "(os error 111)".
    let text = std::io::Error::from(error).to_string();
    format!("{what}: {}", text.split(" (os error").next().unwrap_or_default())
}

impl Probe {
    /// Sends what comes first.
    pub fn start(address: IpAddr, token: Token, sockets: &EchoSockets, now: Instant) -> Self {
        let http = match begin_http(address) {
            Ok(socket) => Http::Connecting(socket),
            Err(error) => Http::Done(Err(error)),
        };
        let mut probe = Self { address, token, sent: Vec::new(), icmp: None, http, begin: now };
        probe.send_echo(sockets, now);
        probe
    }

    /// What to wait for.
    pub fn waits(&self) -> Option<PollFd<'_>> {
        match &self.http {
            Http::Connecting(socket) => Some(PollFd::new(socket, PollFlags::OUT)),
            Http::Reading(socket, _) => Some(PollFd::new(socket, PollFlags::IN)),
            Http::Done(_) => None,
        }
    }

    /// When to look at it again at the latest; `None`: it is done.
    pub fn deadline(&self) -> Option<Instant> {
        let http = match &self.http {
            Http::Done(_) => None,
            _ => Some(self.begin + HTTP_TIMEOUT),
        };
        let icmp = match (&self.icmp, self.sent.last()) {
            (None, Some(last)) => Some(*last + ECHO_TIMEOUT),
            _ => None,
        };
        http.into_iter().chain(icmp).min()
    }

    /// The outcomes of ICMP and of HTTP, once both are there.
    pub fn outcomes(&self) -> Option<(&Outcome, &Outcome)> {
        match (&self.icmp, &self.http) {
            (Some(icmp), Http::Done(http)) => Some((icmp, http)),
            _ => None,
        }
    }

    /// An answer to an echo request of this probe.
    pub fn echoed(&mut self, attempt: u8, now: Instant) {
        if let (None, Some(sent)) = (&self.icmp, self.sent.get(usize::from(attempt))) {
            self.icmp = Some(Ok(now.duration_since(*sent)));
        }
    }

    /// The TCP socket is ready.
    pub fn ready(&mut self, now: Instant) {
        let rtt = now.duration_since(self.begin);
        let state = std::mem::replace(&mut self.http, Http::Done(Ok(rtt)));
        self.http = match state {
            Http::Connecting(socket) => match self.ask(&socket) {
                Ok(()) => Http::Reading(socket, Vec::new()),
                Err(error) => Http::Done(Err(error)),
            },
            Http::Reading(socket, mut received) => match read(&socket, &mut received) {
                None => Http::Reading(socket, received),
                Some(outcome) => Http::Done(outcome.map(|()| rtt)),
            },
            done @ Http::Done(_) => done,
        };
    }

    /// What is late: the next echo request, or giving up.
    pub fn tick(&mut self, sockets: &EchoSockets, now: Instant) {
        let late = |since: &Instant, limit: Duration| now.duration_since(*since) >= limit;
        if self.icmp.is_none() && self.sent.last().is_some_and(|last| late(last, ECHO_TIMEOUT)) {
            self.send_echo(sockets, now);
        }
        if late(&self.begin, HTTP_TIMEOUT) {
            let seconds = HTTP_TIMEOUT.as_secs();
            let what = match &self.http {
                Http::Connecting(_) => "connection",
                Http::Reading(..) => "answer",
                Http::Done(_) => return,
            };
            self.http = Http::Done(Err(format!("no {what} within {seconds} seconds")));
        }
    }

    fn send_echo(&mut self, sockets: &EchoSockets, now: Instant) {
        let attempt = self.sent.len() as u8;
        if attempt == ECHO_REQUESTS {
            self.icmp = Some(Err(format!("no answer to {ECHO_REQUESTS} requests")));
            return;
        }
        let v6 = self.address.is_ipv6();
        let socket = match &sockets[usize::from(v6)] {
            Ok(socket) => socket,
            Err(error) => return self.icmp = Some(Err(error.clone())),
        };
        let request = echo::request(v6, Token { attempt, ..self.token });
        let target = SocketAddr::new(self.address, 0);
        self.sent.push(now);
        match sendto(socket, &request, SendFlags::empty(), &target) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => {}
            Err(error) => self.icmp = Some(Err(failed("send", error))),
        }
    }

    fn ask(&self, socket: &OwnedFd) -> Result<(), String> {
        match sockopt::socket_error(socket) {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => return Err(failed("connect", error)),
        }
        let request = hello::request(&SocketAddr::new(self.address, PORT).to_string());
        let sent = send(socket, &request, SendFlags::NOSIGNAL);
        sent.map(drop).map_err(|error| failed("send", error))
    }
}

fn begin_http(address: IpAddr) -> Result<OwnedFd, String> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)
        .map_err(|error| failed("open a socket", error))?;
    match connect(&socket, &SocketAddr::new(address, PORT)) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(error) => Err(failed("connect", error)),
    }
}

/// Reads on; `None` as long as the answer can't be judged.
fn read(socket: &OwnedFd, received: &mut Vec<u8>) -> Option<Result<(), String>> {
    let mut buffer = [0; HEAD_BYTES_MAX];
    match recv(socket, &mut buffer, RecvFlags::empty()) {
        Ok((_, 0)) => Some(Err("the connection was closed without an answer".to_owned())),
        Ok((_, size)) => {
            received.extend_from_slice(&buffer[..size]);
            hello::judge(received)
        }
        Err(Errno::AGAIN | Errno::INTR) => None,
        Err(error) => Some(Err(failed("read", error))),
    }
}
