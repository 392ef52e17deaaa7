//! Lowering, over rounds: what was chosen stays chosen, what was changed is put back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ciliate::bpf_abi::{CILIATE_DEVICE, DeviceKey, DeviceValue};
use ciliate::intent::{Endpoint, Intent, Routing, RoutingMode, Tunnel, TunnelProtocol};
use ciliate::kinds::bpf_map::MapName;
use ciliate::kinds::link::{self, End, LinkInfo};
use ciliate::kinds::{Desired, Observed};
use ciliate::lower::{LXC_HEALTH, lower, lower_nothing, lxc_name};
use ciliate::net::Mac;
use ciliate::plan::{Plan, check};
use proptest::prelude::*;

use super::nodes::{Machine, endpoints, facts, families, intent, machine};

/// A node, the machine it is on, and the endpoints it is given one after the other.
#[derive(Debug, Clone)]
pub struct Life {
    intent: Intent,
    pub machine: Machine,
    endpoints: Vec<std::collections::BTreeMap<std::sync::Arc<str>, Endpoint>>,
}

pub fn life(may_miss: bool) -> impl Strategy<Value = Life> {
    families().prop_flat_map(move |families| {
        let endpoints = prop::collection::vec(endpoints(families, may_miss), 1..4);
        (intent(families), machine(families), endpoints)
            .prop_map(|(intent, machine, endpoints)| Life { intent, machine, endpoints })
    })
}

impl Life {
    pub fn intents(&self) -> impl Iterator<Item = Intent> + '_ {
        self.endpoints
            .iter()
            .map(|endpoints| Intent { endpoints: endpoints.clone(), ..self.intent.clone() })
    }
}

/// Lowers, plans and predicts: one round that goes all the way.
pub fn round(machine: &Machine, intent: &Intent, observed: &Observed) -> (Desired, Plan, Observed) {
    let (desired, _) = lower(intent, &facts(machine, intent, observed));
    let (plan, after) = Plan::make(&desired, observed.clone());
    (desired, plan, after)
}

/// What an endpoint was given.
#[derive(Debug, Clone, PartialEq)]
struct Given {
    ifindex: u32,
    id: u16,
    addresses: [IpAddr; 2],
}

fn given(endpoint: &Endpoint, observed: &Observed) -> Option<Given> {
    given_to(lxc_name(&endpoint.netns, &endpoint.ifname).as_str(), observed)
}

/// The same by device.
fn given_to(lxc: &str, observed: &Observed) -> Option<Given> {
    let link = observed.links.get(&lxc.parse().unwrap())?;
    let device = observed.bpf_map_entries.iter().find(|(key, _)| {
        key.map == MapName::of_abi(CILIATE_DEVICE)
            && DeviceKey::from_bytes(key.key.as_slice().try_into().unwrap()).ifindex == link.ifindex
    });
    let (_, seen) = device?;
    let value = DeviceValue::from_bytes(seen.value.as_slice().try_into().unwrap());
    let addresses = [value.ipv4_be.into(), value.ipv6_be.into()];
    Some(Given { ifindex: link.ifindex, id: value.endpoint_id, addresses })
}

/// Without the reasons, which name what is in the way now.
fn objects(desired: Desired) -> Desired {
    Desired { blocked: Vec::new(), ..desired }
}

