//! Conntrack with packets: flows as they are listed on both nodes, kept through changes of size and through
//! kills, and collected only when they are over.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::flood::Flood;
use crate::lab::{DUAL, Lab, V4};
use crate::node::{Node, Text};
use crate::space::Space;
use crate::traffic;

const PATIENCE: Duration = Duration::from_secs(10);

/// The flows that a node lists.
fn listed(node: &Node) -> Vec<Value> {
    let ran = node.ciliate(&["bpf", "ct", "list", "-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.json()["entries"].as_array().expect("entries").clone()
}

/// The flow with these properties; there has to be exactly one.
#[track_caller]
fn find(node: &Node, properties: &Value) -> Value {
    let all = listed(node);
    let wanted = properties.as_object().expect("an object");
    let fits = |flow: &&Value| wanted.iter().all(|(key, value)| flow[key] == *value);
    let found: Vec<&Value> = all.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{properties} on node {}: {found:#?}\nof {all:#?}", node.name);
    found[0].clone()
}

/// A TCP connection whose ends say one word after the other.
struct Talk {
    client: TcpStream,
    server: TcpStream,
}

impl Talk {
    #[track_caller]
    fn begin(from: &Space, to: &Space, address: &str) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        let listener = to.run(|| TcpListener::bind((address, 0))).expect("listen");
        let target = listener.local_addr().expect("where we listen");
        let client = from.run(|| TcpStream::connect_timeout(&target, PATIENCE)).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        for end in [&client, &server] {
            end.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        }
        let mut talk = Self { client, server };
        talk.words(3);
        talk
    }

    /// Words both ways.
    #[track_caller]
    fn words(&mut self, count: usize) {
        for _ in 0..count {
            for turn in [true, false] {
                let (mut from, mut to) = (&self.client, &self.server);
                if !turn {
                    std::mem::swap(&mut from, &mut to);
                }
                from.write_all(b"word").expect("send");
                let mut word = [0; 4];
                to.read_exact(&mut word).expect("receive");
                assert_eq!(&word, b"word");
            }
        }
    }

    fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.client.local_addr().expect("an address"), self.server.local_addr().expect("one"))
    }

    /// What tells its entry from others, on the node of its client (`out`) or of its server (`in`).
    fn entry(&self, direction: &str) -> Value {
        let (client, server) = self.ends();
        json!({
            "protocol": "TCP",
            "direction": direction,
            "source": client.ip(),
            "source_port": client.port(),
            "destination": server.ip(),
            "destination_port": server.port(),
            "related": false,
        })
    }
}

fn identity(node: &Node, endpoint: &str) -> Value {
    let json = node.ciliate(&["get", "endpoints", "-o", "json"]).json();
    let all = json["endpoints"].as_array().expect("endpoints").clone();
    let found = all.iter().find(|e| e["name"] == endpoint).expect("the endpoint");
    found["identity"].clone()
}

#[test]
fn flows_are_listed_on_both_nodes() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, _, server) = lab.walk_through();
    lab.a.apply();
    lab.b.apply();
    let client_is = identity(&lab.a, "client");
    for (address, world) in [("10.244.1.124", 9), ("fd00:10:244:1::124", 10)] {
        // Without a tunnel the other node doesn't know who it is.
        let who = |direction| if direction == "out" { client_is.clone() } else { json!(world) };
        let talk = Talk::begin(&client, &server, address);
        for (node, direction) in [(&lab.a, "out"), (&lab.b, "in")] {
            let flow = find(node, &talk.entry(direction));
            assert_eq!(flow["source_identity"], who(direction), "{flow}");
            assert_eq!(flow["flag_names"], json!(["SeenNonSyn"]), "{flow}");
            // SYN and ACK, and data, both ways.
            assert_eq!(
                (&flow["tx_flags_seen"], &flow["rx_flags_seen"]),
                (&json!(0x1a), &json!(0x1a))
            );
            let remaining = flow["remaining_s"].as_i64().expect("a number");
            assert!((7000..=8001).contains(&remaining), "{flow}");
            let (source, destination) = (&flow["source"], &flow["destination"]);
            let icmp = if address.contains(':') { "ICMPv6" } else { "ICMP" };
            find(
                node,
                &json!({
                    "protocol": icmp, "related": true, "source": source, "destination": destination,
                    "direction": direction,
                }),
            );
        }
        let ends = talk.entry("out");
        drop(talk);
        let closing =
            || find(&lab.a, &ends)["flag_names"] == json!(["RxClosing", "TxClosing", "SeenNonSyn"]);
        assert!(crate::daemon::wait_until(PATIENCE, closing), "{}", find(&lab.a, &ends));
        assert!(find(&lab.a, &ends)["remaining_s"].as_i64().is_some_and(|left| left <= 10));

        traffic::udp(&client, &server, address);
        let family = if address.contains(':') { 6 } else { 4 };
        for (node, direction) in [(&lab.a, "out"), (&lab.b, "in")] {
            let flow = find(
                node,
                &json!({
                    "protocol": "UDP", "direction": direction, "destination": address,
                    "map": format!("cilium_ct_any{family}_global"),
                }),
            );
            assert!(flow["remaining_s"].as_i64().is_some_and(|s| s <= 60), "{flow}");
        }
        traffic::ping(&client, address);
        let icmp = if family == 6 { "ICMPv6" } else { "ICMP" };
        for (node, direction) in [(&lab.a, "out"), (&lab.b, "in")] {
            let flow = find(
                node,
                &json!({
                    "protocol": icmp, "direction": direction, "destination": address, "related": false,
                }),
            );
            assert_eq!(flow["source_identity"], who(direction), "{flow}");
        }
    }
    let text = lab.a.ciliate(&["bpf", "ct", "list"]).stdout;
    assert!(text.contains("UDP OUT [fd00:10:244::49]:"), "{text}");
}

