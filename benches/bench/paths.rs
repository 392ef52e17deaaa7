//! The paths that packets are sent by: namespaces, devices and what connects them. Those of ciliate are made
//! by `ciliate apply`, the others with `ip` and the programs of `minimal.c`. Addresses are the same in each.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path as File, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use aya::programs::{SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};
use rustix::net::netdevice::name_to_index;

use super::traffic;

const MINIMAL: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/minimal.o"));

/// What the scripts have in common. An endpoint has one device, `eth0`, and its node the other end of it.
const FUNCTIONS: &str = r#"
space() { # namespaces
    for name; do
        ip netns add "$name"; ip -n "$name" link set lo up
        nsenter --net=/run/netns/$name sysctl -qw net.ipv6.conf.default.accept_dad=0
    done
}
node() { # namespaces of kernels that route
    for name; do
        nsenter --net=/run/netns/$name sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    done
}
wire() { # a node, another
    ip link add eth0 netns $1 type veth peer name eth0 netns $2
    ip -n $1 addr add 172.18.0.3/16 dev eth0; ip -n $1 addr add fd00:18::3/64 dev eth0
    ip -n $2 addr add 172.18.0.2/16 dev eth0; ip -n $2 addr add fd00:18::2/64 dev eth0
    ip -n $1 link set eth0 up; ip -n $2 link set eth0 up
}
endpoint() { # its namespace, its node, number, MTU
    ip link add eth0 mtu $4 netns $1 type veth peer name lxc$3 mtu $4 netns $2
    ip -n $2 addr add 10.$3.0.1/24 dev lxc$3; ip -n $2 addr add fd00:$3::1/64 dev lxc$3
    ip -n $1 addr add 10.$3.0.2/24 dev eth0; ip -n $1 addr add fd00:$3::2/64 dev eth0
    ip -n $2 link set lxc$3 up; ip -n $1 link set eth0 up
    ip -n $1 route add default via 10.$3.0.1; ip -n $1 -6 route add default via fd00:$3::1
}
tunnel() { # a node, its number, its address, the other's number, the other's address
    ip -n $1 link add vxlan0 address 02:00:00:00:00:0$2 mtu 1450 type vxlan id 42 dstport 4789 local $3 nolearning
    ip -n $1 addr add 10.9.0.$2/24 dev vxlan0; ip -n $1 addr add fd00:9::$2/64 dev vxlan0
    ip -n $1 link set vxlan0 up
    bridge -n $1 fdb add 02:00:00:00:00:0$4 dev vxlan0 dst $5
    ip -n $1 neigh add 10.9.0.$4 lladdr 02:00:00:00:00:0$4 dev vxlan0
    ip -n $1 neigh add fd00:9::$4 lladdr 02:00:00:00:00:0$4 dev vxlan0
    ip -n $1 route add 10.$4.0.0/24 via 10.9.0.$4; ip -n $1 -6 route add fd00:$4::/64 via fd00:9::$4
}
wireguard() { # a node, its number; prints its public key
    private=$(wg genkey)
    ip -n $1 link add wg0 mtu 1420 type wireguard
    echo $private | nsenter --net=/run/netns/$1 wg set wg0 listen-port 51820 private-key /dev/stdin
    ip -n $1 addr add 10.9.0.$2/32 dev wg0; ip -n $1 link set wg0 up
    echo $private | wg pubkey
}
known() { # a node, the other's number, address and public key
    nsenter --net=/run/netns/$1 wg set wg0 peer $4 endpoint $3:51820 allowed-ips 10.$2.0.0/24,fd00:$2::/64
    ip -n $1 route add 10.$2.0.0/24 dev wg0; ip -n $1 -6 route add fd00:$2::/64 dev wg0
}
"#;

/// Between the nodes, without a tunnel.
const ROUTES: &str = "
    ip -n $p-a route add 10.2.0.0/24 via 172.18.0.2; ip -n $p-a -6 route add fd00:2::/64 via fd00:18::2
    ip -n $p-b route add 10.1.0.0/24 via 172.18.0.3; ip -n $p-b -6 route add fd00:1::/64 via fd00:18::3
