//! What events cost: a packet while nobody listens and while somebody does, and how many of them a reader
//! takes.
//!
//! `make bench` runs it; it needs root, `ip`, `nsenter` and `nft`, and works in network namespaces of its
//! own. Packets from one endpoint to another on its node go through the pinned program by
//! `BPF_PROG_TEST_RUN`. Absolute times on a shared machine mean little, ratios hold. Each figure is the
//! median of [`ROUNDS`] rounds in which the contestants take turns.

#[allow(dead_code, reason = "shared with other benches")]
mod bench {
    pub mod lab;
    pub mod table;
}

use std::hint::black_box;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use bench::lab;
use ciliate::bpf_abi::{EVENT_DROP, EVENT_TRACE, MonitorFilter};
use ciliate::config::Search;
use ciliate::engine::{self, Loaded, View};
use ciliate::kernel::{Kernel, pins};
use ciliate::listen::{Listener, online_cpus};
use ciliate::monitor::{decode, json, ring_bytes, text};
use etherparse::PacketBuilder;
use rustix::time::{ClockId, clock_gettime};

/// Rounds of which the median is taken.
const ROUNDS: usize = 9;
/// Times a packet goes through a program in one system call; its TTL is one less each time.
const REPEAT: u32 = 200;
/// System calls of one measurement.
const CALLS: usize = 300;
/// How long a reader is kept busy.
const BUSY: Duration = Duration::from_millis(700);
/// `ifindex` in `struct __sk_buff` (linux/bpf.h), and the size of that.
const CONTEXT_IFINDEX: usize = 40;
const CONTEXT_LEN: usize = 192;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == "--inside") {
        return inside(Path::new(&arguments[at + 1]));
    }
    if !rustix::process::geteuid().is_root() {
        println!("SKIP bench: needs root");
        return;
    }
    let lab = lab::Lab::new(2);
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
    let names = lab::endpoint_names(2);
    let config = lab::write_config(folder, "events", 0, &names, "tcx");
    let loaded = engine::load(&Search::path(config)).expect("a configuration");
    let paths = &loaded.intent.paths;
    let mut kernel = Kernel::open(&paths.bpf, &paths.runtime).expect("kernel");
    let scope = engine::lock(&paths.runtime, Duration::ZERO).expect("lock");
    let look = |kernel: &mut Kernel| engine::view(kernel, &loaded.intent);
    let converged = engine::converge(&scope, &mut kernel, look, |_, _| {}).expect("converge");
    assert!(converged.succeeded(), "left: {:?}", converged.last.plan.ops.first());
    let view = look(&mut kernel).expect("look");
    let packets = Packets::of(&loaded, &view);
    costs(&loaded, &packets);
    readers(&loaded, &packets);
    let gone = engine::converge(&scope, &mut kernel, engine::view_destroy, |_, _| {});
    assert!(gone.expect("destroy").succeeded());
    engine::remove_folders(&kernel, &paths.runtime).expect("remove folders");
}

/// Packets from the first endpoint to the second, and the program they meet.
struct Packets {
    program: SchedClassifier,
    frame: Vec<u8>,
    context: [u8; CONTEXT_LEN],
}

impl Packets {
    fn of(loaded: &Loaded, view: &View) -> Self {
        let mut devices = view.facts.devices.iter();
        let [(ifindex, from), (_, to)] = [devices.next(), devices.next()].map(Option::unwrap);
        let programs = loaded.intent.paths.bpf.join("programs");
        let pin = pins::list(&programs).expect("programs").into_iter().find_map(|digest| {
            let pin = pins::program(&loaded.intent.paths.bpf, &digest, "cil_from_container");
            pin.exists().then_some(pin)
        });
        let builder = PacketBuilder::ethernet2(from.mac, from.node_mac)
            .ipv4(from.ipv4_be, to.ipv4_be, 255)
            .tcp(40_000, 80, 1, 1000)
            .ack(1);
        let mut frame = Vec::new();
        builder.write(&mut frame, &[0; 64]).expect("a frame");
        let mut context = [0; CONTEXT_LEN];
        context[CONTEXT_IFINDEX..][..4].copy_from_slice(&ifindex.to_ne_bytes());
        let program = SchedClassifier::from_pin(pin.expect("a pin")).expect("a program");
        Self { program, frame, context }
    }

    /// Sends [`REPEAT`] of them. Returns how long each took.
    fn send(&self) -> Duration {
        let mut out = vec![0; 4096];
        let result = self.program.test_run(TestRunOptions {
            data_in: Some(&self.frame),
            data_out: Some(&mut out),
            ctx_in: Some(&self.context),
            repeat: REPEAT,
            ..TestRunOptions::new()
        });
        let result = result.expect("a test run");
        assert_eq!(result.return_value, 7, "not redirected to the other endpoint");
        result.duration
    }

    /// The mean of many.
    fn measure(&self) -> f64 {
        let sum: Duration = (0..CALLS).map(|_| self.send()).sum();
        sum.as_secs_f64() * 1e9 / CALLS as f64
    }
}

