//! States of backends as the configuration says them, with packets: who gets new connections, who keeps old ones; and
//! that connections to a backend go on whatever becomes of the others, of the service, and of ciliate.

use std::fs;
use std::io::ErrorKind;

use rustix::process::Signal;

use crate::backends::{Server, Transfer, ask, tally};
use crate::daemon::Daemon;
use crate::hitless::{swap_programs, swapped};
use crate::lab::{DUAL, Lab};
use crate::space::Space;

/// An address of each service from outside: what Maglev tables are for.
const OUTSIDE: [&str; 2] = ["192.0.2.77:80", "[2001:db8:77::1]:80"];

/// Both families: the service, and three backends: two on node a, one on node b.
const FAMILIES: [[&str; 4]; 2] = [
    ["10.96.0.1:80", "10.244.0.50:8080", "10.244.0.51:8080", "10.244.1.124:8080"],
    [
        "[fd00:10:96::1]:80",
        "[fd00:10:244::50]:8080",
        "[fd00:10:244::51]:8080",
        "[fd00:10:244:1::124]:8080",
    ],
];
const NAMES: [&str; 3] = ["first", "second", "third"];

struct World {
    lab: Lab,
    client: Space,
    base: String,
    servers: Vec<Server>,
}

impl World {
    fn new() -> Option<Self> {
        let lab = Lab::new(DUAL)?;
        let (client, first, third) = lab.walk_through();
        let second = lab.space("second");
        let mut base = fs::read_to_string(&lab.a.config).expect("read the configuration");
        base += &crate::node::endpoint(
            "second",
            &format!("netns = {:?}", second.path()),
            &["10.244.0.51", "fd00:10:244::51"],
        );
        fs::write(&lab.a.config, &base).expect("write the configuration");
        lab.b.apply();
        lab.a.apply();
        let mut servers = Vec::new();
        for [_, addresses @ ..] in &FAMILIES {
            for ((space, address), name) in
                [&first, &second, &third].into_iter().zip(addresses).zip(NAMES)
            {
                servers.push(Server::start(space, address, name));
            }
        }
        Some(Self { lab, client, base, servers })
    }

    /// The configuration with the service: a state for each backend, `-` where it is left out.
    fn text(&self, states: [&str; 3], more: &str) -> String {
        let mut text = self.base.clone();
        for (number, [service, addresses @ ..]) in FAMILIES.iter().enumerate() {
            let one = |(address, state): (&&str, &str)| {
                format!("{{ address = {address:?}, state = {state:?} }}")
            };
            let there = addresses.iter().zip(states).filter(|(_, state)| *state != "-");
            let backends: Vec<String> = there.map(one).collect();
            let outside = OUTSIDE[number];
            text += &format!(
                "[[service]]\nname = \"s{number}\"\ncluster-ips = [{service:?}]\nexternal-ips = [{outside:?}]\nbackends = [{}]\n{more}\n",
                backends.join(", ")
            );
        }
        text
    }

    fn apply(&self, states: [&str; 3]) {
        fs::write(&self.lab.a.config, self.text(states, "")).expect("write the configuration");
        self.lab.a.apply();
    }

    /// New connections are answered by these alone, by each of them; by nobody: they are refused.
    #[track_caller]
    fn assert_new(&self, wanted: &[&str], when: &str) {
        for [service, ..] in FAMILIES {
            if wanted.is_empty() {
                let refused = ask(&self.client, service).err();
                assert_eq!(refused, Some(ErrorKind::ConnectionRefused), "{service}, {when}");
                continue;
            }
            let tally = tally(&self.client, service, 40);
            let names: Vec<&str> = tally.keys().map(String::as_str).collect();
            assert_eq!(names, wanted, "{service}, {when}");
        }
    }

    fn transfers(&self, names: &[&str]) -> Vec<Transfer> {
        let each = |[service, ..]: &[&str; 4]| {
            names
                .iter()
                .map(|name| Transfer::start(&self.client, service, name))
                .collect::<Vec<_>>()
        };
        FAMILIES.iter().flat_map(each).collect()
    }
}

#[track_caller]
fn go_on(transfers: &[Transfer], when: &str) {
    transfers.iter().for_each(|transfer| transfer.goes_on(when));
}