";

/// How nodes of ciliate are configured beyond who and where they are.
const NATIVE: &str = "[routing]\nmode = \"native\"\nauto-direct-node-routes = true\n";
const PAST_HOST: &str = "host-routing = \"bpf\"\n";
const TUNNEL: &str = "[routing]\nmode = \"tunnel\"\n";
const UNMASQUERADED: &str = "[masquerade]\nmode = \"off\"\n";
const ENCRYPTED: &str = "[encryption]\nmode = \"wireguard\"\n";

/// What makes paths of one kind.
pub type Kind = fn(&mut Lab);
pub const RAW: Kind = Lab::raw;
pub const SAME_NODE: Kind = Lab::same_node;
pub const ACROSS: Kind = Lab::across;
pub const VXLAN: Kind = Lab::by_tunnel;
pub const WIREGUARD: Kind = Lab::encrypted;

/// A way from a client's namespace to a server's, both of them named by the path's.
pub struct Path {
    pub name: &'static str,
    pub client: String,
    pub server: String,
    /// The server's, IPv4 and IPv6.
    pub addresses: [IpAddr; 2],
}

/// All of them; gone when dropped.
pub struct Lab {
    folder: PathBuf,
    prefix: String,
    pub paths: Vec<Path>,
    /// Attached for as long as they live.
    programs: Vec<Ebpf>,
}

impl Lab {
    /// With the paths of these kinds.
    pub fn new(kinds: &[Kind]) -> Self {
        let id = std::process::id();
        let folder = std::env::temp_dir().join(format!("ciliate-datapath-{id}"));
        fs::create_dir_all(folder.join("bpf")).expect("make a folder");
        let prefix = format!("cd{id}");
        let mut lab = Self { folder, prefix, paths: Vec::new(), programs: Vec::new() };
        sh(&format!("mount -t bpf bpf {}/bpf", lab.folder.display()));
        kinds.iter().for_each(|kind| kind(&mut lab));
        lab
    }

    /// Runs a script in which `$p` begins the names of this path's namespaces. Returns that.
    fn script(&self, id: &str, script: &str) -> String {
        let prefix = format!("{}-{id}", self.prefix);
        sh(&format!("p={prefix}\n{FUNCTIONS}\n{script}"));
        prefix
    }

    fn add(&mut self, name: &'static str, prefix: &str, addresses: [&str; 2]) {
        self.paths.push(Path {
            name,
            client: format!("{prefix}-c"),
            server: format!("{prefix}-s"),
            addresses: addresses.map(|address| address.parse().expect("an address")),
        });
    }

    fn raw(&mut self) {
        let script = "space $p-c $p-s; wire $p-c $p-s";
        let prefix = self.script("raw", script);
        self.add("raw veth pair", &prefix, ["172.18.0.2", "fd00:18::2"]);
        self.add("raw veth pair, again", &prefix, ["172.18.0.2", "fd00:18::2"]);
    }

    fn same_node(&mut self) {
        let script =
            "space $p-c $p-s $p-a; node $p-a; endpoint $p-c $p-a 1 1500; endpoint $p-s $p-a 2 1500";
        let server = ["10.2.0.2", "fd00:2::2"];
        let prefix = self.script("sr", script);
        self.add("same node: kernel routing", &prefix, server);
        let prefix = self.script("sm", script);
        self.attach(&format!("{prefix}-a"), "lxc1", "to_peer", "lxc2");
        self.attach(&format!("{prefix}-a"), "lxc2", "to_peer", "lxc1");
        self.add("same node: minimal redirect", &prefix, server);
        let prefix = self.script("so", "space $p-c $p-s $p-a $p-b; wire $p-a $p-b");
        self.apply(&prefix, "a", NATIVE, &[("c", 2), ("s", 3)]);
        self.add("same node: ciliate", &prefix, ["10.1.0.3", "fd00:1::3"]);
    }

