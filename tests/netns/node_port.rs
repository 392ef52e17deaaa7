//! Services for clients outside: node ports, external and load-balancer addresses, to backends on the node, on another
//! one by route and by tunnel, on the node itself and outside; and what keeps flows apart.
//!
//! The table in `tests/README.md` says whom each backend sees.

mod apart;
mod choice;
mod direct;
mod driver;
mod kept;
mod kinds;
mod shares;
mod talk;
mod told;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::lab::{DUAL, Lab};
use crate::node::{Text, list};
use crate::space::Space;
use talk::{tcp, udp};

const NODE_PORT: u16 = 30_080;
/// Port of all backends.
const PORT: u16 = 8080;
/// Ports of external and of load-balancer addresses.
const WIDE: u16 = 80;

const PAST_THE_STACKS: &str = "host-routing = \"bpf\"\n";

/// What there is of a family.
struct Ends {
    node: &'static str,
    other_node: &'static str,
    router: &'static str,
    external: &'static str,
    load_balancer: &'static str,
    cluster: &'static str,
    client: &'static str,
    here: &'static str,
    there: &'static str,
    outside: &'static str,
}

const ENDS: [Ends; 2] = [
    Ends {
        node: "172.18.0.3",
        other_node: "172.18.0.2",
        router: "10.244.0.26",
        external: "198.51.100.10",
        load_balancer: "198.51.100.11",
        cluster: "10.96.0.10",
        client: "172.18.0.1",
        here: "10.244.0.49",
        there: "10.244.1.124",
        outside: "192.0.2.1",
    },
    Ends {
        node: "fc00:18::3",
        other_node: "fc00:18::2",
        router: "fd00:10:244::1",
        external: "2001:db8:100::10",
        load_balancer: "2001:db8:100::11",
        cluster: "fd00:10:96::10",
        client: "fc00:18::1",
        here: "fd00:10:244::49",
        there: "fd00:10:244:1::124",
        outside: "2001:db8::1",
    },
];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

