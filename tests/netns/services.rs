//! Services in the maps: what is written, changed and removed, that numbers stay, that what is half made or altered is
//! mended, and that nobody who reads the maps meanwhile finds a service half made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use ciliate::bpf_abi::{
    BackendId, CILIATE_MAGLEV, CILIATE_MAGLEV_INDEX, CILIUM_LB_AFFINITY_MATCH, CILIUM_LB4_BACKENDS,
    CILIUM_LB4_REVERSE_NAT, CILIUM_LB4_SERVICES, CILIUM_LB4_SOURCE_RANGE, LB_MAPS, Lb4Backend,
    Lb4Key, Lb4ReverseNat, Lb4SourceRange, LbAffinityMatch, LbValue, RevNat,
};
use ciliate::kernel::bpf_map::Map;
use ciliate::kinds::lb_service::Key;
use ciliate::plan::Plan;

use crate::daemon::Daemon;
use crate::lab::{DUAL, Lab};
use crate::node::{Node, list};

/// A `[[service]]` with cluster IPs, and whatever else is said of it.
fn service(name: &str, cluster_ips: &[&str], backends: &[&str], more: &str) -> String {
    let (ips, backends) = (list(cluster_ips), list(backends));
    format!("[[service]]\nname = {name:?}\ncluster-ips = {ips}\nbackends = {backends}\n{more}\n\n")
}

/// Node a with its endpoints, as `walk_through` writes it, and some services.
fn write(lab: &Lab, base: &str, balancing: &str, services: &[String]) {
    let text = format!("{base}\n[load-balancing]\n{balancing}\n{}", services.concat());
    fs::write(&lab.a.config, text).expect("write the configuration");
}

/// A lab, and what node a's configuration is without services.
fn prepared() -> Option<(Lab, String)> {
    let lab = Lab::new(DUAL)?;
    lab.walk_through();
    let base = fs::read_to_string(&lab.a.config).expect("read the configuration");
    Some((lab, base))
}

/// Services of every kind, in both families.
fn of_every_kind() -> Vec<String> {
    vec![
        service(
            "default/both",
            &["10.96.94.95:9494", "[fd00:10:96::95]:9494"],
            &["10.244.0.49:9494", "10.244.1.124:9494", "[fd00:10:244::49]:9494"],
            "session-affinity = \"3h\"",
        ),
        service(
            "default/wide",
            &["10.96.7.7:443"],
            &["10.244.0.49:8443", "10.244.1.124:8443", "192.0.2.99:8443"],
            "node-port = 30443\nexternal-ips = [\"192.0.2.10:443\"]\n\
             load-balancer-ips = [\"203.0.113.5:443\"]\nexternal-traffic-policy = \"local\"\n\
             source-ranges = [\"198.51.100.0/24\", \"10.0.0.0/8\", \"2001:db8::/32\"]",
        ),
        service("default/nobody", &["10.96.8.8:7777"], &[], "protocol = \"SCTP\""),
        "[[service]]\nname = \"default/host\"\nprotocol = \"UDP\"\nhost-ports = [\"0.0.0.0:5353\", \"[::]:5353\"]\n\
         backends = [\"10.244.0.50:53\", { address = \"[fd00:10:244::50]:53\", state = \"terminating\" }]\n\n"
            .to_owned(),
    ]
}

fn pin(node: &Node, map: &str) -> PathBuf {
    node.bpf.join("maps").join(map)
}

fn map(node: &Node, name: &str) -> Map {
    Map::open(&pin(node, name)).unwrap_or_else(|error| panic!("open {name}: {error}"))
}

/// How many entries the maps of services have, zeros of arrays aside.
fn entries(node: &Node) -> BTreeMap<&'static str, usize> {
    let count = |name: &str| {
        let entries = map(node, name).entries().expect("read");
        entries.iter().filter(|(_, value)| value.iter().any(|byte| *byte != 0)).count()
    };
    LB_MAPS.iter().map(|name| (*name, count(name))).filter(|(_, count)| *count > 0).collect()
}

/// The numbers of frontends and backends, by what they are of.
fn numbers(node: &Node) -> BTreeMap<String, u32> {
    let observed = node.view().observed;
    let frontends = observed
        .lb_services
        .iter()
        .map(|(key, state)| (key.to_string(), state.id().map_or(0, u32::from)));
    let backends = observed.lb_backends.iter();
    let backends = backends
        .map(|(key, seen)| (format!("{}/{}", seen.backend.address, seen.backend.protocol), key.id));
    frontends.chain(backends).collect()
}

