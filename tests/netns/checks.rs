//! Health checks of backends: servers die and come back, and clients of the service don't notice.

use std::fs;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use ciliate::bpf_abi::{CILIUM_LB4_SERVICES, CILIUM_LB6_SERVICES};
use ciliate::kernel::bpf_map::Map;

use crate::backends::{Server, Transfer, ask, tally};
use crate::daemon::{Daemon, PATIENCE, wait_until};
use crate::lab::{DUAL, Lab};
use crate::node::Node;
use crate::space::Space;

/// Both families: the service, its backends on node a and on node b.
const FAMILIES: [[&str; 3]; 2] = [
    ["10.96.0.1:80", "10.244.0.50:8080", "10.244.1.124:8080"],
    ["[fd00:10:96::1]:80", "[fd00:10:244::50]:8080", "[fd00:10:244:1::124]:8080"],
];

const TCP: &str = "interval = \"300ms\"\nrise = 2\nfall = 3\n";
const HTTP: &str = "type = \"http\"\ninterval = \"500ms\"\nrise = 1\nfall = 2\npath = \"/healthz\"\nstatus = [200, 299]\n";

/// A lab whose node a has a service of two backends in each family.
struct World {
    lab: Lab,
    client: Space,
    server: Space,
    here: Vec<Server>,
    there: Vec<Server>,
}

impl World {
    fn new(check: &str) -> Option<Self> {
        let lab = Lab::new(DUAL)?;
        let (client, client2, server) = lab.walk_through();
        let mut text = fs::read_to_string(&lab.a.config).expect("read the configuration");
        for (number, [service, here, there]) in FAMILIES.iter().enumerate() {
            text += &format!(
                "[[service]]\nname = \"s{number}\"\ncluster-ips = [{service:?}]\nbackends = [{here:?}, {there:?}]\n\
                 [service.health-check]\n{check}"
            );
        }
        fs::write(&lab.a.config, text).expect("write the configuration");
        lab.b.apply();
        let start = |space, at: usize, name| {
            FAMILIES.iter().map(|family| Server::start(space, family[at], name)).collect()
        };
        // Namespaces have their addresses from here on.
        lab.a.apply();
        let here = start(&client2, 1, "here");
        let there = start(&server, 2, "there");
        Some(Self { client, server, here, there, lab })
    }
}

#[track_caller]
fn wait_dead(daemon: &Daemon<'_>, count: usize) {
    daemon.wait(&format!("to find {count} dead"), |status| {
        status.backend_checks.dead.len() == count && status.backend_checks.checked == 4
    });
    // What is known is in the maps after the round that follows.
    let rounds = daemon.status().map_or(0, |status| status.rounds);
    daemon.wait("to apply that", |status| status.rounds > rounds + 1 && status.converged);
}

/// Backends in use and out of use of the services, by the maps.
fn counts(node: &Node) -> Vec<(u16, u16)> {
    let mut counts = Vec::new();
    for name in [CILIUM_LB4_SERVICES, CILIUM_LB6_SERVICES] {
        let map = Map::open(&node.bpf.join("maps").join(name)).expect("open");
        for (key, value) in map.entries().expect("read") {
            // The slot is behind address and port; slot 0 has the counts.
            let slot = &key[key.len() - 6..key.len() - 4];
            if slot == [0, 0] {
                let number = |at: usize| u16::from_ne_bytes([value[at], value[at + 1]]);
                counts.push((number(4), number(10)));
            }
        }
    }
    counts
}

#[test]
fn a_dead_backend_gets_nothing_new() {
    let Some(mut world) = World::new(TCP) else { return };
    let daemon = Daemon::start(&world.lab.a);
    world.lab.note_bpf();
    wait_dead(&daemon, 0);
    for [service, ..] in FAMILIES {
        let tally = tally(&world.client, service, 40);
        assert_eq!(tally.len(), 2, "both answer at {service}: {tally:?}");
    }
    let flows: Vec<[Transfer; 2]> = FAMILIES
        .iter()
        .map(|[service, ..]| {
            ["here", "there"].map(|name| Transfer::start(&world.client, service, name))
        })
        .collect();
    let go_on = |when: &str| flows.iter().flatten().for_each(|flow| flow.goes_on(when));
    go_on("before");
    world.here.iter_mut().for_each(Server::die);
    wait_dead(&daemon, 2);
    for [service, here, _] in FAMILIES {
        let tally = tally(&world.client, service, 40);
        assert_eq!(tally.get("there"), Some(&40), "only the living at {service}: {tally:?}");
        let listed = world.lab.a.ciliate(&["get", "services"]);
        let line = format!("2 => {here}/TCP (quarantined: connect: Connection refused)");
        assert!(listed.stdout.contains(&line), "no `{line}` in {listed:?}");
    }
    // Whoever listens no more may still talk.
    go_on("while a backend is dead");
    let status = world.lab.a.ciliate(&["status"]);
    assert!(status.stdout.contains("Warning   4 asked, 2 dead"), "{status:?}");
    let plan = world.lab.a.ciliate(&["plan"]);
    assert_eq!((plan.code, plan.stdout.trim()), (0, "No changes."), "{plan:?}");
    world.here.iter_mut().for_each(Server::revive);
    wait_dead(&daemon, 0);
    for [service, ..] in FAMILIES {
        assert_eq!(tally(&world.client, service, 40).len(), 2, "both again at {service}");
    }
    go_on("after");
    for flow in flows.into_iter().flatten() {
        flow.finish();
    }
    daemon.stop();
    let log = fs::read_to_string(&world.lab.a.log).expect("read the log");
    for line in [
        "backend 10.244.0.50:8080 of service s0 is dead and gets nothing new: connect: Connection refused",
        "backend [fd00:10:244::50]:8080 of service s1 is alive again",
    ] {
        assert_eq!(log.matches(line).count(), 1, "`{line}` in {log}");
    }
}

