//! How long the Kubernetes adapter takes: 5000 services with 20 endpoints each, from a made-up API server by TCP to
//! files; one change; its memory. As root and with the program `ciliate` beside it, on to the BPF maps.

#[path = "../../tests/kubernetes/cluster.rs"]
#[allow(dead_code, reason = "what the tests use of it as well")]
mod cluster;
#[path = "../../tests/kubernetes/server.rs"]
#[allow(dead_code, reason = "what the tests use of it as well")]
mod server;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciliate::bpf_abi::{CILIUM_LB4_BACKENDS, CILIUM_LB4_SERVICES, Lb4Key};
use ciliate::kernel::bpf_map::Map;
use serde_json::json;

use crate::cluster::{Cluster, SERVICES, SLICES, service, slice};

const SERVICES_COUNT: usize = 5000;
const ENDPOINTS_COUNT: usize = 20;
const CHANGES: usize = 21;
const PROGRAM: &str = env!("CARGO_BIN_EXE_ciliate-kubernetes");
/// Where files are not in memory, each is waited for.
const SERVICES_COUNT_ON_DISK: usize = 500;

/// Ends with the bench.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The cluster IP of a service.
fn frontend(number: usize) -> Ipv4Addr {
    let [high, low] = [number / 250, number % 250 + 1].map(|byte| byte.try_into().expect("a byte"));
    Ipv4Addr::new(10, 96, high, low)
}

fn populate(cluster: &Cluster, count: usize) {
    for number in 0..count {
        let name = format!("s{number}");
        cluster.put(SERVICES, service(&name, &frontend(number).to_string(), 80));
        let addresses: Vec<String> = (0..ENDPOINTS_COUNT)
            .map(|n| number * ENDPOINTS_COUNT + n)
            .map(|n| format!("10.{}.{}.{}", 128 + n / 62_500, n / 250 % 250, n % 250 + 1))
            .collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut slice = slice(&name, &addresses, 80);
        // As a real one: two thirds of an endpoint are of no use here.
        for (number, endpoint) in
            slice["endpoints"].as_array_mut().expect("a list").iter_mut().enumerate()
        {
            endpoint["nodeName"] = json!("node-b");
            endpoint["targetRef"] = json!({"kind": "Pod", "namespace": "default",
                "name": format!("{name}-5656c8b8c5-{number:05}"), "uid": "31266e4a-46d4-457f-8196-c58fcc5fc3e2"});
        }
        cluster.put(SLICES, slice);
    }
    // Watches begin here.
    cluster.forget();
}

/// Moves a service's first endpoint to another address.
fn change(cluster: &Cluster, number: usize, round: usize) -> Ipv4Addr {
    let address = Ipv4Addr::new(10, 250, 0, u8::try_from(round + 1).expect("few rounds"));
    let moved = address.to_string();
    cluster.change(SLICES, &format!("default/s{number}-x2k4d"), |slice| {
        slice["endpoints"][0]["addresses"] = json!([moved]);
    });
    address
}

/// Looks until something is so, for two minutes. How long that took. The processors are the program's: looking costs
/// something too.
fn until(what: &str, begin: Instant, pause: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(120), "never: {what}");
        std::thread::sleep(pause);
    }
    begin.elapsed()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median_and_max(mut times: Vec<Duration>) -> String {
    times.sort();
    format!("{:.1} ms, at most {:.1} ms", ms(times[times.len() / 2]), ms(times[times.len() - 1]))
}

fn memory_mib(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a number");
    let kib = line.split_whitespace().find_map(|word| word.parse::<u64>().ok()).expect("a number");
    kib / 1024
}

/// Processor time that a process has used. Unlike the clock's it is the same on a busy machine.
fn used(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("schedstat");
    let nanoseconds = stat.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let load = fs::read_to_string("/proc/loadavg").expect("the load");
    println!(
        "services of {ENDPOINTS_COUNT} endpoints; median and most of {CHANGES} changes; load {}",
        load.split_whitespace().next().unwrap_or_default()
    );
    // As /run is, and as a directory that somebody configures may be.
    for (kind, place, count) in [
        ("tmpfs", "/dev/shm", SERVICES_COUNT),
        ("disk", env!("CARGO_TARGET_TMPDIR"), SERVICES_COUNT_ON_DISK),
    ] {
        let cluster = Cluster::new();
        populate(&cluster, count);
        let api = runtime.block_on(server::listen(Arc::new(cluster.clone())));
        let folder = tempfile::tempdir_in(place).expect("make a folder");
        let files = folder.path().join("conf.d");
        fs::create_dir_all(&files).expect("make a folder");
        println!("{count} services, files on {kind}");
        let program = to_the_files(folder.path(), &files, (&cluster, count), &api.to_string());
        if kind == "tmpfs" {
            to_the_maps(folder.path(), &files, &cluster);
        }
        drop(program);
    }
}

