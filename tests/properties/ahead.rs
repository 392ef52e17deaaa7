//! What is planned ahead of a look, from the services that change alone, is what a look at everything leads to.

use std::sync::Arc;

use ciliate::config::{Document, Files, render};
use ciliate::engine::ahead::Last;
use ciliate::facts::{Dead, Facts, ServiceIds};
use ciliate::intent::{self, Intent};
use ciliate::kinds::{Desired, Observed};
use ciliate::lower::lower;
use ciliate::plan::Plan;
use proptest::prelude::*;
use proptest::sample::Index;

/// One of few, so that services share much.
#[derive(Debug, Clone)]
struct Service {
    udp: bool,
    ipv6: bool,
    kind: usize,
    local: bool,
    affinity: bool,
    ranges: bool,
    port: bool,
    /// Number, weight and state of each.
    backends: Vec<(u8, u8, usize)>,
}

fn service() -> impl Strategy<Value = Service> {
    let flag = || prop::bool::weighted(0.2);
    let backends = prop::collection::vec((1..9u8, 1..3u8, 0..6usize), 0..4);
    let flags = (flag(), flag(), 0..3usize, flag(), flag(), flag(), flag());
    (flags, backends).prop_map(
        |((udp, ipv6, kind, local, affinity, ranges, port), mut backends)| {
            backends.sort();
            backends.dedup_by_key(|(number, ..)| *number);
            Service { udp, ipv6, kind, local, affinity, ranges, port, backends }
        },
    )
}

impl Service {
    fn text(&self, number: usize) -> String {
        let at = |base4: &str, base6: &str, number: usize| match self.ipv6 {
            false => format!("{base4}.{number}:80"),
            true => format!("[{base6}::{number}]:80"),
        };
        let kind = ["cluster-ips", "external-ips", "load-balancer-ips"][self.kind];
        let backend = |(number, weight, state): &(u8, u8, usize)| {
            let address = at("10.244.0", "fd00:10:244", usize::from(*number));
            let state =
                ["active", "active", "active", "terminating", "quarantined", "maintenance"][*state];
            format!("{{ address = \"{address}\", weight = {weight}, state = \"{state}\" }}")
        };
        let backends: Vec<String> = self.backends.iter().map(backend).collect();
        let mut text = format!(
            "[[service]]\nname = \"s{number}\"\nprotocol = \"{}\"\n{kind} = [\"{}\"]\nbackends = [{}]\n",
            if self.udp { "UDP" } else { "TCP" },
            at("10.96.0", "fd00:96", number + 1),
            backends.join(", ")
        );
        for (given, line) in [
            (self.local, "external-traffic-policy = \"local\"\n".to_owned()),
            (self.affinity, "session-affinity = \"10m\"\n".to_owned()),
            (self.ranges && !self.ipv6, "source-ranges = [\"192.0.2.0/24\"]\n".to_owned()),
            (self.port, format!("node-port = {}\n", 30_000 + number)),
        ] {
            text += if given { &line } else { "" };
        }
        text
    }
}

fn files(maglev: bool, services: &[Option<Service>]) -> Files {
    let algorithm = if maglev { "maglev" } else { "random" };
    let mut text = format!(
        "[node]\naddresses = [\"172.18.0.3\", \"fc00:18::3\"]\ncidrs = [\"10.244.0.0/24\", \"fd00:10:244::/80\"]\n\
         [routing]\nmode = \"native\"\n[load-balancing]\nalgorithm = \"{algorithm}\"\nmaglev-table-size = 251\n\
         [[endpoint]]\nname = \"one\"\nnetns = \"/run/netns/one\"\naddresses = [\"10.244.0.2\", \"fd00:10:244::2\"]\n"
    );
    for (number, service) in services.iter().enumerate() {
        text += &service.as_ref().map(|service| service.text(number)).unwrap_or_default();
    }
    Files::of_texts([("x.toml", text)])
}

/// What of it is about services.
fn of_services(all: Desired) -> Desired {
    let Desired { lb_backends, maglev_tables, lb_services, .. } = all;
    Desired { lb_backends, maglev_tables, lb_services, ..Desired::default() }
}

