//! Plans that are saved and applied later: exactly, or not at all.

use crate::lab::{Lab, V4};

#[test]
fn what_is_no_plan_ends() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let ran = lab.a.ciliate(&["apply", "/dev/zero"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("plan /dev/zero is not applied: this is a device, not a file"),
        "{ran:?}"
    );
}

#[test]
fn a_saved_plan_is_applied_exactly() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    let file = lab.dir.join("plan.json").display().to_string();
    let ran = lab.a.ciliate(&["plan", "--out", &file]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let predicted = lab.a.view().predicted;
    let ran = lab.a.ciliate(&["apply", &file, "-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let saved: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("read the plan"))
            .expect("JSON");
    let done = ran.json();
    let done: Vec<_> = done["ops"].as_array().expect("ops").iter().map(|op| &op["op"]).collect();
    let planned: Vec<_> = saved["ops"].as_array().expect("ops").iter().collect();
    assert_eq!(done, planned);
    crate::node::assert_equal(&predicted, &lab.a.view().observed, "predicted", "observed");
    assert_eq!(crate::traffic::ping(&client, "10.244.0.50"), 63);
    // The same again: the kernel is no longer what the plan was made for.
    let ran = lab.a.ciliate(&["apply", &file]);
    assert!(ran.code == 1 && ran.stderr.contains("is not applied"), "{ran:?}");
    lab.a.assert_no_changes();
}

#[test]
fn a_saved_plan_is_refused_when_the_kernel_moved() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    lab.a.apply();
    lab.a.space.sh("ip route del 10.244.1.0/24");
    let file = lab.dir.join("plan.json").display().to_string();
    assert_eq!(lab.a.ciliate(&["plan", "--out", &file]).code, 2);
    // Something else comes back in its place.
    lab.a.space.sh("ip route add 10.244.1.0/24 via 172.18.0.1 proto 203");
    let before = crate::snapshot::Snapshot::of(&lab.a.space);
    let ran = lab.a.ciliate(&["apply", &file]);
    assert!(ran.code == 1, "{ran:?}");
    assert!(ran.stderr.contains("the kernel changed after the plan was made"), "{ran:?}");
    before.assert_same(&crate::snapshot::Snapshot::of(&lab.a.space), "after a refused plan");
    lab.a.apply();
}
