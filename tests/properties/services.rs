//! Lowering of services: numbers stay, backends are shared, policies and states choose.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ciliate::bpf_abi::{SERVICE_FLAG_ROUTABLE, SERVICE_FLAG2_TWO_SCOPES};
use ciliate::config::{Document, render};
use ciliate::facts::{Facts, ServiceIds};
use ciliate::intent::{self, Intent};
use ciliate::kinds::Desired;
use ciliate::kinds::lb_service::{Key, State};
use ciliate::lower::lower;
use proptest::prelude::*;

const NODE: &str = "[node]\naddresses = [\"172.18.0.3\", \"fc00:18::3\"]\n\
    cidrs = [\"10.244.0.0/24\", \"fd00:10:244::/80\"]\n[routing]\nmode = \"native\"\n";

fn read(text: &str) -> Intent {
    let document = Document::of_texts([("x.toml", format!("{NODE}{text}"))]);
    intent::read(&document)
        .unwrap_or_else(|problems| panic!("{}", render(document.sources(), &problems, false)))
}

fn lowered(text: &str) -> Desired {
    lower(&read(text), &Facts::default()).0
}

/// A frontend's state, by how it is shown.
fn state(desired: &Desired, frontend: &str) -> State {
    let found = desired.lb_services.iter().find(|(key, _)| key.to_string() == frontend);
    let (_, wanted) = found.unwrap_or_else(|| panic!("no {frontend}: {:?}", names(desired)));
    (*wanted.spec).clone()
}

fn names(desired: &Desired) -> Vec<String> {
    desired.lb_services.keys().map(ToString::to_string).collect()
}

/// The addresses of a frontend's slots.
fn backends(desired: &Desired, frontend: &str) -> Vec<String> {
    let slots = state(desired, frontend).slots;
    let address = |id: u32| {
        let found = desired.lb_backends.iter().find(|(key, _)| key.id == id);
        found.map(|(_, wanted)| wanted.spec.address.ip().to_string()).unwrap()
    };
    slots.iter().map(|slot| address(slot.backend)).collect()
}

#[test]
fn states_choose_the_slots() {
    let service = |states: &[&str]| {
        let table = |(at, state): (usize, &&str)| {
            format!("{{ address = \"10.244.1.{}:80\", state = \"{state}\" }}", at + 1)
        };
        let list: Vec<String> = states.iter().enumerate().map(table).collect();
        format!(
            "[[service]]\nname = \"a\"\ncluster-ips = [\"10.96.0.1:80\"]\nbackends = [{}]\n",
            list.join(", ")
        )
    };
    for (states, slots, count, quarantined) in [
        (
            &["active", "terminating", "quarantined", "maintenance"][..],
            &["10.244.1.1", "10.244.1.3"][..],
            1,
            1,
        ),
        (&["maintenance", "terminating", "terminating"], &["10.244.1.2", "10.244.1.3"], 2, 0),
        (&["quarantined", "maintenance"], &["10.244.1.1"], 0, 1),
        (&["quarantined", "active"], &["10.244.1.2", "10.244.1.1"], 1, 1),
        (&[], &[], 0, 0),
    ] {
        let desired = lowered(&service(states));
        let head = state(&desired, "10.96.0.1:80/TCP").head.unwrap();
        assert_eq!(backends(&desired, "10.96.0.1:80/TCP"), slots, "{states:?}");
        assert_eq!((head.count, head.quarantined), (count, quarantined), "{states:?}");
        assert_eq!(desired.lb_backends.len(), states.len());
    }
}