fn listen(loaded: &Loaded, filter: MonitorFilter) -> Listener {
    let paths = &loaded.intent.paths;
    let bytes = ring_bytes(online_cpus().expect("CPUs"));
    Listener::start(&paths.bpf, &paths.runtime, filter, bytes).expect("a reader")
}

fn wanted(event_type: u8) -> MonitorFilter {
    MonitorFilter { types: 1 << event_type, ..MonitorFilter::default() }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a packet costs in the program.
fn costs(loaded: &Loaded, packets: &Packets) {
    let trace = wanted(EVENT_TRACE);
    let contestants: [(&str, Option<(MonitorFilter, bool)>); 5] = [
        ("nobody listens", None),
        ("to other types", Some((wanted(EVENT_DROP), false))),
        ("to another endpoint", Some((MonitorFilter { from: 60_000, ..trace }, false))),
        ("to all, and reads", Some((trace, true))),
        ("to all, ring full", Some((trace, false))),
    ];
    let mut times = vec![Vec::new(); contestants.len()];
    for _ in 0..ROUNDS {
        for (times, (_, reader)) in times.iter_mut().zip(contestants) {
            let Some((filter, reads)) = reader else {
                times.push(packets.measure());
                continue;
            };
            let mut listener = listen(loaded, filter);
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                let read = || {
                    while reads && !done.load(Ordering::Relaxed) {
                        while listener.next(|record| black_box(record.len())).is_some() {}
                        thread::sleep(Duration::from_micros(50));
                    }
                };
                scope.spawn(read);
                if !reads {
                    // Until there is no room, if anything is written at all.
                    packets.measure();
                }
                times.push(packets.measure());
                done.store(true, Ordering::Relaxed);
            });
        }
    }
    let times: Vec<f64> = times.into_iter().map(median).collect();
    println!("{:<24} {:>10} {:>8}", "a packet, somebody …", "ns", "ratio");
    for ((name, _), time) in contestants.iter().zip(&times) {
        println!("{name:<24} {time:>10.0} {:>8.2}", time / times[0]);
    }
}

/// How many events a reader takes while as many as can be are made.
fn readers(loaded: &Loaded, packets: &Packets) {
    type Read = fn(&[u8], &mut String);
    let contestants: [(&str, Read); 4] = [
        ("takes records", |record, _| {
            black_box(record.len());
        }),
        ("decodes them", |record, _| {
            black_box(decode(record).expect("an event"));
        }),
        ("prints text", |record, out| {
            let event = decode(record).expect("an event");
            text::write(out, &event, "lxc", text::Style::default());
        }),
        ("prints JSON", |record, out| {
            json::write(out, &decode(record).expect("an event"), "lxc");
        }),
    ];
    println!(
        "\n{:<24} {:>14} {:>14} {:>8} {:>12}",
        "a reader that …", "ns of a CPU", "events/s", "lost", "packet, ns"
    );
    for (name, read) in contestants {
        let mut listener = listen(loaded, wanted(EVENT_TRACE));
        let (done, mut packet) = (AtomicBool::new(false), Vec::new());
        let (taken, busy) = thread::scope(|scope| {
            let reader = scope.spawn(|| take_all(&mut listener, read, &done));
            let begin = Instant::now();
            while begin.elapsed() < BUSY {
                packet.push(packets.send().as_secs_f64() * 1e9);
            }
            done.store(true, Ordering::Relaxed);
            reader.join().expect("the reader")
        });
        let lost: u64 = listener.lost().expect("a map").iter().map(|(_, count)| count).sum();
        let (each, share) = (busy * 1e9 / taken as f64, lost as f64 / (lost + taken) as f64);
        println!(
            "{name:<24} {each:>14.0} {:>14.0} {:>7.0}% {:>12.0}",
            1e9 / each,
            share * 100.0,
            median(packet)
        );
    }
    println!(
        "\nA packet makes two events. events/s: of a CPU that does nothing else. lost: as many packets as one\n\
         CPU can send, beside the reader."
    );
}

/// Takes events until it is told to end. Returns how many, and the seconds of a CPU that took.
fn take_all(
    listener: &mut Listener,
    read: fn(&[u8], &mut String),
    done: &AtomicBool,
) -> (u64, f64) {
    let (stop, _other_end) = UnixStream::pair().expect("a pair");
    let (mut lines, mut taken) = (String::new(), 0);
    let time = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let begin = time();
    while !done.load(Ordering::Relaxed) {
        while listener.next(|record| read(record, &mut lines)).is_some() {
            taken += 1;
            if lines.len() > 1 << 16 {
                black_box(&*lines);
                lines.clear();
            }
            if done.load(Ordering::Relaxed) {
                break;
            }
        }
        listener.wait(&stop, &stop, Duration::from_millis(1)).expect("poll");
    }
    (taken, time() - begin)
}
