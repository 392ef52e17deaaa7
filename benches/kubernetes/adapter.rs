//! How long the Kubernetes adapter takes: 5000 services with 20 endpoints each, from a made-up API server by TCP to
//! files; one change; its memory.

#[path = "../../tests/kubernetes/cluster.rs"]
#[allow(dead_code, reason = "what the tests use of it as well")]
mod cluster;
#[path = "../../tests/kubernetes/server.rs"]
#[allow(dead_code, reason = "what the tests use of it as well")]
mod server;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Cluster, SERVICES, SLICES, service, slice};

const SERVICES_COUNT: usize = 5000;
const ENDPOINTS_COUNT: usize = 20;
const CHANGES: usize = 21;
const PROGRAM: &str = env!("CARGO_BIN_EXE_ciliate-kubernetes");

/// Ends with the bench.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn populate(cluster: &Cluster) {
    for number in 0..SERVICES_COUNT {
        let (high, low) = (number / 250, number % 250 + 1);
        let name = format!("s{number}");
        cluster.put(SERVICES, service(&name, &format!("10.96.{high}.{low}"), 80));
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
fn change(cluster: &Cluster, number: usize, round: usize) -> String {
    let address = format!("10.250.{}.{}", round / 250, round % 250 + 1);
    let moved = address.clone();
    cluster.change(SLICES, &format!("default/s{number}-x2k4d"), |slice| {
        slice["endpoints"][0]["addresses"] = json!([moved]);
    });
    address
}

/// Looks until something is so, for a minute. How long that took.
fn until(what: &str, begin: Instant, mut is_so: impl FnMut() -> bool) -> Duration {
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_micros(200));
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
    let folder = Path::new(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" })
        .join(format!("ciliate-bench-{}", std::process::id()));
    let files = folder.join("conf.d");
    fs::create_dir_all(&files).expect("make a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let cluster = Cluster::new();
    populate(&cluster);
    let api = runtime.block_on(server::listen(Arc::new(cluster.clone())));
    let config = folder.join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: \"http://{api}\"}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    );
    fs::write(&config, text).expect("write");
    let begin = Instant::now();
    let mut program = Command::new(PROGRAM);
    program.args(["--node", "node-a", "--kubeconfig"]).arg(&config).arg("--directory").arg(&files);
    let program = Running(program.stderr(Stdio::null()).spawn().expect("start the adapter"));
    let count = || fs::read_dir(&files).expect("read").count();
    let list = until("all files", begin, || count() == SERVICES_COUNT + 2);
    println!("{SERVICES_COUNT} services of {ENDPOINTS_COUNT} endpoints");
    let pid = program.0.id();
    let used_by_list = used(pid);
    println!("  start to all files      {:.0} ms, {:.0} of them used", ms(list), ms(used_by_list));
    std::thread::sleep(Duration::from_secs(1));
    let before = used(pid);
    let one = |round: usize| {
        let number = 7 * round;
        let file = files.join(format!("kubernetes-service-default.s{number}.toml"));
        let begin = Instant::now();
        let address = change(&cluster, number, round);
        let is_there = || fs::read_to_string(&file).is_ok_and(|text| text.contains(&address));
        let time = until("a change", begin, is_there);
        std::thread::sleep(Duration::from_millis(100));
        time
    };
    println!("  one change to its file  {}", median_and_max((0..CHANGES).map(one).collect()));
    let each = (used(pid) - before) / CHANGES as u32;
    println!("                          {:.1} ms of each used", ms(each));
    let (now, most) = (memory_mib(pid, "VmRSS:"), memory_mib(pid, "VmHWM:"));
    println!("  memory                  {now} MiB, at most {most} MiB");
    drop(program);
    let _ = fs::remove_dir_all(&folder);
}
