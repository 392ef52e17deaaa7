//! `host-routing = "bpf"`: packets between endpoints of two nodes go past both hosts' stacks, all others don't.

use std::net::IpAddr;

use crate::lab::{DUAL, Lab};
use crate::node::Text;
use crate::space::Space;
use crate::traffic::{answers, exchange, ping};

/// Drops what the host forwards.
const FIREWALL: &str = "nft add table inet fence; \
     nft add chain inet fence forward '{ type filter hook forward priority 0; policy drop; }'";
const NO_FIREWALL: &str = "nft delete table inet fence";

fn past_host(mut text: Text) -> Text {
    text.routing += "host-routing = \"bpf\"\n";
    text
}

fn both(lab: &Lab, script: &str) {
    for node in lab.nodes() {
        node.space.sh(script);
    }
}

/// Client and server, IPv4 and IPv6, and who is asked outside.
const ADDRESSES: [[&str; 3]; 2] = [
    ["10.244.0.49", "10.244.1.124", "192.0.2.1"],
    ["fd00:10:244::49", "fd00:10:244:1::124", "2001:db8::1"],
];

#[track_caller]
fn assert_past_host(client: &Space, server: &Space) {
    for [here, there, _] in ADDRESSES {
        assert_eq!(ping(client, there), 62, "{there}");
        assert_eq!(ping(server, here), 62, "{here}");
        assert_eq!(exchange(client, server, there), here.parse::<IpAddr>().expect("an address"));
        assert_eq!(exchange(server, client, here), there.parse::<IpAddr>().expect("an address"));
    }
}

#[test]
fn endpoints_reach_each_other_past_the_stacks() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, _, server) = lab.walk_through_as(past_host);
    lab.a.apply();
    lab.b.apply();
    both(&lab, FIREWALL);
    assert_past_host(&client, &server);
    // The next hop's address is asked for from there as well.
    both(&lab, "ip neigh flush dev eth0");
    assert_past_host(&client, &server);
    for [_, _, outside] in ADDRESSES {
        assert!(!answers(&client, outside), "{outside}: not by the stack");
    }
    both(&lab, NO_FIREWALL);
    for (node, [_, there, outside]) in ["172.18.0.3", "fc00:18::3"].into_iter().zip(ADDRESSES) {
        let node: IpAddr = node.parse().expect("an address");
        assert_eq!(exchange(&client, &lab.outside, outside), node, "masquerade");
        exchange(&lab.a.space, &server, there);
        exchange(&client, &lab.b.space, if node.is_ipv4() { "172.18.0.2" } else { "fc00:18::2" });
    }
}

#[test]
fn by_the_stacks_and_back() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, _, server) = lab.walk_through();
    let (by_stack, past_stack) = (60, 62);
    for (ttl, on) in [(by_stack, false), (past_stack, true), (by_stack, false)] {
        for node in lab.nodes() {
            let text = std::fs::read_to_string(&node.config).expect("read");
            let line = "host-routing = \"bpf\"\n";
            let (mode, text) = ("mode = \"native\"\n", text.replace(line, ""));
            let text = if on { text.replacen(mode, &format!("{mode}{line}"), 1) } else { text };
            std::fs::write(&node.config, text).expect("write");
            node.apply();
            let status = node.ciliate(&["status"]).stdout;
            let row = format!("Network: Native   Host: {}", if on { "BPF" } else { "Legacy" });
            assert!(status.contains(&row), "{status}");
        }
        for [here, there, _] in ADDRESSES {
            assert_eq!((ping(&client, there), ping(&server, here)), (ttl, ttl));
        }
    }
}

#[test]
fn what_is_too_long_is_told_by_the_stack() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, ..) = lab.walk_through_as(past_host);
    lab.a.apply();
    lab.b.apply();
    lab.a.space.sh("ip route add 10.244.1.124 via 172.18.0.2 mtu lock 1300; \
         ip -6 route add fd00:10:244:1::124 via fc00:18::2 mtu lock 1300");
    for [_, there, _] in ADDRESSES {
        assert_eq!(ping(&client, there), 62);
        let told = client.sh(&format!("! ping -n -c 1 -W 2 -M do -s 1350 {there} 2>&1"));
        assert!(told.contains("mtu = 1300") || told.contains("mtu=1300"), "{told}");
    }
    lab.a.space.sh(
        "ip route del 10.244.1.124 via 172.18.0.2; ip -6 route del fd00:10:244:1::124 via fc00:18::2",
    );
}
