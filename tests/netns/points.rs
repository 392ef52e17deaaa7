//! What `ciliate monitor` shows of real packets: where they come by, which are dropped, and whose.

use std::net::UdpSocket;

use rustix::process::Signal;
use serde_json::Value;

use crate::lab::{DUAL, Lab, V4, addresses};
use crate::node::{Node, Text};
use crate::reader::Reader;
use crate::space::Space;
use crate::traffic::ping;
use crate::wire::Wire;

/// Traces and drops: what is shown of a packet without those who work on the programs.
const PACKETS: [&str; 4] = ["--type", "trace", "--type", "drop"];

/// What the endpoints of a node are called in its events.
pub struct Names(Vec<[(String, String); 3]>);

impl Names {
    pub fn of(node: &Node) -> Self {
        let listing = node.ciliate(&["get", "endpoints", "-o", "json"]).json();
        let text = |value: &Value| value.to_string().trim_matches('"').to_string();
        let names = listing["endpoints"].as_array().expect("a list").iter().map(|endpoint| {
            let name = text(&endpoint["name"]);
            ["endpoint", "identity", "device"].map(|key| (text(&endpoint[key]), name.clone()))
        });
        Self(names.collect())
    }

    fn name(&self, key: usize, number: &str) -> String {
        let found = self.0.iter().map(|endpoint| &endpoint[key]).find(|(n, _)| n == number);
        found.map_or(number, |(_, name)| name).to_string()
    }

    /// A line with endpoints, identities and devices by the name of their endpoint, without the hash of
    /// the flow, the line in the source and the port that a tunnel chose.
    fn plain(&self, line: &str) -> String {
        let mut before = "";
        let mut words = Vec::new();
        for word in line.split(' ') {
            let comma = if word.ends_with(',') { "," } else { "" };
            let bare = word.trim_end_matches(',');
            words.push(match before {
                "flow" => "#".to_string(),
                "endpoint" => self.name(0, bare) + comma,
                "identity" => {
                    let (from, to) = bare.trim_end_matches(':').split_once("->").expect("two");
                    let colon = if bare.ends_with(':') { ":" } else { "" };
                    format!("{}->{}{colon}", self.name(1, from), self.name(1, to))
                }
                "ifindex" if comma == "," => "#,".to_string(),
                "ifindex" => self.name(2, bare),
                "[tunnel" => {
                    let (address, _) = bare.rsplit_once(':').expect("a port");
                    format!("{address}:#")
                }
                "file" => bare.split(':').next().expect("a file").to_string() + comma,
                _ => word.to_string(),
            });
            before = word;
        }
        words.join(" ")
    }
}

/// Ends a reader. Returns what it showed of packets with that in them.
#[track_caller]
pub fn shown(reader: Reader, names: &Names, what: &str) -> Vec<String> {
    let lines = reader.stop(Signal::TERM);
    lines.iter().filter(|line| line.contains(what)).map(|line| names.plain(line)).collect()
}

#[test]
fn from_endpoint_to_endpoint() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, ..) = lab.walk_through();
    lab.a.apply();
    let names = Names::of(&lab.a);
    for (there, here, none) in
        [("10.244.0.50", "10.244.0.49", "0.0.0.0"), ("fd00:10:244::50", "fd00:10:244::49", "::")]
    {
        let reader = Reader::start(&lab.a, &PACKETS);
        ping(&client, there);
        ping(&client, there);
        let first = |state: &str, reply: &str| {
            [
                format!(
                    "<- endpoint client flow # , identity client->unknown state unknown ifindex 0 \
                     orig-ip {none}: {here} -> {there} icmp EchoRequest"
                ),
                format!(
                    "-> endpoint client2 flow # , identity client->client2 state {state} ifindex \
                     client2 orig-ip {here}: {here} -> {there} icmp EchoRequest"
                ),
                format!(
                    "<- endpoint client2 flow # , identity client2->unknown state unknown ifindex 0 \
                     orig-ip {none}: {there} -> {here} icmp EchoReply"
                ),
                format!(
                    "-> endpoint client flow # , identity client2->client state {reply} ifindex \
                     client orig-ip {there}: {there} -> {here} icmp EchoReply"
                ),
            ]
        };
        // Two flows: each ping has an identifier of its own.
        let expected = [first("new", "reply"), first("new", "reply")].concat();
        assert_eq!(shown(reader, &names, "icmp Echo"), expected);
    }
}

