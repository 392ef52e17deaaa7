//! What systemd is told: ready, status, reloading, signs of life (sd_notify(3)). Without systemd nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager, if there is one.
pub struct Systemd {
    /// How often it wants a sign of life: a third of its limit.
    ping: Option<Duration>,
}

impl Systemd {
    /// Finds out whether the watchdog is on.
    pub fn new() -> Self {
        Self { ping: sd_notify::watchdog_enabled().map(|limit| limit / 3) }
    }

    /// How often to call [`Systemd::ping`], if at all.
    pub fn interval(&self) -> Option<Duration> {
        self.ping
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

    /// Alive.
    pub fn ping(&self) {
        if self.ping.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        tell(&[NotifyState::Status(text)]);
    }
}

/// A manager that isn't there or doesn't listen is no reason to stop working.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
