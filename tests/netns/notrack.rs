//! The kernel's conntrack and packets between the nodes of a tunnel.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::fleet::{Fleet, MEMBERS};
use crate::lab::{DUAL, Families, V4, V6};
use crate::space::Space;
use crate::traffic::{exchange, ping};

/// Somebody's table that counts what goes to the tunnel's port, by direction and by what conntrack knows of it.
const COUNT: &str = "nft 'table inet count {
    counter in_tracked {}; counter in_untracked {}; counter out_tracked {}; counter out_untracked {};
    counter through_tracked {}; counter through_untracked {};
    chain in { type filter hook input priority 0;
        udp dport 8472 ct state untracked counter name in_untracked;
        udp dport 8472 ct state != untracked counter name in_tracked; }
    chain out { type filter hook output priority 0;
        udp dport 8472 ct state untracked counter name out_untracked;
        udp dport 8472 ct state != untracked counter name out_tracked; }
    chain through { type filter hook forward priority 0;
        udp dport 8472 ct state untracked counter name through_untracked;
        udp dport 8472 ct state != untracked counter name through_tracked; }
}'";

const NO_COUNT: &str = "nft delete table inet count";

/// Whether packets were counted under a name.
fn counted(node: &Space, name: &str) -> bool {
    let text = node.sh(&format!("nft list counter inet count {name}"));
    assert!(text.contains("packets "), "{text}");
    !text.contains("packets 0 ")
}

/// Which of the counters saw something.
fn seen(node: &Space) -> Vec<String> {
    let directions = ["in", "out", "through"].into_iter();
    let names =
        directions.flat_map(|way| ["tracked", "untracked"].map(|how| format!("{way}_{how}")));
    names.filter(|name| counted(node, name)).collect()
}

fn by_tunnel(inside: Families, underlay: Families, routing: &str) -> Option<Fleet> {
    let fleet = Fleet::new(inside, underlay)?;
    fleet.apply(2, &format!("mode = \"tunnel\"\n{routing}"));
    fleet.lab.a.space.sh(COUNT);
    for plan in fleet.plans() {
        exchange(&fleet.busybox_a, &fleet.busybox_b, plan.busybox_b);
        exchange(&fleet.lab.a.space, &fleet.busybox_b, plan.busybox_b);
        ping(&fleet.nginx_b, plan.busybox_a);
    }
    Some(fleet)
}

#[test]
fn packets_between_the_nodes_are_untracked() {
    for underlay in [V4, V6] {
        let Some(fleet) = by_tunnel(DUAL, underlay, "") else { return };
        let node = &fleet.lab.a.space;
        assert_eq!(seen(node), ["in_untracked", "out_untracked"]);
        // What another node sends through this one to somebody else's tunnel is no matter of ours.
        let (far, any, v6) =
            if underlay.v4 { ("192.0.2.1", "0.0.0.0:0", 0) } else { ("2001:db8::1", "[::]:0", 1) };
        let other = &fleet.lab.others[0].space;
        other.sh(&format!("ip route replace {far} via {}", MEMBERS[0].underlay[v6]));
        let far: SocketAddr = SocketAddr::new(far.parse().unwrap(), 8472);
        let server = fleet.lab.outside.run(|| UdpSocket::bind(far)).expect("bind");
        server.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        let client = other.run(|| UdpSocket::bind(any)).expect("bind");
        client.send_to(b"question", far).expect("send");
        let (length, from) = server.recv_from(&mut [0; 16]).expect("a question");
        assert_eq!((length, from.ip().to_string().as_str()), (8, MEMBERS[2].underlay[v6]));
        assert_eq!(seen(node), ["in_untracked", "out_untracked", "through_tracked"]);
        node.sh(NO_COUNT);
        other.sh(&format!("ip route del {}", far.ip()));
    }
}

#[test]
fn packets_between_the_nodes_are_tracked_where_it_is_asked_for() {
    let Some(fleet) = by_tunnel(V4, V4, "tunnel-notrack = false\n") else { return };
    assert_eq!(seen(&fleet.lab.a.space), ["in_tracked", "out_tracked"]);
    // Switched as any other line.
    fleet.apply(1, "mode = \"tunnel\"\n");
    fleet.lab.a.space.sh(&format!("{NO_COUNT}; {COUNT}"));
    exchange(&fleet.busybox_a, &fleet.busybox_b, "10.42.1.64");
    assert_eq!(seen(&fleet.lab.a.space), ["in_untracked", "out_untracked"]);
    fleet.lab.a.space.sh(NO_COUNT);
}
