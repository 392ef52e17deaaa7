//! Health: the endpoint that answers, the probes, what `status` says of them.

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use ciliate::daemon::health::table::{Path, Side};

use crate::daemon::{Daemon, PATIENCE, wait_until};
use crate::lab::{DUAL, Families, Lab, V4, V6};
use crate::node::{CILIATE, Text, peer};
use crate::space::{Space, sh};
use crate::traffic::ping;

/// The health endpoints' addresses: the last of each CIDR.
const HEALTH_A: [&str; 2] = ["10.244.0.254", "fd00:10:244:0:0:ffff:ffff:ffff"];
const HEALTH_B: [&str; 2] = ["10.244.1.254", "fd00:10:244:1:0:ffff:ffff:ffff"];
const NODE_A: [&str; 2] = ["172.18.0.3", "fc00:18::3"];
const NODE_B: [&str; 2] = ["172.18.0.2", "fc00:18::2"];

fn of_families(families: Families, [v4, v6]: [&'static str; 2]) -> Vec<&'static str> {
    crate::lab::addresses(families, v4, v6)
}

/// Asks for a path on port 4240, and returns the line that answers.
fn get(from: &Space, address: &str, path: &str) -> Result<String, String> {
    let address: IpAddr = address.parse().expect("an address");
    let target = SocketAddr::new(address, 4240);
    let limit = Duration::from_secs(5);
    let connect = || TcpStream::connect_timeout(&target, limit);
    let mut stream = from.run(connect).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(limit)).expect("set a timeout");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[track_caller]
fn assert_hello(from: &Space, address: &str) {
    let answer = get(from, address, "/hello");
    let name = &from.name;
    assert_eq!(answer.as_deref(), Ok("HTTP/1.1 200 OK"), "{address} asked from {name}");
}

#[track_caller]
fn wait_reachable(daemon: &Daemon<'_>) {
    daemon.wait("to reach both nodes", |status| status.health.counts() == (2, 0));
}

/// Converged is before that: the responder follows what a round has made.
#[track_caller]
fn wait_listening(daemon: &Daemon<'_>) {
    daemon.wait("to listen", |status| {
        status.converged && status.controllers.get("health-responder") == Some(&None)
    });
}

/// What a daemon has found at an address.
#[track_caller]
fn found(daemon: &Daemon<'_>, address: &str) -> Path {
    let status = daemon.status().expect("the daemon answers");
    let mut paths = status.health.nodes.into_iter().flat_map(|node| node.paths);
    let address: IpAddr = address.parse().expect("an address");
    paths.find(|path| path.address == address).unwrap_or_else(|| panic!("{address} isn't probed"))
}

/// Waits for what the daemon finds at an address: of ICMP, then of HTTP, `None` where it is answered.
#[track_caller]
fn wait_found(daemon: &Daemon<'_>, address: &str, wanted: [Option<&str>; 2]) {
    let mut last = None;
    let done = wait_until(PATIENCE, || {
        let path = found(daemon, address);
        let errors = [&path.icmp.error, &path.http.error].map(Option::as_deref);
        let same = path.probed.is_some() && errors == wanted;
        last = Some(path);
        same
    });
    assert!(done, "wanted {wanted:?} of {address}, found {last:#?}");
}

#[test]
fn ipv4() {
    nodes_reach_each_other(V4);
}

#[test]
fn ipv6() {
    nodes_reach_each_other(V6);
}

#[test]
fn dual_stack() {
    nodes_reach_each_other(DUAL);
}

fn nodes_reach_each_other(families: Families) {
    let Some(lab) = Lab::new(families) else { return };
    let (client, _, server) = lab.walk_through_with_health();
    lab.a.apply();
    lab.b.apply();
    // The kernel answers pings without the daemon; nobody answers HTTP.
    for address in of_families(families, HEALTH_B) {
        assert_eq!(ping(&lab.a.space, address), 62, "TTL from the other node");
        assert_eq!(ping(&lab.b.space, address), 63, "TTL from its own node");
        assert!(get(&lab.a.space, address, "/hello").is_err());
    }
    let status = lab.a.ciliate(&["status"]);
    for part in ["Health daemon:           not running\n", "Cluster health:          unknown"] {
        assert!(status.stdout.contains(part), "no `{part}` in {status:?}");
    }

    let (a, b) = (Daemon::start(&lab.a), Daemon::start(&lab.b));
    wait_reachable(&a);
    wait_reachable(&b);
    let health = lab.a.health();
    for from in [&lab.a.space, &lab.b.space, &client, &server, &health] {
        // The endpoint has no loopback device to reach itself by.
        let places = [HEALTH_B, NODE_A, NODE_B, HEALTH_A].into_iter();
        for address in places.flat_map(|place| of_families(families, place)) {
            if *from != health || !HEALTH_A.contains(&address) {
                assert_hello(from, address);
            }
        }
    }
    for address in of_families(families, HEALTH_A) {
        assert_eq!(get(&client, address, "/").as_deref(), Ok("HTTP/1.1 404 Not Found"));
    }
    shown(&lab, families);
    let status = a.status().expect("the daemon answers");
    let both = usize::from(families.v4) + usize::from(families.v6);
    for node in &status.health.nodes {
        assert_eq!(node.local, &*node.name == "node-a");
        assert_eq!(node.paths.len(), 2 * both, "{node:#?}");
        let timed = |path: &Path| path.icmp.rtt_us.is_some() && path.http.rtt_us.is_some();
        assert!(node.paths.iter().all(timed), "{node:#?}");
    }
    assert_eq!(status.controllers.values().flatten().count(), 0, "{:?}", status.controllers);
    a.stop();
    b.stop();
}

/// What commands show of it.
fn shown(lab: &Lab, families: Families) {
    let status = lab.a.ciliate(&["status"]);
    for part in [
        "Health daemon:           Ok\n",
        "Controller Status:       7/7 healthy\n",
        "Cluster health:          2/2 reachable   (20",
    ] {
        assert!(status.stdout.contains(part), "no `{part}` in {status:?}");
    }
    assert!(!status.stdout.contains("node-b"), "only what is wrong is listed: {status:?}");
    let verbose = lab.a.ciliate(&["status", "--verbose"]);
    let mut parts =
        vec!["  Name                 IP", "  node-a (localhost)   ", "  node-b               "];
    parts.extend(["reachable   reachable", "      ICMP: OK, RTT=", "      HTTP: OK, RTT="]);
    for part in parts {
        assert!(verbose.stdout.contains(part), "no `{part}` in {verbose:?}");
    }
    let (endpoints, ipcache) =
        (lab.a.ciliate(&["bpf", "endpoint", "list"]), lab.a.ciliate(&["bpf", "ipcache", "list"]));
    let row = |text: &str, address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        let row = text
            .lines()
            .find(|line| line.trim_start_matches('[').starts_with(&address.to_string()));
        row.unwrap_or_else(|| panic!("no {address} in {text}")).to_owned()
    };
    for address in of_families(families, HEALTH_A) {
        assert!(row(&endpoints.stdout, address).contains("sec_id=4 "), "{endpoints:?}");
    }
    for address in [HEALTH_A, HEALTH_B].into_iter().flat_map(|both| of_families(families, both)) {
        assert!(row(&ipcache.stdout, address).contains("identity=4 "), "{ipcache:?}");
    }
    let device = lab.a.space.sh("ip -o link show lxc_health");
    assert!(device.contains("<BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500"), "{device}");
    let inside = lab.a.health().sh("ip -o link show cilium");
    assert!(inside.contains("cilium@if"), "{inside}");
    let listed = lab.a.ciliate(&["get", "endpoints"]);
    let health = listed.stdout.lines().find(|line| line.starts_with("health "));
    assert!(health.is_some_and(|row| row.contains("reserved:health")), "{listed:?}");
}

#[test]
fn through_the_tunnel() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, _, server) = lab.walk_through_as(|text| text.with_health().in_tunnel());
    lab.a.apply();
    lab.b.apply();
    let (a, b) = (Daemon::start(&lab.a), Daemon::start(&lab.b));
    wait_reachable(&a);
    wait_reachable(&b);
    for from in [&lab.a.space, &lab.b.space, &client, &server] {
        [HEALTH_A, HEALTH_B].concat().into_iter().for_each(|address| assert_hello(from, address));
    }
    let ipcache = lab.a.ciliate(&["bpf", "ipcache", "list"]).stdout;
    for address in HEALTH_B {
        let address: IpAddr = address.parse().expect("an address");
        let row = ipcache.lines().find(|line| line.starts_with(&address.to_string()));
        let far =
            |row: &str| row.contains("identity=4 ") && row.contains("tunnelendpoint=172.18.0.2");
        assert!(row.is_some_and(far), "{address} in {ipcache}");
    }
    // What only the tunnel carries is told from what the wire carries.
    lab.b.space.sh("nft 'table inet filter { chain input { type filter hook input priority 0; \
                    iifname eth0 udp dport 8472 drop; }; }'");
    for (node, health) in NODE_B.into_iter().zip(HEALTH_B) {
        wait_found(
            &a,
            health,
            [Some("no answer to 3 requests"), Some("no connection within 5 seconds")],
        );
        wait_found(&a, node, [None, None]);
    }
    lab.b.space.sh("nft delete table inet filter");
    wait_reachable(&a);
    a.stop();
    b.stop();
}

