//! Encryption on a kernel that has no WireGuard: it is said before anything is changed, and nothing that was to be
//! encrypted leaves.

use crate::capture::Capture;
use crate::fleet::counted;
use crate::lab::DUAL;
use crate::wireguard::{Encrypted, INNER, NATIVE, STRICT, VXLAN, find_wireguard, silent};

const NAMED: &str = "this kernel has no WireGuard (CONFIG_WIREGUARD), nor a module `wireguard`";

fn named_and_kept_back(routing: &'static str) {
    let Some(encrypted) = Encrypted::anywhere((DUAL, DUAL), 2, routing, STRICT) else { return };
    let missing = find_wireguard().is_err();
    let check = encrypted.fleet.lab.a.ciliate(&["check"]);
    assert_eq!((check.code, check.stdout.contains(NAMED)), (0, missing), "{check:?}");
    let plan = encrypted.fleet.lab.a.ciliate(&["plan"]);
    assert_eq!((plan.code, plan.all().contains(NAMED)), (2, missing), "{plan:?}");
    // The rest is done.
    for node in encrypted.nodes() {
        let apply = node.ciliate(&["apply"]);
        assert_eq!((apply.code, apply.all().contains(NAMED)), (i32::from(missing), missing));
    }
    let node = &encrypted.fleet.lab.a;
    let inner = Capture::start(&encrypted.fleet.lab.wire, "br0", 1, INNER);
    if missing {
        let before = counted(node, "Traffic is unencrypted");
        silent(&encrypted, &["10.42.1.64", "fd00:10:42:1::64"], "without WireGuard");
        assert!(counted(node, "Traffic is unencrypted") >= before + 2, "drops have their reason");
    }
    assert_eq!(inner.lines(), [""; 0], "inner packets on the wire");
}

#[test]
fn native() {
    named_and_kept_back(NATIVE);
}

#[test]
fn in_the_tunnel() {
    named_and_kept_back(VXLAN);
}
