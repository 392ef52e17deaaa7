//! What systemd is told: ready, status, reloading, signs of life (sd_notify(3)). Without systemd nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::kernel::Pulse;

/// For this long a pass of the loop is believed to get on because the kernel answers it. A hundred thousand
/// routes take seconds; one that is still at it has gone astray, and the service manager may end it.
const PASS_PATIENCE: Duration = Duration::from_secs(300);

/// The service manager, if there is one.
pub struct Systemd {
    /// Signs of life, where they are wanted.
    signs: Option<Arc<Mutex<Signs>>>,
}

/// When there were signs of life.
#[derive(Debug)]
struct Signs {
    /// How often the manager is given one: a third of its limit.
    interval: Duration,
    last: Instant,
    /// When the loop was last seen to begin.
    pass: Instant,
}

impl Signs {
    /// Whether to give one, now that the kernel has answered something.
    fn due(&mut self, now: Instant) -> bool {
        let due = now - self.last >= self.interval && now - self.pass < PASS_PATIENCE;
        if due {
            self.last = now;
        }
        due
    }
}

impl Systemd {
    /// Finds out whether the watchdog is on.
    pub fn new() -> Self {
        let now = Instant::now();
        let signs = sd_notify::watchdog_enabled()
            .map(|limit| Arc::new(Mutex::new(Signs { interval: limit / 3, last: now, pass: now })));
        Self { signs }
    }

    /// How often to call [`Systemd::ping`], if at all.
    pub fn interval(&self) -> Option<Duration> {
        self.signs.as_deref().map(|signs| lock(signs).interval)
    }

    /// The loop begins a pass: alive.
    pub fn ping(&self) {
        let Some(signs) = &self.signs else { return };
        let now = Instant::now();
        let mut signs = lock(signs);
        (signs.last, signs.pass) = (now, now);
        tell(&[NotifyState::Watchdog]);
    }

    /// What to call in a long pass each time that the kernel has answered. A pass that hangs calls it no
    /// more, and one that runs in circles is not believed for ever.
    pub fn pulse(&self) -> Option<Pulse> {
        let signs = self.signs.clone()?;
        Some(Arc::new(move || {
            if lock(&signs).due(Instant::now()) {
                tell(&[NotifyState::Watchdog]);
            }
        }))
    }

    /// Started, or done reloading.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// About to reload: the protocol of `Type=notify-reload`, which older systemds ignore.
    pub fn reloading(&self) {
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now().ok());
        tell(&states);
    }

    /// About to end.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        tell(&[NotifyState::Status(text)]);
    }
}

fn lock(signs: &Mutex<Signs>) -> std::sync::MutexGuard<'_, Signs> {
    signs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A manager that isn't there or doesn't listen is no reason to stop working.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_spaced_and_end_with_patience() {
        let begin = Instant::now();
        let interval = Duration::from_secs(10);
        let mut signs = Signs { interval, last: begin, pass: begin };
        let mut at = |seconds| signs.due(begin + Duration::from_secs(seconds));
        assert_eq!([9, 10, 11, 19, 20].map(&mut at), [false, true, false, false, true]);
        assert_eq!([299, 310, 1000].map(&mut at), [true, false, false]);
        signs.pass = begin + Duration::from_secs(1000);
        assert!(signs.due(begin + Duration::from_secs(1001)), "another pass of the loop");
    }
}