#[test]
fn by_the_stack_to_another_node() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, ..) = lab.walk_through();
    lab.a.apply();
    lab.b.apply();
    let (a, b) = (Names::of(&lab.a), Names::of(&lab.b));
    for (there, here, none, world) in [
        ("10.244.1.124", "10.244.0.49", "0.0.0.0", "world-ipv4"),
        ("fd00:10:244:1::124", "fd00:10:244::49", "::", "world-ipv6"),
    ] {
        let [on_a, on_b] = [&lab.a, &lab.b].map(|node| Reader::start(node, &PACKETS));
        ping(&client, there);
        let out = |name: &str, from: &str, to: &str, state: &str, icmp: &str| {
            [
                format!(
                    "<- endpoint {name} flow # , identity {name}->unknown state unknown ifindex 0 \
                     orig-ip {none}: {from} -> {to} icmp {icmp}"
                ),
                format!(
                    "-> stack flow # , identity {name}->{world} state {state} ifindex 0 \
                     orig-ip {none}: {from} -> {to} icmp {icmp}"
                ),
            ]
        };
        let into = |name: &str, from: &str, to: &str, state: &str, icmp: &str| {
            [
                format!(
                    "<- network flow # , identity {world}->unknown state unknown ifindex eth0 \
                     orig-ip {none}: {from} -> {to} icmp {icmp}"
                ),
                format!(
                    "<- host flow # , identity unknown->unknown state unknown ifindex eth0 \
                     orig-ip {none}: {from} -> {to} icmp {icmp}"
                ),
                format!(
                    "-> endpoint {name} flow # , identity {world}->{name} state {state} ifindex \
                     {name} orig-ip {from}: {from} -> {to} icmp {icmp}"
                ),
            ]
        };
        let mut expected = out("client", here, there, "new", "EchoRequest").to_vec();
        expected.extend(into("client", there, here, "reply", "EchoReply"));
        assert_eq!(shown(on_a, &a, "icmp Echo"), expected);
        let mut expected = into("server", here, there, "new", "EchoRequest").to_vec();
        expected.extend(out("server", there, here, "reply", "EchoReply"));
        assert_eq!(shown(on_b, &b, "icmp Echo"), expected);
    }
}

#[test]
fn past_the_stack_to_another_node() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, ..) = lab.walk_through_as(|mut text| {
        text.routing += "host-routing = \"bpf\"\n";
        text
    });
    lab.a.apply();
    lab.b.apply();
    let names = Names::of(&lab.a);
    for (there, here, none, world) in [
        ("10.244.1.124", "10.244.0.49", "0.0.0.0", "world-ipv4"),
        ("fd00:10:244:1::124", "fd00:10:244::49", "::", "world-ipv6"),
    ] {
        let reader = Reader::start(&lab.a, &PACKETS);
        ping(&client, there);
        let expected = [
            format!(
                "<- endpoint client flow # , identity client->unknown state unknown ifindex 0 \
                 orig-ip {none}: {here} -> {there} icmp EchoRequest"
            ),
            format!(
                "-> network flow # , identity client->{world} state new ifindex eth0 \
                 orig-ip {none}: {here} -> {there} icmp EchoRequest"
            ),
            format!(
                "<- network flow # , identity {world}->unknown state unknown ifindex eth0 \
                 orig-ip {none}: {there} -> {here} icmp EchoReply"
            ),
            format!(
                "-> endpoint client flow # , identity {world}->client state reply ifindex client \
                 orig-ip {there}: {there} -> {here} icmp EchoReply"
            ),
        ];
        assert_eq!(shown(reader, &names, "icmp Echo"), expected);
    }
}

#[test]
fn by_the_tunnel_to_another_node() {
    by_the_tunnel("");
}

#[test]
fn by_the_tunnel_past_both_hosts() {
    by_the_tunnel("host-routing = \"bpf\"\n");
}

