//! What good files become: merged, with defaults, and written out again.

use std::net::IpAddr;
use std::time::Duration;

use ciliate::config::{Document, cat_config, render};
use ciliate::intent::{
    self, Algorithm, AttachMode, Backend, BackendState, FrontendKind, HealthCheck, Intent,
    LoadBalancing, Masquerade, NoBackend, Protocol, Question, RoutingMode, Tunnel, TunnelProtocol,
    Underlay,
};

/// The contract's example, as far as this version goes.
pub const CONTRACT: &str = r#"
[node]
name      = "node-a"
addresses = ["172.18.0.3"]
devices   = ["eth0"]
cidrs     = ["10.244.0.0/24", "fd00:10:244::/80"]
routers   = ["10.244.0.26"]

[routing]
mode            = "native"
tunnel-protocol = "vxlan"
tunnel-port     = 8472
underlay-protocol = "ipv4"
auto-direct-node-routes = true
native-cidrs    = ["10.0.0.0/8"]
mtu             = 1500
table           = 300
rule-priority   = 200

[masquerade]
mode = "nftables"

[datapath]
attach-mode = "clsact"

[conntrack]
tcp-max-entries = 262144
any-max-entries = 1024
nat-max-entries = 4096

[encryption]
mode = "wireguard"
port = 51872
private-key-file = "/etc/ciliate/wireguard.key"
encrypt-nodes = false
strict = true
persistent-keepalive = 25

[load-balancing]
algorithm = "maglev"
mode      = "snat"
socket    = true
replace-kube-proxy = true
node-port-range    = [30000, 32767]
maglev-table-size  = 16381
no-backend         = "drop"

[paths]
runtime = "/run/ciliate-b"
state   = "/var/lib/ciliate-b"
bpf     = "/sys/fs/bpf/ciliate-b"
cgroup  = "/sys/fs/cgroup/b"

[[peer]]
name       = "node-b"
addresses  = ["172.18.0.2"]
cidrs      = ["10.244.1.0/24"]
routers    = ["10.244.1.26"]
mac        = "02:42:ac:12:00:02"
public-key = "IKwg++mojsgZ5mw3McPgcg5Cq9qe/dfNOz3det8U12o="
wireguard-endpoint = "192.0.2.7:51899"
persistent-keepalive = 0

[[peer.endpoint]]
name      = "server"
addresses = ["10.244.1.124"]
labels    = { app = "server" }

[[peer.endpoint]]
name      = "fixed"
addresses = ["10.244.1.9"]
identity  = 300

[[endpoint]]
name      = "default/client:http"
netns     = "/run/netns/client"
ifname    = "eth0"
addresses = ["10.244.0.49"]
labels    = { app = "client", "k8s:io.kubernetes.pod.namespace" = "default" }
identity  = 17248

[[service]]
name     = "default/serversvc:http"
protocol = "TCP"
cluster-ips       = ["10.96.94.95:9494", "[fd00:10:96::95]:9494"]
node-port         = 30495
external-ips      = ["192.0.2.10:80"]
load-balancer-ips = ["203.0.113.5:80"]
host-ports        = ["0.0.0.0:8080"]
session-affinity  = "3h"
external-traffic-policy = "local"
internal-traffic-policy = "cluster"
source-ranges = ["0.0.0.0/0"]
backends = ["10.244.1.124:9494", { address = "10.244.0.9:9494", weight = 50, state = "terminating" }, "[fd00:10:244::9]:9494"]
"#;

pub const MINIMAL: &str =
    "[node]\ncidrs = [\"10.244.0.0/24\", \"fd00:10:244::/80\"]\n\n[routing]\nmode = \"native\"\n";

fn document(files: &[(&str, &str)]) -> Document {
    Document::of_texts(files.iter().map(|(path, text)| (*path, (*text).to_owned())))
}

