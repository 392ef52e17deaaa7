//! A lab: namespaces for two nodes or more, an outside host, endpoints, and the bridge that is their wire.
//!
//! Dropped, it removes what ciliate made by `ciliate destroy`, compares every namespace with what it was
//! before, tears everything down and makes sure that nothing is left. After a panic it only tears down.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::node::{Node, Text};
use crate::snapshot::{self, BpfIds, Snapshot};
use crate::space::{Space, sh, try_sh};

/// What the tier needs: program, Debian package.
const TOOLS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("tcpdump", "tcpdump"),
    ("bpftool", "bpftool"),
    ("strace", "strace"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
];

/// Which address families a lab has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

pub const V4: Families = Families { v4: true, v6: false };
pub const V6: Families = Families { v4: false, v6: true };
pub const DUAL: Families = Families { v4: true, v6: true };

/// How nodes are numbered on their wire. The outside is number 1.
#[derive(Debug, Clone, Copy)]
pub struct Numbering {
    /// Before the last number of IPv4 addresses, and the prefix length.
    pub v4: (&'static str, u8),
    /// Before the last number of IPv6 addresses, which have 64 bits of prefix.
    pub v6: &'static str,
    /// Each node's number: those of a and b, then others'.
    pub nodes: &'static [u8],
}

/// That of the host-gateway walk-through.
const TWO_NODES: Numbering = Numbering { v4: ("172.18.0.", 16), v6: "fc00:18::", nodes: &[3, 2] };

/// Names of the nodes.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// The namespaces of one test.
pub struct Lab {
    id: String,
    pub dir: PathBuf,
    /// Of the wire, and, unless a test does otherwise, of endpoints.
    pub families: Families,
    numbering: Numbering,
    pub wire: Space,
    pub outside: Space,
    pub a: Node,
    pub b: Node,
    /// Nodes beyond the first two.
    pub others: Vec<Node>,
    /// Every namespace, and how it was before ciliate came.
    spaces: RefCell<BTreeMap<Space, Option<Snapshot>>>,
    /// BPF objects that ciliate was seen to own.
    bpf: RefCell<BpfIds>,
}

impl Lab {
    /// Makes the wire, both nodes and the outside; `None` where the tier can't run.
    pub fn new(families: Families) -> Option<Lab> {
        Self::numbered(families, TWO_NODES)
    }