#[test]
fn a_cut_wire_is_told_and_forgotten() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through_with_health();
    let (a, b) = (Daemon::start(&lab.a), Daemon::start(&lab.b));
    wait_reachable(&a);
    lab.wire.sh("ip link set p2 down");
    let status = a.wait("to miss node b", |status| {
        let node = &status.health.nodes[1];
        node.paths.iter().all(|path| path.icmp.error.is_some() && path.http.error.is_some())
    });
    assert_eq!(status.health.counts(), (1, 0), "{:#?}", status.health);
    assert!(status.converged, "that a peer is gone is not for this node to repair");
    let lost = found(&a, NODE_B[0]);
    assert_eq!(lost.icmp.error.as_deref(), Some("no answer to 3 requests"));
    assert!(lost.icmp.last_success.is_some());
    let text = lab.a.ciliate(&["status"]);
    for part in [
        "1/2 reachable",
        "node-b",
        "unreachable",
        "ICMP: no answer to 3 requests; answered last 20",
    ] {
        assert!(text.stdout.contains(part), "no `{part}` in {text:?}");
    }
    lab.wire.sh("ip link set p2 up");
    wait_reachable(&a);
    a.stop();
    b.stop();
}

#[test]
fn a_daemon_that_is_gone_answers_pings_only() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through_with_health();
    let (a, b) = (Daemon::start(&lab.a), Daemon::start(&lab.b));
    wait_reachable(&a);
    b.kill();
    for address in [NODE_B, HEALTH_B].concat() {
        wait_found(&a, address, [None, Some("connect: Connection refused")]);
    }
    let b = Daemon::start(&lab.b);
    wait_reachable(&a);
    a.stop();
    b.stop();
}

