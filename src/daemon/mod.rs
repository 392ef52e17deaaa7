//! The loop: look, plan, apply, sleep until something may have changed.
//!
//! Imports `engine`, `config`, `kernel` (watching), `kinds` (to log). Level-triggered: what wakes it up
//! says only that, not what changed; each round looks at everything afresh. From the round before it has the
//! configuration, and what that round saw: a hint, so that a change of a few services is made before the look
//! ([`crate::engine::ahead`]). Threads that watch send a [`Wake`]; one thread does the work.

pub mod checks;
pub mod classes;
mod concerns;
pub mod control;
mod fights;
pub mod gc;
pub mod health;
mod journal;
mod places;
mod systemd;
mod watch;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::config::{Search, locate, render};
use crate::engine::ahead::Last;
use crate::engine::{self, Converged, EngineError, Loaded, View};
use crate::facts::{Dead, Remembered};
use crate::intent::Amended;
use crate::kernel::lock::daemon::DaemonLock;
use crate::kernel::{Kernel, KernelError, chain, memory};
use crate::kinds::Op;
use crate::listen::{ListenError, slots};
use crate::lower::lost_text;
use crate::report::{Outcome, waiting, waiting_text};
use checks::Checks;
use control::{CONVERGE, Control, Problem, Status};
use fights::Fights;
use health::{Service, Task};
use places::Places;
use systemd::Systemd;

pub use fights::EXPLANATION as FIGHT_EXPLANATION;
pub use watch::Wake;

/// What the command line decides.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Time between two full looks when nothing reports a change.
    pub resync: Duration,
    /// Time between two collections of conntrack entries; chosen by what they find where it isn't given.
    pub conntrack_gc: Option<Duration>,
}

/// First wait after a round that left something undone, doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Config files are read this long after an event about them: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(50);
/// The same after events that say that a file is there as it is to be: others may come with it.
const SETTLE_WHOLE: Duration = Duration::from_millis(2);
/// How long a `destroy` that is at work is waited for.
const DESTROY_PATIENCE: Duration = Duration::from_secs(60);
/// Problems that are kept for `status`.
const PROBLEMS_MAX: usize = 32;

/// The daemon's state between rounds.
struct Daemon<'a> {
    search: &'a Search,
    loaded: Loaded,
    /// How the configuration was changed since the last round.
    amended: Option<Amended>,
    /// What the last round saw, where that is all there is to know: a hint for the next.
    last: Option<Last>,
    options: Options,
    kernel: Kernel,
    systemd: Systemd,
    status: Arc<Mutex<Status>>,
    health: Service,
    checks: Checks,
    retry: Duration,
    fights: Fights,
    /// All that is left to do is fought about: how long to leave it alone.
    pause: Duration,
    /// What tells others that a daemon runs.
    alone: DaemonLock,
    control: Option<Control>,
    wakes: Sender<Wake>,
    /// Something is left to do, or was refused.
    unsettled: bool,
    /// The problems that were logged already.
    known: Vec<Problem>,
    /// Where our routes are to be. The threads that watch read it.
    places: Arc<Mutex<Places>>,
    /// Records as the last round left them: a hint for the next, should somebody remove them.
    records: BTreeMap<String, String>,
}

/// Tells systemd why the daemon is not there.
pub fn failed(reason: &str) {
    Systemd::new().status(reason);
}