fn read(files: &[(&str, &str)]) -> Intent {
    let document = document(files);
    intent::read(&document)
        .unwrap_or_else(|problems| panic!("{}", render(document.sources(), &problems, false)))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_contract_is_understood() {
    let intent = read(&[("c.toml", CONTRACT)]);
    assert_eq!(intent.node.name.as_deref(), Some("node-a"));
    assert_eq!(intent.node.routers, [ip("10.244.0.26"), ip("fd00:10:244::1")]);
    assert_eq!(intent.routing.mode, RoutingMode::Native);
    assert!(intent.routing.auto_direct_node_routes);
    assert_eq!((intent.routing.table, intent.routing.rule_priority), (Some(300), 200));
    assert_eq!(intent.routing.mtu_bytes, Some(1500));
    assert_eq!(intent.datapath.attach_mode, AttachMode::Clsact);
    assert_eq!(intent.paths.bpf.to_str(), Some("/sys/fs/bpf/ciliate-b"));
    let peer = &intent.peers["node-b"];
    assert_eq!(peer.mac.unwrap().to_string(), "02:42:ac:12:00:02");
    assert_eq!(peer.routers, [ip("10.244.1.26")]);
    let [server, fixed] = peer.endpoints.as_slice() else { panic!("{:?}", peer.endpoints) };
    assert_eq!((&*server.name, server.addresses.as_slice()), ("server", &[ip("10.244.1.124")][..]));
    assert_eq!(server.identity, intent::identity_of_labels(&server.labels));
    assert_eq!((fixed.identity.number(), fixed.labels.len()), (300, 0));
    let conntrack = intent.conntrack;
    assert_eq!((conntrack.tcp_max_entries, conntrack.any_max_entries), (262_144, 1024));
    assert_eq!(conntrack.nat_max_entries, 4096);
    let endpoint = &intent.endpoints["default/client:http"];
    assert_eq!(endpoint.netns.path(), Some("/run/netns/client"));
    assert_eq!(endpoint.identity.number(), 17_248);
    assert_eq!(endpoint.labels.len(), 2);
}

#[test]
fn services_of_the_contract_are_understood() {
    let intent = read(&[("c.toml", CONTRACT)]);
    let balancing = &intent.load_balancing;
    assert_eq!(balancing.algorithm, Algorithm::Maglev);
    assert_eq!(balancing.no_backend, NoBackend::Drop);
    assert_eq!((balancing.socket, balancing.replace_kube_proxy), (true, true));
    assert_eq!(
        (balancing.node_ports.clone(), balancing.maglev_table_size),
        (30_000..=32_767, 16_381)
    );
    let service = &intent.services["default/serversvc:http"];
    assert_eq!((service.protocol, service.node_port), (Protocol::Tcp, Some(30_495)));
    assert_eq!(service.session_affinity_s, Some(10_800));
    assert!(service.external_local && !service.internal_local);
    assert_eq!(service.source_ranges, ["0.0.0.0/0".parse().unwrap()]);
    let of_kind = |kind| {
        let of_kind = service.frontends.iter().filter(move |frontend| frontend.kind == kind);
        of_kind.map(|frontend| frontend.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of_kind(FrontendKind::ClusterIp), ["10.96.94.95:9494", "[fd00:10:96::95]:9494"]);
    assert_eq!(of_kind(FrontendKind::ExternalIp), ["192.0.2.10:80"]);
    assert_eq!(of_kind(FrontendKind::LoadBalancerIp), ["203.0.113.5:80"]);
    assert_eq!(of_kind(FrontendKind::HostPort), ["0.0.0.0:8080"]);
    let backend =
        |address: &str, weight, state| Backend { address: address.parse().unwrap(), weight, state };
    let backends = [
        backend("10.244.0.9:9494", 50, BackendState::Terminating),
        backend("10.244.1.124:9494", 100, BackendState::Active),
        backend("[fd00:10:244::9]:9494", 100, BackendState::Active),
    ];
    assert_eq!(service.backends, backends);
}

#[test]
fn health_checks_are_understood() {
    let check = |text: &str| {
        let text = format!("{MINIMAL}[[service]]\nname = \"a\"\n{text}");
        let intent = read(&[("c.toml", &text)]);
        intent.services["a"].health_check.as_deref().cloned()
    };
    let milliseconds = Duration::from_millis;
    assert_eq!(check(""), None);
    let (question, port) = (Question::Tcp, None);
    let (interval, timeout) = (milliseconds(10_000), milliseconds(1000));
    let default = HealthCheck { question, port, interval, timeout, rise: 2, fall: 3 };
    assert_eq!(check("[service.health-check]\n"), Some(default.clone()));
    let short = check("health-check = { interval = \"300ms\", rise = 1, fall = 9 }\n");
    let (interval, timeout) = (milliseconds(300), milliseconds(300));
    assert_eq!(short, Some(HealthCheck { interval, timeout, rise: 1, fall: 9, ..default.clone() }));
    let http = "protocol = \"UDP\"\nhealth-check = { type = \"http\", port = 81, path = \"/ok?a=b\", status = [204, 204] }\n";
    let question = Question::Http { path: "/ok?a=b".into(), status: (204, 204) };
    assert_eq!(check(http), Some(HealthCheck { question, port: Some(81), ..default.clone() }));
    let question = Question::Http { path: "/".into(), status: (200, 399) };
    let plain = check("[service.health-check]\ntype = \"http\"\n");
    assert_eq!(plain, Some(HealthCheck { question, ..default }));
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let endpoints = "[[endpoint]]\nname = \"a\"\npid = 1234\n\n[[endpoint]]\nname = \"b\"\nnetns = \"/run/netns/b\"\nlabels = { app = \"client\" }\n";
    let intent = read(&[("a.toml", MINIMAL), ("b.toml", endpoints)]);
    assert_eq!(intent.node.name, None);
    assert!(intent.node.addresses.is_empty() && intent.node.devices.is_empty());
    assert_eq!(intent.node.routers, [ip("10.244.0.1"), ip("fd00:10:244::1")]);
    assert!(!intent.routing.auto_direct_node_routes);
    assert_eq!((intent.routing.table, intent.routing.rule_priority), (None, 110));
    assert_eq!(intent.routing.mtu_bytes, None);
    let conntrack = intent.conntrack;
    assert_eq!((conntrack.tcp_max_entries, conntrack.any_max_entries), (131_072, 65_536));
    assert_eq!(conntrack.nat_max_entries, 131_072);
    assert_eq!(intent.masquerade, Masquerade::Nftables);
    assert_eq!(intent.load_balancing, LoadBalancing::default());
    assert_eq!(intent.datapath.attach_mode, AttachMode::Auto);
    assert_eq!(intent.paths.runtime.to_str(), Some("/run/ciliate"));
    assert_eq!(intent.paths.state.to_str(), Some("/var/lib/ciliate"));
    let (a, b) = (&intent.endpoints["a"], &intent.endpoints["b"]);
    assert_eq!(a.netns.path(), Some("/proc/1234/ns/net"));
    assert_eq!(a.ifname.as_str(), "eth0");
    assert!(a.addresses.is_empty());
    assert_eq!(a.identity, intent::Identity::INIT);
    assert_eq!(b.identity, intent::identity_of_labels(&b.labels));
}

/// The tunnel of a node with a `[routing]` section and addresses.
fn tunnel(routing: &str, addresses: &str) -> Tunnel {
    let cidrs = "cidrs = [\"10.244.0.0/24\"]";
    let text = format!("[node]\n{cidrs}\naddresses = {addresses}\n[routing]\n{routing}\n");
    match read(&[("a.toml", &text)]).routing.mode {
        RoutingMode::Tunnel(tunnel) => tunnel,
        RoutingMode::Native => panic!("{routing} is native"),
    }
}

#[test]
fn tunnels_have_the_documented_defaults() {
    let (vxlan, geneve) = (TunnelProtocol::Vxlan, TunnelProtocol::Geneve);
    let (v4, v6) = ("[\"172.18.0.3\"]", "[\"fc00:18::3\"]");
    let both = "[\"fc00:18::3\", \"172.18.0.3\"]";
    let (ipv4, ipv6) = (Some(Underlay::Ipv4), Some(Underlay::Ipv6));
    for (routing, addresses, protocol, port, underlay) in [
        ("", "[]", vxlan, 8472, None),
        ("mode = \"tunnel\"", v4, vxlan, 8472, ipv4),
        ("tunnel-protocol = \"geneve\"", v6, geneve, 6081, ipv6),
        ("tunnel-protocol = \"geneve\"\ntunnel-port = 8472", both, geneve, 8472, ipv4),
        ("underlay-protocol = \"ipv6\"\ntunnel-port = 4789", both, vxlan, 4789, ipv6),
        ("underlay-protocol = \"ipv6\"", "[]", vxlan, 8472, ipv6),
    ] {
        let expected = Tunnel { protocol, port, notrack: true, underlay };
        assert_eq!(tunnel(routing, addresses), expected, "{routing} {addresses}");
    }
}

#[test]
fn routers_of_peers_are_derived_per_family() {
    let peers = r#"
[[peer]]
name = "several"
addresses = ["172.18.0.2"]
cidrs = ["10.1.0.9/32", "10.2.0.0/24", "10.3.0.0/24", "fd00:2::/64"]

[[peer]]
name = "given"
addresses = ["172.18.0.4"]
cidrs = ["10.4.0.0/24", "10.5.0.0/24", "fd00:4::/64"]
routers = ["10.5.0.7"]

[[peer]]
name = "none"
addresses = ["172.18.0.5"]
cidrs = ["10.6.0.1/32", "fd00:6::1/128", "10.7.0.0/31"]
"#;
    let intent = read(&[("a.toml", MINIMAL), ("b.toml", peers)]);
    assert_eq!(intent.peers["several"].routers, [ip("10.2.0.1"), ip("fd00:2::1")]);
    assert_eq!(intent.peers["given"].routers, [ip("10.5.0.7"), ip("fd00:4::1")]);
    assert_eq!(intent.peers["none"].routers, [] as [IpAddr; 0]);
}

#[test]
fn endpoints_with_equal_labels_share_an_identity() {
    let endpoints = r#"
[[endpoint]]
name = "a"
netns = "/run/netns/x"
labels = { app = "web", tier = "1" }

[[endpoint]]
name = "b"
netns = "/run/netns/y"
labels = { tier = "1", app = "web" }

[[endpoint]]
name = "c"
pid = 77
labels = { app = "other" }
identity = 200
"#;
    let intent = read(&[("a.toml", MINIMAL), ("b.toml", endpoints)]);
    assert_eq!(intent.endpoints["a"].identity, intent.endpoints["b"].identity);
    assert_eq!(intent.endpoints["c"].identity.number(), 200);
}

#[test]
fn later_files_override_keys_and_add_tables() {
    let first = "[routing]\nmode = \"native\"\nmtu = 1500\nnative-cidrs = [\"10.0.0.0/8\", \"172.16.0.0/12\"]\n[node]\ncidrs = [\"10.244.0.0/24\"]\n[[endpoint]]\nname = \"a\"\npid = 5\n";
    let second = "[routing]\nmtu = 9000\nnative-cidrs = [\"192.168.0.0/16\"]\n[[endpoint]]\nname = \"b\"\npid = 6\n[masquerade]\nmode = \"off\"\n";
    let intent = read(&[("1.toml", first), ("2.toml", second)]);
    assert_eq!(intent.routing.mtu_bytes, Some(9000));
    assert_eq!(intent.routing.native_cidrs, ["192.168.0.0/16".parse().unwrap()]);
    assert_eq!(intent.masquerade, Masquerade::Off);
    assert_eq!(intent.endpoints.keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
    let reversed = read(&[("2.toml", second), ("1.toml", first)]);
    assert_eq!(reversed.routing.mtu_bytes, Some(1500));
    assert_eq!(reversed.routing.native_cidrs.len(), 2);
}

#[test]
fn a_complaint_about_an_overridden_key_shows_the_file_that_won() {
    let document = document(&[
        ("1.toml", MINIMAL),
        ("2.toml", "[routing]\nmtu = 1500\n"),
        ("3.toml", "[routing]\nmtu = 7\n"),
    ]);
    let problems = intent::read(&document).unwrap_err();
    assert_eq!(problems.len(), 1);
    let at = document.sources().resolve(problems[0].span).unwrap();
    assert_eq!(
        (at.source.path().to_str(), at.line, at.column, at.text),
        (Some("3.toml"), 2, 7, "7")
    );
}

#[test]
fn equal_files_give_an_equal_intent() {
    let once = read(&[("c.toml", CONTRACT)]);
    assert_eq!(once, read(&[("c.toml", CONTRACT)]));
    assert_eq!(format!("{once:?}"), format!("{:?}", read(&[("c.toml", CONTRACT)])));
}

#[test]
fn cat_config_names_places_and_reads_back_as_the_same_document() {
    let odd = "[[endpoint]]\nname = 'b'\nnetns = '/run/netns/\"b\\c'\n  [endpoint.labels]\n  app = '''x'''\n  \"k8s:a/b\" = \"\\u00e9 \\t\"\n\n[routing]\nmtu = 0x5dc\n";
    let merged = document(&[("c.toml", CONTRACT), ("conf.d/odd.toml", odd)]);
    assert!(merged.problems().is_empty());
    let text = cat_config(&merged);
    assert!(text.contains("# c.toml:2\n[node]\n# c.toml:3\nname = \"node-a\"\n"), "{text}");
    assert!(text.contains("# conf.d/odd.toml:9\nmtu = 0x5dc\n"), "{text}");
    assert!(text.contains("# conf.d/odd.toml:1\n[[endpoint]]\n"), "{text}");
    let again = document(&[("again.toml", &text)]);
    assert!(again.problems().is_empty(), "{}", render(again.sources(), again.problems(), false));
    assert_eq!(again.root(), merged.root());
    assert_eq!(cat_config(&again).replace("again.toml", "x").lines().count(), text.lines().count());
}

#[test]
fn diagnostics_are_found_as_json_too() {
    let bad = document(&[
        ("1.toml", MINIMAL),
        (
            "2.toml",
            "[[peer]]\nname = \"b\"\naddresses = [\"172.18.0.2\"]\ncidrs = [\"10.244.0.0/25\"]\n",
        ),
    ]);
    let problems = intent::read(&bad).unwrap_err();
    let json = serde_json::to_value(ciliate::config::locate(bad.sources(), &problems)).unwrap();
    let expected = serde_json::json!([{
        "file": "2.toml", "line": 4, "column": 10,
        "message": "10.244.0.0/25 of peer `b` overlaps 10.244.0.0/24 of this node",
        "help": "every node has CIDRs of its own: change one of the two",
        "related": [{ "file": "1.toml", "line": 2, "column": 10, "message": "the other one" }],
    }]);
    assert_eq!(json, expected);
}

#[test]
fn colour_is_only_used_when_asked_for() {
    let bad = document(&[("1.toml", "[node]\nx = 1\n")]);
    let problems = intent::read(&bad).unwrap_err();
    assert!(!render(bad.sources(), &problems, false).contains('\x1b'));
    assert!(render(bad.sources(), &problems, true).contains('\x1b'));
}
