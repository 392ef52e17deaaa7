//! `ciliate run` as a child process.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ciliate::bpf_abi::{
    CILIATE_DEVICE, CILIATE_NODE, CILIUM_LXC, DeviceValue, EndpointValue, NodeValue,
};
use ciliate::daemon::control::{self, Status};
use ciliate::kinds::Observed;
use ciliate::net::IfName;
use rustix::process::{Pid, Signal, kill_process};

use crate::node::{CILIATE, Node, differences};

/// How long anything may take. Repairs take a second; a machine that also runs other tests is slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon. Dropped, it is killed.
pub struct Daemon<'n> {
    pub node: &'n Node,
    child: Child,
}

impl<'n> Daemon<'n> {
    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn start(node: &'n Node) -> Self {
        Self::start_with(node, 1)
    }

    /// The same with another configuration.
    #[track_caller]
    pub fn start_of(node: &'n Node, config: &Path) -> Self {
        Self::spawn(node, config, 1, &[])
    }

    /// The same with another time between full looks, in seconds.
    #[track_caller]
    pub fn start_with(node: &'n Node, resync: u32) -> Self {
        Self::spawn(node, &node.config, resync, &[])
    }

    /// The same with more in the environment.
    #[track_caller]
    pub fn start_in(node: &'n Node, environment: &[(&str, &str)]) -> Self {
        Self::spawn(node, &node.config, 1, environment)
    }

    /// The same with more arguments.
    #[track_caller]
    pub fn start_arguments(node: &'n Node, arguments: &[&str]) -> Self {
        let mut command = node.command(&["run", "--resync", "1"]);
        command.args(arguments);
        Self::spawn_command(node, command)
    }

    #[track_caller]
    fn spawn(node: &'n Node, config: &Path, resync: u32, environment: &[(&str, &str)]) -> Self {
        let mut command = node.space.command(CILIATE);
        command.arg("-c").arg(config).args(["run", "--resync", &resync.to_string()]);
        command.envs(environment.iter().copied());
        Self::spawn_command(node, command)
    }

    #[track_caller]
    fn spawn_command(node: &'n Node, mut command: Command) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(&node.log).expect("open a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("run ciliate");
        let daemon = Self { node, child };
        // The control socket answers before the first round is done.
        daemon.wait("to finish its first round", |status| status.rounds > 0);
        daemon
    }

    /// How it says it stands.
    pub fn status(&self) -> Option<Status> {
        let status = *control::ask(&self.node.runtime).answer()?;
        (status.pid == self.child.id()).then_some(status)
    }

    /// Waits until it says something.
    #[track_caller]
    pub fn wait(&self, what: &str, good: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        let done = wait_until(PATIENCE, || {
            last = self.status();
            last.as_ref().is_some_and(&good)
        });
        assert!(done, "waited for the daemon {what}: {last:#?}");
        last.expect("it answered")
    }

    /// Waits until it is converged and the kernel is as it was. Returns what is there.
    #[track_caller]
    pub fn wait_repaired(&self, golden: &Observed, what: &str) -> Observed {
        let mut last = Err("no look yet".to_string());
        let done = wait_until(PATIENCE, || {
            last = self.node.try_view();
            let same = |view: &ciliate::engine::View| {
                let anew = what.contains("name stray");
                let golden = without_ifindexes(golden, anew);
                let now = without_ifindexes(&view.observed, anew);
                view.plan.is_converged() && differences(&golden, &now, ("", "")).is_empty()
            };
            last.as_ref().is_ok_and(same) && self.status().is_some_and(|status| status.converged)
        });
        let status = self.status();
        match last {
            Ok(view) if done => view.observed,
            Ok(view) => panic!(
                "not repaired: {what}\n{}\n{status:#?}",
                differences(golden, &view.observed, ("before", "now")).join("\n")
            ),
            Err(error) => panic!("not repaired: {what}\n{error}\n{status:#?}"),
        }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a pid");
        kill_process(pid, signal).expect("signal the daemon");
    }

    /// SIGTERM; it has to end well.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let mut status = None;
        wait_until(PATIENCE, || {
            status = self.child.try_wait().expect("wait for the daemon");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "SIGTERM: {status:?}");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("kill the daemon");
        self.child.wait().expect("wait for the daemon");
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What refers to an ifindex, without it: devices that are made anew may get another one. That everything
/// refers to the right one is what a plan without ops says. An endpoint's device keeps its own, unless
/// `endpoints_too`: somebody holds it.
fn without_ifindexes(observed: &Observed, endpoints_too: bool) -> Observed {
    let mut observed = observed.clone();
    let concerned = |name: &IfName| endpoints_too || name.as_str().starts_with("cilium_");
    for (_, link) in observed.links.iter_mut().filter(|(name, _)| concerned(name)) {
        link.ifindex = 0;
        link.peer.iter_mut().for_each(|peer| peer.ifindex = None);
    }
    for (_, link) in observed.bpf_links.iter_mut().filter(|(key, _)| concerned(&key.ifname)) {
        link.ifindex = link.ifindex.min(1);
    }
    let entries = std::mem::take(&mut observed.bpf_map_entries);
    for (mut key, mut entry) in entries {
        match key.map.def().name {
            CILIATE_NODE => {
                let node =
                    NodeValue::from_bytes(entry.value.as_slice().try_into().expect("a node"));
                let tunnel_ifindex = node.tunnel_ifindex.min(1);
                let node = NodeValue { host_ifindex: 0, net_ifindex: 0, tunnel_ifindex, ..node };
                entry.value = node.to_bytes().to_vec();
            }
            CILIUM_LXC if endpoints_too => {
                let bytes = entry.value.as_slice().try_into().expect("an endpoint");
                let endpoint = EndpointValue { ifindex: 0, ..EndpointValue::from_bytes(bytes) };
                entry.value = endpoint.to_bytes().to_vec();
            }
            CILIATE_DEVICE if endpoints_too => {
                let bytes = entry.value.as_slice().try_into().expect("a device");
                key.key = DeviceValue::from_bytes(bytes).mac.to_vec();
            }
            _ => {}
        }
        observed.bpf_map_entries.insert(key, entry);
    }
    observed
}

/// Asks until the answer is yes.
pub fn wait_until(patience: Duration, mut good: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        if good() {
            return true;
        }
        if begin.elapsed() > patience {
            return false;
        }
        thread::sleep(Duration::from_millis(30));
    }
}
