//! What was changed on things that aren't ours is put back, or it is known and said that it wasn't.

use crate::lab::{DUAL, Lab, V4};
use crate::node::{CILIATE, Node, Ran, Text};

/// Runs a command of `ciliate` where no setting can be written.
fn with_settings_read_only(node: &Node, arguments: &[&str]) -> Ran {
    let script =
        "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys; exec \"$@\"";
    let mut command = node.space.command("unshare");
    command.args(["-m", "sh", "-euc", script, "sh", CILIATE, "-c"]).arg(&node.config);
    Ran::from(command.args(arguments).output().expect("run unshare"))
}

const FORWARDING: &str = "cat /proc/sys/net/ipv4/conf/all/forwarding /proc/sys/net/ipv6/conf/all/forwarding \
                          /proc/sys/net/ipv6/conf/eth0/accept_ra";

/// A node whose settings all have to be changed.
fn lab() -> Option<Lab> {
    let lab = Lab::new(DUAL)?;
    lab.a.space.sh("echo 0 >/proc/sys/net/ipv4/conf/all/forwarding
         echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
         echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra");
    lab.baseline();
    lab.walk_through();
    lab.a.apply();
    assert_eq!(lab.a.space.sh(FORWARDING), "1\n1\n2\n");
    Some(lab)
}

#[test]
fn destroy_remembers_what_it_could_not_put_back() {
    let Some(lab) = lab() else { return };
    for _ in 0..2 {
        let ran = with_settings_read_only(&lab.a, &["destroy"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stdout.contains("Read-only file system"), "{ran:?}");
        assert!(ran.stdout.contains("Not converged: "), "{ran:?}");
        let left = "left: ~ sysctl net/ipv6/conf/eth0/accept_ra = 1  (leftover: value 2 -> 1)";
        assert!(ran.stdout.contains(left), "{ran:?}");
        assert_eq!(lab.a.space.sh(FORWARDING), "1\n1\n2\n");
    }
    let ran = lab.a.ciliate(&["destroy"]);
    assert!(ran.code == 0 && ran.stdout.contains("Converged: 0 added, "), "{ran:?}");
    assert_eq!(lab.a.space.sh(FORWARDING), "0\n0\n1\n");
}

#[test]
fn apply_remembers_what_it_could_not_put_back() {
    let Some(lab) = lab() else { return };
    // Without IPv6, what was changed for it is no longer wanted.
    let mut text = Text::node_a(&lab);
    text.node = text.node.replace(", \"fc00:18::3\"", "").replace(", \"fd00:10:244::/80\"", "");
    text.peers.clear();
    lab.a.write(&text);
    let ran = with_settings_read_only(&lab.a, &["apply"]);
    assert!(ran.code == 1 && ran.stdout.contains("Not converged: "), "{ran:?}");
    let stays = "! - bpf-map-entry ciliate_before sysctl:net/ipv6/conf/all/forwarding";
    assert!(ran.stdout.contains(stays), "{ran:?}");
    assert_eq!(lab.a.space.sh(FORWARDING), "1\n1\n2\n");
    let ran = lab.a.ciliate(&["apply"]);
    assert!(ran.code == 0 && ran.stdout.contains("Converged: "), "{ran:?}");
    assert_eq!(lab.a.space.sh(FORWARDING), "1\n0\n1\n");
    lab.a.assert_no_changes();
}

/// Records that somebody removed while no daemon ran are not made up from what the settings are now.
#[test]
fn lost_records_are_said() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let rp_filter = "/proc/sys/net/ipv4/conf/all/rp_filter";
    let set = "echo 0 >/proc/sys/net/ipv4/conf/all/forwarding
         echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
         echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra";
    lab.a.space.sh(&format!("{set}; echo 1 >{rp_filter}"));
    lab.baseline();
    lab.walk_through();
    lab.a.apply();
    lab.note_bpf();
    std::fs::remove_file(lab.a.bpf.join("maps/ciliate_before")).expect("remove the records");
    let said = |ran: &Ran| {
        assert_eq!(ran.code, 0, "{ran:?}");
        for path in
            ["ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding", "ipv4/conf/all/rp_filter"]
        {
            let line = format!("! net/{path}: what it was before ciliate is not known any more");
            assert!(ran.stdout.contains(&line), "no `{line}` in {ran:?}");
        }
    };
    for command in ["apply", "apply", "status"] {
        let ran = lab.a.ciliate(&[command]);
        said(&ran);
        assert!(ran.stdout.contains("! net/ipv6/conf/eth0/accept_ra: what it was"), "{ran:?}");
    }
    lab.note_bpf();
    let lost = &lab.a.ciliate(&["apply", "-o", "json"]).json()["lost"];
    assert_eq!(lost[0], "net/ipv4/conf/all/accept_redirects");
    for records_are_there in [true, false] {
        if !records_are_there {
            // Nothing comes between this loss and the end.
            lab.a.space.sh("echo 2 >/proc/sys/net/ipv6/conf/eth0/accept_ra");
            lab.a.apply();
            lab.note_bpf();
            std::fs::remove_file(lab.a.bpf.join("maps/ciliate_before")).expect("remove them");
        }
        said(&lab.a.ciliate(&["destroy"]));
        assert_eq!(lab.a.space.sh(FORWARDING), "1\n1\n2\n");
        assert_eq!(lab.a.space.sh(&format!("cat {rp_filter}")), "0\n");
        assert!(!lab.a.bpf.exists(), "destroy left {}", lab.a.bpf.display());
    }
    // The operator puts them back, and all is known again.
    lab.a.space.sh(&format!("{set}; echo 1 >{rp_filter}"));
    lab.a.apply();
    assert!(!lab.a.ciliate(&["apply"]).stdout.contains("not known"));
}

/// What somebody made of a setting is no reason to let go of it half.
#[test]
fn a_setting_that_somebody_altered_is_right_after_one_apply() {
    let Some(lab) = lab() else { return };
    let setting = "/proc/sys/net/ipv6/conf/eth0/accept_ra";
    for other in ["0", "1"] {
        lab.a.space.sh(&format!("echo {other} >{setting}"));
        lab.a.apply();
        assert_eq!(lab.a.space.sh(&format!("cat {setting}")), "2\n");
    }
    lab.a.destroy();
    assert_eq!(lab.a.space.sh(&format!("cat {setting}")), "1\n");
}

/// A device that came since with the value that we would give it has lost no record.
#[test]
fn a_setting_that_is_right_already_is_not_lost() {
    let Some(lab) = lab() else { return };
    lab.a
        .space
        .sh("ip link add eth1 type veth peer name far1; ip link set eth1 up; ip link set far1 up
         echo 2 >/proc/sys/net/ipv6/conf/eth1/accept_ra");
    lab.baseline_of_a();
    lab.a.apply();
    let mut text = Text::node_a(&lab);
    text.node += "devices = [\"eth0\", \"eth1\"]\n";
    lab.a.write(&text);
    let ran = lab.a.ciliate(&["apply"]);
    assert!(ran.code == 0 && !ran.stdout.contains("not known"), "{ran:?}");
    lab.a.assert_no_changes();
    lab.a.destroy();
    let left = lab.a.space.sh("cat /proc/sys/net/ipv6/conf/eth1/accept_ra");
    assert_eq!(left, "2\n");
}

/// Records are of the device, whatever its name.
#[test]
fn a_device_with_another_name_is_put_back() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let setting = |ifname: &str| format!("cat /proc/sys/net/ipv6/conf/{ifname}/accept_ra");
    lab.a.space.sh("echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra");
    lab.baseline();
    lab.walk_through();
    super::residue::clsact(&lab, true);
    lab.a.apply();
    let rename = |from: &str, to: &str| {
        lab.a.space.sh(&format!(
            "ip link set {from} down; ip link set {from} name {to}; ip link set {to} up
             ip addr add fc00:18::3/64 dev {to} nodad
             ip route add default via 172.18.0.1; ip -6 route add default via fc00:18::1
             while ip -6 addr show tentative | grep -q inet6; do sleep 0.05; done"
        ));
    };
    rename("eth0", "upX");
    lab.a.apply();
    assert_eq!(lab.a.space.sh(&setting("upX")), "2\n");
    // Somebody else's device of the old name has nothing to do with it.
    lab.a.space.sh("ip link add eth0 type bridge; tc qdisc add dev eth0 clsact");
    lab.a.apply();
    lab.note_bpf();
    lab.a.destroy();
    assert_eq!(lab.a.space.sh(&setting("upX")), "1\n");
    let left = lab.a.space.sh("tc qdisc show | grep clsact; ip link del eth0");
    assert!(left.contains("dev eth0") && !left.contains("dev upX"), "{left}");
    rename("upX", "eth0");
}

/// As where ciliate was killed between the qdisc and the filter.
#[test]
fn a_qdisc_without_a_filter_goes() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    super::residue::clsact(&lab, true);
    lab.a.apply();
    lab.a.space.sh("tc filter del dev eth0 ingress");
    lab.destroy_and_compare();
    // A filter of somebody else's keeps it.
    lab.a.apply();
    let theirs = "tc filter add dev eth0 egress pref 50 bpf bytecode '1,6 0 0 4294967295,'";
    lab.a.space.sh(&format!("tc filter del dev eth0 ingress; {theirs}"));
    lab.note_bpf();
    lab.a.destroy();
    let left = lab.a.space.sh("tc filter show dev eth0 egress; tc qdisc del dev eth0 clsact");
    assert!(left.contains("pref 50 bpf"), "{left}");
}