/// Starts the adapter, and measures it.
fn to_the_files(
    folder: &Path,
    files: &Path,
    (cluster, count): (&Cluster, usize),
    api: &str,
) -> Running {
    let config = folder.join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: \"http://{api}\"}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    );
    fs::write(&config, text).expect("write");
    let begin = Instant::now();
    let mut program = Command::new(PROGRAM);
    program.args(["--node", "node-a", "--kubeconfig"]).arg(&config).arg("--directory").arg(files);
    let program = Running(program.stderr(Stdio::null()).spawn().expect("start the adapter"));
    // One of the last to be written: reading the folder costs more than looking for a file.
    let last = files.join("kubernetes-service-default.s99.toml");
    let all = || last.exists() && fs::read_dir(files).expect("read").count() == count + 2;
    let list = until("all files", begin, Duration::from_millis(2), all);
    let pid = program.0.id();
    let used_by_list = used(pid);
    println!("  start to all files      {:.0} ms, {:.0} of them used", ms(list), ms(used_by_list));
    std::thread::sleep(Duration::from_secs(1));
    let before = used(pid);
    let one = |round: usize| {
        let number = 7 * round;
        let file = files.join(format!("kubernetes-service-default.s{number}.toml"));
        let begin = Instant::now();
        let address = change(cluster, number, round).to_string();
        let is_there = || fs::read_to_string(&file).is_ok_and(|text| text.contains(&address));
        let time = until("a change", begin, Duration::from_micros(200), is_there);
        std::thread::sleep(Duration::from_millis(100));
        time
    };
    println!("  one change to its file  {}", median_and_max((0..CHANGES).map(one).collect()));
    let each = (used(pid) - before) / CHANGES as u32;
    println!("                          {:.1} ms of each used", ms(each));
    let (now, most) = (memory_mib(pid, "VmRSS:"), memory_mib(pid, "VmHWM:"));
    println!("  memory                  {now} MiB, at most {most} MiB");
    program
}

/// Changes of the same services, until the daemon has them in the kernel.
fn to_the_maps(folder: &Path, files: &Path, cluster: &Cluster) {
    let ciliate = Path::new(PROGRAM).with_file_name("ciliate");
    if !rustix::process::geteuid().is_root() || !ciliate.exists() {
        println!("  SKIP the BPF maps: needs root, and `cargo build --release` before");
        return;
    }
    let lab = Lab::new(folder);
    let bpf = lab.bpf.join("ciliate");
    let text = format!(
        "[masquerade]\nmode = \"off\"\n[health]\nenabled = false\n[load-balancing]\nsocket = false\n\
         [paths]\nruntime = \"{0}/run\"\nstate = \"{0}/state\"\nbpf = \"{1}\"\n",
        folder.display(),
        bpf.display()
    );
    fs::write(files.join("10-node.toml"), text).expect("write");
    let in_netns = |arguments: &[&str]| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", lab.netns)).arg(&ciliate).arg("-c").arg(files);
        command.args(arguments).stdout(Stdio::null());
        command
    };
    let begin = Instant::now();
    let daemon = Running(in_netns(&["run"]).stderr(Stdio::null()).spawn().expect("start ciliate"));
    let converged =
        || in_netns(&["status"]).stderr(Stdio::null()).status().expect("run ciliate").success();
    let ready = until("converged", begin, Duration::from_millis(100), converged);
    println!("  files to maps, at first {:.0} ms", ms(ready));
    let open = |name| Map::open(&bpf.join("maps").join(name)).expect("a map");
    let (services, backends) = (open(CILIUM_LB4_SERVICES), open(CILIUM_LB4_BACKENDS));
    let one = |round: usize| {
        let number = 7 * round;
        let begin = Instant::now();
        let address = change(cluster, number, CHANGES + round);
        let serves = |slot| backend(&services, &backends, frontend(number), slot) == Some(address);
        let is_there = || (1..=ENDPOINTS_COUNT as u16).any(serves);
        let time = until("a change in the map", begin, Duration::from_micros(200), is_there);
        std::thread::sleep(Duration::from_millis(500));
        time
    };
    println!("  one change to the map   {}", median_and_max((0..CHANGES).map(one).collect()));
    drop(daemon);
    let destroyed = in_netns(&["destroy"]).status().expect("run ciliate");
    assert!(destroyed.success(), "ciliate destroy");
}

/// The address in a slot of a service, as the programs find it.
fn backend(services: &Map, backends: &Map, frontend: Ipv4Addr, slot: u16) -> Option<Ipv4Addr> {
    let (address_be, port_be) = (frontend.octets(), 80_u16.to_be_bytes());
    let key = Lb4Key { address_be, port_be, slot, protocol: 6, ..Lb4Key::default() };
    let value = services.lookup(&key.to_bytes()).expect("read the map")?;
    // The backend's number comes first in the one, its address in the other.
    let found = backends.lookup(&value[..4]).expect("read the map")?;
    found.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

/// A network namespace with an underlay, and a BPF file system.
struct Lab {
    netns: String,
    bpf: PathBuf,
}

impl Lab {
    fn new(folder: &Path) -> Self {
        let netns = format!("ciliate-bench-{}", std::process::id());
        let lab = Self { netns, bpf: folder.join("bpf") };
        let Self { netns, bpf } = &lab;
        let script = format!(
            "mkdir {bpf}; mount -t bpf bpf {bpf}; ip netns add {netns}; ip -n {netns} link set lo up\n\
             ip -n {netns} link add eth0 type veth peer name far\n\
             ip -n {netns} link set eth0 up; ip -n {netns} link set far up\n\
             ip -n {netns} addr add 172.18.0.3/16 dev eth0",
            bpf = bpf.display()
        );
        assert!(Command::new("sh").args(["-ec", &script]).status().expect("run sh").success());
        lab
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
        let _ = Command::new("umount").arg(&self.bpf).status();
    }
}
