//! Applying where something fails: what waits for it is skipped, the rest is done, and once it works again
//! the next round gets where the first one was to get.

use std::collections::BTreeSet;

use ciliate::apply::{ExecError, interpret};
use ciliate::kinds::bpf_map::{Layout, MapName};
use ciliate::kinds::bpf_program::Key as Program;
use ciliate::kinds::{
    Desired, ObjectKey, Observed, Op, Origin, Phase, Wanted, bpf_link, bpf_map_entry, bpf_program,
    link,
};
use ciliate::plan::{Plan, check};
use ciliate::report::Outcome;
use proptest::prelude::*;

use super::worlds::closed;

/// Interprets the ops on a made-up kernel that refuses everything about `broken`.
pub fn run(ops: &[Op], state: &mut Observed, broken: &BTreeSet<ObjectKey>) -> Vec<Outcome> {
    let exec = |batch: &[&Op]| {
        let one = |op: &&Op| {
            if broken.contains(&op.object()) {
                return Err(ExecError::Failed { error: "broken".into(), errno: None });
            }
            op.predict(state);
            Ok(())
        };
        batch.iter().map(one).collect()
    };
    interpret(ops, exec, |_| {})
}

/// What tells us what to put back, and which filters are ours, stays until that is done.
#[test]
fn what_the_next_round_has_to_know_is_not_removed() {
    let mut observed = Observed::default();
    for map in MapName::all() {
        observed.bpf_maps.insert(map, Layout::of(map));
    }
    let record = bpf_map_entry::Key { map: MapName::BEFORE, key: vec![1; 128] };
    observed.bpf_map_entries.insert(record.clone(), bpf_map_entry::Seen { value: vec![2; 128] });
    let program = |name: &str| Program { name: name.into(), digest: "0123".into() };
    for name in ["cil_from_netdev", "cil_to_host"] {
        let seen = bpf_program::Seen { maps: BTreeSet::new() };
        observed.bpf_programs.insert(program(name), seen);
    }
    let link = bpf_link::Key {
        ifname: super::worlds::name("eth0"),
        hook: bpf_link::Hook::Ingress,
        program: "cil_from_netdev".into(),
    };
    let seen = bpf_link::Seen {
        program: Some(program("cil_from_netdev")),
        mode: bpf_link::Mode::Clsact,
        ifindex: 2,
        twice: false,
        qdisc_ours: true,
        foreign: None,
        pinned_as: None,
    };
    observed.bpf_links.insert(link.clone(), seen);
    let (plan, _) = Plan::make(&Desired::default(), observed.clone());
    let broken = BTreeSet::from([ObjectKey::BpfMapEntry(record), ObjectKey::BpfLink(link)]);
    let outcomes = run(&plan.ops, &mut observed, &broken);
    let skipped = plan.ops.iter().zip(&outcomes);
    let skipped: Vec<_> = skipped
        .filter(|(_, o)| matches!(o, Outcome::Skipped { .. }))
        .map(|(op, _)| op.object())
        .collect();
    let stay =
        [ObjectKey::BpfProgram(program("cil_from_netdev")), ObjectKey::BpfMap(MapName::BEFORE)];
    assert_eq!(skipped, stay);
    assert_eq!(outcomes.iter().filter(|o| **o == Outcome::Done).count(), outcomes.len() - 4);
}

/// The entry that says which tunnel the programs send packets to.
fn node() -> ObjectKey {
    ObjectKey::BpfMapEntry(bpf_map_entry::node())
}

/// Whether the op removes the device of a tunnel.
fn takes_a_tunnel(op: &Op) -> bool {
    let Op::Link(change) = op else { return false };
    op.phase() == Phase::Remove && change.expects().is_some_and(|seen| seen.tunnel.is_some())
}

