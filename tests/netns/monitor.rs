//! `ciliate monitor`: who may listen, and what becomes of those who end, are killed, or lose their node.

use rustix::process::Signal;

use crate::daemon::{Daemon, PATIENCE, wait_until};
use crate::lab::{DUAL, Lab, V4};
use crate::reader::{Reader, assert_silence, heard};

/// Bits of event types: drop and trace; debug; debug and captures.
const USUAL: u32 = 0b10010;
const DEBUG: u32 = 0b100;
const STEPS: u32 = 0b1100;

#[test]
fn slots_are_taken_and_given_back() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through();
    lab.a.apply();
    assert_silence(&lab.a);
    let drops = Reader::start(&lab.a, &["--type", "drop"]);
    assert_eq!((heard(&lab.a).readers, heard(&lab.a).types), (0b1, 0b10));
    let all = Reader::start(&lab.a, &["-v"]);
    assert_eq!((heard(&lab.a).readers, heard(&lab.a).types), (0b11, USUAL | STEPS));
    let json = Reader::start(&lab.a, &["-o", "json"]);
    assert_eq!(json.slot, 2);
    assert!(all.stop(Signal::TERM)[0].starts_with("Listening for events on "));
    assert_eq!((heard(&lab.a).readers, heard(&lab.a).types), (0b101, USUAL));
    let status = lab.a.ciliate(&["status"]).stdout;
    let row = "NodeMonitor:             Listening for events on ";
    assert!(status.contains(row) && status.contains("   2/8 readers\n"), "{status}");
    // The free one in the middle is the next.
    let middle = Reader::start(&lab.a, &["--type", "debug"]);
    assert_eq!((middle.slot, heard(&lab.a).types), (1, USUAL | DEBUG));
    drops.wait("its banner", |line| line == "Press Ctrl-C to quit");
    drops.stop(Signal::INT);
    middle.stop(Signal::HUP);
    assert_eq!((heard(&lab.a).readers, heard(&lab.a).types), (0b100, USUAL));
    // No banner: JSON only.
    assert!(json.stop(Signal::INT).iter().all(|line| line.starts_with('{')));
    assert_silence(&lab.a);
    lab.a.assert_no_changes();
}

#[test]
fn filters_are_what_the_programs_are_told() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    let filter = |arguments: &[&str]| {
        let reader = Reader::start(&lab.a, arguments);
        let value = heard(&lab.a);
        reader.stop(Signal::TERM);
        let (filters, _) = value.filters.as_chunks();
        let filter = ciliate::bpf_abi::MonitorFilter::from_bytes(&filters[0]);
        (filter.types, filter.from, filter.to, filter.related)
    };
    assert_eq!(filter(&[]), (USUAL, 0, 0, 0));
    assert_eq!(filter(&["--from", "7", "--to", "8"]), (USUAL, 7, 8, 0));
    assert_eq!(filter(&["--from", "7", "--from", "9", "--related-to", "3"]), (USUAL, 0, 0, 3));
    assert_eq!(filter(&["--type", "trace", "--type", "drop", "-vv"]), (0b10010, 0, 0, 0));
    assert_eq!(filter(&["-v"]), (USUAL | STEPS, 0, 0, 0));
    // By name: the id that `get endpoints` shows.
    let endpoints = lab.a.ciliate(&["get", "endpoints", "-o", "json"]).json();
    let client2 = endpoints["endpoints"].as_array().expect("a list").iter();
    let id =
        client2.clone().find(|e| e["name"] == "client2").expect("client2")["endpoint"].as_u64();
    assert_eq!(u64::from(filter(&["--to", "client2"]).2), id.expect("an id"));
    let unknown = lab.a.ciliate(&["monitor", "--from", "nobody"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("no endpoint `nobody`"), "{unknown:?}");
    assert!(unknown.stderr.contains("client, client2"), "{unknown:?}");
    assert_silence(&lab.a);
}