/// A service of both protocols with every kind of address, and these backends.
fn service(backends: &[SocketAddr], more: &str) -> String {
    let one = |protocol: &str| {
        let addresses = |pick: fn(&Ends) -> &str, port| {
            let all: Vec<String> =
                ENDS.iter().map(|ends| at(pick(ends), port).to_string()).collect();
            list(&all.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let backends: Vec<String> = backends.iter().map(SocketAddr::to_string).collect();
        let backends = list(&backends.iter().map(String::as_str).collect::<Vec<_>>());
        format!(
            "[[service]]\nname = \"web-{protocol}\"\nprotocol = {protocol:?}\nnode-port = {NODE_PORT}\n\
             cluster-ips = {}\nexternal-ips = {}\nload-balancer-ips = {}\nbackends = {backends}\n{more}\n",
            addresses(|ends| ends.cluster, WIDE),
            addresses(|ends| ends.external, WIDE),
            addresses(|ends| ends.load_balancer, WIDE),
        )
    };
    one("TCP") + &one("UDP")
}

/// The lab of a test: both nodes, and the endpoints.
struct Place {
    lab: Lab,
    here: Space,
    there: Space,
    tunnel: bool,
    /// More of node a's `[routing]`.
    routing: &'static str,
}

impl Place {
    fn new(tunnel: bool) -> Option<Self> {
        let lab = Lab::new(DUAL)?;
        lab.outside.sh(
            "ip route add 198.51.100.0/24 via 172.18.0.3; ip route add 10.96.0.0/16 via 172.18.0.3\n\
             ip -6 route add 2001:db8:100::/64 via fc00:18::3; ip -6 route add fd00:10:96::/64 via fc00:18::3",
        );
        lab.baseline();
        let (here, _, there) =
            lab.walk_through_as(|text| if tunnel { text.in_tunnel() } else { text });
        lab.b.apply();
        Some(Self { lab, here, there, tunnel, routing: "" })
    }

    /// Both nodes with more in their `[routing]`, and node b in its `[load-balancing]`.
    fn with(self, routing: &'static str, balancing: &str) -> Self {
        let mut text = Text::node_b(&self.lab);
        text = if self.tunnel { text.in_tunnel() } else { text };
        text.routing += routing;
        let mut text = text.endpoint("server", &self.there, &ENDS.map(|ends| ends.there));
        text.other += &format!("[load-balancing]\n{balancing}\n");
        self.lab.b.write(&text);
        self.lab.b.apply();
        self.lab.note_bpf();
        Self { routing, ..self }
    }

    /// Node a gets these services.
    fn serve(&self, balancing: &str, services: &str) {
        self.write(balancing, services);
        self.lab.a.apply();
        self.lab.note_bpf();
    }

    /// They are in its file.
    fn write(&self, balancing: &str, services: &str) {
        let mut text = Text::node_a(&self.lab);
        text = if self.tunnel { text.in_tunnel() } else { text };
        text.routing += self.routing;
        let mut text = text.endpoint("client", &self.here, &ENDS.map(|ends| ends.here));
        text.other += &format!("[load-balancing]\n{balancing}\n");
        text.endpoints += services;
        self.lab.a.write(&text);
    }

    /// Backends in each place: their address, where they run, and whom they see.
    fn backends(&self, ends: &Ends) -> Vec<(IpAddr, &Space, IpAddr)> {
        let elsewhere = ip(if self.tunnel { ends.router } else { ends.node });
        vec![
            (ip(ends.here), &self.here, ip(ends.client)),
            (ip(ends.there), &self.there, elsewhere),
            (ip(ends.node), &self.lab.a.space, ip(ends.client)),
            (ip(ends.other_node), &self.lab.b.space, ip(ends.node)),
            (ip(ends.outside), &self.lab.outside, ip(ends.node)),
        ]
    }
}

/// Every kind of address that clients outside have, and backends everywhere.
fn everywhere(tunnel: bool, balancing: &str, prepare: fn(&Place) -> Option<OwnedFd>) {
    let Some(place) = Place::new(tunnel) else { return };
    let _wire = prepare(&place);
    for number in 0..place.backends(&ENDS[0]).len() {
        let of_both = ENDS.each_ref().map(|ends| place.backends(ends)[number].0);
        place.serve(balancing, &service(&of_both.map(|ip| SocketAddr::new(ip, PORT)), ""));
        for ends in &ENDS {
            let (backend, space, seen) = place.backends(ends)[number];
            let backend = SocketAddr::new(backend, PORT);
            for frontend in
                [at(ends.node, NODE_PORT), at(ends.external, WIDE), at(ends.load_balancer, WIDE)]
            {
                let what = format!("{frontend} to {backend}");
                assert_eq!(tcp(&place.lab.outside, frontend, space, backend), seen, "TCP {what}");
                assert_eq!(udp(&place.lab.outside, frontend, space, backend), seen, "UDP {what}");
            }
        }
    }
}

#[test]
fn by_route() {
    everywhere(false, "", |_| None);
}

#[test]
fn by_tunnel() {
    everywhere(true, "", |_| None);
}

/// Other nodes and their endpoints are clients outside as well.
#[test]
fn from_another_node() {
    let Some(place) = Place::new(false) else { return };
    let backends = ENDS.each_ref().map(|ends| at(ends.here, PORT));
    place.serve("", &service(&backends, ""));
    for (ends, backend) in ENDS.iter().zip(backends) {
        let frontend = at(ends.node, NODE_PORT);
        assert_eq!(tcp(&place.lab.b.space, frontend, &place.here, backend), ip(ends.other_node));
        assert_eq!(tcp(&place.there, frontend, &place.here, backend), ip(ends.there));
    }
}

/// An endpoint of the node itself; its service is found at its own device.
#[test]
fn from_an_endpoint_of_the_node() {
    let Some(place) = Place::new(true) else { return };
    place.serve("", &service(&ENDS.each_ref().map(|ends| at(ends.there, PORT)), ""));
    for ends in &ENDS {
        for frontend in [at(ends.node, NODE_PORT), at(ends.external, WIDE), at(ends.cluster, WIDE)]
        {
            let backend = at(ends.there, PORT);
            assert_eq!(tcp(&place.here, frontend, &place.there, backend), ip(ends.here));
        }
    }
}

/// Past both stacks, the backend on the other node: from an endpoint by the cluster IP, from outside by the node port.
#[test]
fn by_tunnel_past_the_stacks() {
    let Some(place) = Place::new(true) else { return };
    let place = place.with(PAST_THE_STACKS, "");
    place.serve("", &service(&ENDS.each_ref().map(|ends| at(ends.there, PORT)), ""));
    for ends in &ENDS {
        let backend = at(ends.there, PORT);
        for (client, frontend, seen) in [
            (&place.here, at(ends.cluster, WIDE), ends.here),
            (&place.lab.outside, at(ends.node, NODE_PORT), ends.router),
            (&place.lab.outside, at(ends.external, WIDE), ends.router),
        ] {
            assert_eq!(tcp(client, frontend, &place.there, backend), ip(seen), "TCP {frontend}");
            assert_eq!(udp(client, frontend, &place.there, backend), ip(seen), "UDP {frontend}");
        }
    }
}