/// Runs until SIGTERM or SIGINT. Leaves the kernel as it is.
///
/// # Errors
/// The kernel can't be opened at all, or the watchers can't be started.
pub fn run(search: &Search, loaded: Loaded, options: Options) -> Result<(), EngineError> {
    let (sender, wakes) = mpsc::channel();
    let systemd = Systemd::new();
    let mut kernel = Kernel::open(&loaded.intent.paths.bpf, &loaded.intent.paths.runtime)?;
    engine::at_home(&kernel)?;
    let runtime = loaded.intent.paths.runtime.clone();
    let alone = control::alone(&runtime, DESTROY_PATIENCE)?;
    kernel.set_pulse(systemd.pulse());
    let status = Arc::new(Mutex::new(Status::new(&loaded)));
    let mut daemon = Daemon {
        search,
        amended: None,
        last: None,
        options,
        kernel,
        systemd,
        status: status.clone(),
        health: Service::new(status.clone()),
        checks: Checks::new(status.clone(), sender.clone()),
        retry: RETRY_MIN,
        fights: Fights::default(),
        pause: Duration::ZERO,
        alone,
        control: None,
        wakes: sender.clone(),
        // Until the first round has said otherwise.
        unsettled: true,
        known: Vec::new(),
        places: Arc::default(),
        records: BTreeMap::new(),
        loaded,
    };
    journal::begin(&daemon.loaded);
    // Watching begins before the first look: what changes in between is not missed.
    let mut watchers = watch::Watchers::start(sender.clone(), daemon.places.clone())?;
    daemon.follow(&mut watchers);
    // So is what was saved after the command line read the files. What is wrong with it is in the status.
    let _ = daemon.reload(false);
    // What a daemon before this one found dead is not tried on clients again.
    let dead = checks::inherited(&daemon.kernel, &daemon.loaded.intent)?;
    daemon.follow_checks(dead);
    daemon.control = Some(control::serve(&runtime, status, sender)?);
    daemon.round();
    gc::start(&daemon.loaded.intent.paths.bpf, options.conntrack_gc, daemon.status.clone())?;
    // The first round may have made folders that are worth watching.
    daemon.follow(&mut watchers);
    daemon.systemd.ready();
    daemon.publish();
    memory::give_back();
    daemon.serve(&wakes, &mut watchers)
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
            wanted.settle(wakes);
            if wanted.terminate {
                self.systemd.stopping();
                info!(target: classes::STOPPING, "stopping; the kernel stays as it is");
                return Ok(());
            }
            let mut answer = Ok(());
            if wanted.config || wanted.reload {
                // Watched before they are read, or what is saved in between in a folder that is new
                // would wake nobody. Afterwards those of endpoints' namespaces, which the round looks at.
                self.follow(watchers);
                answer = self.reload(wanted.reload);
                self.follow_checks(Dead::new());
                self.follow(watchers);
            }
            let begin = Instant::now();
            if self.round() {
                self.follow(watchers);
            }
            last_look = Instant::now();
            self.publish();
            memory::give_back();
            for reply in wanted.replies {
                let _ = reply.send(answer.clone());
            }
            // A storm of events gets at most half of a CPU, and a tenth where nothing comes of it.
            let (share, rest_max) = if self.pause.is_zero() { (1, 100) } else { (9, 500) };
            std::thread::sleep((begin.elapsed() * share).min(Duration::from_millis(rest_max)));
        }
    }

    /// Watches what matters for the configuration.
    fn follow(&self, watchers: &mut watch::Watchers) {
        watchers.follow(self.search, &self.loaded.intent);
        self.lock_status().controllers.extend(watchers.controllers());
    }

    /// How long to sleep if nothing happens: to the next full look, retry, or sign of life.
    fn wait_from(&self, last_look: Instant) -> Duration {
        let period = match self.unsettled {
            true if !self.pause.is_zero() => self.pause,
            true => self.retry,
            false => self.options.resync,
        };
        let period = period.min(self.options.resync);
        let until_look = period.saturating_sub(last_look.elapsed());
        self.systemd.interval().map_or(until_look, |ping| until_look.min(ping))
    }

    /// Reads the configuration again. With errors the last good one stays in force.
    fn reload(&mut self, asked: bool) -> Result<(), String> {
        if asked {
            self.systemd.reloading();
        }
        let paths = self.loaded.intent.paths.clone();
        let result = match engine::reload(self.search, &mut self.loaded) {
            Ok(amended) => {
                let changed = amended.changed;
                let moved = paths != self.loaded.intent.paths;
                let mut status = self.lock_status();
                status.config_error = None;
                if changed {
                    status.generation += 1;
                    // What was converged was the generation before.
                    status.converged = false;
                    let generation = status.generation;
                    info!(target: classes::CONFIGURED, generation, "configuration read");
                }
                drop(status);
                if changed {
                    self.fights.clear();
                }
                if moved {
                    warn!("[paths] changed: restart ciliate to use the new paths");
                }
                self.loaded.intent.paths = paths;
                self.amended = Some(amended).filter(|amended| amended.changed);
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
                        error!(
                            target: classes::REFUSED,
                            file,
                            line,
                            "configuration refused: {}",
                            place.message
                        );
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
        let mut problems = self.keep_control();
        let result = self.try_round();
        self.free_dead_readers();
        let settled = match &result {
            Ok(converged) => {
                problems.extend(self.report(converged));
                converged.succeeded()
            }
            Err(failure) => {
                let text = chain(failure);
                let problem = Problem { errno: failure.errno(), ..Problem::new("node", text) };
                // Said once, and not again as a problem.
                if !matches!(failure, EngineError::Kernel(KernelError::Locked { .. }))
                    && !self.known.contains(&problem)
                {
                    let errno = failure.errno();
                    error!(target: classes::FAILED, errno, "round failed: {}", problem.error);
                    self.known.push(problem.clone());
                }
                problems.push(problem);
                false
            }
        };
        self.say_new(&problems);
        problems.truncate(PROBLEMS_MAX);
        let was_settled = !std::mem::replace(&mut self.unsettled, !settled);
        let progressed = result
            .as_ref()
            .is_ok_and(|converged| converged.rounds.iter().any(|(_, report)| report.done() > 0));
        self.retry =
            if settled || progressed { RETRY_MIN } else { (self.retry * 2).min(RETRY_MAX) };
        let fought = self.fights.contested(Instant::now()).next().is_some();
        let mut status = self.lock_status();
        status.converged = settled;
        status.rounds += 1;
        status.last_round_ms = begin.elapsed().as_millis() as u64;
        status.problems = problems;
        status.controllers.insert(CONVERGE.into(), result.as_ref().err().map(|e| chain(e)));
        if let Ok(converged) = &result {
            let unheard = |setting: &&String| !status.summary.lost.contains(setting);
            for setting in converged.last.summary.lost.iter().filter(unheard) {
                warn!("{}", lost_text(setting));
            }
            status.describe(&converged.last);
            status.repaired += converged.rounds.iter().map(|(_, r)| r.done() as u64).sum::<u64>();
        }
        // A fight is settled again and again.
        if settled && !was_settled && !fought {
            let generation = status.generation;
            info!(target: classes::CONVERGED, generation, "{}", status.summary());
        }
        drop(status);
        if let Ok(converged) = result {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.follow(&converged.last.desired.routes);
            drop(places);
            self.records = converged.last.records();
            self.follow_health(&converged.last);
            self.last = converged.is_fresh.then(|| Last::of(converged.last)).flatten();
        }
        progressed
    }

    /// Health goes by what the round found: addresses, and the namespace that it may have made anew.
    fn follow_health(&mut self, view: &View) {
        let task = Task::of(&self.loaded.intent, &view.summary);
        if let Err(failure) = self.health.follow(task) {
            warn!("health can't be looked after: {failure}");
        }
    }

    /// Backends are asked as the configuration says; `dead` are known to be so without being asked.
    fn follow_checks(&mut self, dead: Dead) {
        if let Err(failure) = self.checks.follow(&self.loaded.intent, dead) {
            warn!("backends can't be checked: {failure}");
        }
    }

    fn try_round(&mut self) -> Result<Converged, EngineError> {
        let (last, amended) = (self.last.take(), self.amended.take());
        let dead = Arc::new(self.lock_status().backend_checks.dead());
        let intent = &self.loaded.intent;
        let remembered = Remembered { records: self.records.clone(), dead };
        let look = |kernel: &mut Kernel| engine::view_with(kernel, intent, &remembered);
        // As a rule there is something to do after a change.
        if let Some(amended) = amended.filter(|_| self.pause.is_zero()) {
            let scope = engine::lock(&intent.paths.runtime, Duration::ZERO)?;
            let last = last.filter(|_| scope.was_ours());
            let plan = last.and_then(|last| last.plan(intent, &amended, &remembered.dead));
            return engine::converge_after(plan, &scope, &mut self.kernel, look);
        }
        // A look that finds nothing to do needs no lock.
        let view = look(&mut self.kernel)?;
        self.pause = self.fights.pause(view.plan.ops.iter().map(Op::object), Instant::now());
        if view.plan.ops.is_empty() || !self.pause.is_zero() {
            return Ok(Converged::at_once(view));
        }
        let scope = engine::lock(&intent.paths.runtime, Duration::ZERO)?;
        engine::converge(&scope, &mut self.kernel, look, |_, _| {})
    }

    /// Takes events from the programs' hands that nobody reads any more.
    fn free_dead_readers(&self) {
        let paths = &self.loaded.intent.paths;
        match slots::sweep(&paths.bpf, &paths.runtime) {
            Ok(0) | Err(ListenError::Kernel(KernelError::Locked { .. })) => {}
            Ok(count) => info!(count, "freed the slots of readers of events that were killed"),
            Err(error) => warn!("readers of events: {}", chain(&error)),
        }
    }

    /// Makes the lock and the control socket again where somebody removed them, as with the whole runtime folder:
    /// without them `status` and `destroy` believe that no daemon runs.
    fn keep_control(&mut self) -> Vec<Problem> {
        let kept = self.keep_alone().err().map(|failure| ("lock", failure));
        let kept = kept.or_else(|| Some(("control socket", self.keep_socket().err()?)));
        let problem = |(object, failure): (&str, KernelError)| Problem {
            errno: failure.errno(),
            ..Problem::new(object, chain(&failure))
        };
        kept.map(problem).into_iter().collect()
    }

    fn keep_alone(&mut self) -> Result<(), KernelError> {
        if !self.alone.is_there() {
            self.alone = control::alone(&self.loaded.intent.paths.runtime, Duration::ZERO)?;
        }
        Ok(())
    }

    fn keep_socket(&mut self) -> Result<(), KernelError> {
        if !self.control.as_ref().is_some_and(Control::is_there) {
            let runtime = &self.loaded.intent.paths.runtime;
            let control = control::serve(runtime, self.status.clone(), self.wakes.clone())?;
            self.control = Some(control);
        }
        Ok(())
    }

    /// Logs what was done and returns what wasn't.
    fn report(&mut self, converged: &Converged) -> Vec<Problem> {
        let (generation, now) = (self.lock_status().generation, Instant::now());
        let mut problems = Vec::new();
        for (plan, report) in &converged.rounds {
            // What an earlier attempt couldn't do, a later one did, or it is among its problems.
            problems.clear();
            let ops = plan.ops.iter().zip(&report.outcomes);
            let done = ops.clone().filter(|(_, outcome)| matches!(outcome, Outcome::Done));
            self.fights.repaired(done.map(|(op, _)| op.object()), now);
            journal::log_done(generation, plan, &report.outcomes, |op| {
                self.fights.is_contested(&op.object(), now)
            });
            let told =
                |outcome: &Outcome| matches!(outcome, Outcome::Done | Outcome::Skipped { .. });
            for (op, bad) in ops.filter(|(_, outcome)| !told(outcome)) {
                let problem = Problem::new(op.object(), format!("{}: {bad}", op.verb()));
                problems.push(Problem { errno: bad.errno(), ..problem });
            }
            let waiting = waiting(&report.outcomes, |at| plan.ops[at].object().to_string());
            let waiting = waiting.into_iter();
            problems.extend(waiting.map(|(cause, n)| Problem::new(cause, waiting_text(n))));
        }
        for blocked in &converged.last.plan.blocked {
            problems.push(Problem::new(&blocked.origin, blocked.reason.to_string()));
        }
        for object in self.fights.contested(now) {
            problems.push(Problem::new(object, fights::EXPLANATION));
        }
        if problems.is_empty() {
            let left = converged.last.plan.ops.iter().map(|op| {
                let error = format!("changed again while it was repaired; to do: {}", op.line());
                Problem::new(op.object(), error)
            });
            problems.extend(left);
        }
        problems
    }

    /// Logs the problems that weren't there before.
    fn say_new(&mut self, problems: &[Problem]) {
        for problem in problems.iter().filter(|problem| !self.known.contains(problem)) {
            let (object, errno) = (&problem.object, problem.errno);
            warn!(target: classes::PROBLEM, %object, errno, "not as configured: {}", problem.error);
        }
        self.known = problems.to_vec();
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

/// What a batch of wakes asks for.
#[derive(Default)]
struct Wanted {
    terminate: bool,
    config: bool,
    /// Somebody is at work on the files.
    partial: bool,
    /// Somebody asked for it.
    reload: bool,
    /// Those who wait for an answer.
    replies: Vec<control::Reply>,
}

impl Wanted {
    /// Takes what else has come, the files when they have settled.
    fn settle(&mut self, wakes: &Receiver<Wake>) {
        wakes.try_iter().for_each(|wake| self.add(wake));
        if self.config && !self.partial {
            std::thread::sleep(SETTLE_WHOLE);
            wakes.try_iter().for_each(|wake| self.add(wake));
        }
        if self.partial {
            std::thread::sleep(SETTLE);
            wakes.try_iter().for_each(|wake| self.add(wake));
        }
    }

    fn add(&mut self, wake: Wake) {
        match wake {
            Wake::Terminate => self.terminate = true,
            Wake::Config { is_whole } => {
                self.config = true;
                self.partial |= !is_whole;
            }
            Wake::Kernel | Wake::Backends => {}
            Wake::Reload(reply) => {
                self.reload = true;
                self.replies.extend(reply);
            }
        }
    }
}
