//! The namespaces, the configurations and the `ip -batch` files of the bench.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// First prefix of the bench's routes; each is a /28.
const FIRST: u32 = u32::from_be_bytes([11, 0, 0, 0]);
/// The next hop of all routes, on the bench's wire.
pub const VIA: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
/// CIDRs of one peer.
const PEER_CIDRS: usize = 1000;

/// The prefix of a route.
pub fn prefix(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(FIRST + index as u32 * 16)
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(status.is_ok_and(|s| s.success()), "{program} {arguments:?}");
}

/// A node with one underlay device, endpoint namespaces, and a BPF file system; gone when dropped.
pub struct Lab {
    id: u32,
    folder: PathBuf,
    endpoints: usize,
}

impl Lab {
    pub fn new(endpoints: usize) -> Self {
        let id = std::process::id();
        let folder = std::env::temp_dir().join(format!("ciliate-bench-{id}"));
        fs::create_dir_all(folder.join("bpf")).expect("make a folder");
        let lab = Self { id, folder, endpoints };
        run("mount", &["-t", "bpf", "bpf", &lab.path("bpf")]);
        let node = lab.name();
        run("ip", &["netns", "add", &node]);
        run("ip", &["-n", &node, "link", "set", "lo", "up"]);
        run("ip", &["-n", &node, "link", "add", "eth0", "type", "veth", "peer", "name", "far"]);
        for device in ["eth0", "far"] {
            run("ip", &["-n", &node, "link", "set", device, "up"]);
        }
        run("ip", &["-n", &node, "addr", "add", "172.18.0.3/16", "dev", "eth0"]);
        for index in 0..endpoints {
            run("ip", &["netns", "add", &lab.endpoint(index)]);
        }
        let names: Vec<String> = (0..endpoints).map(|i| lab.endpoint(i)).collect();
        fs::write(lab.path("names"), names.join("\n")).expect("write");
        NAMES.set(names).ok();
        lab
    }

    fn name(&self) -> String {
        format!("cb{}", self.id)
    }

    fn endpoint(&self, index: usize) -> String {
        format!("cb{}-{index}", self.id)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    pub fn node(&self) -> String {
        format!("/run/netns/{}", self.name())
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let quiet = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            let _ = command.args(arguments).stderr(Stdio::null()).status();
        };
        for index in 0..self.endpoints {
            quiet("ip", &["netns", "del", &self.endpoint(index)]);
        }
        quiet("ip", &["netns", "del", &self.name()]);
        quiet("umount", &[&self.path("bpf")]);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

static NAMES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();

/// The namespaces of the first endpoints.
pub fn endpoint_names(count: usize) -> Vec<String> {
    let names = NAMES.get_or_init(|| {
        let at = std::env::args().skip_while(|a| a != "--inside").nth(1).unwrap_or_default();
        let text = fs::read_to_string(Path::new(&at).join("names")).expect("names");
        text.lines().map(ToString::to_string).collect()
    });
    names[..count].to_vec()
}

/// Writes a configuration with that many routes to peers, and those endpoints.
pub fn write_config(
    folder: &Path,
    name: &str,
    routes: usize,
    endpoints: &[String],
    attach: &str,
) -> PathBuf {
    let at = folder.display();
    let mut text = format!(
        r#"[node]
name = "bench"
addresses = ["172.18.0.3"]
cidrs = ["10.244.0.0/16"]
[routing]
mode = "native"
auto-direct-node-routes = true
native-cidrs = ["10.0.0.0/7"]
[masquerade]
mode = "off"
[datapath]
attach-mode = "{attach}"
[paths]
runtime = "{at}/run"
state = "{at}/state"
bpf = "{at}/bpf/ciliate"
"#
    );
    for (peer, start) in (0..routes).step_by(PEER_CIDRS).enumerate() {
        let cidrs =
            (start..routes.min(start + PEER_CIDRS)).map(|i| format!("\"{}/28\"", prefix(i)));
        let cidrs = cidrs.collect::<Vec<_>>().join(", ");
        let address = Ipv4Addr::from(u32::from(VIA) + ((peer as u32) << 8));
        let _ = write!(
            text,
            "[[peer]]\nname = \"p{peer}\"\naddresses = [\"{address}\"]\ncidrs = [{cidrs}]\n"
        );
    }
    for name in endpoints {
        let _ = write!(
            text,
            "[[endpoint]]\nname = \"{name}\"\nnetns = \"/run/netns/{name}\"\nlabels = {{ app = \"bench\" }}\n"
        );
    }
    let path = folder.join(format!("{name}.toml"));
    fs::write(&path, text).expect("write the configuration");
    path
}

/// Writes the same routes for `ip -batch`.
pub fn write_ip_batch(folder: &Path, count: usize) -> PathBuf {
    let mut text = String::new();
    for index in 0..count {
        let _ = writeln!(text, "route add {}/28 via {VIA} dev eth0 proto 99", prefix(index));
    }
    let path = folder.join("routes.batch");
    fs::write(&path, text).expect("write the batch");
    path
}

/// Runs a batch and says how long it took.
pub fn run_ip_batch(path: &Path) -> Duration {
    let begin = Instant::now();
    run("ip", &["-batch", &path.display().to_string()]);
    begin.elapsed()
}

/// Removes what the baselines made.
pub fn flush_routes() {
    run("ip", &["route", "flush", "proto", "99"]);
}

/// Makes the devices, addresses and routes of endpoints with `ip -batch`: one for the host, one for each
/// namespace. No programs, no map entries: `ip` can't make them.
pub fn ip_batch_endpoints(folder: &Path, names: &[String]) -> Duration {
    let mut host = String::new();
    for (index, name) in names.iter().enumerate() {
        let _ = writeln!(
            host,
            "link add be{index} mtu 1500 group 9 up type veth peer name eth0 mtu 1500 netns {name}"
        );
        let _ = writeln!(host, "link set be{index} alias bench");
    }
    let path = folder.join("endpoints.batch");
    fs::write(&path, host).expect("write the batch");
    let begin = Instant::now();
    let mut time = run_ip_batch(&path);
    for (index, name) in names.iter().enumerate() {
        let address = Ipv4Addr::from(u32::from_be_bytes([10, 243, 0, 0]) + index as u32 + 1);
        let text = format!(
            "link set eth0 up alias bench\naddr add {address}/32 dev eth0\nroute add 10.243.255.254 dev eth0 scope link\nroute add default via 10.243.255.254 dev eth0 mtu 1500\n"
        );
        let path = folder.join("endpoint.batch");
        fs::write(&path, text).expect("write the batch");
        run("ip", &["-n", name, "-batch", &path.display().to_string()]);
        time = begin.elapsed();
    }
    time
}

/// Removes what [`ip_batch_endpoints`] made.
pub fn remove_ip_endpoints(_names: &[String]) {
    run("ip", &["link", "del", "group", "9"]);
}
