//! Bad neighbours: namespaces that are none, devices and names that look like ours, an endpoint that wants
//! another address, plans that are somebody else's, tools that are missing.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ciliate::daemon::control::Status;
use ciliate::kernel::netlink::Netlink;
use ciliate::kinds::owner;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::daemon::{Daemon, PATIENCE, wait_until};
use crate::lab::{DUAL, Lab, V4};
use crate::node::{CILIATE, Ran, Text, assert_equal, endpoint};
use crate::space::sh;
use crate::traffic::{answers, exchange};

#[test]
fn unusable_namespaces_block_their_endpoints_only() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, server) = lab.walk_through();
    let [fifo, lap, twin] = ["fifo", "loop", "twin"].map(|name| lab.dir.join(name));
    let (lap_at, client_at) = (lap.display(), client.path());
    sh(&format!("mkfifo {}; ln -s {lap_at} {lap_at}", fifo.display()));
    sh(&format!("ln -s {client_at} {}", twin.display()));
    let mut text = Text::node_a(&lab).endpoint("client", &client, &["10.244.0.49"]);
    text = text.endpoint("own", &lab.a.space, &[]);
    let bad = [
        ("mount", "/proc/self/ns/mnt".to_string()),
        ("pipe", fifo.display().to_string()),
        ("loop", lap.display().to_string()),
        ("gone", "/run/netns/nobody-made-this".to_string()),
    ];
    for (name, path) in &bad {
        text.endpoints += &endpoint(name, &format!("netns = {path:?}"), &[]);
    }
    // The same namespace by another path.
    text.endpoints += &endpoint("twin", &format!("netns = {:?}", twin.display().to_string()), &[]);
    lab.a.write(&text.endpoint("client2", &client2, &["10.244.0.50"]));
    lab.b.apply();

    let plan = lab.a.ciliate(&["plan"]);
    assert_eq!(plan.code, 1, "{plan:?}");
    for problem in ["`own`: this is the node's own", "`pipe`: the file is not a network namespace"]
    {
        assert!(plan.all().contains(problem), "no {problem} in {plan:?}");
    }
    let daemon = Daemon::start(&lab.a);
    let status =
        daemon.wait("to wire the good endpoints", |s| s.summary.endpoints > 0 && s.rounds > 1);
    for name in ["own", "mount", "pipe", "loop", "gone", "twin"] {
        let object = format!("endpoint {name}");
        assert!(status.problems.iter().any(|p| p.object == object), "{object}: {status:#?}");
    }
    exchange(&client, &server, "10.244.1.124");
    exchange(&client2, &client, "10.244.0.49");
    assert_eq!(lab.a.space.sh("ip -br link show dev eth0").lines().count(), 1);
    // And repair goes on.
    lab.a.space.sh("ip route del 10.244.1.0/24");
    daemon.wait("to repair", |_| !lab.a.space.sh("ip route show 10.244.1.0/24").is_empty());
    daemon.stop();
}

const CLIENT: [&str; 2] = ["10.244.0.49", "fd00:10:244::49"];
const CLIENT2: [&str; 2] = ["10.244.0.50", "fd00:10:244::50"];
const SERVER: [&str; 2] = ["10.244.1.124", "fd00:10:244:1::124"];

/// Two nodes of one machine, each with an endpoint in a namespace of the other's: what is there bears the same marks.
#[test]
fn what_another_node_has_in_a_namespace_stays() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, client2, server) = lab.walk_through();
    lab.nodes().for_each(|node| drop(node.apply()));
    let golden = lab.b.view().observed;
    let there = || client.sh("ip -o addr; ip route; ip -6 route");
    let before = there();

    let node_b = || Text::node_b(&lab).endpoint("server", &server, &SERVER);
    for addresses in [&[][..], &["10.244.1.9", "fd00:10:244:1::9"]] {
        lab.b.write(&node_b().endpoint("thief", &client, addresses));
        let apply = lab.b.ciliate(&["apply"]);
        assert_eq!(apply.code, 1, "{apply:?}");
        assert!(apply.all().contains("it may belong to another ciliate"), "{apply:?}");
        assert_eq!(there(), before, "{addresses:?}");
    }
    lab.a.assert_no_changes();
    exchange(&client, &server, SERVER[0]);
    exchange(&client, &server, SERVER[1]);

    lab.b.write(&node_b());
    lab.b.apply();
    let node_a = Text::node_a(&lab).endpoint("client", &client, &CLIENT);
    let node_a = node_a.endpoint("client2", &client2, &CLIENT2);
    lab.a.write(&node_a.endpoint("far", &lab.b.space, &[]));
    let apply = lab.a.ciliate(&["apply"]);
    assert_eq!(apply.code, 1, "{apply:?}");
    assert_equal(&golden, &lab.b.view().observed, "before", "after");
    lab.b.assert_no_changes();
}

