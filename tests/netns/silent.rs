//! A daemon that has its socket and says nothing is not taken for one that isn't there.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::lab::{Lab, V4};

/// Far less than a client of the control socket is given.
const WAIT_MAX: Duration = Duration::from_secs(8);

#[test]
fn a_stopped_daemon_is_told_from_none() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    let state = |expected: &str| {
        let ran = lab.a.ciliate(&["status", "-o", "json"]);
        let status = ran.json();
        assert_eq!((&status["daemon_state"], ran.code), (&expected.into(), status_code(expected)));
        assert_eq!(status["daemon"], expected == "running");
        status
    };
    state("not-running");
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged);
    state("running");
    daemon.signal(Signal::STOP);
    let begin = Instant::now();
    let status = state("silent");
    assert!(begin.elapsed() < WAIT_MAX, "{:?}", begin.elapsed());
    let pid = daemon.pid();
    assert_eq!(status["problems"][0]["object"], "daemon", "{status}");
    let text = lab.a.ciliate(&["status"]);
    assert!(text.stdout.contains(&format!("{:<25}does not answer (pid {pid})", "Daemon:")));
    assert!(text.stdout.starts_with(&format!("{:<25}not converged", "ciliate:")), "{text:?}");
    // It would make everything again.
    let refused = lab.a.ciliate(&["destroy"]);
    assert!(refused.code == 1 && refused.all().contains(&format!("(pid {pid}) does not answer")));
    daemon.signal(Signal::CONT);
    daemon.wait("to go on", |status| status.converged);
    state("running");
    daemon.stop();
}

fn status_code(state: &str) -> i32 {
    if state == "silent" { 3 } else { 0 }
}
