//! The maintainer script that purges the package, where the configuration is gone or never was: it succeeds, and
//! removes what there is. It runs as it is, with folders of its own in the places that it works on.

use crate::lab::{Lab, V4};
use crate::node::{CILIATE, Ran};

const POSTRM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb/postrm");

/// A machine on which the package was just removed: `$1` is the program, `$2` the script.
const MACHINE: &str = "
    for folder in /etc /run /var/lib; do mount -t tmpfs tmpfs $folder; done
    ! [ -e /usr/lib/ciliate ] || mount -t tmpfs tmpfs /usr/lib/ciliate
    mount -t bpf bpf /sys/fs/bpf
    mkdir -p /run/systemd/system /var/lib/ciliate
    cp \"$1\" /var/lib/ciliate/purge
    left() {
        ls -A /etc/ciliate /var/lib/ciliate /run/ciliate /sys/fs/bpf/ciliate 2>/dev/null || true
        ip -br link | grep cilium_ || true
    }
";

fn on_a_machine(lab: &Lab, script: &str) -> Ran {
    let mut command = lab.a.space.command("unshare");
    let script = format!("{MACHINE}{script}");
    command.args(["-m", "sh", "-euc", &script, "sh", CILIATE, POSTRM]);
    Ran::from(command.output().expect("run unshare"))
}

#[test]
fn purge_where_nothing_was_ever_configured() {
    let Some(lab) = Lab::new(V4) else { return };
    let ran = on_a_machine(&lab, "sh \"$2\" purge; left");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
    assert!(ran.stderr.contains("/sys/fs/bpf/ciliate"), "{ran:?}");
}

#[test]
fn purge_after_the_configuration_was_removed() {
    let Some(lab) = Lab::new(V4) else { return };
    let ran = on_a_machine(
        &lab,
        "mkdir /etc/ciliate
         printf '[node]\\naddresses = [\"172.18.0.3\"]\\ncidrs = [\"10.244.0.0/24\"]\\n[routing]\\nmode = \"native\"\\n' \\
             >/etc/ciliate/ciliate.toml
         \"$1\" apply >/dev/null
         ip -br link show cilium_host | grep -o '^cilium_host'
         test -d /sys/fs/bpf/ciliate/maps
         rm -r /etc/ciliate
         sh \"$2\" purge
         left",
    );
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "cilium_host\n"), "{ran:?}");
}
