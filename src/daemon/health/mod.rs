//! Health: answers the other nodes' questions, and asks them.
//!
//! One thread with one `poll` serves all sockets: the responder's, the probes', and an eventfd that says
//! that the configuration changed. The daemon's own loop hands over what is wanted after each round and
//! never waits. Imports `kernel`, `net`, and of `daemon` the status that the findings go to.

mod echo;
mod hello;
mod probe;
mod prober;
mod responder;
pub mod table;
mod task;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::control::Status;
use prober::Prober;
use responder::Responder;
use table::Health;

pub(super) use hello::{HEAD_BYTES_MAX, status_of};
pub(super) use probe::failed;
pub use task::Task;

/// How the two halves are called among the daemon's controllers.
const RESPONDER: &str = "health-responder";
const PROBER: &str = "health-prober";

/// The thread, and how to reach it.
struct Worker {
    tasks: Sender<Task>,
    wake: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

/// Health as the daemon holds it.
pub struct Service {
    status: Arc<Mutex<Status>>,
    worker: Option<Worker>,
}

impl Service {
    /// Not started.
    pub fn new(status: Arc<Mutex<Status>>) -> Self {
        Self { status, worker: None }
    }

    /// Does what is wanted from now on; `None`: nothing. Called after every round: the health
    /// endpoint's namespace may be another one than before.
    ///
    /// # Errors
    /// The thread can't be had.
    pub fn follow(&mut self, task: Option<Task>) -> io::Result<()> {
        let Some(task) = task else {
            self.stop();
            let mut status = self.lock();
            status.health = Health::default();
            status.controllers.retain(|name, _| ![RESPONDER, PROBER].contains(&name.as_str()));
            return Ok(());
        };
        self.lock().health.enabled = true;
        if self.worker.as_ref().is_none_or(|worker| worker.thread.is_finished()) {
            self.worker = Some(self.start()?);
        }
        if let Some(worker) = &self.worker {
            let _ = worker.tasks.send(task);
            wake(&worker.wake);
        }
        Ok(())
    }

    fn start(&self) -> io::Result<Worker> {
        let (tasks, inbox) = mpsc::channel();
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (event, status) = (Arc::new(event), self.status.clone());
        let wake = event.clone();
        let run = move || run(&inbox, &event, status);
        let thread = thread::Builder::new().name("health".into()).spawn(run)?;
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

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

fn wake(event: &OwnedFd) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

/// The thread: until the sender of tasks is gone.
fn run(inbox: &Receiver<Task>, event: &OwnedFd, status: Arc<Mutex<Status>>) {
    let mut responder = Responder::default();
    let mut prober = Prober::new(status.clone());
    loop {
        let ready = wait(event, &responder, &prober);
        let now = Instant::now();
        let (woken, ready) = ready.split_first().map_or((false, &[][..]), |(w, rest)| (*w, rest));
        let split = responder.waits().count().min(ready.len());
        let (for_responder, for_prober) = ready.split_at(split);
        responder.work(for_responder, now);
        prober.work(for_prober, now);
        if woken {
            let _ = rustix::io::read(event, &mut [0; 8]);
            let mut last = None;
            loop {
                match inbox.try_recv() {
                    Ok(task) => last = Some(task),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            if let Some(Task { listen, nodes }) = last {
                let problem = responder.follow(&listen);
                prober.follow(nodes, now);
                let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
                status.controllers.insert(RESPONDER.into(), problem);
                status.controllers.insert(PROBER.into(), prober.problem());
            }
        }
    }
}

/// Waits until something is ready or late. What is ready: the event, the responder's, the prober's.
fn wait(event: &OwnedFd, responder: &Responder, prober: &Prober) -> Vec<bool> {
    let deadline = responder.deadline().into_iter().chain(prober.deadline()).min();
    let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let event = PollFd::new(event, PollFlags::IN);
    let mut fds: Vec<PollFd<'_>> =
        std::iter::once(event).chain(responder.waits()).chain(prober.waits()).collect();
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => fds.iter().map(|fd| !fd.revents().is_empty()).collect(),
        // Interrupted: nothing is said to be ready.
        Err(_) => vec![false; fds.len()],
    }
}
