//! Objects with our mark that somebody else made, on the way to a peer: they go, and take nothing with them.

use crate::daemon::Daemon;
use crate::flood::Flood;
use crate::lab::{DUAL, Lab};

/// The ways to mislead, IPv4 and IPv6.
const STRAYS: [&str; 3] = [
    "ip route add 172.18.0.2/32 via 172.18.0.1 proto 203",
    "ip -6 route add fc00:18::2/128 via fc00:18::1 proto 203",
    "ip rule add pref 5 to 172.18.0.2 blackhole proto 203",
];

#[test]
fn a_stray_route_takes_nothing_with_it() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, _, server) = lab.walk_through();
    lab.a.apply();
    lab.b.apply();
    let routes = || lab.a.space.sh("ip route show proto 203; ip -6 route show proto 203; ip rule");
    let before = routes();
    for stray in STRAYS {
        let of_rule = stray.contains("rule");
        // Nothing goes to a peer past a rule that forbids it; then the routes alone are looked at.
        let flood = (!of_rule)
            .then(|| Flood::start((&client, "fd00:10:244::49"), (&server, "fd00:10:244:1::124")));
        lab.a.space.sh(stray);
        let plan = lab.a.ciliate(&["plan"]);
        assert!(
            plan.code == 2 && plan.stdout.contains("is in the way to peers: it goes first"),
            "{plan:?}"
        );
        assert!(
            plan.stdout.contains("Plan: 0 to add, 0 to change, 1 to remove, 1 blocked."),
            "{plan:?}"
        );
        let ran = lab.a.ciliate(&["apply"]);
        assert!(
            ran.code == 0 && ran.stdout.contains("Converged: 0 added, 0 changed, 1 removed"),
            "{ran:?}"
        );
        lab.a.assert_no_changes();
        assert_eq!(routes(), before, "{stray}");
        flood.map(Flood::finish);
    }
    // The daemon, which may be told of the route before the look.
    let daemon = Daemon::start_with(&lab.a, 3600);
    daemon.wait("to converge", |status| status.converged);
    let flood = Flood::start((&client, "10.244.0.49"), (&server, "10.244.1.124"));
    for stray in &STRAYS[..2] {
        let repaired = daemon.status().expect("a status").repaired;
        lab.a.space.sh(stray);
        daemon.wait("to remove it", |status| status.repaired > repaired && status.converged);
    }
    assert_eq!(routes(), before);
    flood.finish();
    daemon.stop();
}