/// Somebody else's device on a port.
pub fn foreign_tunnel(ifname: &str, port: u16) -> LinkInfo {
    let (mac, alias) = (Mac([2, 0, 0, 0, 0, 99]), String::new());
    LinkInfo {
        altnames: Vec::new(),
        ifindex: 999,
        ifname: ifname.parse().unwrap(),
        kind: "vxlan".into(),
        end: End {
            mac,
            mtu_bytes: 1500,
            up: true,
            arp: true,
            alias,
            grouped: false,
            enslaved: false,
            promiscuous: false,
        },
        group: 0,
        link: None,
        link_netnsid: None,
        xdp: None,
        tunnel: Some(link::Tunnel { port, flow_based: false }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn equal_input_gives_an_equal_result(life in life(true)) {
        let mut observed = life.machine.untouched.clone();
        for intent in life.intents() {
            let facts = facts(&life.machine, &intent, &observed);
            prop_assert_eq!(lower(&intent, &facts), lower(&intent, &facts.clone()));
            observed = round(&life.machine, &intent, &observed).2;
        }
    }

    #[test]
    fn what_was_chosen_is_chosen_again(life in life(true)) {
        let mut observed = life.machine.untouched.clone();
        for intent in life.intents() {
            let (desired, plan, after) = round(&life.machine, &intent, &observed);
            prop_assert_eq!(check::check(&plan.ops, &observed), Ok(()));
            let (again, none, same) = round(&life.machine, &intent, &after);
            prop_assert_eq!(objects(again), objects(desired));
            let lines: Vec<String> = none.ops.iter().map(ciliate::kinds::Op::line).collect();
            prop_assert_eq!(lines, Vec::<String>::new());
            prop_assert_eq!(&same, &after);
            observed = after;
        }
    }

    #[test]
    fn endpoints_keep_what_they_have_while_others_come_and_go(life in life(false)) {
        let mut observed = life.machine.untouched.clone();
        let mut before: Option<(Intent, Observed)> = None;
        for intent in life.intents() {
            let after = round(&life.machine, &intent, &observed).2;
            let mut taken = BTreeSet::new();
            if let Some(health) = given_to(LXC_HEALTH, &after) {
                taken.extend([format!("ifindex {}", health.ifindex), format!("id {}", health.id)]);
                let both = health.addresses.into_iter().filter(|a| !a.is_unspecified());
                prop_assert!(both.eq(intent.node.health_addresses.iter().copied()));
            }
            prop_assert_eq!(taken.is_empty(), intent.node.health_addresses.is_empty());
            for endpoint in intent.endpoints.values() {
                // Somebody who was given no address may hold the one that this one asks for now.
                let now = given(endpoint, &after);
                prop_assert!(now.is_some(), "{} is not wired", endpoint.name);
                let now = now.unwrap();
                prop_assert!(taken.insert(format!("ifindex {}", now.ifindex)), "ifindex twice");
                prop_assert!(taken.insert(format!("id {}", now.id)), "id twice");
                for address in now.addresses.iter().filter(|a| !a.is_unspecified()) {
                    prop_assert!(taken.insert(format!("address {address}")), "{address} twice");
                    prop_assert!(!intent.node.routers.contains(address));
                    prop_assert!(!intent.node.health_addresses.contains(address));
                    prop_assert!(intent.node.cidrs.iter().any(|cidr| cidr.contains(address)));
                }
                for address in &endpoint.addresses {
                    prop_assert!(now.addresses.contains(address), "{address} was asked for");
                }
                let Some((earlier, there)) = &before else { continue };
                let was = earlier.endpoints.get(&endpoint.name);
                let Some(was) = was.and_then(|was| given(was, there)) else { continue };
                prop_assert_eq!((was.ifindex, was.id), (now.ifindex, now.id));
                let asked_for = |address| {
                    intent.endpoints.values().any(|other| other.addresses.contains(address))
                };
                if endpoint.addresses.is_empty() && !was.addresses.iter().any(asked_for) {
                    prop_assert_eq!(was.addresses, now.addresses);
                }
            }
            before = Some((intent, after.clone()));
            observed = after;
        }
    }

    #[test]
    fn a_tunnel_that_cannot_be_had_leaves_the_one_that_is_there(
        mut life in life(false),
        geneve in any::<bool>(),
        to_geneve in any::<bool>(),
        by_name in any::<bool>(),
    ) {
        life.machine.links.retain(|link| link.tunnel.is_none());
        let routing = |geneve, port| {
            let protocol = if geneve { TunnelProtocol::Geneve } else { TunnelProtocol::Vxlan };
            let mode = RoutingMode::Tunnel(Tunnel { protocol, port, notrack: true, underlay: None });
            Routing { mode, ..life.intent.routing.clone() }
        };
        let intent = life.intents().next().unwrap();
        let working = Intent { routing: routing(geneve, 8472), ..intent.clone() };
        let observed = round(&life.machine, &working, &life.machine.untouched).2;
        let (before, ..) = round(&life.machine, &working, &observed);
        let other = Intent { routing: routing(to_geneve, 5555), ..intent };
        let mut facts = facts(&life.machine, &other, &observed);
        // Somebody else has the name or the port.
        let device = if to_geneve { "cilium_geneve" } else { "cilium_vxlan" };
        let theirs = if by_name && to_geneve != geneve { device } else { "theirs" };
        facts.links.insert(theirs.parse().unwrap(), foreign_tunnel(theirs, 5555));
        let (after, _) = lower(&other, &facts);
        let reasons: Vec<String> = after.blocked.iter().map(ToString::to_string).collect();
        prop_assert!(reasons.iter().any(|reason| reason.contains("stays as it is")), "{reasons:?}");
        prop_assert_eq!(objects(after), objects(before));
    }

    #[test]
    fn destroying_leaves_the_machine_as_it_was(life in life(true), round_cut in 0.0..1.0f64) {
        let mut observed = life.machine.untouched.clone();
        let last = life.endpoints.len() - 1;
        for (index, intent) in life.intents().enumerate() {
            let (_, plan, after) = round(&life.machine, &intent, &observed);
            // The last round is cut short.
            if index == last {
                let done = (plan.ops.len() as f64 * round_cut) as usize;
                plan.ops[..done].iter().for_each(|op| op.predict(&mut observed));
            } else {
                observed = after;
            }
        }
        // Looked for only where it is asked for.
        observed.wireguard_keys.clear();
        let none = Intent { endpoints: Default::default(), ..life.intent.clone() };
        let (nothing, _) = lower_nothing(&facts(&life.machine, &none, &observed));
        let (plan, after) = Plan::make(&nothing, observed.clone());
        prop_assert_eq!(check::check(&plan.ops, &observed), Ok(()));
        let counts = after.owned_counts();
        let left: Vec<_> = counts.iter().filter(|(kind, n)| *n > 0 && *kind != "sysctl").collect();
        prop_assert!(left.is_empty(), "{left:?}");
        prop_assert_eq!(after.sysctls, life.machine.untouched.sysctls.clone());
    }
}
