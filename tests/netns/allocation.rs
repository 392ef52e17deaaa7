//! Addresses that ciliate chooses, and endpoints that are processes.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Stdio};

use crate::lab::{DUAL, Lab, V4};
use crate::node::{Node, Text, endpoint};
use crate::space::Space;
use crate::traffic::exchange;

/// The global addresses on an endpoint's device.
fn addresses(space: &Space) -> Vec<String> {
    let text = space.sh("ip -o addr show dev eth0 scope global");
    let mut addresses: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3))
        .map(str::to_string)
        .collect();
    addresses.sort();
    addresses
}

#[test]
fn chosen_addresses_stay() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (beta, alpha, gamma) = (lab.space("beta"), lab.space("alpha"), lab.space("gamma"));
    let base = || Text::node_a(&lab);
    lab.a.write(&base().endpoint("beta", &beta, &[]).endpoint("gamma", &gamma, &["10.244.0.2"]));
    lab.a.apply();
    let chosen = addresses(&beta);
    // The first is the CIDR's own, the second an endpoint's; the router of IPv6 is the first.
    assert_eq!(chosen, ["10.244.0.1/32", "fd00:10:244::2/128"]);
    // An IPv6 address that isn't given isn't chosen either when others are.
    assert_eq!(addresses(&gamma), ["10.244.0.2/32"]);
    lab.a.apply();
    assert_eq!(addresses(&beta), chosen, "after another apply");

    // One that comes first by name takes what is free.
    let three = base().endpoint("alpha", &alpha, &[]).endpoint("beta", &beta, &[]);
    lab.a.write(&three.clone().endpoint("gamma", &gamma, &["10.244.0.2"]));
    lab.a.apply();
    assert_eq!(addresses(&beta), chosen, "with another endpoint");
    assert_eq!(addresses(&alpha), ["10.244.0.3/32", "fd00:10:244::3/128"]);
    lab.a.write(&three);
    lab.a.apply();
    assert_eq!(addresses(&beta), chosen, "with an endpoint less");
    exchange(&alpha, &beta, "10.244.0.1");
    exchange(&alpha, &beta, "fd00:10:244::2");
}

