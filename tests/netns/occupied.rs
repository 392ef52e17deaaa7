//! What others put among the pins: it stays, it stops nothing, and where it is in the place of a pin it is named.

use crate::daemon::{Daemon, PATIENCE, wait_until};
use crate::lab::{DUAL, Lab};
use crate::snapshot::tree;

/// Beside pins, in the folder of the pins.
const BESIDE: &[&str] = &[
    "mkdir links/eth0/x",
    "mkdir -p links/nodev/y",
    "mkdir -p programs/abc/y",
    "ln -s nowhere links/eth0/sym",
    "ln -s loop programs/loop",
    "ln -s ../links programs/links",
    "mkdir maps/cilium_ct4_global-old maps/cilium_lxc-new",
    "bpftool prog pin pinned programs/*/cil_from_netdev links/p",
    "bpftool map pin pinned maps/cilium_lxc programs/m",
    "bpftool map pin pinned maps/cilium_lxc links/eth0/map",
    "mkdir -p cgroup; bpftool prog pin pinned programs/*/cil_from_netdev cgroup/program",
    "bpftool prog pin pinned programs/*/cil_from_netdev maps/cilium_ct4_global-old2",
];

/// In the place of pins: what was there goes, and something else comes.
const INSTEAD: &[(&str, &str)] = &[
    ("maps/cilium_lxc", "mkdir maps/cilium_lxc"),
    ("maps/cilium_lxc", "ln -s nowhere maps/cilium_lxc"),
    ("maps/cilium_lb4_services_v2", "mkdir maps/cilium_lb4_services_v2"),
    ("links/eth0/cil_from_netdev", "mkdir links/eth0/cil_from_netdev"),
    (
        "links/eth0/cil_from_netdev",
        "bpftool map pin pinned maps/cilium_lxc links/eth0/cil_from_netdev",
    ),
    ("programs/*/cil_from_netdev", "mkdir $1"),
    ("programs/*/cil_from_netdev", "bpftool map pin pinned maps/cilium_lxc $1"),
    ("cgroup/cil_sock4_connect", "mkdir cgroup/cil_sock4_connect"),
];

const SERVICE: &str = "[[service]]\nname = \"default/web\"\ncluster-ips = [\"10.96.0.1:80\"]\n\
    backends = [\"10.244.0.49:80\"]\n";

/// Runs a script in the folder of node a's pins.
fn among_pins(lab: &Lab, script: &str) -> String {
    lab.a.space.sh(&format!("cd {}; {script}", lab.a.bpf.display()))
}

/// Routes that somebody deletes come back.
#[track_caller]
fn assert_repairs(lab: &Lab, what: &str) {
    for (v, route) in [("-4", "10.244.1.0/24"), ("-6", "fd00:10:244:1::/80")] {
        lab.a.space.sh(&format!("ip {v} route del {route}"));
        let is_back = || lab.a.space.sh(&format!("ip {v} route show {route}")).contains("203");
        assert!(wait_until(PATIENCE, is_back), "with `{what}`, {route} does not come back");
    }
}

/// `destroy` leaves what the paths name, with the folders around them, and says so.
#[track_caller]
fn assert_destroy_leaves(lab: &Lab, paths: &[&str]) {
    lab.note_bpf();
    let destroyed = lab.a.ciliate(&["destroy"]);
    assert_eq!(destroyed.code, 0, "{destroyed:?}");
    let root = lab.a.bpf.display().to_string();
    let left: Vec<String> =
        tree(&lab.a.bpf).into_iter().map(|path| path[root.len() + 1..].into()).collect();
    let around = |path: &String| paths.iter().any(|named| named.starts_with(&format!("{path}/")));
    let (folders, leaves): (Vec<_>, Vec<_>) = left.into_iter().partition(around);
    assert_eq!(leaves, paths, "left, in {folders:?}");
    for path in paths {
        let line = format!("left: {root}/{path}, which does not belong to ciliate");
        assert!(destroyed.stderr.contains(&line), "no `{line}` in {destroyed:?}");
    }
    lab.a.space.sh(&format!("rm -r {root}"));
}

#[test]
fn beside_pins_it_stays_and_stops_nothing() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through();
    lab.a.apply();
    let daemon = Daemon::start(&lab.a);
    for script in BESIDE {
        among_pins(&lab, script);
        lab.a.assert_no_changes();
        assert_repairs(&lab, script);
        daemon.wait("to be converged", |status| status.converged);
    }
    daemon.stop();
    let applied = lab.a.ciliate(&["apply"]);
    assert!(applied.code == 0 && applied.stdout.contains("nothing to do"), "{applied:?}");
    assert_destroy_leaves(
        &lab,
        &[
            "cgroup/program",
            "links/eth0/map",
            "links/eth0/sym",
            "links/eth0/x",
            "links/nodev/y",
            "links/p",
            "maps/cilium_ct4_global-old",
            "maps/cilium_ct4_global-old2",
            "maps/cilium_lxc-new",
            "programs/abc/y",
            "programs/links",
            "programs/loop",
            "programs/m",
        ],
    );
}

#[test]
fn in_the_place_of_a_pin_it_blocks_that_one_only() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through_as(|mut text| {
        text.other += SERVICE;
        text
    });
    lab.a.apply();
    let daemon = Daemon::start(&lab.a);
    for (pin, script) in INSTEAD {
        // The daemon may be quicker than the second step.
        let script = format!("set -- {pin}; until rm -f $1 && {script} 2>/dev/null; do :; done");
        among_pins(&lab, &format!("{script}; echo $1"));
        let path = among_pins(&lab, &format!("echo $PWD/{pin}"));
        let reason = format!("{} is a", path.trim());
        let status = daemon.wait("to say what is in the way", |status| {
            !status.converged && status.problems.iter().any(|p| format!("{p:?}").contains(&reason))
        });
        assert!(format!("{:?}", status.problems).contains("remove it"), "{status:#?}");
        let planned = lab.a.ciliate(&["plan"]);
        assert!(planned.stdout.contains(&reason), "{script}: {planned:?}");
        assert!(planned.stdout.contains("No changes, 1 blocked."), "{script}: {planned:?}");
        assert_repairs(&lab, &script);
        among_pins(&lab, &format!("rm -r {pin}"));
        daemon.wait("to put the pin back", |status| status.converged && status.problems.is_empty());
        lab.a.assert_no_changes();
    }
    daemon.stop();
    among_pins(&lab, "rm maps/cilium_lxc; mkdir maps/cilium_lxc");
    let applied = lab.a.ciliate(&["apply"]);
    assert!(applied.code == 1 && applied.stdout.contains("1 blocked"), "{applied:?}");
    assert_destroy_leaves(&lab, &["maps/cilium_lxc"]);
}