/// One address of a node that is out of reach is told from the other.
#[test]
fn a_port_that_is_blocked_is_told_from_the_way_to_endpoints() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through_with_health();
    let (a, b) = (Daemon::start(&lab.a), Daemon::start(&lab.b));
    wait_reachable(&a);
    lab.b.space.sh("nft 'table inet filter { chain input { type filter hook input priority 0; \
                    iifname eth0 tcp dport 4240 drop; }; }'");
    wait_found(&a, NODE_B[0], [None, Some("no connection within 5 seconds")]);
    wait_found(&a, HEALTH_B[0], [None, None]);
    let text = lab.a.ciliate(&["status", "-v"]);
    let row = text.stdout.lines().find(|line| line.starts_with("  node-b"));
    assert!(row.is_some_and(|row| row.ends_with("unreachable   reachable")), "{text:?}");
    lab.b.space.sh("nft delete table inet filter");
    wait_reachable(&a);
    a.stop();
    b.stop();
}

/// Damage that leaves the responder's sockets in a namespace that nobody can get to.
#[test]
fn answers_come_from_a_namespace_that_was_made_anew() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through_with_health();
    let daemon = Daemon::start(&lab.a);
    wait_listening(&daemon);
    let golden = lab.a.view().observed;
    for sabotage in crate::sabotage::namespaces(&lab.a, &golden) {
        HEALTH_A.into_iter().for_each(|address| assert_hello(&lab.a.space, address));
        sabotage.act();
        daemon.wait_repaired(&golden, &sabotage.what);
        let back = || HEALTH_A.iter().all(|at| get(&lab.a.space, at, "/hello").is_ok());
        assert!(wait_until(PATIENCE, back), "after {}", sabotage.what);
    }
    daemon.stop();
}