#[test]
fn chosen_addresses_outlive_the_namespace() {
    let Some(lab) = Lab::new(V4) else { return };
    let (first, second) = (lab.space("first"), lab.space("second"));
    let config = |lab: &Lab| {
        Text::node_a(lab).endpoint("first", &first, &[]).endpoint("second", &second, &[])
    };
    lab.a.write(&config(&lab));
    lab.a.apply();
    assert_eq!(
        (addresses(&first), addresses(&second)),
        (vec!["10.244.0.1/32".to_string()], vec!["10.244.0.2/32".to_string()])
    );
    let before = lab.a.view().observed;
    lab.remove(&first);
    // Its device is gone with it; apply says so and changes nothing.
    let ran = lab.a.ciliate(&["apply"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("network namespace of endpoint `first`"),
        "{ran:?}"
    );
    let again = lab.space("first");
    lab.a.apply();
    assert_eq!(addresses(&again), ["10.244.0.1/32"]);
    crate::node::assert_equal(&before, &lab.a.view().observed, "before", "after");
    exchange(&again, &second, "10.244.0.2");
}

#[test]
fn an_endpoint_that_is_renamed_keeps_its_veth() {
    let Some(lab) = Lab::new(V4) else { return };
    let (space, neighbour) = (lab.space("one"), lab.space("neighbour"));
    let base = || Text::node_a(&lab).endpoint("neighbour", &neighbour, &["10.244.0.7"]);
    lab.a.write(&base().endpoint("before", &space, &["10.244.0.8"]));
    lab.a.apply();
    // The number and the pair: a veth made anew has others.
    let device = || {
        let line = space.sh("ip -o link show eth0");
        line.split([' ', '@']).take(3).map(str::to_string).collect::<Vec<_>>().join(" ")
            + line.split(['@', ':']).nth(2).unwrap_or_default()
    };
    let before = device();
    lab.a.write(&base().endpoint("after", &space, &["10.244.0.8"]));
    let plan = lab.a.ciliate(&["plan"]);
    let anew = |line: &str| line.starts_with("-/+ link") || line.starts_with("+ link");
    assert!(plan.code == 2 && !plan.stdout.lines().any(anew), "{plan:?}");
    lab.a.apply();
    assert_eq!(device(), before);
    assert_eq!(crate::traffic::ping(&neighbour, "10.244.0.8"), 63);
}

/// Goes to the namespace behind each file that it reads the path of, and is the same process.
const WANDERING: &str = r#"read place; exec nsenter --net="$place" sh -c "$0" "$0""#;

/// A process in a namespace of its own. Dropped, it ends, and the namespace with it.
struct Sleeper(Child);

impl Sleeper {
    fn start(node: &Node) -> Self {
        let child = node
            .space
            .command("unshare")
            .args(["--net", "sleep", "600"])
            .stdout(Stdio::null())
            .spawn()
            .expect("run unshare");
        let sleeper = Self(child);
        let comm = format!("/proc/{}/comm", sleeper.0.id());
        let ready = crate::daemon::wait_until(crate::daemon::PATIENCE, || {
            std::fs::read_to_string(&comm).is_ok_and(|name| name.trim() == "sleep")
        });
        assert!(ready, "unshare did not start");
        sleeper
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// A process in a namespace that it can be told to leave.
    fn wanderer(space: &Space) -> Self {
        let mut command = space.command("sh");
        command.args(["-c", WANDERING, WANDERING]).stdin(Stdio::piped());
        let sleeper = Self(command.spawn().expect("run sh"));
        sleeper.wait_in(&space.path());
        sleeper
    }

    /// Sends a wanderer to another namespace.
    fn go(&mut self, place: &str) {
        let input = self.0.stdin.as_mut().expect("the wanderer's input");
        writeln!(input, "{place}").expect("tell the wanderer");
        self.wait_in(place);
    }

    fn wait_in(&self, place: &str) {
        let inode = |path: &str| std::fs::metadata(path).map(|file| file.ino()).ok();
        let here = format!("/proc/{}/ns/net", self.pid());
        let arrived = crate::daemon::wait_until(crate::daemon::PATIENCE, || {
            inode(&here).is_some() && inode(&here) == inode(place)
        });
        assert!(arrived, "not in {place}");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn endpoints_by_pid() {
    let Some(lab) = Lab::new(V4) else { return };
    let process = Sleeper::start(&lab.a);
    let neighbour = lab.space("neighbour");
    let mut text = Text::node_a(&lab).endpoint("neighbour", &neighbour, &["10.244.0.7"]);
    text.endpoints += &endpoint("process", &format!("pid = {}", process.pid()), &["10.244.0.8"]);
    lab.a.write(&text);
    lab.a.apply();
    let of_process = format!("nsenter -t {} -n", process.pid());
    let routes = crate::space::sh(&format!("{of_process} ip route"));
    assert!(routes.contains("default via 10.244.0.26 dev eth0 proto 203"), "{routes}");
    assert_eq!(crate::traffic::ping(&neighbour, "10.244.0.8"), 63);
    crate::space::sh(&format!("{of_process} ping -n -c 1 -W 5 10.244.0.7"));
    drop(process);
    let ran = lab.a.ciliate(&["plan"]);
    assert!(ran.code == 1 && ran.stderr.contains("endpoint `process`: no such process"), "{ran:?}");
}

#[test]
fn a_pid_means_what_is_behind_it_now() {
    let Some(lab) = Lab::new(V4) else { return };
    let [first, second, neighbour] = ["first", "second", "neighbour"].map(|name| lab.space(name));
    let mut process = Sleeper::wanderer(&first);
    let mut text = Text::node_a(&lab).endpoint("neighbour", &neighbour, &["10.244.0.7"]);
    text.endpoints += &endpoint("process", &format!("pid = {}", process.pid()), &["10.244.0.8"]);
    lab.a.write(&text);
    lab.a.apply();
    assert_eq!(addresses(&first), ["10.244.0.8/32"]);

    process.go(&second.path());
    let plan = lab.a.ciliate(&["plan"]);
    assert!(plan.code == 2 && plan.stdout.contains("peer missing -> eth0 in /proc/"), "{plan:?}");
    lab.a.apply();
    assert_eq!(addresses(&second), ["10.244.0.8/32"]);
    assert_eq!(first.sh("ip -o link show type veth"), "");
    assert_eq!(crate::traffic::ping(&neighbour, "10.244.0.8"), 63);

    // As if another process had the number: one of the node, one of another endpoint.
    for (place, problem) in [
        (lab.a.space.path(), "`process`: this is the node's own network namespace"),
        (neighbour.path(), "`process`: it is the namespace of endpoint `neighbour` as well"),
    ] {
        let before = (lab.a.space.sh("ip -4 addr; ip route"), neighbour.sh("ip -4 addr; ip route"));
        process.go(&place);
        for command in ["plan", "apply"] {
            let ran = lab.a.ciliate(&[command]);
            assert!(ran.code == 1 && ran.stderr.contains(problem), "{place}: {ran:?}");
        }
        let after = (lab.a.space.sh("ip -4 addr; ip route"), neighbour.sh("ip -4 addr; ip route"));
        assert_eq!(before, after, "{place}");
    }
}