/// Asks for a tunnel's device, a program on it, and the entry that names it.
fn ask_for_tunnel(desired: &mut Desired, ifname: &str, protocol: link::Protocol, ifindex: u8) {
    let (ifname, hook) = (super::worlds::name(ifname), bpf_link::Hook::Ingress);
    let program = Program { name: "cil_from_overlay".into(), digest: "0123".into() };
    let end = link::End {
        mac: ciliate::net::Mac([2, 0, 0, 0, 0, ifindex]),
        mtu_bytes: 1500,
        up: true,
        arp: true,
        alias: "ciliate tunnel".into(),
        grouped: true,
        enslaved: false,
        promiscuous: false,
    };
    let (form, origin) = (link::Form::Tunnel { protocol, port: 8472 }, Origin::Routing);
    let spec = link::Spec { ifindex: ifindex.into(), end, form };
    desired.links.insert(ifname, Wanted { spec, origin: origin.clone() });
    let (maps, globals) = (BTreeSet::new(), bpf_program::Globals::new());
    let spec = bpf_program::Spec { object: "bpf_overlay".into(), maps, globals };
    desired.bpf_programs.insert(program.clone(), Wanted { spec, origin: origin.clone() });
    let at = bpf_link::Key { ifname, hook, program: program.name.clone() };
    let (mode, link, qdisc_ours) = (bpf_link::Mode::Tcx, Some(ifname), false);
    let spec = bpf_link::Spec { program, mode, ifindex: ifindex.into(), link, qdisc_ours };
    desired.bpf_links.insert(at.clone(), Wanted { spec, origin: origin.clone() });
    let map = bpf_map_entry::node().map;
    desired.bpf_maps.insert(map, Wanted { spec: Layout::of(map), origin: origin.clone() });
    let leads_to = vec![ObjectKey::Link(ifname), ObjectKey::BpfLink(at)];
    let spec = bpf_map_entry::Spec { leads_to, ..bpf_map_entry::Spec::of(&[ifindex; 4]) };
    desired.bpf_map_entries.insert(bpf_map_entry::node(), Wanted { spec, origin });
}

/// Whatever of the new tunnel can't be had, the old one stays in force, whole.
#[test]
fn a_tunnel_stays_until_another_has_taken_its_place() {
    let (mut before, mut desired) = (Desired::default(), Desired::default());
    ask_for_tunnel(&mut before, "cilium_vxlan", link::Protocol::Vxlan, 7);
    ask_for_tunnel(&mut desired, "cilium_geneve", link::Protocol::Geneve, 8);
    let (_, observed) = Plan::make(&before, Observed::default());
    let (plan, predicted) = Plan::make(&desired, observed.clone());
    assert_eq!(plan.ops.len(), 5, "{:?}", plan.ops);
    for op in plan.ops.iter().filter(|op| op.phase() == Phase::Add) {
        let mut state = observed.clone();
        let outcomes = run(&plan.ops, &mut state, &BTreeSet::from([op.object()]));
        assert_eq!(state.bpf_map_entries, observed.bpf_map_entries, "without {}", op.line());
        for (key, seen) in &observed.links {
            assert_eq!(state.links.get(key), Some(seen), "without {}: {outcomes:?}", op.line());
        }
        for (key, seen) in &observed.bpf_links {
            assert_eq!(state.bpf_links.get(key), Some(seen), "without {}", op.line());
        }
        let (rest, _) = Plan::make(&desired, state.clone());
        assert!(run(&rest.ops, &mut state, &BTreeSet::new()).iter().all(|o| *o == Outcome::Done));
        assert_eq!(state, predicted, "after {}", op.line());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn what_waits_is_skipped_and_the_rest_is_done(
        world in closed(),
        which in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let (plan, predicted) = Plan::make(&world.desired, world.observed.clone());
        if plan.ops.is_empty() {
            return Ok(());
        }
        let broken = which.iter().map(|index| index.get(&plan.ops).object()).collect();
        let mut state = world.observed.clone();
        let outcomes = run(&plan.ops, &mut state, &broken);
        prop_assert_eq!(outcomes.len(), plan.ops.len());
        let mut failed = BTreeSet::new();
        for (op, outcome) in plan.ops.iter().zip(&outcomes) {
            let object = op.object();
            match outcome {
                Outcome::Done => {
                    prop_assert!(!broken.contains(&object), "{} is done", op.line());
                    let lacks = op.needs().into_iter().find(|need| failed.contains(need));
                    prop_assert!(lacks.is_none(), "{} is done without {:?}", op.line(), lacks);
                    prop_assert!(!takes_a_tunnel(op) || !failed.contains(&node()), "{}", op.line());
                    continue;
                }
                Outcome::Skipped { needs } => {
                    let names = |object: &ObjectKey| object.to_string() == *needs;
                    prop_assert!(failed.iter().any(names), "{} waits for {}", op.line(), needs);
                    prop_assert!(
                        op.phase() == Phase::Remove || op.needs().iter().any(names),
                        "{} does not need {}", op.line(), needs
                    );
                }
                Outcome::Failed { .. } => prop_assert!(broken.contains(&object), "{}", op.line()),
                other => prop_assert!(false, "{}: {}", op.line(), other),
            }
            failed.insert(object);
        }
        let (rest, end) = Plan::make(&world.desired, state.clone());
        prop_assert_eq!(check::check(&rest.ops, &state), Ok(()));
        prop_assert!(run(&rest.ops, &mut state, &BTreeSet::new()).iter().all(|o| *o == Outcome::Done));
        prop_assert_eq!(&state, &end);
        prop_assert_eq!(end, predicted, "after {:?}", outcomes);
    }
}