    fn across(&mut self) {
        let spaces = "space $p-c $p-s $p-a $p-b; wire $p-a $p-b";
        let script = format!(
            "{spaces}; node $p-a $p-b; endpoint $p-c $p-a 1 1500; endpoint $p-s $p-b 2 1500\n{ROUTES}"
        );
        let server = ["10.2.0.2", "fd00:2::2"];
        let prefix = self.script("nr", &script);
        self.add("across: kernel routing", &prefix, server);
        let prefix = self.script("nm", &script);
        for (node, device) in [("a", "lxc1"), ("b", "lxc2")] {
            let node = format!("{prefix}-{node}");
            self.attach(&node, device, "to_neighbour", "eth0");
            self.attach(&node, "eth0", "to_peer", device);
        }
        self.add("across: minimal redirect", &prefix, server);
        let past_host = NATIVE.to_string() + PAST_HOST;
        let ours = [
            ("no", "across: ciliate", NATIVE.to_string()),
            ("nu", "across: … not masquerading", format!("{NATIVE}{UNMASQUERADED}")),
            ("nb", "across: … host-routing = bpf", past_host),
        ];
        for (id, name, text) in ours {
            let prefix = self.script(id, spaces);
            self.apply(&prefix, "a", &text, &[("c", 2)]);
            self.apply(&prefix, "b", &text, &[("s", 2)]);
            self.add(name, &prefix, server);
        }
    }

    fn by_tunnel(&mut self) {
        let spaces = "space $p-c $p-s $p-a $p-b; wire $p-a $p-b";
        let script = format!(
            "{spaces}; node $p-a $p-b; endpoint $p-c $p-a 1 1450; endpoint $p-s $p-b 2 1450
             tunnel $p-a 1 172.18.0.3 2 172.18.0.2; tunnel $p-b 2 172.18.0.2 1 172.18.0.3"
        );
        let server = ["10.2.0.2", "fd00:2::2"];
        let prefix = self.script("tr", &script);
        self.add("VXLAN: kernel, static fdb", &prefix, server);
        let past_host = format!("{TUNNEL}{PAST_HOST}");
        let ours =
            [("to", "VXLAN: ciliate", TUNNEL), ("tb", "VXLAN: … host-routing = bpf", &past_host)];
        for (id, name, text) in ours {
            let prefix = self.script(id, spaces);
            self.apply(&prefix, "a", text, &[("c", 2)]);
            self.apply(&prefix, "b", text, &[("s", 2)]);
            self.add(name, &prefix, server);
        }
    }

    fn encrypted(&mut self) {
        let spaces = "space $p-c $p-s $p-a $p-b; wire $p-a $p-b";
        let server = ["10.2.0.2", "fd00:2::2"];
        let script = format!(
            "{spaces}; node $p-a $p-b; endpoint $p-c $p-a 1 1420; endpoint $p-s $p-b 2 1420
             a=$(wireguard $p-a 1); b=$(wireguard $p-b 2)
             known $p-a 2 172.18.0.2 $b; known $p-b 1 172.18.0.3 $a"
        );
        let prefix = self.script("wr", &script);
        self.add("WireGuard: kernel, by hand", &prefix, server);
        let both = [("a", "c"), ("b", "s")];
        for (id, name, text) in [
            ("wo", "WireGuard: ciliate", NATIVE.to_string()),
            ("wu", "WireGuard: … not masquerading", format!("{NATIVE}{UNMASQUERADED}")),
        ] {
            let prefix = self.script(id, spaces);
            // The first time each makes its key, the second time it knows the other's.
            let mut keys = both.map(|_| String::new());
            for _ in 0..2 {
                let known =
                    [format!("public-key = {:?}", keys[1]), format!("public-key = {:?}", keys[0])];
                for ((node, endpoint), peer) in both.into_iter().zip(&known) {
                    let peer = if keys[0].is_empty() { "" } else { peer };
                    let text = format!("{text}{ENCRYPTED}");
                    self.apply_knowing(&prefix, node, &text, &[(endpoint, 2)], peer);
                }
                keys = both.map(|(node, _)| self.public_key(&prefix, node));
            }
            self.add(name, &prefix, server);
        }
    }