/// Who answers nothing doesn't refuse either.
#[test]
fn silence_is_no_answer() {
    let Some(world) = World::new(&format!("{TCP}timeout = \"150ms\"\n")) else { return };
    let daemon = Daemon::start(&world.lab.a);
    world.lab.note_bpf();
    wait_dead(&daemon, 0);
    world.server.sh("nft 'table inet silent { chain c { type filter hook input priority 0; tcp dport 8080 drop; }; }'");
    wait_dead(&daemon, 2);
    for [service, ..] in FAMILIES {
        let tally = tally(&world.client, service, 20);
        assert_eq!(tally.get("here"), Some(&20), "only those here at {service}: {tally:?}");
    }
    let dead = daemon.status().expect("an answer").backend_checks.dead;
    let silent = |problem: &str| problem == "no connection within 150ms";
    assert!(dead.iter().all(|dead| silent(&dead.problem)), "{dead:?}");
    world.server.sh("nft delete table inet silent");
    wait_dead(&daemon, 0);
}

/// By HTTP: a server that takes connections and says that it is not well gets no new ones.
#[test]
fn http_is_judged_by_its_status() {
    let Some(world) = World::new(HTTP) else { return };
    let daemon = Daemon::start(&world.lab.a);
    world.lab.note_bpf();
    wait_dead(&daemon, 0);
    let old = Transfer::start(&world.client, FAMILIES[0][0], "there");
    for status in [503, 302] {
        world.there.iter().for_each(|server| server.status.store(status, Ordering::Relaxed));
        wait_dead(&daemon, 2);
        let problem = daemon.status().expect("an answer").backend_checks.dead[0].problem.clone();
        assert!(problem.starts_with(&format!("the answer is {status} As Told")), "{problem}");
        for [service, ..] in FAMILIES {
            let tally = tally(&world.client, service, 20);
            assert_eq!(tally.get("here"), Some(&20), "{service}: {tally:?}");
        }
        old.goes_on("to a backend that is not well");
        world.there.iter().for_each(|server| server.status.store(204, Ordering::Relaxed));
        wait_dead(&daemon, 0);
    }
    old.finish();
}

/// As in Cilium: where nobody is alive, nobody is asked, and the client is told.
#[test]
fn a_service_whose_backends_are_all_dead_has_none() {
    let Some(mut world) = World::new(TCP) else { return };
    let daemon = Daemon::start(&world.lab.a);
    world.lab.note_bpf();
    wait_dead(&daemon, 0);
    world.here.iter_mut().chain(&mut world.there).for_each(Server::die);
    wait_dead(&daemon, 4);
    assert_eq!(counts(&world.lab.a), [(0, 2); 2]);
    for [service, ..] in FAMILIES {
        let refused = ask(&world.client, service).err();
        assert_eq!(refused, Some(ErrorKind::ConnectionRefused), "{service}");
    }
    world.there.iter_mut().for_each(Server::revive);
    wait_dead(&daemon, 2);
    for [service, ..] in FAMILIES {
        assert_eq!(tally(&world.client, service, 5).get("there"), Some(&5));
    }
}

/// A daemon that comes after another one knows its dead; without a daemon backends are as configured.
#[test]
fn what_is_dead_stays_dead_without_those_who_knew() {
    let Some(mut world) = World::new(TCP) else { return };
    let daemon = Daemon::start(&world.lab.a);
    world.lab.note_bpf();
    world.here.iter_mut().for_each(Server::die);
    wait_dead(&daemon, 2);
    assert_eq!(counts(&world.lab.a), [(1, 1); 2]);
    daemon.kill();
    for end in ["killed", "stopped"] {
        assert_eq!(counts(&world.lab.a), [(1, 1); 2], "{end}");
        let daemon = Daemon::start(&world.lab.a);
        let mut changed = false;
        let looked = wait_until(PATIENCE, || {
            changed |= counts(&world.lab.a) != [(1, 1); 2];
            daemon.status().is_some_and(|status| status.rounds > 3)
        });
        assert!(looked && !changed, "{end}: the dead were used");
        for [service, ..] in FAMILIES {
            assert_eq!(tally(&world.client, service, 20).get("there"), Some(&20), "{end}");
        }
        daemon.stop();
    }
    world.lab.a.apply();
    assert_eq!(counts(&world.lab.a), [(2, 0); 2], "as configured");
    // Who is dead is found out again, and a check that is no longer asked for is forgotten.
    let daemon = Daemon::start(&world.lab.a);
    wait_dead(&daemon, 2);
    let text = fs::read_to_string(&world.lab.a.config).expect("read the configuration");
    let without = text.replace(&format!("[service.health-check]\n{TCP}"), "");
    assert_ne!(text, without);
    fs::write(&world.lab.a.config, without).expect("write the configuration");
    daemon.wait("to forget", |status| status.backend_checks.checked == 0 && status.converged);
    let used = wait_until(PATIENCE, || counts(&world.lab.a) == [(2, 0); 2]);
    assert!(used, "{:?}", counts(&world.lab.a));
}