/// Whoever puts packets into the tunnel, and takes them out, the same is shown of them.
fn by_the_tunnel(routing: &str) {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, client2, server) = lab.walk_through();
    let tunnel = |mut text: Text| {
        text.routing = format!("mode = \"tunnel\"\n{routing}");
        text
    };
    let [v4, v6] = ["10.244.0.49", "fd00:10:244::49"];
    let node_a = Text::node_a(&lab).endpoint("client", &client, &addresses(DUAL, v4, v6));
    lab.a.write(&tunnel(node_a.endpoint("client2", &client2, &[])));
    let at = addresses(DUAL, "10.244.1.124", "fd00:10:244:1::124");
    lab.b.write(&tunnel(Text::node_b(&lab).endpoint("server", &server, &at)));
    lab.a.apply();
    lab.b.apply();
    let (a, b) = (Names::of(&lab.a), Names::of(&lab.b));
    let identity = |names: &Names, name: &str| {
        let found = names.0.iter().find(|endpoint| endpoint[1].1 == name);
        found.expect("an endpoint")[1].0.clone()
    };
    let from_a = identity(&a, "client");
    let from_b = identity(&b, "server");
    for (there, here, none, world) in [
        ("10.244.1.124", v4, "0.0.0.0", "world-ipv4"),
        ("fd00:10:244:1::124", v6, "::", "world-ipv6"),
    ] {
        let [on_a, on_b] = [&lab.a, &lab.b].map(|node| Reader::start(node, &PACKETS));
        ping(&client, there);
        let out = |name: &str, from: &str, to: &str, state: &str, icmp: &str| {
            [
                format!(
                    "<- endpoint {name} flow # , identity {name}->unknown state unknown ifindex 0 \
                     orig-ip {none}: {from} -> {to} icmp {icmp}"
                ),
                format!(
                    "-> overlay flow # , identity {name}->{world} state {state} ifindex \
                     cilium_vxlan orig-ip {none}: {from} -> {to} icmp {icmp}"
                ),
            ]
        };
        // The identity comes with the packet: it is the other node's endpoint.
        let into = |name: &str, who: &str, from: &str, to: &str, state: &str, icmp: &str| {
            let (node_a, node_b) = ("172.18.0.3", "172.18.0.2");
            let (there, here) = if name == "client" { (node_b, node_a) } else { (node_a, node_b) };
            [
                format!(
                    "<- network flow # , identity remote-node->unknown state unknown ifindex eth0 \
                     orig-ip 0.0.0.0: {from} -> {to} icmp {icmp} \
                     [tunnel {there}:# -> {here}:8472 vxlan]"
                ),
                format!(
                    "<- overlay flow # , identity {who}->unknown state unknown ifindex \
                     cilium_vxlan orig-ip {none}: {from} -> {to} icmp {icmp}"
                ),
                format!(
                    "-> endpoint {name} flow # , identity {who}->{name} state {state} ifindex \
                     {name} orig-ip {from}: {from} -> {to} icmp {icmp}"
                ),
            ]
        };
        let mut expected = out("client", here, there, "new", "EchoRequest").to_vec();
        expected.extend(into("client", &from_b, there, here, "reply", "EchoReply"));
        assert_eq!(shown(on_a, &a, "icmp Echo"), expected);
        let mut expected = into("server", &from_a, here, there, "new", "EchoRequest").to_vec();
        expected.extend(out("server", there, here, "reply", "EchoReply"));
        assert_eq!(shown(on_b, &b, "icmp Echo"), expected);
    }
}

/// Sends a frame out of an endpoint's device.
fn send_frame(from: &Space, ether_type: u16, payload: &[u8]) {
    let frame =
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &ether_type.to_be_bytes(), payload].concat();
    from.run(|| Wire::open("eth0").send(&frame));
}

/// The counters of drops know the places in the lines.
#[track_caller]
fn assert_counted(node: &Node, lines: &[String]) {
    let metrics = node.ciliate(&["bpf", "metrics", "list", "-o", "json"]).json();
    let places: Vec<(String, u64)> = (metrics["entries"].as_array().expect("a list").iter())
        .filter(|entry| entry["reason_code"].as_u64() >= Some(130))
        .map(|entry| {
            let file = entry["file"].as_str().expect("a file").to_string();
            (file, entry["line"].as_u64().expect("a line"))
        })
        .collect();
    for line in lines {
        let place = line.split(" file ").nth(1).and_then(|rest| rest.split(',').next());
        let (file, number) = place.and_then(|place| place.split_once(':')).expect("a place");
        let place = (file.to_string(), number.parse().expect("a number"));
        assert!(places.contains(&place), "{line}: not among {places:?}");
    }
}

