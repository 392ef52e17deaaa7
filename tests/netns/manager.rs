//! What the daemon tells the service manager (sd_notify(3)), heard on a socket of the test's.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;

use crate::daemon::{Daemon, PATIENCE, wait_until};
use crate::lab::{Lab, V4};

const MESSAGE_BYTES_MAX: usize = 4096;
/// A sign of life is asked for three times as often: many in even the shortest first round.
const WATCHDOG_USEC: &str = "3000";

/// Everything that was said, in order, also while the daemon is busy: it waits for a reader.
fn listen(socket: UnixDatagram) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let lines = heard.clone();
    thread::spawn(move || {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        while let Ok(length) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            lines.lock().expect("no panic").extend(text.lines().map(str::to_string));
        }
    });
    heard
}

/// Signs of life come also from inside a long round: here the first, which is over with `READY=1`.
#[test]
fn ready_status_and_signs_of_life() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let path = lab.dir.join("notify");
    let heard = listen(UnixDatagram::bind(&path).expect("make a socket"));
    let path = path.to_str().expect("a path of text");
    let environment = [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", WATCHDOG_USEC)];
    let daemon = Daemon::start_in(&lab.a, &environment);
    let place = |wanted: &str| {
        let lines = heard.lock().expect("no panic");
        lines.iter().position(|line| line.starts_with(wanted))
    };
    let before = |first: &str, second: &str| {
        let (first, second) = (place(first), place(second));
        assert!(first.is_some() && first < second, "{heard:?}");
    };
    let wait = |wanted: &str| {
        assert!(wait_until(PATIENCE, || place(wanted).is_some()), "no {wanted}: {heard:?}");
    };
    wait("READY=1");
    before("WATCHDOG=1", "READY=1");
    wait("STATUS=converged: generation 1, ");
    heard.lock().expect("no panic").clear();
    wait("WATCHDOG=1");
    daemon.signal(Signal::HUP);
    wait("RELOADING=1");
    wait("MONOTONIC_USEC=");
    wait("READY=1");
    before("RELOADING=1", "READY=1");
    daemon.stop();
    wait("STOPPING=1");
}

/// What a process says on standard error just before its end may not be found as the unit's.
#[test]
fn why_it_does_not_start() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let good = std::fs::read_to_string(&lab.a.config).expect("read the configuration");
    std::fs::write(&lab.a.config, "node = 1\n").expect("write the configuration");
    let path = lab.dir.join("notify");
    let socket = UnixDatagram::bind(&path).expect("make a socket");
    let ran = lab.a.command(&["run"]).env("NOTIFY_SOCKET", &path).output().expect("run ciliate");
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    let length = socket.recv(&mut buffer).expect("hear from the daemon");
    let said = String::from_utf8_lossy(&buffer[..length]);
    let place = format!("STATUS=configuration refused: {}:1:1: ", lab.a.config.display());
    assert!(said.starts_with(&place), "{said}");
    std::fs::write(&lab.a.config, good).expect("write the configuration");
}
