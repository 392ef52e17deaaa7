//! Applying where something fails: what waits for it is skipped, the rest is done, and once it works again
//! the next round gets where the first one was to get.

use std::collections::BTreeSet;

use ciliate::apply::{ExecError, interpret};
use ciliate::kinds::bpf_map::{Layout, MapName};
use ciliate::kinds::bpf_program::Key as Program;
use ciliate::kinds::{
    Desired, ObjectKey, Observed, Op, Phase, bpf_link, bpf_map_entry, bpf_program,
};
use ciliate::plan::{Plan, check};
use ciliate::report::Outcome;
use proptest::prelude::*;

use super::worlds::closed;

/// Interprets the ops on a made-up kernel that refuses everything about `broken`.
fn run(ops: &[Op], state: &mut Observed, broken: &BTreeSet<ObjectKey>) -> Vec<Outcome> {
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
