//! The loop: look, plan, apply, sleep until something may have changed.
//!
//! Imports `engine`, `config`, `kernel` (watching), `kinds` (to log). Level-triggered: what wakes it up
//! says only that, not what changed; each round looks at everything afresh and keeps nothing from the
//! round before but the configuration. Threads that watch send a [`Wake`]; one thread does the work.

mod concerns;
pub mod control;
mod health;
mod watch;

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::config::{Search, locate, render};
use crate::engine::{self, Converged, EngineError, Loaded};
use crate::kernel::{Kernel, KernelError, chain};
use crate::plan::Plan;
use crate::report::Outcome;
use control::{Problem, Status};
use health::Systemd;

pub use watch::Wake;

/// What the command line decides.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Time between two full looks when nothing reports a change.
    pub resync: Duration,
}

/// First wait after a round that left something undone, doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Config files are read this long after the last event about them: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(50);
/// Problems that are kept for `status`.
const PROBLEMS_MAX: usize = 32;

/// The daemon's state between rounds.
struct Daemon<'a> {
    search: &'a Search,
    loaded: Loaded,
    options: Options,
    kernel: Kernel,
    systemd: Systemd,
    status: Arc<Mutex<Status>>,
    retry: Duration,
    /// Something is left to do, or was refused.
    unsettled: bool,
    /// The problems that were logged already.
    known: Vec<Problem>,
}

/// Runs until SIGTERM or SIGINT. Leaves the kernel as it is.
///
/// # Errors
/// The kernel can't be opened at all, or the watchers can't be started.
pub fn run(search: &Search, loaded: Loaded, options: Options) -> Result<(), EngineError> {
    let (sender, wakes) = mpsc::channel();
    let systemd = Systemd::new();
    let mut kernel = Kernel::open(&loaded.intent.paths.bpf)?;
    engine::at_home(&kernel)?;
    kernel.set_pulse(systemd.pulse());
    let status = Arc::new(Mutex::new(Status::new(&loaded)));
    let mut daemon = Daemon {
        search,
        options,
        kernel,
        systemd,
        status: status.clone(),
        retry: RETRY_MIN,
        unsettled: false,
        known: Vec::new(),
        loaded,
    };
    // Watching begins before the first look: what changes in between is not missed.
    let mut watchers = watch::Watchers::start(sender.clone())?;
    watchers.follow(search, &daemon.loaded.intent);
    // So is what was saved after the command line read the files. What is wrong with it is in the status.
    let _ = daemon.reload(false);
    let runtime = daemon.loaded.intent.paths.runtime.clone();
    let control = control::serve(&runtime, status, sender)?;
    daemon.round();
    // The first round may have made folders that are worth watching.
    watchers.follow(search, &daemon.loaded.intent);
    daemon.systemd.ready();
    daemon.publish();
    let result = daemon.serve(&wakes, &mut watchers);
    drop(control);
    result
}