#[test]
fn drops_have_a_reason_and_a_place() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, ..) = lab.walk_through();
    lab.a.apply();
    let names = Names::of(&lab.a);
    let reader = Reader::start(&lab.a, &["--type", "drop"]);
    let json = Reader::start(&lab.a, &["--type", "drop", "--from", "client", "--json"]);
    client.sh("ip addr add 10.9.9.9/32 dev eth0; ip addr add fd00:9::9/128 dev eth0 nodad\n\
               ! ping -n -c 1 -W 0.2 -I 10.9.9.9 10.244.0.50 || exit 1\n\
               ! ping -n -c 1 -W 0.2 -I fd00:9::9 fd00:10:244::50 || exit 1\n\
               ! ping -n -c 1 -W 0.2 -t 1 10.244.0.50 || exit 1");
    send_frame(&client, 0x88cc, &[2, 7, 4]);
    send_frame(&client, 0x0800, &[0x45, 0, 0, 60, 0, 1]);
    send_frame(&client, 0x86dd, &[0x60, 0, 0, 0]);
    lab.a.space.sh("! ping -n -c 1 -W 0.2 10.244.0.99 || exit 1\n\
                    ! ping -n -c 1 -W 0.2 fd00:10:244::99 || exit 1");
    let (lines, json) = (reader.stop(Signal::TERM), json.stop(Signal::TERM));

    let macs = "02:00:00:00:00:02 -> 02:00:00:00:00:01";
    let [by_client, by_host] =
        [("bpf_lxc.c", "client"), ("bpf_host.c", "host")].map(|(file, name)| {
            move |reason: &str, packet: &str| {
                format!(
                    "xx drop ({reason}) flow # to endpoint 0, ifindex #, file {file}, , \
                     identity {name}->unknown: {packet}"
                )
            }
        });
    let expected = [
        by_client("Invalid source ip", "10.9.9.9 -> 10.244.0.50 icmp EchoRequest"),
        // The first thing is to ask who has the address.
        by_client("Invalid source ip", "fd00:9::9 -> ff02::1:ff00:1 icmp NeighborSolicitation"),
        by_client("TTL exceeded", "10.244.0.49 -> 10.244.0.50 icmp EchoRequest"),
        by_client("Unsupported L3 protocol", &format!("{macs} 0x88cc")),
        by_client("Invalid packet", &format!("{macs} IPv4")),
        by_client("Invalid packet", &format!("{macs} IPv6")),
        by_host("Stale or unroutable IP", "10.244.0.26 -> 10.244.0.99 icmp EchoRequest"),
        by_host("Stale or unroutable IP", "fd00:10:244::1 -> fd00:10:244::99 icmp EchoRequest"),
    ];
    // Endpoints look for routers and report groups from link-local addresses by themselves; repeated
    // solicitations say no more than the first.
    let own = |line: &&String| !line.contains("fe80::") && !line.contains(" :: -> ");
    let mut found: Vec<String> = Vec::new();
    for line in lines[2..].iter().filter(own).map(|line| names.plain(line)) {
        if !found.contains(&line) {
            found.push(line);
        }
    }
    assert_eq!(found, expected);

    assert_counted(&lab.a, &lines[2..]);
    // And programs that read are told the same.
    let json: Vec<Value> =
        json.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ttl = json.iter().find(|event| event["reason"] == "TTL exceeded").expect("a drop");
    assert_eq!((&ttl["type"], &ttl["File"]), (&"drop".into(), &"bpf_lxc.c".into()));
    assert_eq!(
        ttl["summary"]["l3"],
        serde_json::json!({"src": "10.244.0.49", "dst": "10.244.0.50"})
    );
    assert!(json.iter().all(|event| event["source"] == ttl["source"]), "{json:#?}");
}

