//! The paths of a node, used from another network namespace.

use crate::daemon::Daemon;
use crate::lab::{Lab, V4};
use crate::node::{CILIATE, Ran, Text};
use crate::snapshot::Snapshot;
use crate::space::Space;
use crate::traffic::ping;

fn ciliate_in(lab: &Lab, space: &Space, arguments: &[&str]) -> Ran {
    let mut command = space.command(CILIATE);
    Ran::from(command.arg("-c").arg(&lab.a.config).args(arguments).output().expect("run ciliate"))
}

#[test]
fn a_node_is_not_taken_over_from_another_namespace() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged);
    let before = Snapshot::of(&lab.outside);
    let place = format!("run ciliate there, by `nsenter --net={}`", lab.a.space.path());
    for command in ["plan", "apply", "run", "destroy"] {
        let ran = ciliate_in(&lab, &lab.outside, &[command]);
        assert_eq!(ran.code, 1, "{command}: {ran:?}");
        assert!(ran.stderr.contains(&place), "{command}: no `{place}` in {ran:?}");
        assert!(ran.stderr.contains("[paths] of its own"), "{command}: {ran:?}");
    }
    before.assert_same(&Snapshot::of(&lab.outside), "after refused commands");
    lab.a.assert_no_changes();
    assert_eq!(ping(&client, "10.244.0.50"), 63);
    daemon.stop();
}

#[test]
fn pins_of_a_namespace_that_has_ended() {
    let Some(lab) = Lab::new(V4) else { return };
    // Without endpoints: the kernel takes a while to remove the devices of the one that ends.
    lab.a.write(&Text::node_a(&lab));
    let ended = lab.space("ended");
    ended.sh(
        "ip link add eth0 type bridge; ip addr add 172.18.0.3/16 dev eth0; ip link set eth0 up",
    );
    let ran = ciliate_in(&lab, &ended, &["apply"]);
    assert!(lab.a.bpf.exists(), "{ran:?}");
    lab.note_bpf();
    lab.remove(&ended);
    let advice = format!("if it has ended, remove what is left by `rm -r {}`", lab.a.bpf.display());
    let ran = lab.a.ciliate(&["apply"]);
    assert!(ran.code == 1 && ran.stderr.contains(&advice), "no `{advice}` in {ran:?}");
    crate::space::sh(&format!("rm -r {}", lab.a.bpf.display()));
    lab.a.apply();
}
