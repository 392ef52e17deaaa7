//! The main job: the host-gateway walk-through, with packets in every direction.

use std::net::IpAddr;

use crate::capture::Capture;
use crate::lab::{DUAL, Families, Lab, V4, V6};
use crate::space::Space;
use crate::traffic::{exchange, ping, tcp};

/// Addresses of one family.
struct Plan {
    client: &'static str,
    client2: &'static str,
    server: &'static str,
    node_a: &'static str,
    node_b: &'static str,
    outside: &'static str,
    mss: &'static str,
}

const PLAN_V4: Plan = Plan {
    client: "10.244.0.49",
    client2: "10.244.0.50",
    server: "10.244.1.124",
    node_a: "172.18.0.3",
    node_b: "172.18.0.2",
    outside: "192.0.2.1",
    mss: "mss 1460",
};

const PLAN_V6: Plan = Plan {
    client: "fd00:10:244::49",
    client2: "fd00:10:244::50",
    server: "fd00:10:244:1::124",
    node_a: "fc00:18::3",
    node_b: "fc00:18::2",
    outside: "2001:db8::1",
    mss: "mss 1440",
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn ipv4() {
    main_job(V4);
}

#[test]
fn ipv6() {
    main_job(V6);
}

#[test]
fn dual_stack() {
    main_job(DUAL);
}

fn main_job(families: Families) {
    let Some(lab) = Lab::new(families) else { return };
    let (client, client2, server) = lab.walk_through_with_health();
    lab.a.apply();
    lab.b.apply();
    let plans = [(families.v4, PLAN_V4), (families.v6, PLAN_V6)];
    for (_, plan) in plans.into_iter().filter(|(has, _)| *has) {
        between_endpoints(&client, &client2, &server, &plan);
        with_hosts(&lab, &client, &server, &plan);
        with_outside(&lab, &client, &server, &plan);
        segment_size(&client, &server, &plan);
    }
}

/// Nobody masquerades between endpoints.
fn between_endpoints(client: &Space, client2: &Space, server: &Space, plan: &Plan) {
    assert_eq!(exchange(client, client2, plan.client2), ip(plan.client));
    assert_eq!(exchange(client2, client, plan.client), ip(plan.client2));
    assert_eq!(exchange(client, server, plan.server), ip(plan.client));
    assert_eq!(exchange(client2, server, plan.server), ip(plan.client2));
    assert_eq!(exchange(server, client, plan.client), ip(plan.server));
    assert_eq!(ping(client, plan.client2), 63, "TTL on one node");
    assert_eq!(ping(client, plan.server), 60, "TTL across nodes");
    assert_eq!(ping(server, plan.client), 60, "TTL across nodes");
}

/// Nor between endpoints and nodes.
fn with_hosts(lab: &Lab, client: &Space, server: &Space, plan: &Plan) {
    let (a, b) = (&lab.a.space, &lab.b.space);
    assert_eq!(exchange(client, a, plan.node_a), ip(plan.client));
    assert_eq!(exchange(client, b, plan.node_b), ip(plan.client));
    assert_eq!(exchange(server, a, plan.node_a), ip(plan.server));
    assert_eq!(exchange(b, server, plan.server).is_ipv4(), ip(plan.server).is_ipv4());
    assert_eq!(exchange(a, client, plan.client).is_ipv4(), ip(plan.client).is_ipv4());
    assert_eq!(exchange(a, server, plan.server), ip(plan.node_a));
    assert_eq!(exchange(b, client, plan.client), ip(plan.node_b));
}

/// The outside has no route to the endpoints, and sees the nodes.
fn with_outside(lab: &Lab, client: &Space, server: &Space, plan: &Plan) {
    assert_eq!(exchange(client, &lab.outside, plan.outside), ip(plan.node_a));
    assert_eq!(exchange(server, &lab.outside, plan.outside), ip(plan.node_b));
}

fn segment_size(client: &Space, server: &Space, plan: &Plan) {
    let family = if ip(plan.client).is_ipv6() { "ip6" } else { "ip" };
    // pcap can't look into TCP over IPv6 by name; the flags are at 13 of the TCP header, 53 in all.
    let syn = if family == "ip" { "tcp[13] = 2" } else { "ip6[53] = 2" };
    let capture = Capture::start(server, "eth0", 1, &format!("{family} and {syn}"));
    tcp(client, server, plan.server);
    let lines = capture.lines();
    assert!(lines.len() == 1 && lines[0].contains(plan.mss), "SYN: {lines:?}");
}
