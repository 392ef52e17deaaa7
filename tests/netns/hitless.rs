//! No packet is lost while the daemon stops, dies, starts, reloads, or swaps programs.

use std::fs;
use std::time::Instant;

use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::flood::Flood;
use crate::lab::{DUAL, Lab};
use crate::node::Node;
use crate::traffic::ping;

/// Datagrams between two events.
const PAUSE: u64 = 600;

#[test]
fn by_tcx() {
    hitless("");
}

#[test]
fn by_clsact() {
    hitless("\n[datapath]\nattach-mode = \"clsact\"\n");
}

/// Two floods on one node and across nodes, IPv4 and IPv6, through everything that can happen to a
/// daemon and its programs.
fn hitless(section: &str) {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, client2, server) = lab.walk_through();
    for node in [&lab.a, &lab.b] {
        let text = fs::read_to_string(&node.config).expect("read the configuration");
        fs::write(&node.config, text + section).expect("write the configuration");
        node.apply();
    }
    // Neighbours are resolved; that may cost the first packet on any network.
    ping(&client, "10.244.0.50");
    ping(&client2, "fd00:10:244:1::124");
    ping(&server, "fd00:10:244::50");
    let local = Flood::start((&client, "10.244.0.49"), (&client2, "10.244.0.50"));
    let remote = Flood::start((&client2, "fd00:10:244::50"), (&server, "fd00:10:244:1::124"));
    let begin = Instant::now();
    let pause = || {
        local.run_on(PAUSE);
        remote.run_on(1);
    };
    pause();
    let daemon = converged(&lab.a);
    pause();
    daemon.stop();
    pause();
    let daemon = converged(&lab.a);
    pause();
    daemon.kill();
    pause();
    let daemon = converged(&lab.a);
    for _ in 0..3 {
        reload(&lab, &daemon);
        pause();
    }
    for _ in 0..5 {
        swap_programs(&lab.a);
        daemon.wait("to swap the programs", |status| status.converged && !swapped(&lab.a));
        pause();
    }
    // With another daemon on the other side.
    let other = converged(&lab.b);
    swap_programs(&lab.b);
    other.wait("to swap the programs", |status| status.converged && !swapped(&lab.b));
    pause();
    other.kill();
    daemon.kill();
    swap_programs(&lab.a);
    lab.a.ciliate(&["apply"]);
    assert!(!swapped(&lab.a));
    pause();
    lab.note_bpf();
    let seconds = begin.elapsed().as_secs_f64();
    for flood in [local, remote] {
        let sent = flood.finish();
        assert!(sent as f64 / seconds > 1000.0, "{sent} in {seconds} s are too few to show much");
    }
}

fn converged(node: &Node) -> Daemon<'_> {
    let daemon = Daemon::start(node);
    daemon.wait("to converge", |status| status.converged);
    daemon
}

/// Adds or removes a peer, and says so.
fn reload(lab: &Lab, daemon: &Daemon<'_>) {
    let more = crate::node::peer("more", &["172.18.0.77"], &["10.244.77.0/24"], "");
    let text = fs::read_to_string(&lab.a.config).expect("read the configuration");
    let other = match text.strip_suffix(&more) {
        Some(without) => without.to_string(),
        None => text + &more,
    };
    let generation = daemon.status().map_or(0, |status| status.generation);
    fs::write(&lab.a.config, other).expect("write the configuration");
    daemon.signal(Signal::HUP);
    daemon.wait("to reload", |status| status.converged && status.generation > generation);
}

/// Makes the pinned programs those of another build: the daemon loads its own and swaps.
pub fn swap_programs(node: &Node) {
    let folder = node.bpf.join("programs");
    let builds: Vec<_> = fs::read_dir(&folder).expect("list programs").flatten().collect();
    for (number, build) in builds.into_iter().enumerate() {
        let other = folder.join(format!("000000000000000{number}"));
        fs::rename(build.path(), other).expect("rename the build");
    }
}

/// Whether programs of another build are there.
pub fn swapped(node: &Node) -> bool {
    crate::snapshot::tree(&node.bpf.join("programs")).iter().any(|path| path.contains("/0000000"))
}
