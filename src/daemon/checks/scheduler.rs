//! Who is asked when: every target again and again, so many at a time at most, and what was found of each.
//!
//! Imports its siblings, and of `daemon` the status and the loop's wakes. The loop that calls never waits here.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::PollFd;
use tracing::{info, warn};

use super::DeadBackend;
use super::question::{Answer, Asking};
use super::task::{Backend, Target, Task};
use super::verdict::Verdict;
use crate::daemon::control::Status;
use crate::daemon::{Wake, classes};

/// Questions on their way at the same time. Each has a socket; a process has 1024 descriptors unless somebody
/// raised that.
const RUNNING_MAX: usize = 256;
/// Time between two first questions: a new configuration doesn't ask everybody at once.
const FIRST_INTERVAL: Duration = Duration::from_micros(500);
/// Time between two questions differs by up to a part of so many, so that they spread.
const JITTER: u32 = 8;
/// Changes of verdict at one time that are logged one by one.
const LINES_MAX: usize = 20;

/// A target, and how it stands.
struct Slot {
    number: u64,
    backends: Vec<Backend>,
    verdict: Verdict,
    since: String,
    problem: String,
}

/// Asks, and keeps what was found.
pub struct Scheduler {
    status: Arc<Mutex<Status>>,
    wakes: Sender<Wake>,
    random: RandomState,
    asked: u64,
    slots: BTreeMap<Target, Slot>,
    targets: BTreeMap<u64, Target>,
    due: BTreeSet<(Instant, u64)>,
    running: Vec<(u64, Asking)>,
}

fn now_text() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// A backend of which a daemon before this one knew that it is dead.
pub fn not_asked_yet((service, address): Backend) -> DeadBackend {
    let problem = "found dead before ciliate was started, and not asked since".to_owned();
    DeadBackend { service, address, since: now_text(), problem }
}

impl Scheduler {
    /// With nobody to ask yet.
    pub fn new(status: Arc<Mutex<Status>>, wakes: Sender<Wake>) -> Self {
        Self {
            status,
            wakes,
            random: RandomState::new(),
            asked: 0,
            slots: BTreeMap::new(),
            targets: BTreeMap::new(),
            due: BTreeSet::new(),
            running: Vec::new(),
        }
    }

    /// Asks these from now on. What is known of targets that stay is kept; new ones are asked soon.
    pub fn follow(&mut self, task: Task, now: Instant) {
        let mut before = std::mem::take(&mut self.slots);
        let mut first = now;
        let mut next = self.targets.keys().next_back().map_or(0, |number| number + 1);
        for (target, backends) in task.targets {
            let slot = match before.remove(&target) {
                Some(slot) => Slot { backends, ..slot },
                None => {
                    let known = backends.iter().find(|backend| task.dead.contains(*backend));
                    let verdict = known.map_or_else(Verdict::default, |_| Verdict::inherited());
                    let known = known.map(|backend| not_asked_yet(backend.clone()));
                    let (since, problem) =
                        known.map_or_else(Default::default, |dead| (dead.since, dead.problem));
                    let number = next;
                    next += 1;
                    self.targets.insert(number, target.clone());
                    self.due.insert((first, number));
                    first += FIRST_INTERVAL;
                    Slot { number, backends, verdict, since, problem }
                }
            };
            self.slots.insert(target, slot);
        }
        let gone: BTreeSet<u64> = before.into_values().map(|slot| slot.number).collect();
        self.targets.retain(|number, _| !gone.contains(number));
        self.due.retain(|(_, number)| !gone.contains(number));
        self.running.retain(|(number, _)| !gone.contains(number));
        self.publish();
    }

    /// What to wait for, in an order that stays until [`Scheduler::work`].
    pub fn waits(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.running.iter().filter_map(|(_, asking)| asking.waits())
    }