#[test]
fn services_are_written_changed_and_removed() {
    let Some((lab, base)) = prepared() else { return };
    write(&lab, &base, "", &of_every_kind());
    lab.a.apply();
    lab.note_bpf();
    let first = numbers(&lab.a);
    let ids: BTreeSet<u32> = first
        .iter()
        .filter(|(k, _)| k.contains("/TCP") || k.contains("/UDP"))
        .map(|(_, id)| *id)
        .collect();
    assert!(!ids.contains(&0), "{first:?}");
    // Node ports are at the underlay address and the wildcard, for outside and inside.
    for frontend in [
        "172.18.0.3:30443/TCP",
        "172.18.0.3:30443/TCP/i",
        "0.0.0.0:30443/TCP",
        "0.0.0.0:5353/UDP",
        "[::]:5353/UDP",
    ] {
        assert!(first.contains_key(frontend), "{frontend}: {first:?}");
    }
    let maps = entries(&lab.a);
    // Of three source ranges two are IPv4, for four frontends of two scopes.
    assert_eq!(maps.get(CILIUM_LB4_SOURCE_RANGE), Some(&16), "{maps:?}");
    assert_eq!(maps.get(CILIUM_LB_AFFINITY_MATCH), Some(&3), "{maps:?}");
    assert_eq!(maps.get(CILIATE_MAGLEV), None, "{maps:?}");

    // Maglev for what there is a way to from outside; tables are shared.
    write(&lab, &base, "algorithm = \"maglev\"\nmaglev-table-size = 251", &of_every_kind());
    lab.a.apply();
    assert_eq!(numbers(&lab.a), first, "numbers stay");
    let maps = entries(&lab.a);
    // All backends and the one here, of the wide service; one of each family, of the host's.
    assert_eq!(maps.get(CILIATE_MAGLEV), Some(&4), "{maps:?}");
    assert_eq!(maps.get(CILIATE_MAGLEV_INDEX), Some(&12), "{maps:?}");
    // The map is made anew.
    write(&lab, &base, "algorithm = \"maglev\"\nmaglev-table-size = 509", &of_every_kind());
    lab.a.apply();
    assert_eq!(map(&lab.a, CILIATE_MAGLEV).shape().value_size, 509 * 4);

    // A backend less, another one more, one of them out of use, no affinity, fewer ranges.
    let changed = [
        service("default/both", &["10.96.94.95:9494", "[fd00:10:96::95]:9494"], &["10.244.1.124:9494", "10.244.1.125:9494"], ""),
        "[[service]]\nname = \"default/wide\"\ncluster-ips = [\"10.96.7.7:443\"]\nexternal-ips = [\"192.0.2.10:443\"]\n\
         source-ranges = [\"10.0.0.0/8\"]\n\
         backends = [{ address = \"10.244.0.49:8443\", state = \"quarantined\" }, { address = \"10.244.1.124:8443\", state = \"maintenance\" }, \"192.0.2.99:8443\"]\n\n".to_owned(),
    ];
    write(&lab, &base, "", &changed);
    lab.a.apply();
    for (what, id) in numbers(&lab.a) {
        assert!(
            first.get(&what).is_none_or(|before| *before == id),
            "{what}: {id} after {first:?}"
        );
    }
    write(&lab, &base, "replace-kube-proxy = false", &changed);
    lab.a.apply();
    let frontends: Vec<String> =
        (lab.a.view().observed.lb_services.keys()).map(Key::to_string).collect();
    assert_eq!(
        frontends,
        ["10.96.7.7:443/TCP", "10.96.94.95:9494/TCP", "[fd00:10:96::95]:9494/TCP"]
    );

    write(&lab, &base, "", &[]);
    lab.a.apply();
    assert_eq!(entries(&lab.a), BTreeMap::new(), "nothing is left");
}

#[test]
fn numbers_outlive_the_daemon() {
    let Some((lab, base)) = prepared() else { return };
    write(&lab, &base, "", &of_every_kind());
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged && status.generation == 1);
    lab.note_bpf();
    let first = numbers(&lab.a);
    daemon.kill();
    // Another comes first by name and address, and one goes.
    let mut services = of_every_kind();
    services.remove(1);
    services.push(service("a/first", &["10.96.0.1:1"], &["10.244.0.2:1", "10.244.1.124:9494"], ""));
    write(&lab, &base, "", &services);
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged);
    let second = numbers(&lab.a);
    assert!(second.contains_key("10.96.0.1:1/TCP") && !second.contains_key("10.96.7.7:443/TCP"));
    for (what, id) in &second {
        assert!(first.get(what).is_none_or(|before| before == id), "{what}: {first:?}, {second:?}");
    }
    let unique: BTreeSet<&u32> = second
        .iter()
        .filter(|(what, _)| !what.ends_with("/6") && !what.ends_with("/17"))
        .map(|(_, id)| id)
        .collect();
    let frontends = lab.a.view().observed.lb_services.len();
    assert_eq!(unique.len(), frontends, "one number each: {second:?}");
    daemon.kill();
    lab.a.assert_no_changes();
}

