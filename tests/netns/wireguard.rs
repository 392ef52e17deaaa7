//! WireGuard between nodes: what needs a kernel that has it (`CONFIG_WIREGUARD`). As with `geneve`,
//! `.config/nextest.toml` leaves this module out, nextest counts it as skipped, and it is run by name where such a
//! kernel is. Where it is run without one, it fails.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::Signal;

use crate::backends::{Server, Transfer};
use crate::capture::Capture;
use crate::daemon::Daemon;
use crate::fleet::{Fleet, MEMBERS, counted};
use crate::flood::Flood;
use crate::lab::{DUAL, Families, V4, V6};
use crate::node::{Node, Text, assert_equal};
use crate::space::Space;
use crate::traffic::{answers, exchange, ping};

/// Native routing, and a tunnel.
pub const NATIVE: &str =
    "mode = \"native\"\nauto-direct-node-routes = true\nnative-cidrs = [\"10.0.0.0/8\"]\n";
pub const VXLAN: &str = "mode = \"tunnel\"\n";
const PAST_HOST: &str =
    "mode = \"native\"\nauto-direct-node-routes = true\nhost-routing = \"bpf\"\n";
pub const STRICT: &str = "strict = true\n";

/// Whether this kernel has it; the error says why not.
pub fn find_wireguard() -> Result<(), String> {
    let script = "ip link add type wireguard";
    let tried = Command::new("unshare").args(["--net", "sh", "-c", script]).output();
    let tried = tried.expect("run unshare");
    let error = String::from_utf8_lossy(&tried.stderr).into_owned();
    if tried.status.success() { Ok(()) } else { Err(error) }
}

/// Nodes that encrypt.
pub struct Encrypted {
    pub fleet: Fleet,
    routing: &'static str,
    encryption: &'static str,
    nodes: usize,
    keys: Vec<String>,
}

impl Encrypted {
    /// As many nodes, each with a key of its own that the others know.
    fn new(
        (inside, underlay): (Families, Families),
        nodes: usize,
        routing: &'static str,
        encryption: &'static str,
    ) -> Option<Self> {
        find_wireguard().expect("a kernel with WireGuard (CONFIG_WIREGUARD)");
        Self::anywhere((inside, underlay), nodes, routing, encryption)
    }

    /// The same where the kernel may not have it.
    pub fn anywhere(
        (inside, underlay): (Families, Families),
        nodes: usize,
        routing: &'static str,
        encryption: &'static str,
    ) -> Option<Self> {
        let fleet = Fleet::new(inside, underlay)?;
        let mut encrypted = Self { fleet, routing, encryption, nodes, keys: Vec::new() };
        encrypted.write();
        encrypted.keys = encrypted.nodes().map(rotate).collect();
        encrypted.write();
        Some(encrypted)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.fleet.lab.nodes().take(self.nodes)
    }

    fn text(&self, number: usize) -> Text {
        let mut text = self.fleet.text(number, self.routing);
        text.other = format!("[encryption]\nmode = \"wireguard\"\n{}\n", self.encryption);
        let known = MEMBERS.iter().zip(&self.keys).filter(|(_, key)| !key.is_empty());
        for (member, key) in known {
            let name = format!("name = {:?}\naddresses", member.name);
            let with_key =
                name.replace("\naddresses", &format!("\npublic-key = {key:?}\naddresses"));
            text.peers = text.peers.replace(&name, &with_key);
        }
        text
    }

    fn write(&self) {
        for (number, node) in self.nodes().enumerate() {
            node.write(&self.text(number));
        }
    }

    fn apply(&self) {
        self.nodes().for_each(|node| drop(node.apply()));
    }
}

