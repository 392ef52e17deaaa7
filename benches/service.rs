//! How the daemon does as a service: from its start to READY (sd_notify(3)) with everything to make and with
//! everything right, and the memory it keeps when nothing happens. Medians of [`ROUNDS`] starts.
//!
//! `make bench` runs it; it needs root, `ip`, `nsenter` and `nft`, and works in network namespaces of its own. It
//! runs itself again inside the node's namespace (`--inside`), where the daemon is started as systemd would.

mod bench {
    #[expect(dead_code, reason = "this bench makes no routes and runs no `ip -batch`")]
    pub mod lab;
    pub mod service_tables;
}

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bench::{lab, service_tables};
use rustix::process::{Pid, Signal, kill_process};

const ROUNDS: usize = 5;
/// Endpoints and services of a node.
const NODES: [(usize, usize); 7] =
    [(0, 0), (50, 0), (200, 0), (0, 1_000), (200, 1_000), (0, 10_000), (200, 10_000)];
const ENDPOINTS_MAX: usize = 200;
/// A first round takes a second at most; a daemon that says nothing for this long is lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long nothing happens before memory is read: its second look at the kernel is over then.
const IDLE: Duration = Duration::from_secs(12);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == "--inside") {
        return inside(Path::new(&arguments[at + 1]));
    }
    if !rustix::process::geteuid().is_root() {
        println!("SKIP bench: needs root");
        return;
    }
    let lab = lab::Lab::new(ENDPOINTS_MAX);
    let program = std::env::current_exe().expect("own path");
    let status = Command::new("nsenter")
        .arg(format!("--net={}", lab.node()))
        .arg(program)
        .arg("--inside")
        .arg(lab.folder())
        .status()
        .expect("run nsenter");
    assert!(status.success(), "the bench failed");
}

fn inside(folder: &Path) {
    println!(
        "daemon, from start to READY        all to make   all right   resident, idle   at most"
    );
    for (endpoints, services) in NODES {
        let config = write_config(folder, endpoints, services);
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        let mut memory_mb = [0; 2];
        for round in 1..=ROUNDS {
            let (daemon, time) = start(folder, &config);
            cold.push(time);
            stop(daemon);
            let (daemon, time) = start(folder, &config);
            warm.push(time);
            if round == ROUNDS {
                thread::sleep(IDLE);
                memory_mb = ["VmRSS:", "VmHWM:"].map(|field| memory(&daemon, field) / 1024);
            }
            stop(daemon);
            ciliate(&config, "destroy");
        }
        println!(
            "{:>5} endpoints, {:>6} services {:>10} ms {:>8} ms {:>13} MB {:>6} MB",
            endpoints,
            services,
            median(cold).as_millis(),
            median(warm).as_millis(),
            memory_mb[0],
            memory_mb[1],
        );
    }
    println!("aims: 300 ms with all right and 10000 services, 30 MB idle");
}

/// Processes of this host are left alone: the lab has no control group of its own.
fn write_config(folder: &Path, endpoints: usize, services: usize) -> PathBuf {
    let path = lab::write_config(folder, "service", 0, &lab::endpoint_names(endpoints), "tcx");
    let mut file = fs::OpenOptions::new().append(true).open(&path).expect("open the configuration");
    let tables = service_tables::tables(services, "cluster-ips");
    write!(file, "[load-balancing]\nsocket = false\n{tables}").expect("write the configuration");
    path
}

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_ciliate")
}

/// Starts a daemon, and waits until it says that it is ready.
fn start(folder: &Path, config: &Path) -> (Child, Duration) {
    let path = folder.join("notify");
    let _ = fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).expect("make a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    let begin = Instant::now();
    let mut daemon = Command::new(program());
    daemon.args(["run", "--config"]).arg(config).env("NOTIFY_SOCKET", &path);
    let daemon = daemon.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let daemon = daemon.expect("start ciliate");
    wait_until_ready(&socket);
    (daemon, begin.elapsed())
}

fn wait_until_ready(socket: &UnixDatagram) {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).expect("hear from the daemon");
        if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return;
        }
    }
}

fn stop(mut daemon: Child) {
    let id = Pid::from_child(&daemon);
    kill_process(id, Signal::TERM).expect("end the daemon");
    assert!(daemon.wait().expect("wait for the daemon").success());
}

fn ciliate(config: &Path, command: &str) {
    let mut ran = Command::new(program());
    let ran = ran.arg(command).arg("--config").arg(config).stdout(Stdio::null()).status();
    assert!(ran.expect("run ciliate").success(), "ciliate {command}");
}

/// A line of /proc/PID/status, in kB.
fn memory(daemon: &Child, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("read status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