/// Cut off after any op, and in the middle of the largest one.
#[test]
fn a_plan_that_is_cut_off_is_taken_up() {
    let Some((lab, base)) = prepared() else { return };
    write(&lab, &base, "algorithm = \"maglev\"", &[]);
    lab.a.apply();
    lab.note_bpf();
    for cut in [1, 5, 9, 14, 20, 26] {
        write(&lab, &base, "algorithm = \"maglev\"", &of_every_kind());
        let mut plan = lab.a.view().plan;
        assert!(plan.ops.len() > cut, "{} ops", plan.ops.len());
        plan.ops.truncate(cut);
        lab.a.run_ops(&Plan { ops: plan.ops, blocked: Vec::new() });
        lab.a.apply();
        write(&lab, &base, "algorithm = \"maglev\"", &[]);
        let mut plan = lab.a.view().plan;
        plan.ops.truncate(cut);
        lab.a.run_ops(&Plan { ops: plan.ops, blocked: Vec::new() });
        lab.a.apply();
        assert_eq!(entries(&lab.a), BTreeMap::new(), "cut after {cut}");
    }
}

#[test]
fn what_is_half_made_or_altered_is_mended() {
    let Some((lab, base)) = prepared() else { return };
    write(&lab, &base, "algorithm = \"maglev\"\nmaglev-table-size = 251", &of_every_kind());
    lab.a.apply();
    lab.note_bpf();
    let (before, first) = (entries(&lab.a), numbers(&lab.a));
    let key = |address: [u8; 4], port: u16, slot| {
        Lb4Key {
            address_be: address,
            port_be: port.to_be_bytes(),
            slot,
            protocol: 6,
            ..Lb4Key::default()
        }
        .to_bytes()
    };
    let services = map(&lab.a, CILIUM_LB4_SERVICES);
    // Slot 0 gone, as if killed before it was written; a slot gone; a slot too many; another backend in one.
    services
        .delete(&[&key([10, 96, 94, 95], 9494, 0)[..], &key([192, 0, 2, 10], 443, 1)])
        .expect("remove");
    let slot = LbValue { backend_id: 77, rev_nat: 3, flags: 9, ..LbValue::default() };
    services.update_one(&key([10, 96, 7, 7], 443, 9), &slot.to_bytes()).expect("write");
    services.update_one(&key([203, 0, 113, 5], 443, 1), &slot.to_bytes()).expect("write");
    // A frontend of nobody, with and without slot 0.
    let head = LbValue { count: 1, rev_nat: 900, ..LbValue::default() };
    services.update_one(&key([10, 97, 0, 1], 80, 0), &head.to_bytes()).expect("write");
    services.update_one(&key([10, 97, 0, 2], 80, 3), &slot.to_bytes()).expect("write");
    // What is under numbers of nobody, and of somebody.
    let used = first["10.96.7.7:443/TCP"] as u16;
    let reverse = Lb4ReverseNat { address_be: [10, 97, 0, 9], port_be: [0, 80] }.to_bytes();
    for id in [901, used] {
        let by_number = RevNat { rev_nat: id }.to_bytes();
        map(&lab.a, CILIUM_LB4_REVERSE_NAT).update_one(&by_number, &reverse).expect("write");
        let range =
            Lb4SourceRange { prefix_len: 40, rev_nat: id, pad: 0, address_be: [11, 0, 0, 0] };
        map(&lab.a, CILIUM_LB4_SOURCE_RANGE).update_one(&range.to_bytes(), &[1]).expect("write");
        let pair = LbAffinityMatch { backend_id: 5, rev_nat: id, pad: 0 };
        map(&lab.a, CILIUM_LB_AFFINITY_MATCH).update_one(&pair.to_bytes(), &[1]).expect("write");
        let index = u32::from(id).to_ne_bytes();
        map(&lab.a, CILIATE_MAGLEV_INDEX).update_one(&index, &[7; 4]).expect("write");
    }
    // A backend of nobody, one that leads elsewhere, one without its number's twin; a table with a wrong entry.
    let backends = map(&lab.a, CILIUM_LB4_BACKENDS);
    let stray = Lb4Backend {
        address_be: [10, 9, 9, 9],
        port_be: [0, 80],
        protocol: 6,
        ..Lb4Backend::default()
    };
    backends.update_one(&BackendId { id: 500 }.to_bytes(), &stray.to_bytes()).expect("write");
    let known = BackendId { id: first["10.244.1.124:9494/6"] }.to_bytes();
    backends.update_one(&known, &Lb4Backend { zone: 3, ..stray }.to_bytes()).expect("write");
    let tables = map(&lab.a, CILIATE_MAGLEV);
    let (table, mut content) = tables.entries().expect("read").remove(0);
    content[100] ^= 1;
    tables.update_one(&table, &content).expect("write");
    assert_ne!(entries(&lab.a), before);
    lab.a.apply();
    assert_eq!(entries(&lab.a), before);
    let mut after = numbers(&lab.a);
    // Nobody can tell the number of a backend of which the entry was lost.
    after.retain(|what, _| what != "10.244.1.124:9494/6");
    for (what, id) in after {
        assert_eq!(first.get(&what), Some(&id), "{what}");
    }
}

