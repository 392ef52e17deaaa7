//! Planning: from any observed state to any desired state.

use std::collections::BTreeSet;

use ciliate::kinds::netns::State;
use ciliate::kinds::{ObjectKey, bpf_map_entry, link, tunnel};
use ciliate::kinds::{Observed, Op, Phase};
use ciliate::plan::{Plan, SavedPlan, check};
use proptest::prelude::*;

use super::kind_laws::{is_removed_late, lose, rank};
use super::worlds::{World, closed, size, wild};

fn plan(world: &World) -> (Plan, Observed) {
    Plan::make(&world.desired, world.observed.clone())
}

fn predict(ops: &[Op], from: &Observed) -> Observed {
    let mut state = from.clone();
    ops.iter().for_each(|op| op.predict(&mut state));
    state
}

/// What is named by an op and, being there without our mark, must not be.
fn is_foreign(object: &ObjectKey, observed: &Observed) -> bool {
    match object {
        ObjectKey::Netns(key) => {
            observed.namespaces.get(key).is_some_and(|seen| seen.state == State::Foreign)
        }
        ObjectKey::Link(key) => observed.links.get(key).is_some_and(|seen| !seen.owned),
        ObjectKey::Address(key) => observed.addresses.get(key).is_some_and(|seen| !seen.owned),
        ObjectKey::Neighbour(key) => observed.neighbours.get(key).is_some_and(|seen| !seen.owned),
        ObjectKey::Route(key) => observed.routes.get(key).is_some_and(|seen| seen.foreign),
        ObjectKey::BpfLink(key) => {
            observed.bpf_links.get(key).is_some_and(|seen| seen.foreign.is_some())
        }
        _ => false,
    }
}

/// Whether a tunnel is to take the place of native routing.
fn tunnel_opens(world: &World) -> bool {
    tunnel::opens(&world.desired.bpf_map_entries, &world.observed.bpf_map_entries)
}

