//! Health checks of backends: asks those that services have checked, and tells the loop who is dead.
//!
//! One thread with one `poll` for all questions, however many there are. What it finds is in the status; the loop
//! takes it from there into its next round, by which the dead get nothing new. As in Cilium a service whose backends
//! are all dead has none. Imports `facts`, `intent`, `kernel` and `kinds`, and of `daemon` the status.

mod question;
mod scheduler;
mod task;
mod verdict;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use serde::{Deserialize, Serialize};

use super::Wake;
use super::control::Status;
use crate::bpf_abi::BACKEND_QUARANTINED;
use crate::facts::Dead;
use crate::intent::{Intent, Service};
use crate::kernel::{Kernel, KernelError};
use crate::kinds::lb_backend;
use scheduler::Scheduler;
use task::Task;

/// What is known of the backends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Found {
    /// How many are asked.
    pub checked: usize,
    /// Those that get nothing new, by service and address.
    pub dead: Vec<DeadBackend>,
}

/// A backend that was found dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadBackend {
    pub service: Arc<str>,
    pub address: SocketAddr,
    /// Since when, and what it last answered, or that it didn't.
    pub since: String,
    pub problem: String,
}

impl Found {
    /// The dead, as rounds take them.
    pub fn dead(&self) -> Dead {
        self.dead.iter().map(|dead| (dead.service.clone(), dead.address)).collect()
    }
}

/// The thread, and how to reach it.
struct Worker {
    tasks: Sender<Task>,
    wake: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

/// Health checks as the daemon holds them.
pub struct Checks {
    status: Arc<Mutex<Status>>,
    wakes: Sender<Wake>,
    task: Task,
    worker: Option<Worker>,
}

/// The backends to check that the maps say are dead: a daemon before this one has found them so.
///
/// # Errors
/// The maps can't be read.
pub fn inherited(kernel: &Kernel, intent: &Intent) -> Result<Dead, KernelError> {
    if intent.services.values().all(|service| service.health_check.is_none()) {
        return Ok(Dead::new());
    }
    let found = lb_backend::exec::dump(kernel)?;
    let of_state = found.values().filter(|seen| seen.backend.state == BACKEND_QUARANTINED);
    let dead: BTreeSet<(SocketAddr, u8)> =
        of_state.map(|seen| (seen.backend.address, seen.backend.protocol)).collect();
    let checked = intent.services.values().filter(|service| service.health_check.is_some());
    let backends = checked
        .flat_map(|service| service.backends.iter().map(move |backend| (service, backend.address)));
    let is_dead = |service: &Service, address| dead.contains(&(address, service.protocol.number()));
    Ok(backends
        .filter(|(service, address)| is_dead(service, *address))
        .map(|(service, address)| (service.name.clone(), address))
        .collect())
}

impl Checks {
    /// Not started.
    pub fn new(status: Arc<Mutex<Status>>, wakes: Sender<Wake>) -> Self {
        Self { status, wakes, task: Task::default(), worker: None }
    }

    /// Asks whom the configuration says from now on. `dead` are backends that are known to be so: the next round
    /// knows it too.
    ///
    /// # Errors
    /// The thread can't be had.
    pub fn follow(&mut self, intent: &Intent, dead: Dead) -> io::Result<()> {
        let task = Task::of(intent);
        let runs = self.worker.as_ref().is_some_and(|worker| !worker.thread.is_finished());
        if task == self.task && (runs || task.targets.is_empty()) {
            return Ok(());
        }
        self.task = task.clone();
        if task.targets.is_empty() {
            self.stop();
            self.lock().backend_checks = Found::default();
            return Ok(());
        }
        if !runs {
            let mut status = self.lock();
            let found = &mut status.backend_checks;
            found.checked = task.backends();
            found.dead = dead.iter().map(|one| scheduler::not_asked_yet(one.clone())).collect();
            drop(status);
            self.worker = Some(self.start()?);
        }
        if let Some(worker) = &self.worker {
            let _ = worker.tasks.send(Task { dead, ..task });
            wake(&worker.wake);
        }
        Ok(())
    }

    fn start(&self) -> io::Result<Worker> {
        let (tasks, inbox) = mpsc::channel();
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let event = Arc::new(event);
        let wake = event.clone();
        let scheduler = Scheduler::new(self.status.clone(), self.wakes.clone());
        let run = move || run(&inbox, &event, scheduler);
        let thread = thread::Builder::new().name("checks".into()).spawn(run)?;
        Ok(Worker { tasks, wake, thread })
    }

    fn stop(&mut self) {
        let Some(Worker { tasks, wake: event, thread }) = self.worker.take() else { return };
        drop(tasks);
        wake(&event);
        let _ = thread.join();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.stop();
    }
}

fn wake(event: &OwnedFd) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

/// The thread: until the sender of tasks is gone.
fn run(inbox: &Receiver<Task>, event: &OwnedFd, mut scheduler: Scheduler) {
    loop {
        let ready = wait(event, &scheduler);
        let now = Instant::now();
        let (woken, ready) = ready.split_first().map_or((false, &[][..]), |(w, rest)| (*w, rest));
        scheduler.work(ready, now);
        if woken {
            let _ = rustix::io::read(event, &mut [0; 8]);
            loop {
                match inbox.try_recv() {
                    Ok(task) => scheduler.follow(task, now),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
        }
    }
}

/// Waits until something is ready or late. What is ready: the event, then the questions.
fn wait(event: &OwnedFd, scheduler: &Scheduler) -> Vec<bool> {
    let timeout = scheduler.deadline().map(|at| at.saturating_duration_since(Instant::now()));
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let mut fds = vec![PollFd::new(event, PollFlags::IN)];
    fds.extend(scheduler.waits());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => fds.iter().map(|fd| !fd.revents().is_empty()).collect(),
        // Interrupted: nothing is said to be ready.
        Err(_) => vec![false; fds.len()],
    }
}