/// Reads the maps as the programs do, for as long as `done` is false; returns how often. What slot 0 speaks of has to
/// be there, unless slot 0 has changed since.
fn watch(node: &Node, done: &AtomicBool, count: &AtomicU64) -> Vec<String> {
    let (services, backends) = (map(node, CILIUM_LB4_SERVICES), map(node, CILIUM_LB4_BACKENDS));
    let reverse_nat = map(node, CILIUM_LB4_REVERSE_NAT);
    let mut wrong = Vec::new();
    let value = |key: &Lb4Key| {
        let bytes = services.lookup(&key.to_bytes()).expect("look up")?;
        Some(LbValue::from_bytes(bytes.as_slice().try_into().expect("the size")))
    };
    while !done.load(Ordering::Relaxed) {
        for last in 0..SERVICES as u8 {
            let key = Lb4Key {
                address_be: [10, 96, 1, last],
                port_be: [0, 80],
                protocol: 6,
                ..Lb4Key::default()
            };
            let Some(head) = value(&key) else { continue };
            let mut missing = Vec::new();
            for slot in 1..=head.count {
                match value(&Lb4Key { slot, ..key }) {
                    None => missing.push(format!("slot {slot}")),
                    Some(found) => {
                        let id = BackendId { id: found.backend_id }.to_bytes();
                        if backends.lookup(&id).expect("look up").is_none() {
                            missing.push(format!("backend {} of slot {slot}", found.backend_id));
                        }
                    }
                }
            }
            let number = RevNat { rev_nat: head.rev_nat }.to_bytes();
            if reverse_nat.lookup(&number).expect("look up").is_none() {
                missing.push("reverse nat".into());
            }
            // A backend goes after all slots that name it, and slots after slot 0.
            if !missing.is_empty() && value(&key) == Some(head) {
                wrong.push(format!("10.96.1.{last}: {missing:?} of {head:?}"));
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    wrong
}

const SERVICES: usize = 40;

#[test]
fn nobody_meets_a_service_that_is_half_made() {
    let Some((lab, base)) = prepared() else { return };
    write(&lab, &base, "", &[]);
    lab.a.apply();
    lab.note_bpf();
    let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let wrong = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&lab.a, &done, &count));
        // Services come, grow, shrink, swap backends and go.
        for round in 0..12usize {
            let one = |number: usize| {
                let size = [3, 8, 1, 5][(round + number) % 4];
                let backends: Vec<String> = (0..size)
                    .map(|at| format!("10.244.1.{}:80", 1 + (at * 7 + round * 3 + number) % 200))
                    .collect();
                let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
                service(&format!("s{number}"), &[&format!("10.96.1.{number}:80")], &backends, "")
            };
            let here = (0..SERVICES).filter(|number| (round + number) % 6 != 0);
            write(&lab, &base, "", &here.map(one).collect::<Vec<_>>());
            let ran = lab.a.ciliate(&["apply"]);
            assert_eq!(ran.code, 0, "{ran:?}");
        }
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("the watcher")
    });
    assert_eq!(wrong, [""; 0]);
    assert!(count.load(Ordering::Relaxed) > 1000, "the watcher hardly looked");
}