    /// When to work at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let room = self.running.len() < RUNNING_MAX;
        let due = self.due.first().filter(|_| room).map(|(time, _)| *time);
        self.running.iter().map(|(_, asking)| asking.deadline()).chain(due).min()
    }

    /// Goes on with what is `ready`, in the order of [`Scheduler::waits`], and with what is late.
    pub fn work(&mut self, ready: &[bool], now: Instant) {
        let mut ready = ready.iter().copied();
        for (number, asking) in &mut self.running {
            let Some(target) = self.targets.get(number) else { continue };
            if asking.waits().is_some() && ready.next().unwrap_or_default() {
                asking.ready(target.address, &target.check);
            }
            asking.tick(&target.check, now);
        }
        let mut changed = Vec::new();
        loop {
            self.collect(&mut changed, now);
            // Some answers are there at once: nobody listens.
            if !self.start(now) {
                break;
            }
        }
        if !changed.is_empty() {
            self.tell(&changed);
            self.publish();
        }
    }

    /// Takes answers; adds whom there is another verdict of.
    fn collect(&mut self, changed: &mut Vec<u64>, now: Instant) {
        for at in (0..self.running.len()).rev() {
            let (number, asking) = &self.running[at];
            let Some(answer) = asking.answer().cloned() else { continue };
            let number = *number;
            self.running.swap_remove(at);
            if self.record(number, answer, now) {
                changed.push(number);
            }
        }
    }

    fn record(&mut self, number: u64, answer: Answer, now: Instant) -> bool {
        let Some(target) = self.targets.get(&number) else { return false };
        let Some(slot) = self.slots.get_mut(target) else { return false };
        let changed = slot.verdict.take(answer.is_ok(), &target.check, now);
        if let Err(problem) = answer.as_ref().map_err(Clone::clone)
            && changed
        {
            slot.problem = match slot.verdict.held_for(now) {
                None => problem,
                Some(held) => {
                    let held =
                        humantime::format_duration(Duration::from_secs(held.as_secs().max(1)));
                    format!("{problem} (it comes and goes: kept out for {held} at least)")
                }
            };
            slot.since = now_text();
        }
        self.asked += 1;
        let interval = target.check.interval;
        let spread = u64::try_from((interval / JITTER).as_micros()).unwrap_or(u64::MAX).max(1);
        let jitter = Duration::from_micros(self.random.hash_one((number, self.asked)) % spread);
        self.due.insert((now + interval - jitter, number));
        changed
    }

    /// Asks whoever is due. Says whether an answer is there already.
    fn start(&mut self, now: Instant) -> bool {
        let mut answered = false;
        while self.running.len() < RUNNING_MAX {
            let Some((time, number)) = self.due.first().copied().filter(|(time, _)| *time <= now)
            else {
                break;
            };
            self.due.remove(&(time, number));
            let Some(target) = self.targets.get(&number) else { continue };
            let asking = Asking::start(target.address, &target.check, now);
            answered |= asking.answer().is_some();
            self.running.push((number, asking));
        }
        answered
    }

    /// Logs the new verdicts.
    fn tell(&self, changed: &[u64]) {
        let slots = || {
            let targets = changed.iter().filter_map(|number| self.targets.get(number));
            targets.filter_map(|target| self.slots.get(target))
        };
        let each = slots().flat_map(|slot| slot.backends.iter().map(move |one| (slot, one)));
        let count = slots().map(|slot| slot.backends.len()).sum::<usize>();
        for (slot, (service, address)) in each.take(LINES_MAX) {
            if slot.verdict.is_dead() {
                let problem = &slot.problem;
                warn!(target: classes::DEAD, %service, backend = %address, "backend {address} of service {service} is dead and gets nothing new: {problem}");
            } else {
                info!(target: classes::ALIVE, %service, backend = %address, "backend {address} of service {service} is alive again");
            }
        }
        if count > LINES_MAX {
            info!(count, "{} more backends are dead or alive again", count - LINES_MAX);
        }
    }

    /// Puts who is dead into the status, and wakes the loop where that is news.
    fn publish(&self) {
        let dead = self.slots.values().filter(|slot| slot.verdict.is_dead());
        let dead = dead.flat_map(|slot| {
            slot.backends.iter().map(|(service, address)| DeadBackend {
                service: service.clone(),
                address: *address,
                since: slot.since.clone(),
                problem: slot.problem.clone(),
            })
        });
        let mut dead: Vec<DeadBackend> = dead.collect();
        dead.sort_by(|one, other| {
            (&one.service, one.address).cmp(&(&other.service, other.address))
        });
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let found = &mut status.backend_checks;
        found.checked = self.slots.values().map(|slot| slot.backends.len()).sum();
        let key = |dead: &DeadBackend| (dead.service.clone(), dead.address);
        let news = !found.dead.iter().map(key).eq(dead.iter().map(key));
        found.dead = dead;
        drop(status);
        if news {
            let _ = self.wakes.send(Wake::Backends);
        }
    }
}
