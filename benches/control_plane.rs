//! How fast the control plane is, as ratios against baselines measured in the same run: the same objects
//! made by `ip -batch`, by raw netlink in batches, and by raw netlink one by one; the same services loaded by
//! nftables and iptables. And the daemon, from a saved file to the first packet.
//!
//! `make bench` runs it; it needs root, `ip`, `nsenter`, `nft` and `iptables-restore`, and works in network
//! namespaces of its own. Absolute times on a shared machine mean little, ratios hold. Each figure is the median of
//! [`ROUNDS`] rounds in which the contestants take turns.
//!
//! It runs itself again inside the node's namespace (`--inside`), since a process has one namespace.

mod bench {
    pub mod daemon;
    pub mod floor;
    pub mod lab;
    pub mod peers;
    pub mod service_tables;
    pub mod services;
    pub mod table;
    #[allow(
        dead_code,
        reason = "what the bench of the datapath sends; here it is about namespaces"
    )]
    pub mod traffic;
}

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bench::{daemon, floor, lab, peers, services, table};
use ciliate::config::Search;
use ciliate::engine::{self, Converged, Loaded, View};
use ciliate::kernel::Kernel;

/// Rounds of which the median is taken.
const ROUNDS: usize = 5;
const ROUTES: [usize; 3] = [1_000, 10_000, 100_000];
const ENDPOINTS: [usize; 2] = [50, 200];
const SERVICES: [usize; 3] = [1_000, 10_000, 30_000];
/// Most services that are loaded by iptables, and by nftables with a chain for each.
const IPTABLES_MAX: usize = 10_000;
const NFT_CHAINS_MAX: usize = 1_000;
/// What follows this argument says which part is measured; without it all are.
const ONLY: &str = "--only";
/// What follows this argument is the one number of services that is measured; without it all are.
const COUNT: &str = "--count";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let counts = after(COUNT).and_then(|count| count.parse().ok());
    let counts = counts.map_or_else(|| SERVICES.to_vec(), |count| vec![count]);
    if let Some(folder) = after("--inside") {
        return inside(Path::new(folder), after(ONLY).unwrap_or("routes"), &counts);
    }
    if !rustix::process::geteuid().is_root() {
        println!("SKIP bench: needs root");
        return;
    }
    let lab = lab::Lab::new(ENDPOINTS[1]);
    let program = std::env::current_exe().expect("own path");
    println!("{}", table::heading());
    // Each part is a process of its own: what it takes of memory is its own then.
    for part in ["routes", "endpoints", "services", "services-maglev", "daemon", "daemon-maglev"] {
        if after(ONLY).is_some_and(|only| only != part) {
            continue;
        }
        let status = Command::new("nsenter")
            .arg(format!("--net={}", lab.node()))
            .arg(&program)
            .arg("--inside")
            .arg(lab.folder())
            .args([ONLY, part])
            .args(after(COUNT).iter().flat_map(|count| [COUNT, count]))
            .status()
            .expect("run nsenter");
        assert!(status.success(), "the bench failed");
    }
    println!("\n{}", table::legend());
}

fn inside(folder: &Path, part: &str, counts: &[usize]) {
    match part {
        "routes" => ROUTES.into_iter().for_each(|count| routes(folder, count)),
        "endpoints" => {
            for count in ENDPOINTS {
                for attach in ["clsact", "tcx"] {
                    endpoints(folder, count, attach);
                }
            }
        }
        "daemon" | "daemon-maglev" => {
            daemon::echo(&lab::endpoint_names(2)[1]);
            for &count in counts {
                with_daemon(folder, count, part == "daemon-maglev");
            }
        }
        _ => {
            for &count in counts {
                many_services(folder, count, part == "services-maglev");
            }
        }
    }
}

fn load(path: PathBuf) -> Loaded {
    engine::load(&Search::path(path)).unwrap_or_else(|invalid| panic!("{:?}", invalid.diagnostics))
}

fn open(loaded: &Loaded) -> Kernel {
    let paths = &loaded.intent.paths;
    Kernel::open(&paths.bpf, &paths.runtime).expect("kernel")
}

/// Reads the configuration and converges; the time is that of a whole `ciliate apply` without the
/// start of a process.
fn converge(path: &Path) -> (Duration, Loaded, Converged) {
    let begin = Instant::now();
    let loaded = load(path.to_path_buf());
    let mut kernel = open(&loaded);
    let scope = engine::lock(&loaded.intent.paths.runtime, Duration::ZERO).expect("lock");
    let look = |kernel: &mut Kernel| engine::view(kernel, &loaded.intent);
    let converged = engine::converge(&scope, &mut kernel, look, |_, _| {}).expect("converge");
    let time = begin.elapsed();
    let left = &converged.last.plan;
    assert!(converged.succeeded(), "left: {:?}, blocked: {:?}", left.ops.first(), left.blocked);
    (time, loaded, converged)
}

/// A round that finds nothing to do.
fn no_op(loaded: &Loaded) -> Duration {
    let mut kernel = open(loaded);
    let begin = Instant::now();
    let View { plan, .. } = engine::view(&mut kernel, &loaded.intent).expect("look");
    assert!(plan.is_converged(), "{:?}", plan.ops.first());
    begin.elapsed()
}

