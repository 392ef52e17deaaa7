//! A tunnel that is to take the place of native routing: whatever of it can't be had, the peers are reached
//! as before, and once it can be had it takes over.

use std::collections::BTreeSet;

use ciliate::bpf_abi::CILIUM_IPCACHE;
use ciliate::intent::limits::TABLE_ENCRYPTION;
use ciliate::intent::{Intent, Routing, RoutingMode, Tunnel, TunnelProtocol};
use ciliate::kinds::bpf_map::MapName;
use ciliate::kinds::{ObjectKey, Observed, Op, bpf_map_entry, route};
use ciliate::lower::lower;
use ciliate::plan::{Plan, check};
use proptest::option;
use proptest::prelude::*;

use super::failing::run;
use super::lowering::{Life, foreign_tunnel, life, round};
use super::nodes::facts;

/// A node in force with native routing, and the intent that asks for a tunnel in another table or the same.
fn opening(life: &mut Life, geneve: bool, tables: [Option<u32>; 2]) -> (Observed, Intent) {
    life.machine.links.retain(|link| link.tunnel.is_none());
    let intent = life.intents().next().expect("an intent");
    let protocol = if geneve { TunnelProtocol::Geneve } else { TunnelProtocol::Vxlan };
    let tunnel =
        RoutingMode::Tunnel(Tunnel { protocol, port: 5555, notrack: true, underlay: None });
    let with = |mode, table| {
        let native = mode == RoutingMode::Native;
        let (auto, past) = (intent.routing.auto_direct_node_routes, intent.routing.past_host);
        let routing = Routing {
            mode,
            table,
            auto_direct_node_routes: native && auto,
            past_host: native && past,
            ..intent.routing.clone()
        };
        Intent { routing, ..intent.clone() }
    };
    let observed =
        round(&life.machine, &with(RoutingMode::Native, tables[0]), &life.machine.untouched).2;
    (observed, with(tunnel, tables[1]))
}

/// What decides how packets get to the peers is as it was.
fn stays(before: &Observed, after: &Observed) -> Result<(), TestCaseError> {
    // From which address the tunnel's packets begin does not matter without one.
    let routes = |observed: &Observed| {
        let mut routes = observed.routes.clone();
        let crypt = |key: &route::Key| key.table == TABLE_ENCRYPTION;
        routes.iter_mut().filter(|(key, _)| crypt(key)).for_each(|(_, seen)| seen.way.src = None);
        routes
    };
    prop_assert_eq!(routes(after), routes(before));
    prop_assert_eq!(&after.nftables, &before.nftables);
    // A rule for a table without routes leads nowhere, and may go.
    let leads = |table: u32| before.routes.keys().any(|route| route.table == table);
    for key in before.rules.keys().filter(|key| leads(key.table)) {
        prop_assert!(after.rules.contains_key(key), "{} is gone", key);
    }
    for key in after.rules.keys() {
        prop_assert!(before.rules.contains_key(key), "{} is new", key);
    }
    let entries = |observed: &Observed| {
        let ipcache = MapName::of_abi(CILIUM_IPCACHE);
        let decides =
            |key: &bpf_map_entry::Key| key.map == ipcache || *key == bpf_map_entry::node();
        let entries = observed.bpf_map_entries.clone().into_iter();
        entries.filter(|(key, _)| decides(key)).collect::<Vec<_>>()
    };
    prop_assert_eq!(entries(after), entries(before));
    Ok(())
}

fn table() -> impl Strategy<Value = Option<u32>> {
    option::of(300..302u32)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn native_routing_stays_where_a_tunnel_cannot_be_had(
        mut life in life(false),
        geneve in any::<bool>(),
        tables in [table(), table()],
        by_name in any::<bool>(),
    ) {
        let (before, asked) = opening(&mut life, geneve, tables);
        let mut facts = facts(&life.machine, &asked, &before);
        let device = if geneve { "cilium_geneve" } else { "cilium_vxlan" };
        let theirs = if by_name { device } else { "theirs" };
        facts.links.insert(theirs.parse().unwrap(), foreign_tunnel(theirs, 5555));
        let (desired, _) = lower(&asked, &facts);
        let reasons: Vec<String> = desired.blocked.iter().map(ToString::to_string).collect();
        prop_assert!(reasons.iter().any(|reason| reason.contains("nothing changes")), "{reasons:?}");
        let (plan, after) = Plan::make(&desired, before.clone());
        prop_assert_eq!(check::check(&plan.ops, &before), Ok(()));
        stays(&before, &after)?;
        prop_assert_eq!(Plan::make(&desired, after).0.ops, vec![]);
        // Theirs is gone.
        let (_, plan, opened) = round(&life.machine, &asked, &before);
        prop_assert!(opened.links.contains_key(&device.parse().unwrap()));
        prop_assert!(plan.ops.iter().any(|op| op.object() == ObjectKey::BpfMapEntry(bpf_map_entry::node())));
    }

    #[test]
    fn native_routing_stays_until_the_tunnel_is_there(
        mut life in life(false),
        geneve in any::<bool>(),
        tables in [table(), table()],
    ) {
        let (before, asked) = opening(&mut life, geneve, tables);
        let (desired, plan, predicted) = round(&life.machine, &asked, &before);
        let mut objects = vec![ObjectKey::BpfMapEntry(bpf_map_entry::node())];
        let of_tunnel = |object: &ObjectKey| match object {
            ObjectKey::Link(key) => desired.links[key].spec.peer().is_none(),
            ObjectKey::BpfLink(key) => key.ifname.as_str().starts_with("cilium_vx")
                || key.ifname.as_str().starts_with("cilium_ge"),
            _ => false,
        };
        let made = plan.ops.iter().map(Op::object).filter(of_tunnel);
        objects.extend(made);
        prop_assert_eq!(objects.len(), 4);
        for broken in objects {
            let mut state = before.clone();
            let outcomes = run(&plan.ops, &mut state, &BTreeSet::from([broken.clone()]));
            prop_assert_eq!(outcomes.len(), plan.ops.len());
            stays(&before, &state)?;
            let (rest, _) = Plan::make(&desired, state.clone());
            run(&rest.ops, &mut state, &BTreeSet::new());
            prop_assert_eq!(&state, &predicted, "after {}", broken);
        }
    }
}
