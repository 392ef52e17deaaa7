//! How the daemon does as a service: from its start to READY (sd_notify(3)) with everything to make and with
//! everything right, and the memory it keeps when nothing happens. Medians of [`ROUNDS`] starts.
//!
//! `make bench` runs it; it needs root, `ip`, `nsenter` and `nft`, and works in network namespaces of its own. It
//! runs itself again inside the node's namespace (`--inside`), where the daemon is started as systemd would.

mod bench {
    #[expect(dead_code, reason = "this bench makes no routes and runs no `ip -batch`")]
    pub mod lab;
}

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bench::lab;
use rustix::process::{Pid, Signal, kill_process};

const ROUNDS: usize = 5;
const ENDPOINTS: [usize; 3] = [0, 50, 200];
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
    let lab = lab::Lab::new(ENDPOINTS[2]);
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
    println!("daemon, from start to READY    all to make   all right   resident, idle");
    for count in ENDPOINTS {
        let config = lab::write_config(folder, "service", 0, &lab::endpoint_names(count), "tcx");
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        let mut resident_kb = 0;
        for round in 1..=ROUNDS {
            let (daemon, time) = start(folder, &config);
            cold.push(time);
            stop(daemon);
            let (daemon, time) = start(folder, &config);
            warm.push(time);
            if round == ROUNDS {
                thread::sleep(IDLE);
                resident_kb = resident(&daemon);
            }
            stop(daemon);
            ciliate(&config, "destroy");
        }
        let (cold, warm) = (median(cold), median(warm));
        println!(
            "{:<30} {:>8} ms {:>8} ms {:>13} MB",
            format!("{count} endpoints"),
            cold.as_millis(),
            warm.as_millis(),
            resident_kb / 1024
        );
    }
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

fn resident(daemon: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("read status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