fn facts(observed: &Observed, dead: &Arc<Dead>) -> Facts {
    let services = ServiceIds::of(&observed.lb_services, &observed.lb_backends);
    let namespaces = [(Arc::from("one"), Ok(Vec::new()))].into();
    Facts { services, namespaces, dead: dead.clone(), ..Facts::default() }
}

/// Plans by looking at everything. Returns what there is after it.
fn plan_all(intent: &Intent, observed: &Observed, dead: &Arc<Dead>) -> (Plan, Observed) {
    let desired = of_services(lower(intent, &facts(observed, dead)).0);
    Plan::make(&desired, observed.clone())
}

fn read(files: Files) -> (Document, Intent) {
    let document = files.document();
    let read = intent::read(&document);
    let intent = read.unwrap_or_else(|p| panic!("{}", render(document.sources(), &p, false)));
    (document, intent)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ops_ahead_are_those_of_a_look_at_everything(
        maglev: bool,
        begin in prop::collection::vec(prop::option::of(service()), 1..24),
        steps in prop::collection::vec(
            prop::collection::vec((any::<Index>(), prop::option::of(service())), 1..3), 1..6),
    ) {
        let (mut services, dead) = (begin, Arc::new(Dead::new()));
        let (mut document, mut intent) = read(files(maglev, &services));
        let (_, mut observed) = plan_all(&intent, &Observed::default(), &dead);
        for step in steps {
            for (at, service) in step {
                let at = at.index(services.len());
                services[at] = service;
            }
            let now = files(maglev, &services);
            let (kept, rest) = now.beside(&document).expect("no mistakes");
            let amended = intent.amend(&rest, &kept);
            let (next, all) = read(now);
            document = next;
            let Some(amended) = amended else {
                intent = all;
                observed = plan_all(&intent, &observed, &dead).1;
                continue;
            };
            prop_assert_eq!(&intent, &all);
            let (plan, after) = plan_all(&intent, &observed, &dead);
            let last = Last::new(facts(&observed, &dead), observed.clone());
            match last.plan(&intent, &amended, &dead) {
                Some(ahead) => prop_assert_eq!(ahead.ops, plan.ops),
                None => prop_assert!(plan.ops.is_empty(), "not told: {:#?}", plan.ops),
            }
            observed = after;
        }
    }
}

#[test]
fn nothing_is_planned_from_what_does_not_follow() {
    let one = |kind| Service {
        udp: false,
        ipv6: false,
        kind,
        local: false,
        affinity: false,
        ranges: false,
        port: false,
        backends: vec![(1, 1, 0), (2, 1, 0)],
    };
    let dead = Arc::new(Dead::new());
    let first = files(true, &[Some(one(1)), Some(one(1)), Some(one(1)), Some(one(0))]);
    let (document, before) = read(first);
    let observed = plan_all(&before, &Observed::default(), &dead).1;
    let after = |change: &dyn Fn(&mut Observed), dead: &Arc<Dead>| {
        let now = files(true, &[Some(one(1)), Some(one(1)), Some(one(1)), None]);
        let (kept, rest) = now.beside(&document).unwrap();
        let mut intent = before.clone();
        let amended = intent.amend(&rest, &kept).unwrap();
        let mut observed = observed.clone();
        change(&mut observed);
        Last::new(facts(&observed, dead), observed)
            .plan(&intent, &amended, dead)
            .map(|plan| plan.ops.len())
    };
    assert_eq!(after(&|_| {}, &dead), Some(1));
    // Somebody has been at a backend, at the service that goes, or at the table of those that share its backends.
    assert_eq!(
        after(
            &|observed| {
                let _ = observed.lb_backends.pop_first();
            },
            &dead
        ),
        None
    );
    assert_eq!(
        after(
            &|observed| {
                let _ = observed.lb_services.pop_last();
            },
            &dead
        ),
        None
    );
    assert_eq!(
        after(
            &|observed| {
                let _ = observed.maglev_tables.pop_first();
            },
            &dead
        ),
        None
    );
}