#[test]
fn states_say_who_gets_new_connections_and_cut_none() {
    let Some(world) = World::new() else { return };
    world.apply(["active"; 3]);
    world.lab.note_bpf();
    world.assert_new(&NAMES, "all active");
    let flows = world.transfers(&NAMES);
    for (states, wanted) in [
        (["active", "terminating", "active"], &["first", "third"][..]),
        (["active", "quarantined", "maintenance"], &["first"]),
        (["maintenance", "terminating", "quarantined"], &["second"]),
        (["terminating", "terminating", "quarantined"], &["first", "second"]),
        (["terminating"; 3], &NAMES),
        (["quarantined"; 3], &[]),
        (["maintenance"; 3], &[]),
        (["active"; 3], &NAMES),
    ] {
        world.apply(states);
        let when = format!("{states:?}");
        world.assert_new(wanted, &when);
        go_on(&flows, &when);
    }
    flows.into_iter().for_each(|flow| assert!(flow.finish() > 0));
    drop(world.servers);
}

/// Changes of the service: states of the backends, and what else is said of it.
const EDITS: [(&str, [&str; 3], &str); 7] = [
    ("another backend goes", ["active", "-", "active"], ""),
    ("and comes back", ["active"; 3], ""),
    ("affinity begins", ["active"; 3], "session-affinity = \"1h\""),
    ("and ends", ["active"; 3], ""),
    ("policy is local", ["active"; 3], "internal-traffic-policy = \"local\""),
    ("a node port is added", ["active"; 3], "node-port = 30111"),
    ("the others terminate", ["active", "terminating", "active"], ""),
];

/// Other backends come and go; the service changes, ciliate ends and begins, programs and maps are made anew.
#[test]
fn connections_outlive_everything_but_their_backend() {
    let Some(world) = World::new() else { return };
    let lab = &world.lab;
    let conntrack = |tcp: u32| format!("\n[conntrack]\ntcp-max-entries = {tcp}\n");
    let write = |states, more: &str, top: &str| {
        let text = world.text(states, more) + top;
        fs::write(&lab.a.config, text).expect("write the configuration");
    };
    write(["active"; 3], "", "");
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged);
    lab.note_bpf();
    let flows = world.transfers(&["first", "third"]);
    let reload = |daemon: &Daemon<'_>, what: &str| {
        let generation = daemon.status().map_or(0, |status| status.generation);
        daemon.signal(Signal::HUP);
        daemon.wait(what, |status| status.converged && status.generation > generation);
        lab.note_bpf();
        go_on(&flows, what);
    };
    for (what, states, more) in EDITS {
        // The same port can't be of both families' services.
        let text = world.text(states, more).replacen("node-port = 30111", "node-port = 30112", 1);
        fs::write(&lab.a.config, text).expect("write the configuration");
        reload(&daemon, what);
    }
    write(
        ["active"; 3],
        "",
        "\n[load-balancing]\nalgorithm = \"maglev\"\nmaglev-table-size = 251\n",
    );
    reload(&daemon, "Maglev");
    write(
        ["active"; 3],
        "",
        "\n[load-balancing]\nalgorithm = \"maglev\"\nmaglev-table-size = 509\n",
    );
    reload(&daemon, "the map of tables is made anew");
    for size in [50_000, 200_000] {
        write(["active"; 3], "", &conntrack(size));
        reload(&daemon, "the map of flows is made anew");
    }
    daemon.stop();
    go_on(&flows, "the daemon has ended");
    let daemon = Daemon::start(&lab.a);
    go_on(&flows, "another has begun");
    daemon.kill();
    go_on(&flows, "it was killed");
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged);
    swap_programs(&lab.a);
    daemon.wait("to swap the programs", |status| status.converged && !swapped(&lab.a));
    lab.note_bpf();
    go_on(&flows, "programs were swapped");
    // The backends of some go, the others' stay.
    write(["-", "active", "active"], "", &conntrack(200_000));
    let generation = daemon.status().map_or(0, |status| status.generation);
    daemon.signal(Signal::HUP);
    daemon.wait("to remove a backend", |status| status.converged && status.generation > generation);
    let (gone, stay): (Vec<_>, Vec<_>) =
        flows.into_iter().enumerate().partition(|(number, _)| number % 2 == 0);
    stay.iter().for_each(|(_, flow)| flow.goes_on("the backend of others is gone"));
    stay.into_iter().for_each(|(_, flow)| assert!(flow.finish() > 0));
    drop(gone);
    drop(world.servers);
}