/// The links that are made anew or removed: what is on them goes with them.
fn links_that_go(ops: &[Op]) -> BTreeSet<String> {
    let goes = |op: &&Op| matches!(op, Op::Link(_)) && ["-", "-/+"].contains(&op.verb());
    ops.iter().filter(goes).map(|op| op.object().to_string().replace("link ", "")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_prediction_is_that_of_the_ops_one_by_one(world in wild()) {
        let (plan, predicted) = plan(&world);
        prop_assert_eq!(predict(&plan.ops, &world.observed), predicted);
    }

    #[test]
    fn a_plan_leaves_nothing_to_plan(world in closed()) {
        let (plan, predicted) = plan(&world);
        let (again, unchanged) = Plan::make(&world.desired, predicted.clone());
        prop_assert_eq!(&again.ops, &vec![]);
        prop_assert_eq!(again.blocked, plan.blocked, "what is blocked stays blocked");
        prop_assert_eq!(unchanged, predicted);
    }

    #[test]
    fn every_prefix_can_be_resumed(world in closed(), cut in 0.0..1.0f64) {
        let (whole, predicted) = plan(&world);
        let done = (whole.ops.len() as f64 * cut) as usize;
        let halfway = predict(&whole.ops[..done], &world.observed);
        let (rest, end) = Plan::make(&world.desired, halfway.clone());
        prop_assert_eq!(end, predicted, "after {} of {} ops", done, whole.ops.len());
        prop_assert!(check::check(&rest.ops, &halfway).is_ok());
    }

    #[test]
    fn foreign_objects_are_never_named_and_stay_as_they_are(world in wild()) {
        let (plan, predicted) = plan(&world);
        // What was on a link of ours goes with it, foreign or not; then its place is free.
        let mut state = world.observed.clone();
        for op in &plan.ops {
            prop_assert!(!is_foreign(&op.object(), &state), "{}", op.line());
            op.predict(&mut state);
        }
        let gone = links_that_go(&plan.ops);
        for (key, seen) in world.observed.links.iter().filter(|(_, seen)| !seen.owned) {
            prop_assert_eq!(predicted.links.get(key), Some(seen));
        }
        let renamed = |ifname: &str| ["cilium_net", "cilium", "eth0", "eth1", "renamed"].contains(&ifname);
        for (key, seen) in world.observed.addresses.iter().filter(|(_, seen)| !seen.owned) {
            let ifname = key.ifname.to_string();
            let netns = ObjectKey::Netns(key.netns.clone());
            let goes = |op: &Op| op.object() == netns && op.verb() != "+";
            if plan.ops.iter().any(goes) {
                continue;
            }
            if !gone.contains(&ifname) && !renamed(&ifname) {
                prop_assert_eq!(predicted.addresses.get(key), Some(seen));
            }
        }
        for (key, seen) in world.observed.neighbours.iter().filter(|(_, seen)| !seen.owned) {
            if !gone.contains(key.ifname.as_str()) {
                prop_assert_eq!(predicted.neighbours.get(key), Some(seen));
            }
        }
        for (key, seen) in world.observed.bpf_links.iter().filter(|(_, seen)| seen.foreign.is_some()) {
            let ifname = key.ifname.to_string();
            if !gone.contains(&ifname) && !renamed(&ifname) {
                prop_assert_eq!(predicted.bpf_links.get(key), Some(seen));
            }
        }
    }

    #[test]
    fn nothing_is_put_on_a_foreign_object(world in closed()) {
        let (plan, _) = plan(&world);
        for op in plan.ops.iter().filter(|op| op.phase() == Phase::Add) {
            let mut stands_on = op.needs();
            if let Op::BpfMapEntry(change) = op {
                let spec: Option<&bpf_map_entry::Spec> = change.spec();
                stands_on.extend(spec.and_then(|spec| spec.link).map(ObjectKey::Link));
            }
            // Any address of the right value serves a route.
            let on = stands_on.iter().find(|object| {
                matches!(object, ObjectKey::Link(_) | ObjectKey::Netns(_))
                    && is_foreign(object, &world.observed)
            });
            prop_assert!(on.is_none(), "{} is put on {}", op.line(), on.unwrap());
            let taken = |object: &ObjectKey| {
                matches!(object, ObjectKey::Link(link) if world.observed.taken.contains_key(link))
            };
            prop_assert!(!stands_on.iter().any(taken) && !taken(&op.object()), "{}", op.line());
        }
    }

    #[test]
    fn equal_input_gives_an_equal_plan(world in wild()) {
        let text = |world: &World| serde_json::to_string(&SavedPlan::new(&plan(world).0)).unwrap();
        prop_assert_eq!(text(&world), text(&world.clone()));
    }

    #[test]
    fn a_saved_plan_is_read_as_it_was_written(world in wild()) {
        let saved = SavedPlan::new(&plan(&world).0);
        let text = serde_json::to_string_pretty(&saved).unwrap();
        prop_assert_eq!(SavedPlan::parse(&text).unwrap(), saved);
    }

    #[test]
    fn what_an_op_needs_is_made_before_it(world in wild()) {
        let (plan, _) = plan(&world);
        for (index, op) in plan.ops.iter().enumerate() {
            for need in op.needs() {
                // What is in force already, and gives way to something else at last, is there.
                let opens = tunnel_opens(&world);
                let made = plan.ops[index..].iter().find(|later| {
                    let made = op.is_late(opens) || !later.is_late(opens);
                    later.object() == need && later.phase() == Phase::Add && made
                });
                prop_assert!(made.is_none(), "{} comes before {}", op.line(), made.unwrap().line());
            }
        }
    }

    #[test]
    fn removals_come_last_and_in_an_order_of_their_own(world in wild()) {
        let (plan, _) = plan(&world);
        let first = plan.ops.iter().position(|op| op.phase() == Phase::Remove);
        let (adding, removing) = plan.ops.split_at(first.unwrap_or(plan.ops.len()));
        prop_assert!(removing.iter().all(|op| op.phase() == Phase::Remove));
        let opens = tunnel_opens(&world);
        let order = |op: &Op| (op.is_late(opens), rank(op));
        prop_assert!(adding.windows(2).all(|two| order(&two[0]) <= order(&two[1])));
        let order = |op: &Op| (is_removed_late(op), std::cmp::Reverse(rank(op)));
        prop_assert!(removing.windows(2).all(|two| order(&two[0]) <= order(&two[1])));
    }

    #[test]
    fn every_plan_passes_the_check(world in closed()) {
        let (plan, _) = plan(&world);
        prop_assert_eq!(check::check(&plan.ops, &world.observed), Ok(()));
    }

    #[test]
    fn every_plan_fits_what_it_was_made_for(world in wild()) {
        let (plan, _) = plan(&world);
        prop_assert_eq!(check::still_fits(&plan.ops, &world.observed), Ok(()));
    }

    #[test]
    fn a_plan_is_refused_once_an_object_changed(world in wild(), which in any::<prop::sample::Index>()) {
        let (plan, _) = plan(&world);
        if plan.ops.is_empty() {
            return Ok(());
        }
        let at = which.index(plan.ops.len());
        let op = &plan.ops[at];
        let mut moved = world.observed.clone();
        if op.verb() == "+" {
            // What is on a link or in a map that goes is gone by the time the op looks for it.
            if plan.ops[..at].iter().any(|other| ["-", "-/+"].contains(&other.verb())) {
                return Ok(());
            }
            op.predict(&mut moved);
        } else {
            lose(op, &mut moved);
            // A map that is made anew leaves it behind once more, itself or what was under the numbers of its frontends.
            let anew = |other: &Op| matches!(other, Op::BpfMap(_)) && other.verb() == "-/+";
            let left_behind = matches!(op, Op::BpfOldMap(_) | Op::LbService(_));
            if left_behind && plan.ops[..at].iter().any(anew) {
                return Ok(());
            }
        }
        prop_assert!(check::still_fits(&plan.ops, &moved).is_err(), "{}", op.line());
    }

    #[test]
    fn a_bad_plan_fails_the_check(world in closed()) {
        let (plan, _) = plan(&world);
        let removes = |op: &&Op| op.phase() == Phase::Remove;
        if plan.ops.iter().any(|op| !removes(&op)) && plan.ops.iter().any(|op| removes(&op)) {
            let backwards: Vec<Op> = plan.ops.iter().rev().cloned().collect();
            prop_assert!(check::check(&backwards, &world.observed).is_err());
        }
        for op in plan.ops.iter().filter(|op| op.phase() == Phase::Add) {
            let Op::Link(change) = op else { continue };
            let mut theirs = world.observed.clone();
            let taken = link::Taken { netns: Default::default(), ifname: change.key, owned: true };
            theirs.taken.insert(change.key, taken);
            prop_assert!(check::check(&plan.ops, &theirs).is_err(), "{}", op.line());
        }
        for op in plan.ops.iter().filter(|op| op.verb() != "+") {
            let mut theirs = world.observed.clone();
            match op {
                Op::Link(change) => theirs.links.get_mut(&change.key).unwrap().owned = false,
                Op::Netns(change) => {
                    theirs.namespaces.get_mut(&change.key).unwrap().state = State::Foreign;
                }
                Op::Neighbour(change) => match theirs.neighbours.get_mut(&change.key) {
                    Some(seen) => seen.owned = false,
                    None => continue,
                },
                _ => continue,
            }
            prop_assert!(check::check(&plan.ops, &theirs).is_err(), "{}", op.line());
        }
    }

    #[test]
    fn a_line_is_a_line(world in wild()) {
        let (plan, _) = plan(&world);
        let mut lines = plan.ops.iter().map(Op::line).chain(plan.blocked.iter().map(ToString::to_string));
        prop_assert!(lines.all(|line| !line.contains('\n') && !line.contains("  (: ")));
    }
}

const SAMPLES: usize = 128;

/// The laws would hold of worlds without objects as well.
#[test]
fn worlds_have_something_in_them() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut wilds, mut closeds, mut blocked, mut verbs) = (0, 0, 0, BTreeSet::new());
    for _ in 0..SAMPLES {
        let world = closed().new_tree(&mut runner).unwrap().current();
        closeds += size(&world);
        let (plan, _) = plan(&world);
        blocked += plan.blocked.len();
        verbs.extend(plan.ops.iter().map(|op| (op.kind(), op.verb())));
        wilds += size(&wild().new_tree(&mut runner).unwrap().current());
    }
    assert!(wilds > SAMPLES * 20 && closeds > SAMPLES * 10, "{wilds} {closeds}");
    assert!(blocked > 20, "{blocked} blocked");
    for expected in [("link", "-/+"), ("route", "~"), ("bpf-map", "-/+"), ("bpf-link", "~")] {
        assert!(verbs.contains(&expected), "no op {expected:?}");
    }
    assert!(verbs.len() > 25, "{verbs:?}");
}