#[test]
fn readers_see_what_they_asked_for() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, client2, _) = lab.walk_through();
    lab.a.apply();
    let names = Names::of(&lab.a);
    let start = |arguments: &[&str]| Reader::start(&lab.a, &[&PACKETS[..], arguments].concat());
    let readers = [
        start(&["--from", "client"]),
        start(&["--to", "client"]),
        start(&["--related-to", "client2"]),
        start(&["--from", "client", "--from", "client2", "--to", "client"]),
        start(&["--from", "client", "--to", "client2"]),
        start(&["--from", "0"]),
        Reader::start(&lab.a, &["--type", "drop", "--to", "client2"]),
    ];
    for (from, to) in [(&client, "10.244.0.50"), (&client2, "fd00:10:244::49")] {
        ping(from, to);
    }
    ping(&client, "172.18.0.3");
    // Which way, and where: < from an endpoint, > to an endpoint, = to the stack, ! from the host.
    let short = |line: &String| {
        let arrow = match line.split(' ').collect::<Vec<_>>()[..] {
            ["<-", "endpoint", ..] => "<",
            ["->", "endpoint", ..] => ">",
            ["->", "stack", ..] => "=",
            ["<-", "host", ..] => "!",
            _ => "?",
        };
        let (_, packet) = line.rsplit_once(": ").expect("a packet");
        let ends = packet.replace("10.244.0.", "").replace("fd00:10:244::", "");
        arrow.to_string() + ends.replace("172.18.0.3", "host").split(" icmp").next().expect("ends")
    };
    let seen = readers.map(|reader| {
        shown(reader, &names, "icmp Echo").iter().map(short).collect::<Vec<_>>().join(", ")
    });
    let expected = [
        "<49 -> 50, >50 -> 49, >50 -> 49, <49 -> 50, <49 -> host, =49 -> host, >host -> 49",
        ">50 -> 49, >50 -> 49, >host -> 49",
        ">49 -> 50, <50 -> 49, <50 -> 49, >49 -> 50",
        // More than the programs can be told.
        ">50 -> 49, >50 -> 49, >host -> 49",
        // What is delivered to an endpoint is seen by that endpoint's program, not the sender's.
        "",
        "!host -> 49",
        "",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn everything_about_a_packet() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    lab.a.apply();
    let full = Reader::start(&lab.a, &["-vv", "--from", "client"]);
    let hex = Reader::start(&lab.a, &["-vv", "--hex", "--type", "trace", "--to", "client"]);
    let debug = Reader::start(&lab.a, &["-v", "--numeric"]);
    ping(&client, "10.244.0.50");
    let full = full.stop(Signal::TERM).join("\n");
    let packet = format!("{}\nCPU ", "-".repeat(78));
    for part in [
        packet.as_str(),
        " from-endpoint: 98 bytes (98 captured), state unknown, identity ",
        "\nEthernet\t{Contents=[..14..] Payload=[..84..] SrcMAC=",
        "\nIPv4\t{Contents=[..20..] Payload=[..64..] Version=4 ",
        "\nICMPv4\t{Contents=[..8..] Payload=[..56..] TypeCode=EchoRequest ",
        " DEBUG: Conntrack lookup 1/2: src=10.244.0.49:",
        " DEBUG: CT verdict: New, revnat=0",
        " DEBUG: Attempting local delivery for container id ",
    ] {
        assert!(full.contains(part), "no {part:?} in\n{full}");
    }
    let hex = hex.stop(Signal::TERM).join("\n");
    // Ethernet type and the first bytes of IPv4.
    assert!(hex.contains("08 00 45 00  |") && !hex.contains("Ethernet"), "{hex}");
    let debug = debug.stop(Signal::TERM);
    let trace = debug.iter().find(|line| line.starts_with("<- endpoint")).expect("a trace");
    assert!(trace.contains("->0 state unknown"), "{trace}");
}

/// Datagrams that nobody reads, so that nobody answers them either.
fn flood(from: &Space, to: &Space, address: &str, count: usize) {
    let deaf = to.run(|| UdpSocket::bind((address, 0))).expect("bind");
    let target = deaf.local_addr().expect("where it is");
    let socket = from.run(|| UdpSocket::bind("0.0.0.0:0")).expect("bind");
    for _ in 0..count {
        socket.send_to(b"flood", target).expect("send");
    }
}

#[test]
fn events_that_find_no_room_are_counted() {
    const COUNT: usize = 20_000;
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    lab.a.apply();
    let mut deaf = Reader::deaf(&lab.a, &["--type", "trace"]);
    let other = Reader::start(&lab.a, &["--type", "drop"]);
    flood(&client, &client2, "10.244.0.50", COUNT);
    // The datapath went on all the while.
    ping(&client, "10.244.0.50");
    deaf.read_on();
    deaf.wait("lost events", |line| line.contains(": Lost "));
    let lines = deaf.stop(Signal::TERM);
    let lost = lines.iter().filter_map(|line| {
        let count = line.strip_prefix("CPU ")?.split(": Lost ").nth(1)?.strip_suffix(" events")?;
        count.parse::<usize>().ok()
    });
    let (lost, shown) = (lost.sum::<usize>(), lines.iter().filter(|l| l.contains(" udp")).count());
    // Each packet is seen twice. Beside them there are few.
    let all = lost + shown;
    assert!(lost > 0 && (2 * COUNT..2 * COUNT + 100).contains(&all), "lost {lost}, shown {shown}");
    // Who has room loses nothing.
    let lines = other.stop(Signal::TERM);
    assert!(!lines.iter().any(|line| line.contains("Lost")), "{lines:#?}");
}