#[test]
fn the_namespace_of_process_1_is_nobodys_endpoint() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    let machine = lab.space("machine");
    let text = Text::node_a(&lab).endpoint("client", &client, &["10.244.0.49"]);
    lab.a.write(&text.endpoint("machine", &machine, &["10.244.0.66"]));
    // Seen from a namespace of processes whose first lives there; the node is in another.
    let node = lab.a.space.path();
    let script = format!("nsenter --net={node} \"$@\"; exit $?");
    let mut command = machine.command("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", &script, "sh", CILIATE, "-c"]);
    let ran = Ran::from(command.arg(&lab.a.config).arg("plan").output().expect("run ciliate"));
    assert_eq!(ran.code, 1, "{ran:?}");
    let problem = "`machine`: this is the machine's own network namespace";
    assert!(ran.stderr.contains(problem) && !ran.stderr.contains("`client`"), "{ran:?}");
}

/// Adds an address with our mark, as anybody may who is root in the namespace.
fn add_with_our_mark(address: [u8; 4]) {
    let ifindex = std::fs::read_to_string("/proc/thread-self/net/dev_mcast").expect("devices");
    let line = ifindex.lines().find(|line| line.contains("eth0")).expect("eth0");
    let mut message = AddressMessage::default();
    message.header.index = line.split_whitespace().next().expect("index").parse().expect("number");
    message.header.prefix_len = 32;
    message.header.family = AddressFamily::Inet;
    message.attributes = vec![
        AddressAttribute::Local(std::net::Ipv4Addr::from(address).into()),
        AddressAttribute::Address(std::net::Ipv4Addr::from(address).into()),
        AddressAttribute::Protocol(AddressProtocol::from(owner::PROTOCOL)),
    ];
    let request = (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
    let done = Netlink::open().expect("a socket").change([request]).expect("an answer");
    assert!(done.iter().all(Result::is_ok), "{done:?}");
}

#[test]
fn an_endpoint_does_not_choose_its_address() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    lab.a.write(&Text::node_a(&lab).endpoint("client", &client, &[]).endpoint(
        "client2",
        &client2,
        &[],
    ));
    lab.a.apply();
    client.run(|| add_with_our_mark([10, 244, 0, 222]));
    client.sh("ip addr del 10.244.0.1/32 dev eth0");
    lab.a.apply();
    let endpoints = lab.a.ciliate(&["bpf", "endpoint", "list"]).stdout;
    assert!(
        endpoints.contains("10.244.0.1:0") && !endpoints.contains("10.244.0.222"),
        "{endpoints}"
    );
    assert!(client.sh("ip -4 -br addr show dev eth0").contains("10.244.0.1/32"));
    assert!(answers(&client, "10.244.0.2"));
}

#[test]
fn look_alikes_are_left_alone() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    lab.a.space.sh(
        "ip link add tomatoes type bridge; ip link set tomatoes alias 'ciliated tomatoes'\n\
         ip link add ciliate0 type bridge; ip link set ciliate0 alias 'ciliate endpoint x'\n\
         ip link add name big index 2147483647 type bridge",
    );
    lab.baseline_of_a();
    lab.a.apply();
    let links = lab.a.space.sh("ip -br link");
    for name in ["tomatoes", "ciliate0", "big"] {
        assert!(links.contains(name), "{name} is gone:\n{links}");
    }
    assert!(answers(&client, "10.244.0.50") && answers(&client2, "10.244.0.49"));
}

