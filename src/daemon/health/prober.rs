//! Probes every address of every node, again and again, and keeps the table of what was found.
//!
//! Imports its siblings, and `kernel` for the ICMP sockets. Probes are started one after the other at a
//! bounded rate and run beside each other, so many at most; the loop that calls never waits for one.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvFlags, recv};

use super::echo::{self, Token};
use super::probe::{EchoSockets, Outcome, Probe};
use super::table::{Finding, NodeHealth, Path, Side};
use super::task::{Nodes, Target};
use crate::daemon::control::Status;
use crate::kernel::icmp;

/// Probes on their way at the same time. Each has a socket; a process has 1024 descriptors unless
/// somebody raised that.
const RUNNING_MAX: usize = 256;
/// Time between the starts of two probes.
const START_INTERVAL: Duration = Duration::from_millis(5);
/// First wait after a probe that failed, doubled up to the interval.
const RETRY_MIN: Duration = Duration::from_secs(5);
/// Echo answers that are read before others get their turn.
const ECHOES_MAX: usize = 1024;

/// An address of a node. In order of the first probes: this node comes before the others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    remote: bool,
    node: Arc<str>,
    side: Side,
    address: IpAddr,
}

struct Slot {
    /// Where it is in the table.
    node: usize,
    path: usize,
    retry: Duration,
}

/// The prober.
pub struct Prober {
    status: Arc<Mutex<Status>>,
    interval: Duration,
    nodes: Vec<Target>,
    sockets: EchoSockets,
    cookie: u64,
    started: u64,
    start_next: Instant,
    slots: BTreeMap<Key, Slot>,
    due: BTreeSet<(Instant, Key)>,
    running: Vec<(u64, Key, Probe)>,
}

impl Prober {
    /// With nobody to probe yet.
    pub fn new(status: Arc<Mutex<Status>>) -> Self {
        let open = |v6| icmp::open(v6).map_err(|error| format!("open a raw socket: {error}"));
        Self {
            status,
            interval: Duration::ZERO,
            nodes: Vec::new(),
            sockets: [open(false), open(true)],
            cookie: RandomState::new().hash_one(0),
            started: 0,
            start_next: Instant::now(),
            slots: BTreeMap::new(),
            due: BTreeSet::new(),
            running: Vec::new(),
        }
    }

    /// Why nobody can be pinged, if so.
    pub fn problem(&self) -> Option<String> {
        let used = |v6| self.slots.keys().any(|key| key.address.is_ipv6() == v6);
        let errors = [false, true].into_iter().filter(|v6| used(*v6));
        errors.filter_map(|v6| self.sockets[usize::from(v6)].as_ref().err()).next().cloned()
    }

    /// Probes these nodes from now on. What is known of addresses that stay is kept; new ones are
    /// probed at once.
    pub fn follow(&mut self, Nodes { nodes, interval }: Nodes, now: Instant) {
        if self.nodes == nodes && self.interval == interval {
            return;
        }
        let times: BTreeMap<Key, Instant> =
            std::mem::take(&mut self.due).into_iter().map(|(time, key)| (key, time)).collect();
        let slots = std::mem::take(&mut self.slots);
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known: BTreeMap<Key, Path> = BTreeMap::new();
        for node in std::mem::take(&mut status.health.nodes) {
            let key = |path: &Path| Key {
                remote: !node.local,
                node: node.name.clone(),
                side: path.side,
                address: path.address,
            };
            known.extend(node.paths.into_iter().map(|path| (key(&path), path)));
        }
        for (number, target) in nodes.iter().enumerate() {
            let mut paths = Vec::new();
            for (side, address) in target.addresses() {
                let (remote, node) = (!target.local, target.name.clone());
                let key = Key { remote, node, side, address };
                let retry = slots.get(&key).map_or(RETRY_MIN, |slot| slot.retry);
                self.slots.insert(key.clone(), Slot { node: number, path: paths.len(), retry });
                if !self.running.iter().any(|(_, running, _)| *running == key) {
                    let time = times.get(&key).copied().unwrap_or(now);
                    self.due.insert((time.min(now + interval), key.clone()));
                }
                paths.push(known.remove(&key).unwrap_or_else(|| Path::new(side, address)));
            }
            let (name, local) = (target.name.clone(), target.local);
            status.health.nodes.push(NodeHealth { name, local, paths });
        }
        status.health.interval_s = interval.as_secs();
        drop(status);
        self.running.retain(|(_, key, _)| self.slots.contains_key(key));
        (self.nodes, self.interval) = (nodes, interval);
    }

