//! A daemon that is flooded with questions is not taken for none: commands get their answer, and `destroy` stays out.

use std::fs;
use std::os::unix::net::UnixStream;
use std::thread;

use ciliate::daemon::control;
use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::lab::{Lab, V4};
use crate::node::{Node, Ran, assert_equal};

/// More than the daemon serves at the same time.
const HELD: usize = 300;
const COMMANDS: usize = 60;

/// Runs a command many times at once.
fn at_once(node: &Node, arguments: &[&str]) -> Vec<Ran> {
    thread::scope(|scope| {
        let run = || node.ciliate(arguments);
        let running: Vec<_> = (0..COMMANDS).map(|_| scope.spawn(run)).collect();
        running.into_iter().map(|one| one.join().expect("no panic")).collect()
    })
}

#[track_caller]
fn assert_destroy_refused(node: &Node, daemon: &Daemon<'_>) {
    let refused = node.ciliate(&["destroy"]);
    let pid = format!("(pid {})", daemon.pid());
    assert!(refused.code == 1 && refused.stderr.contains(&pid), "{refused:?}");
}

#[test]
fn a_flooded_daemon_answers_and_destroy_stays_out() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged);
    let before = lab.a.view().observed;
    let connect = |_| UnixStream::connect(control::path(&lab.a.runtime)).expect("connect");
    let held: Vec<UnixStream> = (0..HELD).map(connect).collect();
    for (arguments, said) in
        [(&["status", "-o", "json"][..], "\"daemon_state\": \"running\""), (&["reload"], "read\n")]
    {
        thread::scope(|scope| {
            scope.spawn(|| assert_destroy_refused(&lab.a, &daemon));
            for ran in at_once(&lab.a, arguments) {
                assert!(ran.code == 0 && ran.stdout.contains(said), "{ran:?}");
            }
        });
    }
    assert_equal(&before, &lab.a.view().observed, "before", "after");
    daemon.stop();
    lab.a.destroy();
    assert!(!lab.a.runtime.exists(), "{:?}", crate::snapshot::tree(&lab.a.runtime));
    assert!(!lab.a.bpf.exists(), "{:?}", crate::snapshot::tree(&lab.a.bpf));
    drop(held);
}

/// The lock tells without the socket, and the socket without the lock's file.
#[test]
fn a_daemon_without_its_socket_or_its_lock_is_known() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged);
    // It makes neither again.
    daemon.signal(Signal::STOP);
    let (lock, aside) = (lab.a.runtime.join("daemon.lock"), lab.dir.join("aside"));
    fs::rename(&lock, &aside).expect("move the lock");
    assert_destroy_refused(&lab.a, &daemon);
    fs::rename(&aside, &lock).expect("put the lock back");
    fs::remove_file(control::path(&lab.a.runtime)).expect("remove the socket");
    assert_destroy_refused(&lab.a, &daemon);
    daemon.signal(Signal::CONT);
    daemon.wait("to make its socket again", |status| status.converged);
    daemon.stop();
    lab.a.destroy();
    assert!(!lab.a.runtime.exists(), "{:?}", crate::snapshot::tree(&lab.a.runtime));
}
