//! SIGKILL in the middle: the next run converges, and destroy leaves nothing.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::{Lab, V4};
use crate::node::{Node, Text, peer};
use crate::snapshot::Snapshot;
use crate::space::Space;

const ENDPOINTS: usize = 60;
const ROUTES: usize = 2000;
/// Kills in each of the tests.
const KILLS: u32 = 12;
/// How many of them have to meet a process that still works, or a test shows nothing. The smallest of the
/// waits are a small part of the time that is needed, so that this holds on any machine.
const HITS_MIN: u32 = 3;

/// Numbers that look random and are the same in each run (xorshift).
struct Numbers(u64);

impl Numbers {
    /// Part of a time, from nothing to all of it.
    fn part_of(&mut self, whole: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        whole.mul_f64((self.0 >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// A node with many endpoints and routes, and how long an apply of all of it takes.
fn large(lab: &Lab, way: fn(Text) -> Text) -> (Vec<Space>, Duration) {
    let spaces = lab.many_spaces(ENDPOINTS);
    let mut text = way(Text::node_a(lab).with_health());
    for (number, space) in spaces.iter().enumerate() {
        text = text.endpoint(&format!("e{number:02}"), space, &[]);
    }
    let cidrs: Vec<String> =
        (0..ROUTES).map(|n| format!("10.{}.{}.0/24", 64 + n / 250, n % 250)).collect();
    let cidrs: Vec<&str> = cidrs.iter().map(String::as_str).collect();
    text.peers = peer("node-b", &["172.18.0.2"], &cidrs, "");
    lab.a.write(&text);
    let begin = Instant::now();
    lab.a.apply();
    lab.note_bpf();
    let took = begin.elapsed();
    // What `apply` of the tests does around the program takes time too; the program alone:
    lab.a.destroy();
    let begin = Instant::now();
    let ran = lab.a.ciliate(&["apply"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let alone = begin.elapsed().min(took);
    lab.a.destroy();
    (spaces, alone)
}

/// Starts a command and kills it after a while. Returns whether it was still at work.
fn kill_after(node: &Node, arguments: &[&str], wait: Duration) -> bool {
    let mut child = node
        .command(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run ciliate");
    thread::sleep(wait);
    child.kill().expect("kill it");
    let status = child.wait().expect("wait for it");
    let killed = status.signal() == Some(Signal::KILL.as_raw());
    // What ended before has to have ended well.
    assert!(killed || status.success(), "{arguments:?}: {status}");
    killed
}

#[track_caller]
fn assert_hits(hits: u32) {
    assert!(hits >= HITS_MIN, "only {hits} of {KILLS} kills met a process that still worked");
}

/// Nothing of ours on the node.
fn assert_clean(lab: &Lab, before: &Snapshot, what: &str) {
    before.assert_same(&Snapshot::of(&lab.a.space), what);
    assert!(!lab.a.bpf.exists(), "{what}: {:?}", crate::snapshot::tree(&lab.a.bpf));
    assert!(!lab.a.runtime.exists(), "{what}: {:?}", crate::snapshot::tree(&lab.a.runtime));
}

#[test]
fn killed_in_apply() {
    let Some(lab) = Lab::new(V4) else { return };
    let before = Snapshot::of(&lab.a.space);
    let (spaces, whole) = large(&lab, |native| native);
    let mut numbers = Numbers(0x5eed_0001);
    let mut hits = 0;
    for kill in 0..KILLS {
        let wait = numbers.part_of(whole);
        let what = format!("kill {kill} after {wait:?} of {whole:?}");
        hits += u32::from(kill_after(&lab.a, &["apply"], wait));
        if kill % 2 == 0 {
            lab.a.apply();
            assert_eq!(crate::traffic::ping(&spaces[0], "10.244.0.2"), 63, "{what}");
        }
        lab.a.destroy();
        assert_clean(&lab, &before, &what);
    }
    assert_hits(hits);
}

/// With a tunnel, so that there is more to make in an order.
#[test]
fn killed_in_run() {
    let Some(lab) = Lab::new(V4) else { return };
    let before = Snapshot::of(&lab.a.space);
    let (_, whole) = large(&lab, Text::in_tunnel);
    let mut numbers = Numbers(0x5eed_0002);
    let mut hits = 0;
    // It never ends by itself: a kill meets it at work if something is left to do.
    let run_and_kill = |wait| {
        assert!(kill_after(&lab.a, &["run", "--log-level", "off"], wait), "the daemon has ended");
    };
    // One kill after the other, without cleaning up in between.
    for _ in 0..KILLS {
        run_and_kill(numbers.part_of(whole / 2));
    }
    lab.a.apply();
    // And while it repairs.
    for kill in 0..KILLS {
        lab.a.space.sh("ip route flush proto 203 || true; ip link del cilium_host || true\n\
             ip link del cilium_vxlan || true");
        run_and_kill(numbers.part_of(whole / 4));
        let plan = lab.a.ciliate(&["plan"]);
        assert!([0, 2].contains(&plan.code), "{plan:?}");
        hits += u32::from(plan.code == 2);
        if kill % 4 == 3 {
            lab.a.apply();
        }
    }
    lab.a.destroy();
    assert_clean(&lab, &before, "after all");
    assert_hits(hits);
}

#[test]
fn killed_in_destroy() {
    let Some(lab) = Lab::new(V4) else { return };
    let before = Snapshot::of(&lab.a.space);
    let (_, whole) = large(&lab, |native| native);
    let mut numbers = Numbers(0x5eed_0003);
    let mut hits = 0;
    let (bpf, runtime) = (lab.a.bpf.display().to_string(), lab.a.runtime.display().to_string());
    let destroy = ["destroy", "--bpf", &bpf, "--runtime", &runtime];
    for kill in 0..KILLS {
        assert_eq!(lab.a.ciliate(&["apply"]).code, 0);
        let wait = numbers.part_of(whole / 2);
        let what = format!("kill {kill} after {wait:?}");
        hits += u32::from(kill_after(&lab.a, &destroy, wait));
        if kill % 3 == 0 {
            lab.a.apply();
        }
        lab.a.destroy();
        assert_clean(&lab, &before, &what);
    }
    assert_hits(hits);
}