#[test]
fn who_was_found_dead_is_out_of_use() {
    let service = |name: &str, check: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\ncluster-ips = [\"10.96.0.1:{}\"]\nsession-affinity = \"1h\"\n\
             backends = [\"10.244.1.1:80\", \"10.244.1.2:80\", {{ address = \"10.244.1.3:80\", state = \"terminating\" }}]\n{check}",
            u32::from(name.as_bytes()[0])
        )
    };
    let checked = "[service.health-check]\n";
    let dead = |names: &[&str]| {
        let each = names.iter().flat_map(|name| {
            // Of those, .3 is not asked, and .9 is none.
            [1, 3, 9].map(|n| ((*name).into(), format!("10.244.1.{n}:80").parse().unwrap()))
        });
        Facts { dead: Arc::new(each.collect()), ..Facts::default() }
    };
    let lowered = |text: &str, facts: &Facts| lower(&read(text), facts).0;
    let states = |desired: &Desired| {
        desired.lb_backends.values().map(|wanted| wanted.spec.state).collect::<Vec<_>>()
    };
    // `b` has nobody checked, whatever is said of it.
    let both = service("a", checked) + &service("b", "");
    let desired = lowered(&both, &dead(&["a", "b"]));
    let (a, b) = (state(&desired, "10.96.0.1:97/TCP"), state(&desired, "10.96.0.1:98/TCP"));
    assert_eq!(backends(&desired, "10.96.0.1:97/TCP"), ["10.244.1.2", "10.244.1.1"]);
    let counts = |state: &State| state.head.map(|head| (head.count, head.quarantined));
    assert_eq!((counts(&a), counts(&b)), (Some((1, 1)), Some((2, 0))));
    assert_eq!((a.kept.len(), b.kept.len()), (1, 2), "nobody is kept at the dead");
    assert_eq!(states(&desired), [0, 0, 1], "another service has it in use");
    let alone = lowered(&service("a", checked), &dead(&["a"]));
    assert_eq!(states(&alone), [2, 0, 1], "a SYN of an old flow goes elsewhere");
    let nobody = lowered(&service("a", checked), &Facts::default());
    assert_eq!(counts(&state(&nobody, "10.96.0.1:97/TCP")), Some((2, 0)));
}

#[test]
fn policies_choose_the_backends() {
    let service = |more: &str| {
        lowered(&format!(
            "[[endpoint]]\nname = \"here\"\nnetns = \"/run/netns/here\"\naddresses = [\"10.244.0.9\"]\n\
             [[service]]\nname = \"a\"\ncluster-ips = [\"10.96.0.1:80\"]\nnode-port = 30080\n\
             external-ips = [\"192.0.2.1:80\"]\nbackends = [\"10.244.0.9:80\", \"10.244.1.9:80\", \"172.18.0.3:80\"]\n{more}\n"
        ))
    };
    let (all, here) = (["10.244.0.9", "10.244.1.9", "172.18.0.3"], ["10.244.0.9", "172.18.0.3"]);
    let cluster = service("");
    assert_eq!(names(&cluster).len(), 4, "{:?}", names(&cluster));
    for name in names(&cluster) {
        assert_eq!(backends(&cluster, &name), all, "{name}");
    }
    let both = service("external-traffic-policy = \"local\"\ninternal-traffic-policy = \"local\"");
    for name in names(&both) {
        assert_eq!(backends(&both, &name), here, "{name}");
    }
    let outside = service("external-traffic-policy = \"local\"");
    assert_eq!(names(&outside).len(), 7, "{:?}", names(&outside));
    assert_eq!(backends(&outside, "10.96.0.1:80/TCP"), all);
    for name in ["192.0.2.1:80/TCP", "172.18.0.3:30080/TCP", "0.0.0.0:30080/TCP"] {
        assert_eq!(backends(&outside, name), here, "{name}");
        assert_eq!(backends(&outside, &format!("{name}/i")), all, "{name}");
        let head = state(&outside, name).head.unwrap();
        assert_ne!(head.flags2 & SERVICE_FLAG2_TWO_SCOPES, 0, "{name}");
        let routable = head.flags & SERVICE_FLAG_ROUTABLE != 0;
        assert_eq!(routable, !name.starts_with("0.0.0.0"), "{name}");
    }
    let inside = service("internal-traffic-policy = \"local\"");
    assert_eq!(backends(&inside, "10.96.0.1:80/TCP"), here);
    assert_eq!(backends(&inside, "192.0.2.1:80/TCP"), all);
    assert_eq!(backends(&inside, "192.0.2.1:80/TCP/i"), here);
}

#[test]
fn a_node_port_is_of_the_families_of_its_service() {
    let names = |more: &str| {
        names(&lowered(&format!("[[service]]\nname = \"a\"\nnode-port = 30080\n{more}\n")))
    };
    let v4 = ["0.0.0.0:30080/TCP", "172.18.0.3:30080/TCP"];
    let v6 = ["[::]:30080/TCP", "[fc00:18::3]:30080/TCP"];
    assert_eq!(names("backends = [\"10.244.1.9:80\"]"), v4);
    assert_eq!(names("backends = [\"[fd00::1]:80\"]"), v6);
    assert_eq!(names(""), [v4, v6].concat());
}