    /// The same with other numbers and more nodes.
    pub fn numbered(families: Families, numbering: Numbering) -> Option<Lab> {
        if !able() {
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("cn{}n{number}", process::id());
        let dir = std::env::temp_dir().join(format!("ciliate-netns-{}-{number}", process::id()));
        let space = |name: &str| Space { name: format!("{id}-{name}") };
        let (wire, outside) = (space("wire"), space("outside"));
        let mut nodes = NAMES.iter().map(|name| Node::new(name, space(name), &dir));
        let (a, b) = (nodes.next().expect("a node"), nodes.next().expect("a second one"));
        let others = nodes.take(numbering.nodes.len() - 2).collect();
        let (spaces, bpf) = (RefCell::default(), RefCell::default());
        let lab = Lab { id, dir, families, numbering, wire, outside, a, b, others, spaces, bpf };
        lab.set_up();
        Some(lab)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        [&self.a, &self.b].into_iter().chain(&self.others)
    }

    fn set_up(&self) {
        for folder in ["bpf", "log"] {
            fs::create_dir_all(self.dir.join(folder)).expect("create the lab's folder");
        }
        mount("bpf", self.dir.join("bpf"), "bpf", MountFlags::empty(), None).expect("mount bpffs");
        self.make(&self.wire);
        self.wire
            .sh("ip link add br0 type bridge forward_delay 0 mcast_snooping 0; ip link set br0 up");
        let Numbering { v4: (v4, bits), v6, nodes } = self.numbering;
        let hosts = self.nodes().map(|node| &node.space).zip(nodes.iter().copied());
        for (space, host) in hosts.chain([(&self.outside, 1)]) {
            self.make(space);
            let mut script = format!(
                "ip link add eth0 type veth peer name p{host} netns {wire}\n\
                 ip -n {wire} link set p{host} master br0 up\n\
                 echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up\n",
                wire = self.wire.name
            );
            if self.families.v4 {
                script += &format!("ip addr add {v4}{host}/{bits} dev eth0\n");
                script += &match host {
                    1 => "ip addr add 192.0.2.1/32 dev lo\n".to_string(),
                    _ => format!("ip route add default via {v4}1\n"),
                };
            }
            if self.families.v6 {
                script += &format!("ip addr add {v6}{host}/64 dev eth0 nodad\n");
                script += &match host {
                    1 => "ip addr add 2001:db8::1/128 dev lo nodad\n".to_string(),
                    _ => format!("ip -6 route add default via {v6}1\n"),
                };
            }
            script += "while ip -6 addr show tentative | grep -q inet6; do sleep 0.05; done\n";
            space.sh(&script);
        }
        self.baseline();
    }

    /// Makes a namespace with nothing in it but `lo`.
    pub fn space(&self, name: &str) -> Space {
        let space = Space { name: format!("{}-{name}", self.id) };
        self.make(&space);
        self.spaces.borrow_mut().insert(space.clone(), Some(Snapshot::of(&space)));
        space
    }

    /// Many of them, quickly; these are not compared in the end.
    pub fn many_spaces(&self, count: usize) -> Vec<Space> {
        let all: Vec<Space> =
            (0..count).map(|n| Space { name: format!("{}-e{n}", self.id) }).collect();
        let lines: String = all.iter().map(|s| format!("netns add {}\n", s.name)).collect();
        let batch = self.dir.join("batch");
        fs::write(&batch, lines).expect("write a batch");
        sh(&format!("ip -batch {}", batch.display()));
        self.spaces.borrow_mut().extend(all.iter().map(|space| (space.clone(), None)));
        all
    }

    fn make(&self, space: &Space) {
        self.spaces.borrow_mut().insert(space.clone(), None);
        sh(&format!("ip netns add {0}; ip -n {0} link set lo up", space.name));
    }

    /// Removes a namespace in the middle of a test.
    pub fn remove(&self, space: &Space) {
        self.spaces.borrow_mut().remove(space);
        sh(&format!("ip netns del {}", space.name));
    }

    /// Takes what is there now for what has to be there in the end: the test changed things on purpose.
    pub fn baseline(&self) {
        let mut spaces = self.spaces.borrow_mut();
        for space in self.nodes().map(|node| &node.space).chain([&self.outside]) {
            spaces.insert(space.clone(), Some(Snapshot::of(space)));
        }
    }

    /// The same with the namespace of an endpoint.
    pub fn baseline_with(&self, endpoint: &Space) {
        self.baseline();
        self.spaces.borrow_mut().insert(endpoint.clone(), Some(Snapshot::of(endpoint)));
    }

    /// The same for node a in the middle of a test, which then applies again.
    pub fn baseline_of_a(&self) {
        self.note_bpf();
        self.a.destroy();
        let space = &self.a.space;
        self.spaces.borrow_mut().insert(space.clone(), Some(Snapshot::of(space)));
    }

    /// Remembers which BPF objects there are behind pins now; they have to be gone in the end.
    pub fn note_bpf(&self) {
        self.bpf.borrow_mut().note(&self.dir.join("bpf"));
    }

    /// `client` and `client2` on node a, `server` on node b, all configured as in the walk-through.
    pub fn walk_through(&self) -> (Space, Space, Space) {
        self.walk_through_as(|text| text)
    }

    /// The same with health.
    pub fn walk_through_with_health(&self) -> (Space, Space, Space) {
        self.walk_through_as(Text::with_health)
    }

    /// The same, configured a little differently.
    pub fn walk_through_as(&self, shape: impl Fn(Text) -> Text) -> (Space, Space, Space) {
        let (client, client2, server) =
            (self.space("client"), self.space("client2"), self.space("server"));
        let v = self.families;
        self.a.write(
            &shape(Text::node_a(self))
                .endpoint("client", &client, &addresses(v, "10.244.0.49", "fd00:10:244::49"))
                .endpoint("client2", &client2, &addresses(v, "10.244.0.50", "fd00:10:244::50")),
        );
        self.b.write(&shape(Text::node_b(self)).endpoint(
            "server",
            &server,
            &addresses(v, "10.244.1.124", "fd00:10:244:1::124"),
        ));
        (client, client2, server)
    }

    /// Compares, after `ciliate destroy` on both nodes.
    pub fn destroy_and_compare(&self) {
        self.note_bpf();
        for node in self.nodes() {
            if node.is_configured() {
                node.destroy();
            }
        }
        for (space, before) in self.spaces.borrow().iter() {
            let Some(before) = before else { continue };
            before.assert_same(&Snapshot::of(space), &format!("{} after destroy", space.name));
        }
        for node in self.nodes() {
            assert!(!node.bpf.exists(), "destroy left {}", snapshot::tree(&node.bpf).join(", "));
            assert!(!node.runtime.exists(), "destroy left {}", node.runtime.display());
        }
        let left = snapshot::tree(&self.dir.join("bpf"));
        // A fresh BPF file system has files of the kernel's own: maps.debug, progs.debug.
        let foreign = |path: &String| path.contains("/foreign") || path.ends_with(".debug");
        assert!(left.iter().all(foreign), "destroy left pins: {left:?}");
    }

    fn tear_down(&self) {
        for node in self.nodes() {
            // There is one for each node that was configured.
            let _ = fs::remove_dir(&node.cgroup);
        }
        let spaces: Vec<Space> = self.spaces.borrow().keys().cloned().collect();
        let lines: String = spaces.iter().map(|s| format!("netns del {}\n", s.name)).collect();
        let batch = self.dir.join("batch");
        let _ = fs::write(&batch, lines);
        let _ = try_sh(&format!("ip -force -batch {}", batch.display()));
        unmount_all(&self.dir);
        let _ = fs::remove_dir_all(&self.dir);
    }

    fn assert_gone(&self) {
        let named = fs::read_dir("/run/netns").expect("list /run/netns").flatten();
        let prefix = format!("{}-", self.id);
        let mut left: Vec<String> = named
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with(&prefix))
            .collect();
        let mounts = fs::read_to_string("/proc/self/mounts").expect("read the mounts");
        let dir = self.dir.display().to_string();
        left.extend(mounts.lines().filter(|line| line.contains(&dir)).map(str::to_string));
        left.extend(self.dir.exists().then(|| dir.clone()));
        left.extend(processes_with(&dir));
        assert!(left.is_empty(), "left over: {left:#?}");
        self.bpf.borrow().assert_gone();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in self.nodes() {
                if let Ok(log) = fs::read_to_string(&node.log) {
                    eprintln!("--- log of node {}\n{}", node.name, last_lines(&log, 20));
                }
            }
            self.tear_down();
            return;
        }
        // Torn down in any case, and only then is the test failed.
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.destroy_and_compare();
        }));
        self.tear_down();
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
        self.assert_gone();
    }
}