#[test]
fn the_slot_of_a_killed_reader_is_free() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    Reader::start(&lab.a, &["--type", "debug"]).kill();
    assert_eq!((heard(&lab.a).readers, heard(&lab.a).types), (1, DEBUG));
    let next = Reader::start(&lab.a, &[]);
    assert_eq!((next.slot, heard(&lab.a).readers, heard(&lab.a).types), (0, 1, USUAL));
    // A dead one beside it is cleared away by the next as well.
    Reader::start(&lab.a, &["--type", "debug"]).kill();
    assert_eq!((heard(&lab.a).readers, heard(&lab.a).types), (0b11, USUAL | DEBUG));
    next.stop(Signal::TERM);
    assert_eq!((heard(&lab.a).readers, heard(&lab.a).types), (0b10, DEBUG));
    Reader::start(&lab.a, &["--type", "drop"]).stop(Signal::TERM);
    assert_silence(&lab.a);
}

#[test]
fn the_daemon_frees_the_slots_of_killed_readers() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged);
    let lives = Reader::start(&lab.a, &["--type", "drop"]);
    Reader::start(&lab.a, &["--type", "debug"]).kill();
    let freed = wait_until(PATIENCE, || heard(&lab.a).readers == 1);
    assert!(freed, "{:?}", heard(&lab.a));
    assert_eq!(heard(&lab.a).types, 0b10);
    assert!(wait_until(PATIENCE, || !lab.a.runtime.join("monitor/1").exists()));
    lives.stop(Signal::TERM);
    Reader::start(&lab.a, &[]).kill();
    assert!(wait_until(PATIENCE, || heard(&lab.a).readers == 0), "{:?}", heard(&lab.a));
    assert!(wait_until(PATIENCE, || !lab.a.runtime.join("monitor").exists()));
    daemon.stop();
}

#[test]
fn eight_can_listen_and_the_ninth_is_told_who_they_are() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    let mut readers: Vec<Reader> = (0..8).map(|_| Reader::start(&lab.a, &[])).collect();
    assert_eq!(heard(&lab.a).readers, 0xff);
    let ninth = lab.a.ciliate(&["monitor"]);
    assert_eq!(ninth.code, 1, "{ninth:?}");
    assert!(ninth.stderr.contains("all 8 readers that there can be are there"), "{ninth:?}");
    let pid = std::fs::read_to_string(lab.a.runtime.join("monitor/5")).expect("a pid");
    assert!(ninth.stderr.contains(&format!("{pid}, ")), "{ninth:?}");
    readers.remove(5).stop(Signal::TERM);
    assert_eq!(Reader::start(&lab.a, &[]).slot, 5);
    readers.into_iter().for_each(Reader::kill);
}

#[test]
fn a_node_that_was_not_applied_says_nothing() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let ran = lab.a.ciliate(&["monitor"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("run `ciliate apply` first"), "{ran:?}");
    let status = lab.a.ciliate(&["status", "-o", "json"]).json();
    assert!(status["event_readers"].is_null(), "{status}");
    assert!(!lab.a.runtime.exists(), "a command that reads made a folder");
}

#[test]
fn destroy_ends_readers_and_leaves_nothing() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through();
    lab.a.apply();
    let mut reader = Reader::start(&lab.a, &[]);
    Reader::start(&lab.a, &[]).kill();
    lab.note_bpf();
    lab.a.destroy();
    assert!(!lab.a.runtime.exists());
    let (code, errors) = reader.wait_for_end();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("the node was destroyed"), "{errors}");
    assert!(!lab.a.runtime.exists() && !lab.a.bpf.exists());
}

#[test]
fn readers_end_when_their_maps_are_made_anew() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    let mut reader = Reader::start(&lab.a, &[]);
    std::fs::remove_file(lab.a.bpf.join("maps/ciliate_events")).expect("remove a pin");
    lab.a.apply();
    let (code, errors) = reader.wait_for_end();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("made anew"), "{errors}");
    assert_silence(&lab.a);
    Reader::start(&lab.a, &[]).stop(Signal::TERM);
}

#[test]
fn readers_end_with_those_who_read_them() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    let mut reader = Reader::deaf(&lab.a, &["-o", "json"]);
    drop(reader.output());
    let (code, errors) = reader.wait_for_end();
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_silence(&lab.a);
}

#[test]
fn readers_end_when_they_are_taken_for_dead() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    let mut reader = Reader::start(&lab.a, &[]);
    std::fs::remove_dir_all(lab.a.runtime.join("monitor")).expect("remove the folder");
    let (code, errors) = reader.wait_for_end();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("start `ciliate monitor` again"), "{errors}");
    // The map still has it; the next one clears it away.
    Reader::start(&lab.a, &[]).stop(Signal::TERM);
    assert_silence(&lab.a);
}