#[test]
fn a_plan_of_another_node_is_refused() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let plan = lab.dir.join("plan.json").display().to_string();
    assert_eq!(lab.a.ciliate(&["plan", "--out", &plan]).code, 2);
    let refused = lab.b.ciliate(&["apply", &plan]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("is not applied"), "{refused:?}");
    assert!(!lab.b.space.sh("ip -br link").contains("cilium_host"));

    // Edited: a setting that no plan changes.
    let text = std::fs::read_to_string(&plan).expect("read the plan");
    let edited = text.replace("net/ipv4/conf/all/forwarding", "kernel/core_pattern");
    assert_ne!(edited, text);
    std::fs::write(&plan, edited).expect("write the plan");
    let refused = lab.a.ciliate(&["apply", &plan]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(!lab.a.space.sh("ip -br link").contains("cilium_host"));
}

#[test]
fn without_nft_everything_else_is_done_and_nothing_is_hidden() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, _, server) = lab.walk_through();
    lab.b.apply();
    // The folders in which it may be are hidden from the one process.
    let hidden = "for folder in /usr/sbin /sbin /usr/local/sbin; do \
        if [ -d $folder ]; then mount -t tmpfs none $folder; fi; done; PATH=/nonexistent exec \"$@\"";
    let without_nft = |arguments: &[&str]| {
        let mut command = lab.a.space.command("unshare");
        command.args(["--mount", "sh", "-euc", hidden, "sh", CILIATE, "-c"]);
        Ran::from(command.arg(&lab.a.config).args(arguments).output().expect("run ciliate"))
    };
    // Where there is no table, nothing has to list it.
    let destroyed = without_nft(&["destroy"]);
    assert_eq!(destroyed.code, 0, "{destroyed:?}");
    let applied = without_nft(&["apply"]);
    assert_eq!(applied.code, 1, "{applied:?}");
    assert!(applied.all().contains("install the package `nftables`"), "{applied:?}");
    exchange(&client, &server, "10.244.1.124");

    lab.a.apply();
    let destroyed = without_nft(&["destroy"]);
    assert_eq!(destroyed.code, 1, "{destroyed:?}");
    assert!(destroyed.all().contains("install the package `nftables`"), "{destroyed:?}");
}

#[test]
fn an_nft_that_hangs_or_complains_keeps_nothing_else() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.b.apply();
    lab.a.apply();
    let with_nft = |script: &str| {
        let file = lab.dir.join("nft");
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("write");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("chmod");
        let mut command = lab.a.space.command("sh");
        command.args(["-c", "PATH=$0:$PATH exec \"$@\""]).arg(&lab.dir).args([CILIATE, "-c"]);
        Ran::from(command.arg(&lab.a.config).arg("apply").output().expect("run ciliate"))
    };
    let route = "ip route show 10.244.1.0/24";
    // The ruleset has changed, so that the table is listed again.
    lab.a.space.sh("nft flush table inet ciliate; ip route del 10.244.1.0/24");
    let hung = with_nft("exec sleep 1000");
    assert_eq!(hung.code, 1, "{hung:?}");
    assert!(hung.all().contains("`nft` did not answer within 10 s, and was ended"), "{hung:?}");
    assert!(lab.a.space.sh(route).contains("via 172.18.0.2"), "{hung:?}");

    lab.a.space.sh("ip route del 10.244.1.0/24");
    let complaint = "case \"$*\" in *-f*) echo 'Error: not today' >&2; exit 1; esac";
    let refused = with_nft(&format!("{complaint}\nPATH=${{PATH#*:}} exec nft \"$@\""));
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(refused.all().matches("not today").count(), 1, "{refused:?}");
    assert!(refused.all().contains("nft: Error: not today"), "{refused:?}");
    assert!(lab.a.space.sh(route).contains("via 172.18.0.2"), "{refused:?}");
    lab.a.apply();
}

#[test]
fn destroy_where_pins_cannot_be_is_refused() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    let mut command = lab.a.space.command("unshare");
    command.args(["--mount", "sh", "-euc", "umount \"$0\"; exec \"$@\""]).arg(lab.dir.join("bpf"));
    let destroyed = command.args([CILIATE, "-c"]).arg(&lab.a.config).arg("destroy").output();
    let destroyed = Ran::from(destroyed.expect("run ciliate"));
    assert_eq!(destroyed.code, 1, "{destroyed:?}");
    assert!(destroyed.all().contains("is not on a BPF file system"), "{destroyed:?}");
    assert!(lab.a.space.sh("ip -br link").contains("cilium_host"));
    let plan = lab.a.ciliate(&["plan"]);
    assert_eq!(plan.code, 0, "{plan:?}");
}

