//! The four nodes of the VXLAN walk-through, with their endpoints and configurations. Two of them have
//! endpoints; which of the others is configured is up to the test.

use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Families, Lab, Numbering, addresses};
use crate::node::{Node, Text, endpoint, list};
use crate::space::Space;

const PATIENCE: Duration = Duration::from_secs(5);

const FOUR_NODES: Numbering =
    Numbering { v4: ("172.16.16.", 24), v6: "fd00:172:16:16::", nodes: &[120, 121, 122, 123] };

/// A node of the walk-through.
pub struct Member {
    pub name: &'static str,
    pub underlay: [&'static str; 2],
    pub cidrs: [&'static str; 2],
    pub routers: [&'static str; 2],
}

/// The nodes, in the order of [`Lab::nodes`].
pub const MEMBERS: [Member; 4] = [
    Member {
        name: "node-a",
        underlay: ["172.16.16.120", "fd00:172:16:16::120"],
        cidrs: ["10.42.0.0/24", "fd00:10:42::/80"],
        routers: ["10.42.0.26", "fd00:10:42::26"],
    },
    Member {
        name: "node-b",
        underlay: ["172.16.16.121", "fd00:172:16:16::121"],
        cidrs: ["10.42.1.0/24", "fd00:10:42:1::/80"],
        routers: ["10.42.1.217", "fd00:10:42:1::217"],
    },
    Member {
        name: "node-c",
        underlay: ["172.16.16.122", "fd00:172:16:16::122"],
        cidrs: ["10.42.2.0/24", "fd00:10:42:2::/80"],
        routers: ["10.42.2.1", "fd00:10:42:2::1"],
    },
    Member {
        name: "node-d",
        underlay: ["172.16.16.123", "fd00:172:16:16::123"],
        cidrs: ["10.42.3.0/24", "fd00:10:42:3::/80"],
        routers: ["10.42.3.1", "fd00:10:42:3::1"],
    },
];

/// Addresses of one family, and what an Ethernet MTU of 1500 leaves.
pub struct Plan {
    pub v6: bool,
    /// On node a.
    pub busybox_a: &'static str,
    pub nginx_a: &'static str,
    /// On node b.
    pub busybox_b: &'static str,
    pub nginx_b: &'static str,
    pub router_a: &'static str,
    pub router_b: &'static str,
}

pub const PLAN_V4: Plan = Plan {
    v6: false,
    busybox_a: "10.42.0.97",
    nginx_a: "10.42.0.182",
    busybox_b: "10.42.1.64",
    nginx_b: "10.42.1.145",
    router_a: "10.42.0.26",
    router_b: "10.42.1.217",
};

pub const PLAN_V6: Plan = Plan {
    v6: true,
    busybox_a: "fd00:10:42::97",
    nginx_a: "fd00:10:42::182",
    busybox_b: "fd00:10:42:1::64",
    nginx_b: "fd00:10:42:1::145",
    router_a: "fd00:10:42::26",
    router_b: "fd00:10:42:1::217",
};

/// A lab with the walk-through in it.
pub struct Fleet {
    pub lab: Lab,
    /// Families of endpoints.
    pub inside: Families,
    pub busybox_a: Space,
    pub nginx_a: Space,
    pub busybox_b: Space,
    pub nginx_b: Space,
}

impl Fleet {
    /// Makes nodes and endpoints; nothing is configured.
    pub fn new(inside: Families, underlay: Families) -> Option<Self> {
        let lab = Lab::numbered(underlay, FOUR_NODES)?;
        let space = |name: &str| lab.space(name);
        let (busybox_a, nginx_a) = (space("busybox-a"), space("nginx-a"));
        let (busybox_b, nginx_b) = (space("busybox-b"), space("nginx-b"));
        Some(Self { lab, inside, busybox_a, nginx_a, busybox_b, nginx_b })
    }

    /// The plans of the families that endpoints have.
    pub fn plans(&self) -> impl Iterator<Item = Plan> {
        let (v4, v6) = (self.inside.v4, self.inside.v6);
        v4.then_some(PLAN_V4).into_iter().chain(v6.then_some(PLAN_V6))
    }

    /// Writes the configurations of the first nodes, all with the same `[routing]`.
    pub fn write(&self, nodes: usize, routing: &str) {
        for (number, node) in self.lab.nodes().enumerate().take(nodes) {
            node.write(&self.text(number, routing));
        }
    }

    /// The same, and applies them.
    pub fn apply(&self, nodes: usize, routing: &str) {
        self.write(nodes, routing);
        self.lab.nodes().take(nodes).for_each(|node| drop(node.apply()));
    }

    /// The configuration of a node.
    pub fn text(&self, number: usize, routing: &str) -> Text {
        let own = &MEMBERS[number];
        let of =
            |families: Families, [v4, v6]: [&'static str; 2]| list(&addresses(families, v4, v6));
        let (underlay, inside) = (self.lab.families, self.inside);
        let (name, routing) = (own.name, routing.to_string());
        let node = format!(
            "name = {name:?}\naddresses = {}\ncidrs = {}\nrouters = {}\n",
            of(underlay, own.underlay),
            of(inside, own.cidrs),
            of(inside, own.routers)
        );
        let mut text = Text { node, routing, ..Text::default() };
        for peer in MEMBERS.iter().filter(|peer| peer.name != own.name) {
            text.peers += &format!(
                "[[peer]]\nname = {:?}\naddresses = {}\ncidrs = {}\nrouters = {}\n\n",
                peer.name,
                of(underlay, peer.underlay),
                of(inside, peer.cidrs),
                of(inside, peer.routers)
            );
        }
        let (v4, v6) = (PLAN_V4, PLAN_V6);
        let mut add = |name: &str, space: &Space, v4, v6| {
            let netns = format!("netns = {:?}", space.path());
            text.endpoints += &endpoint(name, &netns, &addresses(inside, v4, v6));
        };
        match number {
            0 => {
                add("busybox-a", &self.busybox_a, v4.busybox_a, v6.busybox_a);
                add("nginx-a", &self.nginx_a, v4.nginx_a, v6.nginx_a);
            }
            1 => {
                add("busybox-b", &self.busybox_b, v4.busybox_b, v6.busybox_b);
                add("nginx-b", &self.nginx_b, v4.nginx_b, v6.nginx_b);
            }
            _ => {}
        }
        text
    }
}

/// Packets of a reason, as `bpf metrics list` counts them.
pub fn counted(node: &Node, reason: &str) -> u64 {
    let listed = node.ciliate(&["bpf", "metrics", "list", "-o", "json"]).json();
    let entries = listed["entries"].as_array().expect("a list").iter();
    let entries = entries.filter(|entry| entry["reason"] == reason);
    entries.map(|entry| entry["packets"].as_u64().expect("a number")).sum()
}

/// Waits until as many packets of a reason are counted; there must not be more.
#[track_caller]
pub fn await_counted(node: &Node, reason: &str, expected: u64) {
    let begin = Instant::now();
    let mut found = counted(node, reason);
    while found < expected && begin.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(20));
        found = counted(node, reason);
    }
    assert_eq!(found, expected, "{reason}");
}