    fn public_key(&self, prefix: &str, node: &str) -> String {
        let config = text_of(&self.config(prefix, node));
        let node = format!("{prefix}-{node}");
        self.ciliate(&node, &["-c", &config, "wireguard", "pubkey"]).trim().to_owned()
    }

    /// Attaches a program of `minimal.c` in a namespace, with another device there as its target.
    fn attach(&mut self, namespace: &str, device: &str, program: &str, target: &str) {
        let attached = thread::scope(|scope| {
            let inside = || {
                traffic::enter(namespace);
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                let target = name_to_index(socket, target).expect("a device");
                let mut object = EbpfLoader::new()
                    .override_global("target", &target, true)
                    .load(MINIMAL)
                    .expect("load programs");
                let classifier = object.program_mut(program).expect("a program");
                let classifier: &mut SchedClassifier = classifier.try_into().expect("a classifier");
                classifier.load().expect("load a program");
                classifier.attach(device, TcAttachType::Ingress).expect("attach a program");
                object
            };
            scope.spawn(inside).join().expect("a thread")
        });
        self.programs.push(attached);
    }

    /// Has a node made by ciliate: `a` or `b` of two that know each other. `routing` is that section and what
    /// else there is to say. Endpoints: which, and the end of the address. Without health: its namespace would
    /// still be there when the node's is not.
    fn apply(&self, prefix: &str, node: &str, routing: &str, endpoints: &[(&str, u8)]) {
        self.apply_knowing(prefix, node, routing, endpoints, "");
    }

    /// The same with something more to say of the other node.
    fn apply_knowing(
        &self,
        prefix: &str,
        node: &str,
        routing: &str,
        endpoints: &[(&str, u8)],
        peer: &str,
    ) {
        // The third number of its endpoints' addresses, and the last of its own.
        let ((number, host), (other, other_host)) = match node {
            "a" => ((1, 3), (2, 2)),
            _ => ((2, 2), (1, 3)),
        };
        let at = self.folder.display();
        let mut text = format!(
            r#"[node]
name = "{node}"
addresses = ["172.18.0.{host}", "fd00:18::{host}"]
devices = ["eth0"]
cidrs = ["10.{number}.0.0/24", "fd00:{number}::/64"]
{routing}
[health]
enabled = false
[paths]
runtime = "{at}/{prefix}-{node}"
state = "{at}/{prefix}-{node}-state"
bpf = "{at}/bpf/{prefix}-{node}"
[[peer]]
name = "other"
addresses = ["172.18.0.{other_host}", "fd00:18::{other_host}"]
cidrs = ["10.{other}.0.0/24", "fd00:{other}::/64"]
{peer}
"#
        );
        for (name, end) in endpoints {
            let _ = write!(
                text,
                r#"[[endpoint]]
name = "{name}"
netns = "/run/netns/{prefix}-{name}"
addresses = ["10.{number}.0.{end}", "fd00:{number}::{end}"]
labels = {{ app = "{name}" }}
"#
            );
        }
        let config = self.config(prefix, node);
        fs::write(&config, text).expect("write a configuration");
        self.ciliate(&format!("{prefix}-{node}"), &["-c", &text_of(&config), "apply"]);
    }

    fn config(&self, prefix: &str, node: &str) -> PathBuf {
        self.folder.join(format!("{prefix}-{node}.toml"))
    }

    /// Returns what it prints.
    fn ciliate(&self, namespace: &str, arguments: &[&str]) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{namespace}"))
            .arg(env!("CARGO_BIN_EXE_ciliate"))
            .args(arguments)
            .output()
            .expect("run nsenter");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.programs.clear();
        let script = format!(
            "for name in /run/netns/{}-*; do ip netns del ${{name##*/}}; done; umount {}/bpf",
            self.prefix,
            self.folder.display()
        );
        let _ = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn text_of(path: &File) -> String {
    path.display().to_string()
}

fn sh(script: &str) {
    let output = Command::new("sh").args(["-euc", script]).output().expect("run sh");
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}