#[test]
fn nft_is_found_where_path_does_not_lead() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let predicted = lab.a.view().predicted;
    let mut command = lab.a.space.command("env");
    command.args(["PATH=/nonexistent", CILIATE, "-c"]).arg(&lab.a.config).arg("apply");
    let ran = Ran::from(command.output().expect("run ciliate"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("+ nftables table inet ciliate 2 sets, 2 chains, "), "{ran:?}");
    assert_equal(&predicted, &lab.a.view().observed, "predicted", "observed");
}

#[test]
fn destroy_beside_a_daemon_is_refused_and_every_reload_is_answered() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged);
    let refused = lab.a.ciliate(&["destroy"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("stop it first"), "{refused:?}");
    assert!(lab.a.space.sh("ip -br link").contains("cilium_host"));

    let answers: Vec<String> = thread::scope(|scope| {
        let ask = || {
            let mut stream =
                UnixStream::connect(lab.a.runtime.join("ciliate.sock")).expect("socket");
            stream.write_all(b"{\"command\":\"reload\"}\n").expect("ask");
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).expect("answer");
            line
        };
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().map(|client| client.join().expect("client")).collect()
    });
    assert_eq!(answers, ["{\"reloaded\":true}\n"; 6]);
    daemon.stop();
}

/// The lock and the socket go with the folder; both are made again before anybody takes the daemon for gone.
#[test]
fn a_runtime_folder_that_is_removed_is_made_again() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    // The timer is of no help.
    let daemon = Daemon::start_with(&lab.a, 3600);
    daemon.wait("to converge", |status| status.converged);
    for _ in 0..2 {
        std::fs::remove_dir_all(&lab.a.runtime).expect("remove the runtime folder");
        daemon.wait("to make its socket again", |status| status.converged);
    }
    std::fs::remove_file(lab.a.runtime.join("ciliate.sock")).expect("remove the socket");
    daemon.wait("to make its socket again", |status| status.converged);
    let refused = lab.a.ciliate(&["destroy"]);
    assert!(refused.code == 1 && refused.stderr.contains("stop it first"), "{refused:?}");
    lab.a.space.sh("ip route del 10.244.1.0/24");
    let repaired = || !lab.a.space.sh("ip route show 10.244.1.0/24").is_empty();
    assert!(wait_until(PATIENCE, repaired), "no repair");
    daemon.stop();
    assert!(!lab.a.runtime.join("ciliate.sock").exists());
}

/// Says that it is over when it goes.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Somebody deletes a route as soon as it is there. What is not fought about is repaired at once.
#[test]
fn a_fight_about_one_object_is_damped_and_named() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let daemon = Daemon::start_with(&lab.a, 3600);
    daemon.wait("to converge", |status| status.converged);
    let said = "something else changes this each time";
    let (node, over) = (&lab.a, AtomicBool::new(false));
    thread::scope(|scope| {
        // Also when something here fails: the scope waits for the thread.
        let _end = End(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                node.space.sh("ip route del 10.244.1.0/24 2>/dev/null || true");
            }
        });
        let fought = |status: &Status| status.problems.iter().any(|p| p.error.contains(said));
        let status = daemon.wait("to name the object", fought);
        let before = status.repaired;
        node.space.sh("ip link set cilium_host mtu 1400");
        let repaired = || node.space.sh("ip link show cilium_host").contains("mtu 1500");
        let others = wait_until(PATIENCE, repaired);
        // Of what the pauses allow in this time, 100 would take 45 minutes.
        let status = daemon.status().expect("a status");
        assert!(others, "another object waits for the fight to end");
        assert!(fought(&status), "{status:#?}");
        assert!(status.repaired - before < 100, "{before} {status:#?}");
    });
    let log = std::fs::read_to_string(&node.log).expect("read the log");
    assert_eq!(log.matches(said).count(), 1, "{log}");
    assert!(log.contains("route 10.244.1.0/24"), "{log}");
    // The one that made it, and those before it was a fight; warnings say `+` of what is still to be done.
    let lines = log.matches("INFO + route 10.244.1.0/24").count();
    assert!(lines <= 30, "{lines} lines about one route:\n{log}");
    // In the end the route is there.
    daemon.wait("to converge", |status| status.converged);
    daemon.stop();
}