/// The addresses of the families that a lab has.
pub fn addresses<'a>(families: Families, v4: &'a str, v6: &'a str) -> Vec<&'a str> {
    let v4 = families.v4.then_some(v4);
    v4.into_iter().chain(families.v6.then_some(v6)).collect()
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(count)..];
    last.iter().map(|line| format!("{line:.200}\n")).collect()
}

/// Running processes that were started with a path in the lab's folder.
fn processes_with(dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("list /proc").flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(dir) {
            found.push(format!("process {}: {line}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

/// Whether the tier can run; says why not, once. What killed test runs left behind is removed first.
pub fn able() -> bool {
    static ONCE: Once = Once::new();
    let missing = if rustix::process::geteuid().is_root() {
        TOOLS.iter().find(|(tool, _)| !in_path(tool)).map(|(tool, package)| {
            format!("SKIP netns tier: `{tool}` is missing (package {package})")
        })
    } else {
        Some("SKIP netns tier: needs root".to_string())
    };
    let Some(text) = missing else {
        ONCE.call_once(remove_stale);
        return true;
    };
    ONCE.call_once(|| println!("{text}"));
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "{text}: with CI=true that is a failure");
    false
}

/// What is mounted in a lab's folder: BPF file systems, and namespaces that nodes made.
fn unmount_all(dir: &Path) {
    let _ = unmount(dir.join("bpf"), UnmountFlags::DETACH);
    for node in ["run-a", "run-b"] {
        for entry in fs::read_dir(dir.join(node).join("netns")).into_iter().flatten().flatten() {
            while unmount(entry.path(), UnmountFlags::DETACH).is_ok() {}
        }
    }
}

fn in_path(tool: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
    found.is_ok_and(|output| output.status.success())
}

/// Removes the namespaces and folders of test processes that are no more. What bears this process's
/// own number before it has made anything is of another that had the number.
fn remove_stale() {
    let own = process::id();
    let dead = |pid: &str| {
        let there = Path::new("/proc").join(pid).exists();
        pid.parse::<u32>().is_ok_and(|pid| pid == own || !there)
    };
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("cn").and_then(|rest| rest.split_once('n'));
        if pid.is_some_and(|(pid, rest)| dead(pid) && rest.contains('-')) {
            let _ = try_sh(&format!("ip netns del {name}"));
        }
    }
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("ciliate-netns-").and_then(|rest| rest.split_once('-'));
        if pid.is_some_and(|(pid, _)| dead(pid)) {
            unmount_all(&entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