/// Makes a key; what is printed is the public one.
fn rotate(node: &Node) -> String {
    let ran = node.ciliate(&["wireguard", "rotate"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let key = ran.stdout.trim().to_string();
    let shown = node.ciliate(&["wireguard", "pubkey"]);
    assert_eq!((shown.code, shown.stdout.trim()), (0, key.as_str()), "{shown:?}");
    key
}

fn lines(space: &Space, command: &str) -> Vec<String> {
    space.sh(command).lines().map(|line| line.trim_end().to_string()).collect()
}

#[test]
fn the_walk_through() {
    let Some(encrypted) = Encrypted::new((V4, V4), 3, NATIVE, STRICT) else { return };
    encrypted.apply();
    let fleet = &encrypted.fleet;
    let node = &fleet.lab.a.space;
    let device = node.sh("ip -d -o link show cilium_wg0");
    for part in
        ["<POINTOPOINT,NOARP,UP,LOWER_UP> mtu 1420", "link/none", "alias ciliate encryption"]
    {
        assert!(device.contains(part), "no `{part}` in {device}");
    }
    let rules = [
        "0:\tfrom all lookup local",
        "1:\tfrom all fwmark 0xe00/0xf00 lookup 201 proto 203",
        "32766:\tfrom all lookup main",
        "32767:\tfrom all lookup default",
    ];
    assert_eq!(lines(node, "ip rule"), rules);
    assert_eq!(lines(node, "ip route show table 201"), ["default dev cilium_wg0 proto 203"]);
    assert_eq!(
        lines(&fleet.busybox_a, "ip route")[0],
        "default via 10.42.0.26 dev eth0 proto 203 mtu 1420"
    );
    // The TTL of the walk-through.
    assert_eq!(ping(&fleet.busybox_a, "10.42.1.64"), 60);
    assert_eq!(exchange(&fleet.busybox_a, &fleet.nginx_b, "10.42.1.145").to_string(), "10.42.0.97");
    let key = fs::read_to_string(format!("{}-state/wireguard.key", fleet.lab.a.runtime.display()));
    let key = key.expect("read the key");
    for command in [&["plan"][..], &["status", "-o", "json"], &["get", "peers"]] {
        assert!(!fleet.lab.a.ciliate(command).all().contains(key.trim()), "{command:?}");
    }
    let shown = node.sh("wg show cilium_wg0");
    let own = &encrypted.keys[0];
    for part in [
        format!(
            "  public key: {own}\n  private key: (hidden)\n  listening port: 51871\n  fwmark: 0x600\n"
        ),
        format!(
            "peer: {}\n  endpoint: 172.16.16.121:51871\n  allowed ips: 10.42.1.0/24\n",
            encrypted.keys[1]
        ),
    ] {
        assert!(shown.contains(&part), "no `{part}` in {shown}");
    }
    let status = fleet.lab.a.ciliate(&["status"]);
    let expected = format!(
        "Encryption:              Wireguard   [Strict, cilium_wg0 (Pubkey: {own}, Port: 51871, Peers: 2)]"
    );
    assert!(status.stdout.contains(&expected), "{status:?}");
    let peers = fleet.lab.a.ciliate(&["get", "peers", "-o", "json"]).json();
    let peer = &peers["peers"][0];
    assert_eq!(peer["public_key"], encrypted.keys[1].as_str());
    assert!(peer["received_bytes"].as_u64() > Some(100_000), "{peer}");
    assert!(peer["last_handshake"].as_str().is_some(), "{peer}");
}

/// Everything between the nodes, on their wire, that is neither WireGuard's nor what finds neighbours.
const PLAIN: &str = "not udp port 51871 and not arp and not icmp6 and not stp";

fn traffic(families: (Families, Families), routing: &'static str, ttl: u8) {
    let Some(encrypted) = Encrypted::new(families, 2, routing, STRICT) else { return };
    encrypted.apply();
    let fleet = &encrypted.fleet;
    let plain = Capture::start(&fleet.lab.wire, "br0", 1, PLAIN);
    let inner = Capture::start(&fleet.lab.wire, "br0", 1, INNER);
    for plan in fleet.plans() {
        assert_eq!(ping(&fleet.busybox_a, plan.busybox_b), ttl);
        let seen = exchange(&fleet.busybox_a, &fleet.nginx_b, plan.nginx_b);
        assert_eq!(seen.to_string(), plan.busybox_a);
        let seen = exchange(&fleet.nginx_b, &fleet.busybox_a, plan.busybox_a);
        assert_eq!(seen.to_string(), plan.nginx_b);
    }
    assert_eq!(inner.lines(), [""; 0], "inner packets on the wire");
    assert_eq!(plain.lines(), [""; 0], "plain packets on the wire");
}

#[test]
fn native_both_over_ipv4_and_ipv6() {
    traffic((DUAL, DUAL), NATIVE, 60);
}

#[test]
fn vxlan_both_over_ipv4() {
    traffic((DUAL, V4), VXLAN, 63);
}

#[test]
fn vxlan_both_over_ipv6() {
    traffic((DUAL, V6), VXLAN, 63);
}

/// What must never be seen on the wire: packets of endpoints, or the tunnel's own.
pub const INNER: &str = "net 10.42.0.0/16 or net fd00:10:42::/48 or udp port 8472";

#[test]
fn past_the_hosts_stack() {
    // One hop less: the sender's stack is passed by.
    traffic((DUAL, DUAL), PAST_HOST, 61);
}

#[test]
fn what_nodes_send_themselves() {
    let Some(encrypted) = Encrypted::new((DUAL, DUAL), 2, NATIVE, "encrypt-nodes = true\n") else {
        return;
    };
    encrypted.apply();
    let fleet = &encrypted.fleet;
    // A node's own packets are as long as the underlay takes: encrypted, they leave in two pieces, and only the first
    // one has ports. What is in plain text has no need of a second.
    let plain = format!("{PLAIN} and not (ip[6:2] & 0x1fff != 0)");
    let plain = Capture::start(&fleet.lab.wire, "br0", 1, &plain);
    for [own, peer, endpoint] in [
        ["172.16.16.120", "172.16.16.121", "10.42.1.64"],
        ["fd00:172:16:16::120", "fd00:172:16:16::121", "fd00:10:42:1::64"],
    ] {
        let (a, b) = (&fleet.lab.a.space, &fleet.lab.b.space);
        assert_eq!(exchange(a, b, peer).to_string(), own);
        assert_eq!(exchange(b, a, own).to_string(), peer);
        assert_eq!(exchange(a, &fleet.busybox_b, endpoint).to_string(), own);
    }
    assert_eq!(plain.lines(), [""; 0], "plain packets on the wire");
}

/// Nothing leaves in plain text: not before the other node can answer a handshake, not without the device or the
/// rule, not for a peer whose key is not known.
fn strict(routing: &'static str) {
    let Some(mut encrypted) = Encrypted::new((DUAL, DUAL), 2, routing, STRICT) else { return };
    let inner = Capture::start(&encrypted.fleet.lab.wire, "br0", 1, INNER);
    let there = ["10.42.1.64", "fd00:10:42:1::64"];
    encrypted.fleet.lab.a.apply();
    silent(&encrypted, &there, "before a handshake");
    encrypted.fleet.lab.b.apply();
    // WireGuard does not ask again within five seconds: the other node does.
    reaches(&encrypted.fleet.busybox_b, &["10.42.0.97", "fd00:10:42::97"]);
    reaches(&encrypted.fleet.busybox_a, &there);
    // The device goes, and nothing puts it back.
    encrypted.fleet.lab.a.space.sh("ip link del cilium_wg0");
    silent(&encrypted, &there, "without the device");
    encrypted.fleet.lab.a.apply();
    reaches(&encrypted.fleet.busybox_a, &there);
    // The rule goes: what comes to the underlay by that is encrypted there.
    encrypted.fleet.lab.a.space.sh("ip rule del priority 1; ip -6 rule del priority 1");
    reaches(&encrypted.fleet.busybox_a, &there);
    // The peer's key is not known.
    encrypted.keys[1].clear();
    encrypted.write();
    let node = &encrypted.fleet.lab.a;
    node.apply();
    let before = counted(node, "Traffic is unencrypted");
    silent(&encrypted, &there, "without a key");
    assert!(counted(node, "Traffic is unencrypted") >= before + 2, "drops have their reason");
    assert_eq!(inner.lines(), [""; 0], "inner packets on the wire");
}

#[track_caller]
pub fn silent(encrypted: &Encrypted, addresses: &[&str], when: &str) {
    for address in addresses {
        assert!(!answers(&encrypted.fleet.busybox_a, address), "{address} {when}");
    }
}

#[test]
fn strict_native() {
    strict(NATIVE);
}

#[test]
fn strict_in_the_tunnel() {
    strict(VXLAN);
}

#[test]
fn strict_past_the_hosts_stack() {
    strict(PAST_HOST);
}

#[track_caller]
fn reaches(from: &Space, addresses: &[&str]) {
    for address in addresses {
        ping(from, address);
    }
}

/// Adds or removes a peer, or gives it another key, and waits until the daemon has done it.
fn change(encrypted: &Encrypted, daemon: &Daemon<'_>, edit: impl Fn(String) -> String) {
    let node = &encrypted.fleet.lab.a;
    let text = fs::read_to_string(&node.config).expect("read the configuration");
    let generation = daemon.status().map_or(0, |status| status.generation);
    fs::write(&node.config, edit(text)).expect("write the configuration");
    daemon.signal(Signal::HUP);
    daemon.wait("to reload", |status| status.converged && status.generation > generation);
}

#[test]
fn changes_of_others_lose_nothing() {
    let Some(encrypted) = Encrypted::new((DUAL, DUAL), 2, NATIVE, STRICT) else { return };
    encrypted.apply();
    let fleet = &encrypted.fleet;
    let inner = Capture::start(&fleet.lab.wire, "br0", 1, INNER);
    ping(&fleet.busybox_a, "10.42.1.64");
    ping(&fleet.nginx_a, "fd00:10:42:1::145");
    let flood = Flood::slow((&fleet.busybox_a, "10.42.0.97"), (&fleet.busybox_b, "10.42.1.64"));
    let flood6 =
        Flood::slow((&fleet.nginx_a, "fd00:10:42::182"), (&fleet.nginx_b, "fd00:10:42:1::145"));
    let _server = Server::start(&fleet.busybox_b, "10.42.1.64:9000", "there");
    let transfer = Transfer::start(&fleet.busybox_a, "10.42.1.64:9000", "there");
    let last_seen = Cell::new(0);
    let pause = || {
        flood.run_on(25);
        flood6.run_on(1);
        transfer.goes_on("through a change");
        // WireGuard sends what waited for a new session: that none was needed, its counters tell.
        let seen = received(&fleet.lab.a.space, &encrypted.keys[1]);
        assert!(seen > last_seen.replace(seen), "the session is another one: {seen}");
    };
    pause();
    let node = &fleet.lab.a;
    let daemon = converged(node);
    pause();
    let peer = |key: &str, cidrs: &[&str]| {
        let key = format!("public-key = {key:?}\n");
        crate::node::peer("more", &["172.16.16.99"], cidrs, &key)
    };
    let [key, other] = [
        "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
        "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
    ];
    let (one, two) = (["10.77.1.0/24"], ["10.77.1.0/24", "10.77.2.0/24"]);
    let steps = [peer(key, &two), peer(key, &one), peer(other, &one), String::new()];
    let mut last = String::new();
    for step in steps {
        change(&encrypted, &daemon, |text| text.replace(&last, "") + &step);
        last = step;
        pause();
    }
    // A prefix of the peer that is talked to comes and goes.
    let more = |text: String| {
        text.replace("cidrs = [\"10.42.1.0/24\"", "cidrs = [\"10.78.0.0/24\", \"10.42.1.0/24\"")
    };
    change(&encrypted, &daemon, more);
    pause();
    change(&encrypted, &daemon, |text| text.replace("\"10.78.0.0/24\", ", ""));
    pause();
    daemon.kill();
    pause();
    let daemon = converged(node);
    pause();
    daemon.stop();
    pause();
    flood.finish();
    flood6.finish();
    assert!(transfer.finish() > 0);
    assert_eq!(inner.lines(), [""; 0], "inner packets on the wire");
}

/// Bytes that WireGuard has received from a peer since that was made.
fn received(space: &Space, key: &str) -> u64 {
    let shown = space.sh("wg show cilium_wg0 transfer");
    let line = shown.lines().find_map(|line| line.strip_prefix(key));
    let bytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    bytes.unwrap_or_else(|| panic!("no {key} in {shown}"))
}

fn converged(node: &Node) -> Daemon<'_> {
    let daemon = Daemon::start(node);
    daemon.wait("to converge", |status| status.converged);
    daemon
}

/// Connections, through a change of both nodes' keys.
#[test]
fn a_new_key_keeps_connections() {
    let Some(mut encrypted) = Encrypted::new((DUAL, DUAL), 2, NATIVE, STRICT) else { return };
    encrypted.apply();
    let inner = Capture::start(&encrypted.fleet.lab.wire, "br0", 1, INNER);
    let addresses = ["10.42.1.64:9000", "[fd00:10:42:1::64]:9000"];
    let _servers = addresses.map(|at| Server::start(&encrypted.fleet.busybox_b, at, "there"));
    let transfers = addresses.map(|at| Transfer::start(&encrypted.fleet.busybox_a, at, "there"));
    let go_on = |when: &str| transfers.iter().for_each(|transfer| transfer.goes_on(when));
    go_on("before");
    for number in 0..2 {
        let node = encrypted.nodes().nth(number).expect("a node");
        let before = encrypted.keys[number].clone();
        let key = rotate(node);
        assert_ne!(key, before);
        encrypted.keys[number] = key;
        // The other one is told, and no session but this one is touched.
        encrypted.write();
        encrypted.nodes().nth(1 - number).expect("a node").apply();
        go_on("after a new key");
        encrypted.nodes().nth(number).expect("a node").assert_no_changes();
    }
    for transfer in transfers {
        assert!(transfer.finish() > 0);
    }
    assert_eq!(inner.lines(), [""; 0], "inner packets on the wire");
}

#[test]
fn what_others_change_is_repaired() {
    let Some(encrypted) = Encrypted::new((V4, V4), 3, NATIVE, STRICT) else { return };
    encrypted.apply();
    let node = &encrypted.fleet.lab.a;
    let golden = node.view().observed;
    let [_, b, c] = encrypted.keys.as_slice() else { panic!("three keys") };
    let psk = "echo AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE= | wg set cilium_wg0 peer";
    let another = "echo dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo= | wg set cilium_wg0 private-key /dev/stdin";
    for damage in [
        format!("wg set cilium_wg0 peer {b} remove"),
        format!("wg set cilium_wg0 peer {b} allowed-ips 10.42.1.0/24,10.99.0.0/16"),
        format!("wg set cilium_wg0 peer {c} allowed-ips 10.42.1.0/24"),
        format!("wg set cilium_wg0 peer {b} endpoint 192.0.2.9:7 persistent-keepalive 9"),
        format!("{psk} {b} preshared-key /dev/stdin"),
        "wg set cilium_wg0 peer hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo= allowed-ips 10.42.1.0/24".into(),
        "wg set cilium_wg0 fwmark 0xe00".into(),
        "wg set cilium_wg0 listen-port 7777".into(),
        another.into(),
        "ip link set cilium_wg0 mtu 1300 down".into(),
        "ip rule del priority 1".into(),
        "ip route del default table 201".into(),
    ] {
        node.space.sh(&damage);
        assert_ne!(node.view().observed, golden, "{damage} changes nothing");
        node.apply();
        assert_equal(&golden, &node.view().observed, "before", &damage);
        ping(&encrypted.fleet.busybox_a, "10.42.1.64");
    }
}

#[test]
fn keys_that_cannot_serve_are_named() {
    let Some(mut encrypted) = Encrypted::new((V4, V4), 2, NATIVE, STRICT) else { return };
    encrypted.apply();
    let path = format!("{}-state/wireguard.key", encrypted.fleet.lab.a.runtime.display());
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("chmod");
    let node = &encrypted.fleet.lab.a;
    let plan = node.ciliate(&["plan"]);
    assert!(
        plan.all().contains("others than its owner may read this private key (mode 0640)"),
        "{plan:?}"
    );
    let apply = node.ciliate(&["apply"]);
    assert_eq!(apply.code, 1, "{apply:?}");
    // What is in force stays.
    ping(&encrypted.fleet.busybox_a, "10.42.1.64");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
    node.apply();
    // The peer is said to have this node's key.
    encrypted.keys[1] = encrypted.keys[0].clone();
    encrypted.write();
    let plan = encrypted.fleet.lab.a.ciliate(&["plan"]);
    assert!(plan.all().contains("peer node-b: its public-key is that of this node"), "{plan:?}");
    // Another node's key is a wrong one: nothing gets through, and nothing leaks.
    encrypted.keys[1] = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".into();
    encrypted.write();
    encrypted.fleet.lab.a.apply();
    let inner = Capture::start(&encrypted.fleet.lab.wire, "br0", 1, INNER);
    assert!(!answers(&encrypted.fleet.busybox_a, "10.42.1.64"));
    assert_eq!(inner.lines(), [""; 0], "inner packets on the wire");
}

#[test]
fn what_is_too_long_is_told() {
    for (routing, mtu) in [(NATIVE, 1420), (VXLAN, 1370)] {
        let Some(encrypted) = Encrypted::new((DUAL, DUAL), 2, routing, STRICT) else { return };
        encrypted.apply();
        let (a, b) = (&encrypted.fleet.busybox_a, &encrypted.fleet.busybox_b);
        for (there, header, router) in
            [("10.42.1.64", 28, "10.42.0.26"), ("fd00:10:42:1::64", 48, "fd00:10:42::26")]
        {
            a.sh(&format!("ping -n -c 1 -W 5 -M do -s {} {there}", mtu - header));
            // By a route that knows nothing of it.
            a.sh(&format!("ip route add {there} via {router} dev eth0 mtu 1500"));
            let told =
                a.sh(&format!("! ping -n -c 1 -W 2 -M do -s {} {there} 2>&1", mtu + 1 - header));
            let expected = [format!("mtu = {mtu}"), format!("mtu={mtu}")];
            assert!(expected.iter().any(|text| told.contains(text)), "{told}");
            a.sh(&format!("ip route del {there} via {router}"));
        }
        let syn = Capture::start(b, "eth0", 1, "tcp[tcpflags] & tcp-syn != 0");
        exchange(a, b, "10.42.1.64");
        let (lines, mss) = (syn.lines(), format!("mss {}", mtu - 40));
        assert!(lines[0].contains(&mss), "{mss}: {lines:?}");
    }
}