    /// What to wait for, in an order that stays until [`Prober::work`].
    pub fn waits(&self) -> impl Iterator<Item = PollFd<'_>> {
        let sockets = self.sockets.iter().flatten();
        sockets
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .chain(self.running.iter().filter_map(|(.., probe)| probe.waits()))
    }

    /// When to work at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let room = self.running.len() < RUNNING_MAX;
        let due = self.due.first().filter(|_| room).map(|(time, _)| self.start_next.max(*time));
        self.running.iter().filter_map(|(.., probe)| probe.deadline()).chain(due).min()
    }

    /// Goes on with what is `ready`, in the order of [`Prober::waits`], and with what is late.
    pub fn work(&mut self, ready: &[bool], now: Instant) {
        let mut ready = ready.iter().copied();
        for v6 in [false, true] {
            let Ok(socket) = &self.sockets[usize::from(v6)] else { continue };
            if ready.next().unwrap_or_default() {
                for token in echoes(socket, v6, self.cookie) {
                    let of = |(number, ..): &&mut (u64, Key, Probe)| *number == token.probe;
                    if let Some((.., probe)) = self.running.iter_mut().find(of) {
                        probe.echoed(token.attempt, now);
                    }
                }
            }
        }
        let sockets = &self.sockets;
        for (.., probe) in &mut self.running {
            if probe.waits().is_some() && ready.next().unwrap_or_default() {
                probe.ready(now);
            }
            if probe.deadline().is_some_and(|deadline| deadline <= now) {
                probe.tick(sockets, now);
            }
        }
        for at in (0..self.running.len()).rev() {
            if self.running[at].2.outcomes().is_some() {
                let (_, key, probe) = self.running.swap_remove(at);
                if let Some((icmp, http)) = probe.outcomes() {
                    self.record(key, icmp, http, now);
                }
            }
        }
        self.start(now);
    }

    fn start(&mut self, now: Instant) {
        while self.running.len() < RUNNING_MAX && self.start_next <= now {
            let Some((_, key)) = self.due.first().filter(|(time, _)| *time <= now).cloned() else {
                return;
            };
            self.due.pop_first();
            self.started += 1;
            let token = Token { cookie: self.cookie, probe: self.started, attempt: 0 };
            let probe = Probe::start(key.address, token, &self.sockets, now);
            self.running.push((self.started, key, probe));
            // Time that passed without probes is not made up for.
            self.start_next = (self.start_next + START_INTERVAL).max(now);
        }
    }

    /// Writes down what was found, and when to look again: sooner where something is wrong.
    fn record(&mut self, key: Key, icmp: &Outcome, http: &Outcome, now: Instant) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let wait = wait(&mut slot.retry, icmp.is_ok() && http.is_ok(), self.interval);
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.health.probed = Some(time.clone());
        let node = status.health.nodes.get_mut(slot.node);
        if let Some(path) = node.and_then(|node| node.paths.get_mut(slot.path)) {
            path.probed = Some(time.clone());
            note(&mut path.icmp, icmp, &time);
            note(&mut path.http, http, &time);
        }
        self.due.insert((now + wait, key));
    }
}

/// Time until the next probe of an address; `retry` is that after the next failure.
fn wait(retry: &mut Duration, good: bool, interval: Duration) -> Duration {
    if good {
        *retry = RETRY_MIN;
        return interval;
    }
    let wait = *retry;
    *retry = (wait * 2).min(interval.max(RETRY_MIN));
    wait.min(interval)
}

fn note(finding: &mut Finding, outcome: &Outcome, time: &str) {
    match outcome {
        Ok(rtt) => {
            let rtt_us = u64::try_from(rtt.as_micros()).ok();
            *finding = Finding { rtt_us, last_success: Some(time.to_owned()), error: None };
        }
        Err(error) => finding.error = Some(error.clone()),
    }
}

/// The answers to our requests that have arrived.
fn echoes(socket: &OwnedFd, v6: bool, cookie: u64) -> Vec<Token> {
    let mut found = Vec::new();
    let mut buffer = [0; 256];
    for _ in 0..ECHOES_MAX {
        let Ok((_, size)) = recv(socket, &mut buffer, RecvFlags::empty()) else { break };
        let token = echo::reply(v6, &buffer[..size.min(buffer.len())]);
        found.extend(token.filter(|token| token.cookie == cookie));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_probed_again_sooner() {
        let second = Duration::from_secs;
        let mut retry = RETRY_MIN;
        let mut waits = |outcomes: &[bool], interval: u64| -> Vec<u64> {
            let one = |good: &bool| wait(&mut retry, *good, second(interval)).as_secs();
            outcomes.iter().map(one).collect()
        };
        assert_eq!(waits(&[true, false, false, false, false, false], 66), [66, 5, 10, 20, 40, 66]);
        assert_eq!(waits(&[true, false, true, false], 66), [66, 5, 66, 5]);
        assert_eq!(waits(&[false, true, false, false], 4), [4, 4, 4, 4]);
    }
}
