//! A change of a few services is made before all of them are looked at, and only where nobody else has been at work.

use std::fs;
use std::net::Ipv4Addr;

use ciliate::bpf_abi::{CILIUM_LB4_SERVICES, Lb4Key};
use ciliate::kernel::bpf_map::Map;
use ciliate::plan::Plan;

use crate::daemon::Daemon;
use crate::lab::{Lab, V4};

/// Services at 10.96.0.1 to 10.96.0.`count`.
fn services(count: u8) -> String {
    let one = |n| {
        format!(
            "[[service]]\nname = \"s{n}\"\nexternal-ips = [\"10.96.0.{n}:80\"]\nbackends = [\"10.244.0.49:80\", \"10.244.1.{n}:80\"]\n"
        )
    };
    (1..=count).map(one).collect()
}

#[test]
fn what_changes_is_made_before_everything_is_looked_at() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let base = fs::read_to_string(&lab.a.config).expect("read the configuration");
    let save = |count| {
        let beside = lab.a.config.with_extension("toml~");
        let balancing = "[load-balancing]\nalgorithm = \"maglev\"\nmaglev-table-size = 251\n";
        fs::write(&beside, format!("{base}\n{balancing}{}", services(count))).expect("write");
        fs::rename(&beside, &lab.a.config).expect("rename");
    };
    save(9);
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to converge", |status| status.converged);
    lab.note_bpf();
    // A change of the map that nobody is told of: whoever looks finds it.
    let sabotage = || {
        let address_be = Ipv4Addr::new(10, 96, 0, 5).octets();
        let port_be = 80u16.to_be_bytes();
        let head = Lb4Key { address_be, port_be, protocol: 6, ..Lb4Key::default() };
        let map = lab.a.bpf.join("maps").join(CILIUM_LB4_SERVICES);
        Map::open(&map).expect("open").delete(&[&head.to_bytes()[..]]).expect("remove");
    };
    let log = || fs::read_to_string(&lab.a.log).expect("read the log");
    for (generation, count, others) in
        [(2, 10, false), (3, 11, true), (4, 12, false), (5, 8, false)]
    {
        // A look that finds nothing to do.
        assert_eq!(lab.a.ciliate(&["reload"]).code, 0);
        if others {
            lab.a.run_ops(&Plan::default());
        }
        sabotage();
        let before = log().len();
        save(count);
        daemon.wait("to see it", |status| status.converged && status.generation == generation);
        let log = log().split_off(before);
        let at = |what: &str| log.find(what).unwrap_or_else(|| panic!("no {what}: {log}"));
        let mended = at("lb-service 10.96.0.5:80/TCP");
        let changed = at(&format!("lb-service 10.96.0.{}:80/TCP", count.max(9)));
        // Where the one is planned with the other, frontends are in their order, removals last.
        assert_eq!(changed < mended, !others, "{log}");
        lab.a.assert_no_changes();
    }
    daemon.stop();
}
