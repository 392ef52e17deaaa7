//! Answers `GET /hello` on TCP 4240: at the node's own addresses, and inside the health endpoint's
//! namespace. ICMP is answered by the kernel.
//!
//! Imports `kernel` (to open sockets in a namespace) and `net`. Sockets stay in the namespace they were
//! opened in, so one thread serves them all, and never waits for a client.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, bind,
    listen, recv, send, shutdown, socket_with, sockopt,
};

use super::hello::{self, HEAD_BYTES_MAX, PORT};
use crate::kernel::chain;
use crate::kernel::netns::{self, NetnsError, NetnsThread};
use crate::net::Netns;

/// Clients that are served at the same time; one more, and the oldest is let go.
const CONNECTIONS_MAX: usize = 64;
/// A client that isn't done by then is let go.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Clients that wait to be accepted.
const BACKLOG: i32 = 64;
/// How long nobody is accepted when that fails, for want of descriptors for instance.
const PAUSE: Duration = Duration::from_secs(1);

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub netns: Netns,
    pub address: IpAddr,
}

struct Listener {
    place: Place,
    /// Which namespace is at the place: another one may be mounted there.
    identity: Option<netns::Identity>,
    socket: OwnedFd,
}

struct Connection {
    socket: OwnedFd,
    received: Vec<u8>,
    answered: bool,
    until: Instant,
}

/// The responder.
#[derive(Default)]
pub struct Responder {
    listeners: Vec<Listener>,
    connections: Vec<Connection>,
    paused_until: Option<Instant>,
}

impl Responder {
    /// Listens where it is asked to and nowhere else. Returns why that isn't possible somewhere.
    pub fn follow(&mut self, wanted: &[Place]) -> Option<String> {
        let mut problem = None;
        let mut before = std::mem::take(&mut self.listeners);
        for place in wanted {
            let listener = identity(&place.netns).and_then(|identity| {
                let same = |there: &Listener| there.place == *place && there.identity == identity;
                match before.iter().position(same) {
                    Some(at) => Ok(before.swap_remove(at)),
                    None => {
                        let socket = open_in(place)?;
                        Ok(Listener { place: place.clone(), identity, socket })
                    }
                }
            });
            match listener {
                Ok(listener) => self.listeners.push(listener),
                Err(error) => {
                    let at = SocketAddr::new(place.address, PORT);
                    let place = match place.netns.path() {
                        None => format!("{at}"),
                        Some(path) => format!("{at} in {path}"),
                    };
                    problem.get_or_insert(format!("can't listen on {place}: {}", chain(&error)));
                }
            }
        }
        problem
    }

    /// What to wait for, in an order that stays until [`Responder::work`].
    pub fn waits(&self) -> impl Iterator<Item = PollFd<'_>> {
        let accept = if self.paused_until.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let listeners = self.listeners.iter().map(move |l| PollFd::new(&l.socket, accept));
        listeners.chain(self.connections.iter().map(|c| PollFd::new(&c.socket, PollFlags::IN)))
    }

    /// When to work at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.connections.iter().map(|c| c.until).chain(self.paused_until).min()
    }

    /// Serves whoever is `ready`, in the order of [`Responder::waits`].
    pub fn work(&mut self, ready: &[bool], now: Instant) {
        self.paused_until.take_if(|until| *until <= now);
        let (listeners, connections) = ready.split_at(self.listeners.len().min(ready.len()));
        let mut ready = connections.iter();
        self.connections.retain_mut(|connection| {
            let ready = ready.next().is_some_and(|ready| *ready);
            connection.until > now && (!ready || connection.serve())
        });
        for (listener, _) in self.listeners.iter().zip(listeners).filter(|(_, ready)| **ready) {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match accept_with(&listener.socket, flags) {
                Ok(socket) => {
                    if self.connections.len() >= CONNECTIONS_MAX {
                        self.connections.remove(0);
                    }
                    let until = now + CLIENT_TIMEOUT;
                    let received = Vec::new();
                    self.connections.push(Connection { socket, received, answered: false, until });
                }
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => self.paused_until = Some(now + PAUSE),
            }
        }
    }
}

impl Connection {
    /// Reads, and answers what is whole. False: done.
    fn serve(&mut self) -> bool {
        let mut buffer = [0; HEAD_BYTES_MAX];
        let size = match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
            Ok((_, 0)) => return false,
            Ok((_, size)) => size,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        // What comes after the answer is read so that closing doesn't take the answer back.
        if self.answered {
            return true;
        }
        self.received.extend_from_slice(&buffer[..size]);
        let Some(answer) = hello::answer(&self.received) else { return true };
        self.answered = true;
        // A socket that was just opened has room for it.
        send(&self.socket, &answer, SendFlags::NOSIGNAL).is_ok()
            && shutdown(&self.socket, Shutdown::Write).is_ok()
    }
}

/// Which namespace is at a place; the node's own stays the same.
fn identity(netns: &Netns) -> Result<Option<netns::Identity>, NetnsError> {
    let Some(path) = netns.path() else { return Ok(None) };
    Ok(Some(netns::identity(&netns::open(path)?)?))
}

fn open_in(place: &Place) -> Result<OwnedFd, NetnsError> {
    let address = place.address;
    match place.netns.path() {
        None => Ok(open(address)?),
        Some(_) => Ok(NetnsThread::start()?.run(&place.netns, move || open(address))??),
    }
}

fn open(address: IpAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of a daemon that ended linger on.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // The address may come later, or not have been checked for duplicates yet.
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
        sockopt::set_ipv6_freebind(&socket, true)?;
    } else {
        sockopt::set_ip_freebind(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(address, PORT))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}
