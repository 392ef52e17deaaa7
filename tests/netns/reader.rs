//! `ciliate monitor` as a child process.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use ciliate::bpf_abi::{CILIATE_EVENTS, CILIATE_MONITOR, MonitorValue};
use ciliate::kernel::bpf_map::Map;
use ciliate::kernel::pins;
use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::{PATIENCE, wait_until};
use crate::node::Node;

/// A reader. Dropped, it is killed.
pub struct Reader<'n> {
    node: &'n Node,
    child: Child,
    /// Its slot.
    pub slot: u32,
    lines: Arc<Mutex<Vec<String>>>,
    collector: Option<JoinHandle<()>>,
}

impl<'n> Reader<'n> {
    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start(node: &'n Node, arguments: &[&str]) -> Self {
        let mut reader = Self::deaf(node, arguments);
        reader.read_on();
        reader
    }

    /// The same, but nobody reads what it prints.
    #[track_caller]
    pub fn deaf(node: &'n Node, arguments: &[&str]) -> Self {
        let mut command = node.command(&["monitor"]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run ciliate");
        let pid = child.id().to_string();
        let mut slot = None;
        let found = wait_until(PATIENCE, || {
            let owner = |slot: &u32| {
                let path = node.runtime.join("monitor").join(slot.to_string());
                fs::read_to_string(path).is_ok_and(|text| text == pid)
            };
            slot = (0..8).find(owner).filter(|slot| heard(node).readers & 1 << slot != 0);
            slot.is_some() || child.try_wait().expect("wait for the reader").is_some()
        });
        let Some(slot) = slot.filter(|_| found) else {
            let _ = child.kill();
            panic!("{arguments:?}: no slot: {:?}", child.wait_with_output());
        };
        Self { node, child, slot, lines: Arc::default(), collector: None }
    }

    /// Reads what a deaf one prints.
    pub fn read_on(&mut self) {
        let output = self.child.stdout.take().expect("a pipe");
        let lines = self.lines.clone();
        self.collector = Some(thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        }));
    }

    /// What a deaf one prints; nobody reads it when that is dropped.
    pub fn output(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("a pipe")
    }

    /// What it printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line. Returns it.
    #[track_caller]
    pub fn wait(&self, what: &str, good: impl Fn(&str) -> bool) -> String {
        let mut found = None;
        wait_until(PATIENCE, || {
            found = self.lines().into_iter().find(|line| good(line));
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("waited for {what} in {:#?}", self.lines()))
    }

    /// Waits until it ends by itself. Returns its exit code and what it complained of.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> (Option<i32>, String) {
        let mut status = None;
        wait_until(PATIENCE, || {
            status = self.child.try_wait().expect("wait for the reader");
            status.is_some()
        });
        let status = status.unwrap_or_else(|| panic!("does not end: {:#?}", self.lines()));
        self.collector.take().into_iter().for_each(|thread| thread.join().expect("lines"));
        let mut errors = String::new();
        let stderr = self.child.stderr.as_mut().expect("a pipe");
        stderr.read_to_string(&mut errors).expect("read what it complained of");
        (status.code(), errors)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a pid");
        kill_process(pid, signal).expect("signal the reader");
    }

    /// Ends it by a signal; it has to end well. Returns what it printed.
    #[track_caller]
    pub fn stop(mut self, signal: Signal) -> Vec<String> {
        self.signal(signal);
        let (code, errors) = self.wait_for_end();
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{signal:?}");
        assert!(heard(self.node).readers & 1 << self.slot == 0, "slot {} is not free", self.slot);
        self.lines()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("kill the reader");
        self.child.wait().expect("wait for the reader");
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The entries of a node's map.
fn entries(node: &Node, name: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let map = Map::open(&pins::map(&node.bpf, name)).expect("a map");
    map.entries().expect("entries")
}

/// Who listens on a node, as the programs are told.
pub fn heard(node: &Node) -> MonitorValue {
    let value = entries(node, CILIATE_MONITOR).remove(0).1;
    MonitorValue::from_bytes(value.as_slice().try_into().expect("a value"))
}

/// Nobody listens, and nothing is left of those who did.
#[track_caller]
pub fn assert_silence(node: &Node) {
    assert_eq!(heard(node), MonitorValue::default());
    let rings = entries(node, CILIATE_EVENTS).into_iter().filter(|(_, id)| *id != [0; 4]);
    assert_eq!(rings.count(), 0, "rings without readers");
    assert!(!node.runtime.join("monitor").exists(), "the readers' folder is still there");
}