#[test]
fn health_is_switched_by_the_configuration() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged && !status.health.enabled);
    let status = lab.a.ciliate(&["status"]);
    assert!(status.stdout.contains("Cluster health:          Disabled\n"), "{status:?}");
    let without = Text::node_a(&lab).endpoint("client", &client, &["10.244.0.49"]);
    for round in 0..2 {
        assert!(get(&lab.outside, NODE_A[0], "/hello").is_err(), "round {round}");
        assert!(!lab.a.health_netns().exists(), "round {round}");
        lab.a.write(&without.clone().with_health());
        let on = |path: &Path| path.side == Side::Endpoint && path.reachable() == Some(true);
        daemon.wait("to be healthy", |status| {
            let own = status.health.nodes.first();
            own.is_some_and(|own| own.local && own.paths.iter().any(on))
        });
        assert_hello(&lab.outside, NODE_A[0]);
        assert_hello(&client, HEALTH_A[0]);
        // Another configuration takes nothing from it: what was found stays.
        let more = lab.space(&format!("more{round}"));
        lab.a.write(&without.clone().with_health().endpoint("more", &more, &[]));
        daemon.wait("to wire another endpoint", |status| {
            status.summary.endpoints == 2
                && status.converged
                && status.health.nodes[0].paths.iter().any(on)
        });
        lab.a.write(&without);
        daemon.wait("to have no health", |status| {
            status.converged && !status.health.enabled && status.health.nodes.is_empty()
        });
    }
    daemon.stop();
}

/// A device that lies in the namespace goes with it.
#[test]
fn destroy_leaves_no_namespace() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through_with_health();
    lab.a.apply();
    let netns = lab.a.health_netns();
    let (here, there) = (lab.space("here"), netns.display());
    here.sh(&format!("ip link add witness type veth peer name other netns {there}"));
    lab.a.destroy();
    assert!(!netns.exists());
    let gone = || here.try_sh("ip link show witness").is_err();
    assert!(wait_until(PATIENCE, gone), "the namespace lives on");
}

/// What isn't ours at the place of the namespace stays, and only what needs the place is left undone.
#[test]
fn a_foreign_file_in_the_place() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through_with_health();
    let netns = lab.a.health_netns();
    fs::create_dir_all(netns.parent().expect("a folder")).expect("create the folder");
    fs::write(&netns, "somebody's").expect("write a file");
    let beside = netns.with_file_name("notes");
    fs::write(&beside, "more").expect("write a file");
    let ran = lab.a.ciliate(&["apply"]);
    let reason = format!("netns {} exists and does not belong to ciliate", netns.display());
    assert!(ran.code == 1 && ran.stdout.contains(&reason), "{ran:?}");
    assert_eq!(fs::read_to_string(&netns).expect("read it"), "somebody's");
    assert_eq!(ping(&client, "10.244.0.50"), 63);
    assert!(lab.a.space.try_sh("ip link show lxc_health").is_err());
    lab.a.destroy();
    assert_eq!(fs::read_to_string(&netns).expect("read it"), "somebody's");
    assert_eq!(fs::read_to_string(&beside).expect("read it"), "more");
    fs::remove_file(&netns).expect("remove the file");
    lab.a.apply();
    assert_eq!(fs::read_to_string(&beside).expect("read it"), "more");
    ping(&client, HEALTH_A[0]);
    fs::remove_file(&beside).expect("remove the file");
    // The folder was there before ciliate, so it stays.
    lab.a.destroy();
    fs::remove_dir(&lab.a.runtime).expect("remove the folder");
}

/// An endpoint's namespace mounted there: the endpoint keeps it, health gets another.
#[test]
fn an_endpoints_namespace_in_the_place() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through_with_health();
    lab.a.apply();
    let netns = lab.a.health_netns();
    let daemon = Daemon::start(&lab.a);
    sh(&format!("umount -l {0}; mount --bind {1} {0}", netns.display(), client.path()));
    daemon.wait("to make its own namespace again", |status| status.converged);
    let own = || {
        let inode = |path: &str| sh(&format!("stat -L -c %i {path}"));
        let path = netns.display().to_string();
        netns.exists() && inode(&path) != inode(&client.path())
    };
    assert!(wait_until(PATIENCE, || lab.a.try_view().is_ok_and(|v| v.plan.is_converged()) && own()));
    assert_eq!(ping(&client2, "10.244.0.49"), 63);
    assert!(wait_until(PATIENCE, || get(&client, HEALTH_A[0], "/hello").is_ok()));
    daemon.stop();
}