impl Daemon<'_> {
    /// Works through wakes until told to end.
    fn serve(
        &mut self,
        wakes: &Receiver<Wake>,
        watchers: &mut watch::Watchers,
    ) -> Result<(), EngineError> {
        let mut last_look = Instant::now();
        loop {
            let wait = self.wait_from(last_look);
            let first = match wakes.recv_timeout(wait) {
                Ok(wake) => Some(wake),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Wake::Terminate),
            };
            self.systemd.ping();
            let due = first.is_some() || self.wait_from(last_look).is_zero();
            if !due {
                continue;
            }
            let mut wanted = Wanted::default();
            first.into_iter().for_each(|wake| wanted.add(wake));
            if wanted.config {
                std::thread::sleep(SETTLE);
            }
            wakes.try_iter().for_each(|wake| wanted.add(wake));
            if wanted.terminate {
                self.systemd.stopping();
                info!("stopping; the kernel stays as it is");
                return Ok(());
            }
            let mut answer = Ok(());
            if wanted.config || wanted.reload {
                // Watched before they are read, or what is saved in between in a folder that is new
                // would wake nobody. Afterwards those of endpoints' namespaces, which the round looks at.
                watchers.follow(self.search, &self.loaded.intent);
                answer = self.reload(wanted.reload);
                watchers.follow(self.search, &self.loaded.intent);
            }
            let begin = Instant::now();
            if self.round() {
                watchers.follow(self.search, &self.loaded.intent);
            }
            last_look = Instant::now();
            self.publish();
            for reply in wanted.replies {
                let _ = reply.send(answer.clone());
            }
            // A storm of events gets at most half of a CPU.
            std::thread::sleep(begin.elapsed().min(Duration::from_millis(100)));
        }
    }

    /// How long to sleep if nothing happens: to the next full look, retry, or sign of life.
    fn wait_from(&self, last_look: Instant) -> Duration {
        let period = if self.unsettled { self.retry } else { self.options.resync };
        let period = period.min(self.options.resync);
        let until_look = period.saturating_sub(last_look.elapsed());
        self.systemd.interval().map_or(until_look, |ping| until_look.min(ping))
    }

    /// Reads the configuration again. With errors the last good one stays in force.
    fn reload(&mut self, asked: bool) -> Result<(), String> {
        if asked {
            self.systemd.reloading();
        }
        let result = match engine::load(self.search) {
            Ok(loaded) => {
                let changed = loaded.intent != self.loaded.intent;
                let moved = loaded.intent.paths != self.loaded.intent.paths;
                let mut status = self.lock_status();
                status.config_error = None;
                if changed {
                    status.generation += 1;
                    // What was converged was the generation before.
                    status.converged = false;
                    info!(generation = status.generation, "configuration read");
                }
                drop(status);
                if moved {
                    warn!("[paths] changed: restart ciliate to use the new paths");
                }
                let paths = self.loaded.intent.paths.clone();
                self.loaded = loaded;
                self.loaded.intent.paths = paths;
                Ok(())
            }
            Err(invalid) => {
                let text = render(invalid.document.sources(), &invalid.diagnostics, false);
                let before = self.lock_status().config_error.replace(text.clone());
                // Said once, and to whoever asks again.
                if asked || before.as_ref() != Some(&text) {
                    for located in locate(invalid.document.sources(), &invalid.diagnostics) {
                        let place = located.place;
                        let (file, line) = (&place.file, place.line);
                        error!(file, line, "configuration refused: {}", place.message);
                    }
                }
                Err(text)
            }
        };
        if asked {
            self.systemd.ready();
        }
        result
    }

    /// Looks, plans, applies, looks again. Says whether anything was changed.
    fn round(&mut self) -> bool {
        let begin = Instant::now();
        let result = self.try_round();
        let (settled, problems) = match &result {
            Ok(converged) => (converged.succeeded(), self.report(converged)),
            Err(EngineError::Kernel(KernelError::Locked { path })) => {
                info!("waiting: another ciliate holds {}", path.display());
                (false, Vec::new())
            }
            Err(failure) => {
                let text = chain(failure);
                error!("round failed: {text}");
                (false, vec![Problem { object: "node".into(), error: text }])
            }
        };
        self.unsettled = !settled;
        let progressed = result
            .as_ref()
            .is_ok_and(|converged| converged.rounds.iter().any(|(_, report)| report.done() > 0));
        self.retry =
            if settled || progressed { RETRY_MIN } else { (self.retry * 2).min(RETRY_MAX) };
        let mut status = self.lock_status();
        status.converged = settled;
        status.rounds += 1;
        status.last_round_ms = begin.elapsed().as_millis() as u64;
        status.problems = problems;
        if let Ok(converged) = &result {
            status.describe(&converged.last);
            status.repaired += converged.rounds.iter().map(|(_, r)| r.done() as u64).sum::<u64>();
        }
        progressed
    }

    fn try_round(&mut self) -> Result<Converged, EngineError> {
        let intent = &self.loaded.intent;
        // A look that finds nothing to do needs no lock.
        let view = engine::view(&mut self.kernel, intent)?;
        if view.plan.ops.is_empty() {
            return Ok(Converged { rounds: Vec::new(), last: view });
        }
        let scope = engine::lock(&intent.paths.runtime, Duration::ZERO)?;
        let look = |kernel: &mut Kernel| engine::view(kernel, intent);
        engine::converge(&scope, &mut self.kernel, look, |_, _| {})
    }

    /// Logs what was done and returns what wasn't.
    fn report(&mut self, converged: &Converged) -> Vec<Problem> {
        let generation = self.lock_status().generation;
        let mut problems = Vec::new();
        for (plan, report) in &converged.rounds {
            // What an earlier attempt couldn't do, a later one did, or it is among its problems.
            problems.clear();
            log_round(generation, plan, &report.outcomes, &mut problems);
        }
        for blocked in &converged.last.plan.blocked {
            let object = blocked.origin.to_string();
            problems.push(Problem { object, error: blocked.reason.to_string() });
        }
        for problem in problems.iter().filter(|problem| !self.known.contains(problem)) {
            warn!(object = %problem.object, "not as configured: {}", problem.error);
        }
        self.known.clone_from(&problems);
        problems.truncate(PROBLEMS_MAX);
        problems
    }

    /// Tells systemd how it stands.
    fn publish(&self) {
        let text = self.lock_status().summary();
        self.systemd.status(&text);
    }

    fn lock_status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_round(generation: u64, plan: &Plan, outcomes: &[Outcome], problems: &mut Vec<Problem>) {
    for (op, outcome) in plan.ops.iter().zip(outcomes) {
        let (object, operation) = (op.object().to_string(), op.verb());
        match outcome {
            Outcome::Done => info!(
                generation,
                object = %object,
                operation,
                origin = %op.origin(),
                "{}",
                op.line()
            ),
            bad => problems.push(Problem { object, error: format!("{operation}: {bad}") }),
        }
    }
}

/// What a batch of wakes asks for.
#[derive(Default)]
struct Wanted {
    terminate: bool,
    config: bool,
    /// Somebody asked for it.
    reload: bool,
    /// Those who wait for an answer.
    replies: Vec<control::Reply>,
}

impl Wanted {
    fn add(&mut self, wake: Wake) {
        match wake {
            Wake::Terminate => self.terminate = true,
            Wake::Config => self.config = true,
            Wake::Kernel => {}
            Wake::Reload(reply) => {
                self.reload = true;
                self.replies.extend(reply);
            }
        }
    }
}
