//! One writer at a time: what waited for another looks again, and never writes what it saw before.

use std::process::{Child, Stdio};
use std::time::Duration;

use ciliate::engine;
use ciliate::kinds::bpf_map::MapName;
use ciliate::kinds::{ObjectKey, bpf_map_entry};
use ciliate::plan::Plan;
use ciliate::report::Outcome;
use rustix::fs::inotify;

use crate::lab::{Lab, V4};
use crate::node::{Node, Ran};

const FORWARDING: &str = "/proc/sys/net/ipv4/conf/all/forwarding";

/// Starts a command, which then waits for the lock that the test has: it has looked at the kernel before.
fn start_and_let_it_look(node: &Node, arguments: &[&str]) -> Child {
    let opened = inotify::init(inotify::CreateFlags::empty()).expect("an inotify");
    let lock = node.runtime.join("lock");
    inotify::add_watch(&opened, lock, inotify::WatchFlags::OPEN).expect("watch the lock");
    let mut command = node.command(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("run ciliate");
    rustix::io::read(&opened, &mut [0; 1024]).expect("the lock is opened");
    child
}

fn end(child: Child) -> Ran {
    Ran::from(child.wait_with_output().expect("wait for ciliate"))
}

#[test]
fn what_was_seen_before_the_lock_is_not_written() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let scope = engine::lock(&lab.a.runtime, Duration::ZERO).expect("the lock");
    lab.a.space.sh(&format!("echo 1 >{FORWARDING}"));
    let child = start_and_let_it_look(&lab.a, &["apply"]);
    // As where the other one is `destroy`, and puts it back.
    lab.a.space.sh(&format!("echo 0 >{FORWARDING}"));
    lab.baseline();
    drop(scope);
    let ran = end(child);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(lab.a.space.sh(&format!("cat {FORWARDING}")), "1\n");
    lab.a.assert_no_changes();
    lab.destroy_and_compare();
    assert_eq!(lab.a.space.sh(&format!("cat {FORWARDING}")), "0\n");
}

#[test]
fn a_saved_plan_is_compared_with_the_lock_held() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    lab.a.space.sh("ip route del 10.244.1.0/24");
    let file = lab.dir.join("plan.json").display().to_string();
    assert_eq!(lab.a.ciliate(&["plan", "--out", &file]).code, 2);
    let scope = engine::lock(&lab.a.runtime, Duration::ZERO).expect("the lock");
    let child = start_and_let_it_look(&lab.a, &["apply", &file]);
    lab.a.space.sh(&format!("echo 0 >{FORWARDING}"));
    drop(scope);
    let ran = end(child);
    let refused = format!("plan {file} is not applied: ");
    assert!(ran.code == 1 && ran.stderr.contains(&refused), "{ran:?}");
    assert_eq!(lab.a.space.sh("ip route show 10.244.1.0/24"), "");
    lab.a.apply();
}

/// A look without the lock finds the node as it is asked for: another writer is none of its business.
#[test]
fn nothing_to_do_waits_for_nobody() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    let _scope = engine::lock(&lab.a.runtime, Duration::ZERO).expect("the lock");
    let ran = lab.a.ciliate(&["apply"]);
    assert!(ran.code == 0 && ran.stdout.contains("nothing to do"), "{ran:?}");
}

/// Whatever made a plan stale: what a setting was is written down once.
#[test]
fn a_record_is_never_written_over() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.space.sh(&format!("echo 1 >{FORWARDING}"));
    let stale = lab.a.view().plan;
    lab.a.space.sh(&format!("echo 0 >{FORWARDING}"));
    lab.baseline();
    lab.a.apply();
    let records = || lab.a.view().facts.before;
    let before = records();
    let is_record = |object: ObjectKey| match object {
        ObjectKey::BpfMapEntry(key) if key.map == MapName::BEFORE => {
            Some(bpf_map_entry::c_text(&key.key))
        }
        _ => None,
    };
    let of_records = stale.ops.into_iter().filter(|op| is_record(op.object()).is_some());
    let plan = Plan { ops: of_records.collect(), blocked: Vec::new() };
    let report = lab.a.try_ops(&plan);
    for (op, outcome) in plan.ops.iter().zip(&report.outcomes) {
        let record = is_record(op.object()).expect("a record");
        let refused = record == "sysctl:net/ipv4/conf/all/forwarding";
        match outcome {
            Outcome::Refused { .. } => {}
            other => assert!(!refused && *other == Outcome::Done, "{record}: {other}"),
        }
    }
    assert!(plan.ops.len() > 2, "{plan:?}");
    assert_eq!(records(), before);
}