#[test]
fn equal_backends_share_a_table() {
    let service = |name: &str, ip: u8, backends: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\ncluster-ips = [\"10.96.0.{ip}:80\"]\nexternal-ips = [\"192.0.2.{ip}:80\"]\nbackends = [{backends}]\n"
        )
    };
    let same = "\"10.244.1.1:80\", \"10.244.1.2:80\"";
    let desired = lowered(&format!(
        "[load-balancing]\nalgorithm = \"maglev\"\nmaglev-table-size = 251\n{}{}{}{}",
        service("a", 1, same),
        service("b", 2, same),
        service("c", 3, "\"10.244.1.1:80\", { address = \"10.244.1.2:80\", weight = 50 }"),
        service("d", 4, ""),
    ));
    let table = |ip: u8| state(&desired, &format!("192.0.2.{ip}:80/TCP")).table;
    assert_eq!(desired.maglev_tables.len(), 2);
    assert!(table(1) == table(2) && table(1) != table(3), "weights tell tables apart");
    assert_eq!(table(4), 0, "nobody to choose");
    assert_eq!(state(&desired, "10.96.0.1:80/TCP").table, 0, "from inside it is at random");
}

/// What the kernel holds once all is as desired.
fn held(desired: &Desired) -> Facts {
    let mut services = ServiceIds::default();
    for (key, wanted) in &desired.lb_services {
        let (Key::Frontend(frontend), Some(id)) = (key, wanted.spec.id()) else { unreachable!() };
        services.frontends.push((*frontend, id));
        services.numbers.push(id);
    }
    for (key, wanted) in &desired.lb_backends {
        services.backends.push(((wanted.spec.address, wanted.spec.protocol), key.id));
        services.backend_ids.push(key.id);
    }
    services.numbers.sort_unstable();
    services.backends.sort_unstable();
    services.backend_ids.sort_unstable();
    Facts { services, ..Facts::default() }
}

/// The numbers by what they are of.
fn numbers(desired: &Desired) -> BTreeMap<String, u32> {
    let frontends = desired.lb_services.iter();
    let frontends = frontends.map(|(key, w)| (key.to_string(), w.spec.id().unwrap().into()));
    let backends = desired.lb_backends.iter();
    frontends.chain(backends.map(|(key, w)| (w.spec.to_string(), key.id))).collect()
}

fn services() -> impl Strategy<Value = BTreeMap<u8, (bool, Vec<u8>)>> {
    let backends =
        prop::collection::btree_set(1..9u8, 0..4).prop_map(|set| set.into_iter().collect());
    prop::collection::btree_map(1..12u8, (any::<bool>(), backends), 0..8)
}

fn text(services: &BTreeMap<u8, (bool, Vec<u8>)>) -> String {
    let one = |(ip, (udp, backends)): (&u8, &(bool, Vec<u8>))| {
        let protocol = if *udp { "UDP" } else { "TCP" };
        let list: Vec<String> = backends.iter().map(|b| format!("\"10.244.1.{b}:80\"")).collect();
        let list = list.join(", ");
        format!(
            "[[service]]\nname = \"s{ip}\"\nprotocol = \"{protocol}\"\ncluster-ips = [\"10.96.0.{ip}:80\"]\nbackends = [{list}]\n"
        )
    };
    services.iter().map(one).collect()
}

proptest! {
    /// Whatever changes, what stays keeps its number, and nothing gets one that something else had before.
    #[test]
    fn numbers_stay(before in services(), after in services()) {
        let first = lowered(&text(&before));
        let (second, _) = lower(&read(&text(&after)), &held(&first));
        let (old, new) = (numbers(&first), numbers(&second));
        for (what, id) in &new {
            prop_assert!(old.get(what).is_none_or(|before| before == id), "{}", what);
        }
        let ids: BTreeSet<u16> = second.lb_services.values().filter_map(|w| w.spec.id()).collect();
        prop_assert_eq!(ids.len(), second.lb_services.len(), "one number each");
        let stale: BTreeSet<u16> = first.lb_services.iter()
            .filter(|(key, _)| !second.lb_services.contains_key(*key))
            .filter_map(|(_, w)| w.spec.id()).collect();
        prop_assert!(ids.is_disjoint(&stale), "{:?} are still in use", stale);
        let again = lower(&read(&text(&after)), &held(&second)).0;
        prop_assert_eq!(again.lb_services, second.lb_services);
    }
}
