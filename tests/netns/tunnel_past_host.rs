//! `host-routing = "bpf"` with a tunnel: the programs put small packets into it and take them out, without its device
//! and past both hosts' stacks; everything else goes by the device, and no end has to know what the other one does.

use crate::capture::Capture;
use crate::fleet::{Fleet, Plan};
use crate::flood::Flood;
use crate::hitless::swap_programs;
use crate::lab::{DUAL, Families, V4, V6};
use crate::overlay::PAST_HOST;
use crate::traffic::{answers, exchange, ping, udp};

const BY_KERNEL: &str = "mode = \"tunnel\"\n";
/// Drops what the tunnel's device sends and gets.
const FIREWALL: &str = "nft add table inet fence; \
     nft add chain inet fence output '{ type filter hook output priority 0; }'; \
     nft add chain inet fence input '{ type filter hook input priority 0; }'; \
     nft add rule inet fence output udp dport 8472 drop; \
     nft add rule inet fence input udp dport 8472 drop";
const NO_FIREWALL: &str = "nft delete table inet fence";
/// Datagrams between two events.
const PAUSE: u64 = 400;

fn linux() -> (u32, u32) {
    let name = rustix::system::uname();
    let mut numbers = name.release().to_str().expect("text").split('.').map(str::parse);
    let mut number = || numbers.next().expect("two numbers").expect("a number");
    (number(), number())
}

fn both(fleet: &Fleet, script: &str) {
    for node in fleet.lab.nodes().take(2) {
        node.space.sh(script);
    }
}

/// Both ways, and larger things than the programs take, which the device does.
fn everything(fleet: &Fleet, plan: &Plan) {
    let Fleet { busybox_a, nginx_a, busybox_b, nginx_b, .. } = fleet;
    exchange(busybox_a, busybox_b, plan.busybox_b);
    exchange(nginx_b, nginx_a, plan.nginx_a);
    assert_eq!(ping(busybox_a, plan.busybox_b), 63, "TTL through the tunnel");
    assert_eq!(ping(nginx_b, plan.nginx_a), 63, "TTL through the tunnel");
}

#[test]
fn small_packets_need_no_device() {
    without_the_device(V4);
}

#[test]
fn small_packets_need_no_device_over_ipv6() {
    without_the_device(V6);
}

fn without_the_device(underlay: Families) {
    let Some(fleet) = Fleet::new(DUAL, underlay) else { return };
    fleet.apply(2, PAST_HOST);
    let status = fleet.lab.a.ciliate(&["status"]).stdout;
    assert!(status.contains("Network: Tunnel [vxlan]   Host: BPF"), "{status}");
    // What programs can't do on an older kernel is the device's.
    if linux() < (6, 7) {
        fleet.plans().for_each(|plan| everything(&fleet, &plan));
        return;
    }
    both(&fleet, FIREWALL);
    // The next hop's address is asked for from there as well.
    both(&fleet, "ip neigh flush dev eth0");
    for plan in fleet.plans() {
        let Fleet { busybox_a, busybox_b, .. } = &fleet;
        assert_eq!(ping(busybox_a, plan.busybox_b), 63, "TTL through the tunnel");
        assert_eq!(ping(busybox_b, plan.busybox_a), 63, "TTL through the tunnel");
        udp(busybox_a, busybox_b, plan.busybox_b);
        udp(busybox_b, busybox_a, plan.busybox_a);
        // The host itself goes by the device, and can't get through.
        assert!(!answers(&fleet.lab.a.space, plan.busybox_b), "not by the device");
    }
    both(&fleet, NO_FIREWALL);
    fleet.plans().for_each(|plan| everything(&fleet, &plan));
}

#[test]
fn one_node_alone() {
    let Some(fleet) = Fleet::new(DUAL, V4) else { return };
    for [a, b] in [[PAST_HOST, BY_KERNEL], [BY_KERNEL, PAST_HOST]] {
        for (number, (node, routing)) in fleet.lab.nodes().zip([a, b]).enumerate() {
            node.write(&fleet.text(number, routing));
            node.apply();
        }
        fleet.plans().for_each(|plan| everything(&fleet, &plan));
    }
}

/// A flow has one source port, whoever sends its packets.
#[test]
fn ports_are_those_that_the_kernel_takes() {
    let Some(fleet) = Fleet::new(V4, V4) else { return };
    both(&fleet, "sysctl -qw net.ipv4.ip_local_port_range='40000 40100'");
    fleet.apply(2, PAST_HOST);
    let plan = fleet.plans().next().expect("a family");
    ping(&fleet.busybox_a, plan.busybox_b);
    let capture = Capture::start_tunnel(&fleet.lab.b.space, "eth0", 2, 8472);
    ping(&fleet.busybox_a, plan.busybox_b);
    let lines = capture.lines();
    both(&fleet, "sysctl -qw net.ipv4.ip_local_port_range='32768 60999'");
    let sources: Vec<u16> = (lines.iter())
        .filter_map(|line| {
            line.split_once(".8472")?.0.rsplit_once(" > ")?.0.rsplit('.').next()?.parse().ok()
        })
        .collect();
    assert_eq!(sources.len(), 2, "{lines:?}");
    assert!(sources.iter().all(|port| (40_000..=40_100).contains(port)), "{lines:?}");
}

#[test]
fn on_and_off_loses_nothing() {
    let Some(fleet) = Fleet::new(DUAL, V4) else { return };
    fleet.apply(2, BY_KERNEL);
    let [v4, v6] = [fleet.plans().next(), fleet.plans().nth(1)].map(|plan| plan.expect("a family"));
    // Neighbours are resolved; that may cost the first packet on any network.
    ping(&fleet.busybox_a, v4.busybox_b);
    ping(&fleet.nginx_b, v6.nginx_a);
    let floods = [
        Flood::start((&fleet.busybox_a, v4.busybox_a), (&fleet.busybox_b, v4.busybox_b)),
        Flood::start((&fleet.nginx_b, v6.nginx_b), (&fleet.nginx_a, v6.nginx_a)),
    ];
    let pause = || floods.iter().for_each(|flood| flood.run_on(PAUSE));
    pause();
    for routing in [PAST_HOST, BY_KERNEL, PAST_HOST] {
        for (number, node) in fleet.lab.nodes().take(2).enumerate() {
            node.write(&fleet.text(number, routing));
            node.apply();
            pause();
        }
    }
    for node in fleet.lab.nodes().take(2) {
        swap_programs(node);
        assert_eq!(node.ciliate(&["apply"]).code, 0);
        pause();
    }
    fleet.lab.note_bpf();
    for flood in floods {
        flood.finish();
    }
}