/// More clients than are served at once, who say nothing, keep nobody out.
#[test]
fn silent_clients_keep_nobody_out() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through_with_health();
    let daemon = Daemon::start(&lab.a);
    wait_listening(&daemon);
    let target: SocketAddr = "172.18.0.3:4240".parse().expect("an address");
    let silent: Vec<TcpStream> = lab.outside.run(|| {
        let connect = |_| TcpStream::connect_timeout(&target, PATIENCE).expect("connect");
        (0..200).map(connect).collect()
    });
    for _ in 0..10 {
        assert_hello(&lab.outside, NODE_A[0]);
    }
    drop(silent);
    daemon.stop();
}

#[test]
fn a_port_that_is_taken_is_told() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through_with_health();
    let taken = lab.a.space.run(|| std::net::TcpListener::bind("172.18.0.3:4240")).expect("bind");
    let daemon = Daemon::start(&lab.a);
    let error = "can't listen on 172.18.0.3:4240: Address already in use (os error 98)";
    let name = "health-responder";
    daemon.wait("to miss the port", |status| {
        status.controllers.get(name).is_some_and(|found| found.as_deref() == Some(error))
    });
    let text = lab.a.ciliate(&["status"]);
    assert!(
        text.stdout.contains(&format!("Health daemon:           Warning   {error}")),
        "{text:?}"
    );
    assert!(text.stdout.contains("Controller Status:       6/7 healthy"), "{text:?}");
    assert_hello(&lab.a.space, HEALTH_A[0]);
    drop(taken);
    daemon.wait("to have the port", |status| {
        status.controllers.get(name).is_some_and(Option::is_none)
    });
    assert_hello(&lab.outside, NODE_A[0]);
    daemon.stop();
}

/// Peers that answer nothing keep as many sockets open as may be, and no thread waits for them.
#[test]
fn thousands_of_peers() {
    const PEERS: usize = 5000;
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let mut text = Text::node_a(&lab).with_health();
    text.routing = "mode = \"native\"\n".into();
    // Behind the gateway, which drops what isn't for itself.
    for number in 0..PEERS {
        let (high, low) = (number / 250, 1 + number % 250);
        let (address, cidr) =
            (format!("198.18.{high}.{low}"), format!("10.{}.{low}.0/24", 64 + high));
        text.peers += &peer(&format!("peer-{number}"), &[&address], &[&cidr], "");
    }
    lab.a.write(&text);
    let daemon = Daemon::start(&lab.a);
    let most = Cell::new((0, 0));
    // After the first ones, those that came after them have had their turn too.
    let status = daemon.wait("to give up some", |status| {
        let count = |kind: &str| {
            let folder = format!("/proc/{}/{kind}", status.pid);
            fs::read_dir(folder).map_or(0, Iterator::count)
        };
        let before = most.get();
        most.set((before.0.max(count("task")), before.1.max(count("fd"))));
        let lost = status.health.nodes.iter().filter(|node| node.reachable() == Some(false));
        lost.count() > 260
    });
    let (threads, files) = most.get();
    assert!(threads < 20 && (100..400).contains(&files), "{threads} threads, {files} files");
    assert_eq!((status.health.nodes.len(), status.health.interval_s), (PEERS + 2, 8));
    let own = &status.health.nodes[0];
    assert_eq!((own.local, own.reachable()), (true, Some(true)), "{own:#?}");
    assert!(status.converged);
    daemon.stop();
}

/// A machine whose process 1 is a shell; it gives services mounts of their own, as systemd does. `$1` is
/// ciliate, `$2` its configuration.
const SERVICES: &str = r#"
mount --make-rshared /
service() { unshare --mount --propagation slave "$@" >&2; }
service "$1" -c "$2" apply
"$1" -c "$2" plan
service "$1" -c "$2" apply
"$1" -c "$2" plan
service "$1" -c "$2" destroy
"#;

/// What is made by one service is seen outside and by the next one, and removed by it.
#[test]
fn the_namespace_is_seen_outside_of_a_service() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through_with_health();
    let config = lab.a.config.to_str().expect("a path of text");
    let mut machine = lab.a.space.command("unshare");
    machine.args(["--fork", "--pid", "--mount-proc", "sh", "-euc", SERVICES, "sh"]);
    let ran = machine.args([CILIATE, config]).output().expect("run unshare");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "No changes.\nNo changes.\n", "{ran:?}");
    assert!(ran.status.success(), "{ran:?}");
    assert!(!lab.a.runtime.join("netns").exists());
}