fn destroy(loaded: &Loaded) -> Duration {
    let mut kernel = open(loaded);
    let scope = engine::lock(&loaded.intent.paths.runtime, Duration::ZERO).expect("lock");
    let begin = Instant::now();
    let gone = engine::converge(&scope, &mut kernel, engine::view_destroy, |_, _| {});
    assert!(gone.expect("destroy").succeeded());
    let time = begin.elapsed();
    engine::remove_folders(&kernel, &loaded.intent.paths.runtime).expect("remove folders");
    time
}

fn routes(folder: &Path, count: usize) {
    let base = lab::write_config(folder, "base", 0, &[], "tcx");
    let config = lab::write_config(folder, "routes", count, &[], "tcx");
    let batch = lab::write_ip_batch(folder, count);
    // What is measured is the routes: the node itself is there before.
    let (_, base, _) = converge(&base);
    let mut times = table::Times::default();
    for _ in 0..ROUNDS {
        let (time, loaded, _) = converge(&config);
        times.add("ciliate, cold", time);
        times.add("ciliate, no-op", no_op(&loaded));
        converge(&lab::write_config(folder, "base", 0, &[], "tcx"));
        times.add("ip -batch", lab::run_ip_batch(&batch));
        lab::flush_routes();
        times.add("netlink, batched", floor::batched(count));
        lab::flush_routes();
        times.add("netlink, one by one", floor::one_by_one(count));
        lab::flush_routes();
    }
    destroy(&base);
    times.print(&format!("{count} routes"), "netlink, batched");
    println!("{count} routes: at most {} MB resident so far", table::peak_rss_mb());
}

fn endpoints(folder: &Path, count: usize, attach: &str) {
    let names = lab::endpoint_names(count);
    let config = lab::write_config(folder, "endpoints", 0, &names, attach);
    let mut times = table::Times::default();
    for _ in 0..ROUNDS {
        let (time, loaded, _) = converge(&config);
        times.add("ciliate, cold", time);
        times.add("ciliate, no-op", no_op(&loaded));
        times.add("ciliate, destroy", destroy(&loaded));
        times.add("ip -batch", lab::ip_batch_endpoints(folder, &names));
        lab::remove_ip_endpoints(&names);
    }
    times.print(&format!("{count} endpoints, {attach}"), "ip -batch");
}

fn many_services(folder: &Path, count: usize, maglev: bool) {
    // What is measured is the services: the node itself is there before.
    let (_, base, _) = converge(&services::write_config(folder, 0, maglev));
    let mut times = table::Times::default();
    let mut maps_mb = 0;
    for _ in 0..ROUNDS {
        let (time, loaded, _) = converge(&services::write_config(folder, count, maglev));
        times.add("ciliate, cold", time);
        times.add("ciliate, no-op", no_op(&loaded));
        maps_mb = services::maps_mb(&loaded.intent.paths.bpf);
        drop(loaded);
        let begin = Instant::now();
        let read = load(services::write_config(folder, count + 1, maglev));
        times.add("  configuration alone", begin.elapsed());
        drop(read);
        let (time, ..) = converge(&services::write_config(folder, count + 1, maglev));
        times.add("ciliate, one added", time);
        let (time, ..) = converge(&services::write_config(folder, 0, maglev));
        times.add("ciliate, all removed", time);
        times.add("map updates, batched", services::floor(count));
        if !maglev {
            others(folder, count, &mut times);
        }
    }
    destroy(&base);
    let kind = if maglev { "maglev" } else { "random" };
    times.print(&format!("{count} services, {kind}"), "map updates, batched");
    let rss = table::peak_rss_mb();
    println!("{count} services, {kind}: maps {maps_mb} MB; at most {rss} MB resident so far");
}

/// The same services by others.
fn others(folder: &Path, count: usize, times: &mut table::Times) {
    times.add("nft -f, two maps", peers::nft_maps(folder, count));
    // With more it takes minutes.
    if count <= NFT_CHAINS_MAX {
        times.add("nft -f, as kube-proxy", peers::nft_chains(folder, count));
    }
    if count <= IPTABLES_MAX {
        times.add("iptables-restore", peers::iptables(folder, count));
    }
}

/// From a saved file to the first packet of a new service, and the memory of the process.
fn with_daemon(folder: &Path, count: usize, maglev: bool) {
    let names = lab::endpoint_names(2);
    let path = services::put(&services::prepare_live(folder, (count, maglev), &names, None));
    let loaded = load(path.clone());
    let running = daemon::Daemon::start(&path, loaded.intent.paths.runtime.clone());
    let [start, _] = running.memory_mb();
    let mut times = table::Times::default();
    for number in 1..=ROUNDS {
        let prepared = services::prepare_live(folder, (count, maglev), &names, Some(number));
        let change = || drop(services::put(&prepared));
        let time = daemon::until_answered(&names[0], services::fresh(number), change);
        times.add("saved, to first packet", time);
        running.rest();
    }
    let kind = if maglev { "maglev" } else { "random" };
    times.print(&format!("{count} services, {kind}"), "saved, to first packet");
    let [now, most] = running.memory_mb();
    println!(
        "{count} services, {kind}: daemon {start} MB resident at rest, {now} after {ROUNDS} changes, {most} at most"
    );
    drop(running);
    destroy(&loaded);
}