fn set_sizes(lab: &Lab, tcp: u32, any: u32) {
    for (node, mut text) in [(&lab.a, Text::node_a(lab)), (&lab.b, Text::node_b(lab))] {
        text.other = format!("[conntrack]\ntcp-max-entries = {tcp}\nany-max-entries = {any}\n");
        let old = std::fs::read_to_string(&node.config).unwrap_or_default();
        // What `walk_through` wrote stays.
        let endpoints = old.find("[[endpoint]]").map_or("", |at| &old[at..]);
        text.endpoints = endpoints.to_string();
        node.write(&text);
    }
}

/// Connections go on, and with the entries they had, through changes of size up and down, by the daemon and
/// by commands that are killed.
#[test]
fn connections_keep_their_entries_when_sizes_change() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, client2, server) = lab.walk_through();
    set_sizes(&lab, 65536, 65536);
    lab.a.apply();
    lab.b.apply();
    let mut talks = [
        Talk::begin(&client, &server, "10.244.1.124"),
        Talk::begin(&client2, &server, "fd00:10:244:1::124"),
    ];
    let local = Flood::start((&client, "10.244.0.49"), (&client2, "10.244.0.50"));
    let remote = Flood::start((&client2, "fd00:10:244::50"), (&server, "fd00:10:244:1::124"));
    let before: Vec<[Value; 2]> = (talks.iter())
        .map(|talk| [find(&lab.a, &talk.entry("out")), find(&lab.b, &talk.entry("in"))])
        .collect();
    let check = |talks: &mut [Talk; 2], what: &str| {
        for (talk, before) in talks.iter_mut().zip(&before) {
            let now = [find(&lab.a, &talk.entry("out")), find(&lab.b, &talk.entry("in"))];
            for (before, now) in before.iter().zip(&now) {
                // Every packet after the handshake would set only the flags that it has.
                for field in ["flags", "tx_flags_seen", "rx_flags_seen", "source_identity"] {
                    assert_eq!(
                        now[field], before[field],
                        "{field}, {what}: {now:#} after {before:#}"
                    );
                }
                let (then, now) = (before["expires"].as_u64(), now["expires"].as_u64());
                assert!(now >= then, "{what}: {now:?} after {then:?}");
            }
            talk.words(5);
        }
    };
    let daemon = Daemon::start(&lab.a);
    for (tcp, any) in [(100_000, 80_000), (1024, 1024), (65536, 1024), (20_000, 30_000)] {
        set_sizes(&lab, tcp, any);
        let generation = daemon.status().map_or(0, |status| status.generation);
        daemon.signal(Signal::HUP);
        let done = |s: &ciliate::daemon::control::Status| s.converged && s.generation > generation;
        daemon.wait("to change the sizes", done);
        lab.note_bpf();
        // Looked at before the next packet of the connection.
        check(&mut talks, &format!("{tcp} and {any} by the daemon"));
        local.run_on(200);
    }
    daemon.stop();
    for kill in 0..10 {
        set_sizes(&lab, 30_000 + kill, 31_000 + kill);
        let mut child = lab
            .a
            .command(&["apply"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run ciliate");
        thread::sleep(Duration::from_millis(25) * kill);
        child.kill().expect("kill it");
        child.wait().expect("wait for it");
        lab.note_bpf();
        talks.iter_mut().for_each(|talk| talk.words(5));
        assert_eq!(lab.a.ciliate(&["apply"]).code, 0);
        lab.a.assert_no_changes();
        lab.note_bpf();
        check(&mut talks, &format!("kill {kill}"));
    }
    local.finish();
    remote.finish();
}

/// What programs write to the old map between the copy and the swap is there afterwards.
#[test]
fn flows_of_the_moment_of_a_change_are_kept() {
    for attach in ["tcx", "clsact"] {
        let Some(lab) = Lab::new(V4) else { return };
        let (client, _, server) = lab.walk_through();
        let text = std::fs::read_to_string(&lab.a.config).expect("read the configuration");
        let of_size = |size: u32| {
            let sizes =
                format!("[conntrack]\ntcp-max-entries = {size}\nany-max-entries = {size}\n");
            let text = format!("{text}\n[datapath]\nattach-mode = {attach:?}\n{sizes}");
            std::fs::write(&lab.a.config, text).expect("write the configuration");
        };
        of_size(4096);
        lab.a.apply();
        lab.b.apply();
        let mut old = Talk::begin(&client, &server, "10.244.1.124");
        let closed = Talk::begin(&client, &server, "10.244.1.124");
        // Up to where the maps are there and nothing uses them yet; then up to where some programs do.
        of_size(8192);
        let mut plan = lab.a.view().plan;
        let links = plan.ops.iter().filter(|op| op.kind() == "bpf-link").count();
        assert!(links > 2, "{:?}", plan.ops);
        let first_link = plan.ops.iter().position(|op| op.kind() == "bpf-link").expect("a link");
        let rest = plan.ops.split_off(first_link);
        lab.a.run_ops(&plan);
        lab.note_bpf();
        let mut new = Talk::begin(&client, &server, "10.244.1.124");
        old.words(3);
        let ends = closed.entry("out");
        drop(closed);
        let missing = listed(&lab.a).iter().all(|flow| flow["source_port"] != new.ends().0.port());
        assert!(missing, "programs use the new map already");
        plan.ops = rest;
        plan.ops.retain(|op| op.kind() == "bpf-link");
        plan.ops.truncate(links / 2);
        lab.a.run_ops(&plan);
        let mut newest = Talk::begin(&client, &server, "10.244.1.124");
        old.words(3);
        new.words(3);
        assert_eq!(lab.a.ciliate(&["apply"]).code, 0);
        lab.a.assert_no_changes();
        for talk in [&mut old, &mut new, &mut newest] {
            let flow = find(&lab.a, &talk.entry("out"));
            assert_eq!(flow["flag_names"], json!(["SeenNonSyn"]), "{attach}: {flow}");
            talk.words(3);
        }
        let flow = find(&lab.a, &ends);
        assert_eq!(
            flow["flag_names"],
            json!(["RxClosing", "TxClosing", "SeenNonSyn"]),
            "{attach}: {flow}"
        );
        lab.note_bpf();
    }
}

/// The collector runs all the time while new flows come: none of them is removed, nor is one that has gone on
/// for longer.
#[test]
fn the_collector_removes_no_flow_of_a_flood() {
    const PORTS: std::ops::Range<u16> = 20_000..23_000;
    let Some(lab) = Lab::new(V4) else { return };
    let (client, _, server) = lab.walk_through();
    lab.a.apply();
    lab.b.apply();
    let mut talk = Talk::begin(&client, &server, "10.244.1.124");
    let daemon = Daemon::start_arguments(&lab.a, &["--conntrack-gc-interval", "1"]);
    let begin = daemon.wait("to collect", |status| status.conntrack_gc.runs > 0).conntrack_gc;
    for port in PORTS {
        let socket = client.run(|| UdpSocket::bind(("10.244.0.49", port))).expect("bind");
        // Nobody listens: errors come back, which are related.
        socket.send_to(b"new", "10.244.1.124:9").expect("send");
        if port % 100 == 0 {
            talk.words(1);
        }
    }
    let runs = begin.runs + 3;
    let gc = daemon.wait("to collect", |status| status.conntrack_gc.runs > runs).conntrack_gc;
    let now: BTreeSet<u64> = (listed(&lab.a).iter())
        .filter(|flow| flow["protocol"] == "UDP" && flow["direction"] == "out")
        .filter_map(|flow| flow["source_port"].as_u64())
        .collect();
    let lost: Vec<u16> = PORTS.filter(|port| !now.contains(&u64::from(*port))).collect();
    assert!(lost.is_empty(), "{} flows were removed; {gc:?}", lost.len());
    find(&lab.a, &talk.entry("out"));
    talk.words(1);
}
