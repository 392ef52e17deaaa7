//! Repair without waiting for the timer: the kernel tells, and the daemon listens.

use std::time::{Duration, Instant};

use ciliate::daemon::control::Problem;

use crate::daemon::Daemon;
use crate::lab::{DUAL, Lab};
use crate::node::Text;
use crate::sabotage::Sabotage;

/// A repair that only the timer would bring takes an hour.
const RESYNC_SECONDS: u32 = 3600;
/// A repair that an event brings takes no longer than this, on a machine that is busy.
const SOON: Duration = Duration::from_secs(8);

#[test]
fn damage_is_noticed_without_the_timer() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, client2, _) = lab.walk_through();
    let mut text = Text::node_a(&lab)
        .with_health()
        .endpoint("client", &client, &["10.244.0.49", "fd00:10:244::49"])
        .endpoint("client2", &client2, &["10.244.0.50", "fd00:10:244::50"]);
    text.routing += "table = 300\n";
    lab.a.write(&text);
    let daemon = Daemon::start_with(&lab.a, RESYNC_SECONDS);
    daemon.wait("to converge", |status| status.converged);
    let mut golden = lab.a.view().observed;
    let node = [
        "ip route del 10.244.0.0/24",
        "ip -6 route del fd00:10:244::/80",
        "ip route del 10.244.1.0/24 table 300",
        "ip addr del 10.244.0.26/32 dev cilium_host",
        "ip rule del lookup 300",
        "ip -6 rule del lookup 300",
        "ip link set cilium_net down",
        "ip link set cilium_host mtu 1400",
        "ip link del cilium_net",
        "nft delete table inet ciliate",
        "nft flush table inet ciliate",
        "echo 0 >/proc/sys/net/ipv4/conf/all/forwarding",
        "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding",
        "echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter",
        "echo 1 >/proc/sys/net/ipv4/conf/cilium_host/rp_filter",
    ];
    let endpoint = [
        "ip route del default",
        "ip addr del 10.244.0.49/32 dev eth0",
        "ip link set eth0 down",
        "ip link del eth0",
    ];
    let mut all: Vec<Sabotage> = Vec::new();
    all.extend(node.map(|line| Sabotage::script(&lab.a.space, line.into())));
    all.extend(endpoint.map(|line| Sabotage::script(&client, line.into())));
    let netns = lab.a.health_netns();
    let line = format!("umount -l {0}; rm {0}", netns.display());
    all.push(Sabotage::script(&lab.a.space, line));
    for pin in ["maps/cilium_lxc", "links/eth0/cil_from_netdev", "links/cilium_host/cil_to_host"] {
        let line = format!("rm {}", lab.a.bpf.join(pin).display());
        all.push(Sabotage::script(&lab.a.space, line));
    }
    lab.note_bpf();
    for sabotage in &all {
        wait_for_silence(&daemon);
        sabotage.act();
        let begin = Instant::now();
        golden = daemon.wait_repaired(&golden, &sabotage.what);
        assert!(begin.elapsed() < SOON, "{} took {:?}", sabotage.what, begin.elapsed());
    }
    lab.note_bpf();
    daemon.stop();
}

/// A round that something earlier brings about must not be the one that repairs.
fn wait_for_silence(daemon: &Daemon<'_>) {
    let rounds = || daemon.status().map_or(0, |status| status.rounds);
    let (mut last, mut since) = (rounds(), Instant::now());
    while since.elapsed() < Duration::from_millis(600) {
        std::thread::sleep(Duration::from_millis(50));
        let now = rounds();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// A replaced route is gone without a message of its own; what has taken its place says so when it comes and goes.
#[test]
fn a_foreign_route_in_the_place_of_ours_is_noticed_without_the_timer() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through();
    let daemon = Daemon::start_with(&lab.a, RESYNC_SECONDS);
    daemon.wait("to converge", |status| status.converged);
    let golden = lab.a.view().observed;
    for (family, dst) in [("-4", "10.244.1.0/24"), ("-6", "fd00:10:244:1::/80")] {
        wait_for_silence(&daemon);
        lab.a.space.sh(&format!("ip {family} route replace {dst} dev eth0 proto static"));
        daemon.wait("to say who has the place", |status| {
            let names =
                |problem: &Problem| problem.object.contains(dst) || problem.error.contains(dst);
            !status.converged && status.problems.iter().any(names)
        });
        wait_for_silence(&daemon);
        lab.a.space.sh(&format!("ip {family} route del {dst} proto static"));
        daemon.wait_repaired(&golden, dst);
    }
    daemon.stop();
}
