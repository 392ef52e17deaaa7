//! `ciliate status`: converged or not, laid out as `cilium status`.

use std::fmt;

use serde_json::json;

use super::{EXIT_NOT_CONVERGED, EXIT_OK, Failure, Format, Output, diagnostics_text, health, open};
use crate::bpf_abi::MONITOR_SLOTS;
use crate::config::Search;
use crate::daemon::checks::Found;
use crate::daemon::control::{self, Daemon, Problem, Status};
use crate::daemon::gc::Collections;
use crate::engine;
use crate::intent::{self, Identity};
use crate::kinds::bpf_link::Mode;
use crate::kinds::{counted, xdp_link};
use crate::listen::{online_cpus, slots};
use crate::lower::{Accelerated, Balancing, Encryption, HostRouting, Ipam, Summary, lost_text};
use crate::monitor::text;

const ATTACH_MODE: &str = "Attach Mode:";

/// What there is of a daemon, without what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    Answers,
    Silent { pid: Option<i32> },
    Absent,
}

impl Process {
    fn of(daemon: &Daemon) -> Self {
        match daemon {
            Daemon::Answers(_) => Self::Answers,
            Daemon::Silent { pid } => Self::Silent { pid: *pid },
            Daemon::Absent => Self::Absent,
        }
    }

    /// For programs.
    fn state(self) -> &'static str {
        match self {
            Self::Answers => "running",
            Self::Silent { .. } => "silent",
            Self::Absent => "not-running",
        }
    }

    /// A daemon that is there and repairs nothing.
    fn problem(self) -> Option<Problem> {
        matches!(self, Self::Silent { .. }).then(|| {
            let error =
                "it is stopped, stuck, or asked by too many at once; see its log, restart it";
            Problem::new("daemon", format!("{self}: {error}"))
        })
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answers => f.write_str("running"),
            Self::Silent { pid: None } => f.write_str("does not answer"),
            Self::Silent { pid: Some(pid) } => write!(f, "does not answer (pid {pid})"),
            Self::Absent => f.write_str("not running"),
        }
    }
}

/// Show whether the kernel is as configured, and what is not
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 converged; 1 an error; 3 not converged. Asks the daemon if it runs, else looks itself.\n\
                  Mode of services: SNAT, or DSR where backends on other nodes answer clients outside directly."
)]
pub struct Arguments {
    /// Show every node's health, not only what is wrong with it
    #[arg(short, long)]
    verbose: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let loaded = engine::load(search);
    let paths = match &loaded {
        Ok(loaded) => loaded.intent.paths.clone(),
        // A daemon that has a good configuration runs on, whatever is on disk now.
        Err(invalid) => intent::rough_paths_of(&invalid.document),
    };
    let readers = slots::readers(&paths.bpf).ok();
    let daemon = control::ask(&paths.runtime);
    let process = Process::of(&daemon);
    let status = match daemon.answer() {
        Some(mut status) => {
            if let Err(invalid) = &loaded {
                // It may not have read it yet.
                status.config_error.get_or_insert_with(|| diagnostics_text(invalid, false));
            }
            *status
        }
        None => {
            let loaded = loaded.map_err(Failure::Invalid)?;
            let mut kernel = open(&loaded)?;
            let view = engine::view(&mut kernel, &loaded.intent)?;
            let mut status = Status::new(&loaded);
            status.describe(&view);
            status.converged = view.plan.is_converged();
            let pending = view.plan.ops.iter();
            let pending = pending
                .map(|op| Problem::new(op.object(), format!("change pending: {}", op.line())));
            let blocked = view.plan.blocked.iter();
            let blocked =
                blocked.map(|blocked| Problem::new(&blocked.origin, blocked.reason.to_string()));
            status.problems = process.problem().into_iter().chain(pending).chain(blocked).collect();
            status.converged &= process.problem().is_none();
            status
        }
    };
    match arguments.output {
        Format::Json => {
            let mut value = serde_json::to_value(&status).map_err(std::io::Error::from)?;
            value["daemon"] = json!(process == Process::Answers);
            value["daemon_state"] = json!(process.state());
            value["event_readers"] = json!(readers);
            output.json(&value)?;
        }
        Format::Text => print(&status, process, readers, arguments.verbose, output)?,
    }
    Ok(if status.converged { EXIT_OK } else { EXIT_NOT_CONVERGED })
}

/// What became of the flows that were over.
fn collections(gc: &Collections) -> String {
    let Collections {
        runs, entries, deleted, nat_entries, nat_deleted, last_ms, interval_s, ..
    } = gc;
    match (interval_s, runs) {
        (0, _) => "not running".to_string(),
        (_, 0) => format!("first in {interval_s} s"),
        _ => format!(
            "{runs} runs, the last kept {entries} and removed {deleted} flows in {last_ms} ms, of NAT {nat_entries} and {nat_deleted} entries, next after {interval_s} s"
        ),
    }
}

/// How many services there are, what they are made of on this node, and how clients outside get to backends elsewhere.
fn services(summary: &Summary) -> String {
    let Summary { services, frontends, backends, .. } = summary;
    let mode = match summary.load_balancing {
        None => "",
        Some(Balancing::Snat) => "   Mode: SNAT",
        Some(Balancing::Dsr) => "   Mode: DSR",
    };
    let (frontends, backends) = (counted(*frontends, "frontend"), counted(*backends, "backend"));
    format!("{services} [{frontends}, {backends}]{mode}")
}

/// How many backends are asked whether they are alive, and how many aren't.
fn checks(found: &Found) -> String {
    match (found.checked, found.dead.len()) {
        (checked, 0) => format!("Ok   {checked} asked"),
        (checked, dead) => format!("Warning   {checked} asked, {dead} dead"),
    }
}

/// Whether anybody can listen to events, and how many do.
fn monitor(readers: Option<u32>) -> String {
    let (Some(readers), Ok(cpus)) = (readers, online_cpus()) else { return "Disabled".into() };
    let [listening, _] = text::banner(cpus);
    match readers {
        0 => format!("Idle   0/{MONITOR_SLOTS} readers"),
        _ => format!("{listening}   {readers}/{MONITOR_SLOTS} readers"),
    }
}

fn print(
    status: &Status,
    daemon: Process,
    readers: Option<u32>,
    verbose: bool,
    output: &mut Output,
) -> std::io::Result<()> {
    for (name, value) in rows(status, daemon, readers) {
        output.line(format!("{name:<25}{value}").trim_end())?;
        if name == health::NAME {
            for line in health::nodes(&status.health, verbose) {
                output.line(&line)?;
            }
        }
    }
    if let Some(error) = &status.config_error {
        output.line("Configuration on disk is refused, the last good one is in force:")?;
        output.line(error.trim_end())?;
    }
    for (name, error) in &status.controllers {
        if let Some(error) = error {
            output.line(&format!("! controller {name}: {error}"))?;
        }
    }
    for setting in &status.summary.lost {
        output.line(&format!("! {}", lost_text(setting)))?;
    }
    // A round that failed is both.
    let said = |error: &String| status.controllers.values().flatten().any(|said| said == error);
    for problem in status.problems.iter().filter(|problem| !said(&problem.error)) {
        output.line(&format!("! {}: {}", problem.object, problem.error))?;
    }
    Ok(())
}

/// How packets get to other nodes, and from device to device.
fn routing(summary: &Summary) -> String {
    let network = match summary.tunnel {
        None => "Native".to_string(),
        Some(protocol) => format!("Tunnel [{}]", protocol.kind()),
    };
    let host = match summary.host_routing {
        HostRouting::Legacy => "Legacy",
        HostRouting::Bpf => "BPF",
    };
    format!("Network: {network}   Host: {host}")
}

/// What encrypts, as Cilium says it.
fn encryption(summary: &Summary) -> String {
    let Some(encryption) = &summary.encryption else { return "Disabled".into() };
    let Encryption { device, public_key, port, peers, nodes, strict } = encryption;
    let key = public_key.map_or("none".to_string(), |key| key.to_string());
    let nodes = if *nodes { "NodeEncryption: Enabled, " } else { "" };
    let strict = if *strict { "Strict, " } else { "" };
    format!("Wireguard   [{nodes}{strict}{device} (Pubkey: {key}, Port: {port}, Peers: {peers})]")
}

/// Who sends packets on before the kernel has them, device by device.
fn acceleration(devices: &[Accelerated]) -> String {
    let device = |accelerated: &Accelerated| {
        let mode = match accelerated.mode {
            Some(xdp_link::Mode::Native) => "Native",
            Some(xdp_link::Mode::Generic) => "Generic",
            None => "None",
        };
        format!("{mode}   [{}]", accelerated.device)
    };
    devices.iter().map(device).collect::<Vec<_>>().join(", ")
}

/// The rows, in the order of `cilium status` as far as they are there too.
fn rows(status: &Status, daemon: Process, readers: Option<u32>) -> Vec<(&'static str, String)> {
    let summary = &status.summary;
    let enabled = |on: bool| if on { "Enabled" } else { "Disabled" };
    let has = |v6: bool| summary.ipam.iter().any(|ipam| ipam.cidr.addr().is_ipv6() == v6);
    let converged = match status.converged {
        true => "Ok",
        // What keeps a round from its end is a problem: without one, it is under way.
        false if status.problems.is_empty() => "converging",
        false => "not converged",
    };
    let process = match daemon {
        Process::Answers => format!("Ok   pid {}, {} rounds", status.pid, status.rounds),
        missing => missing.to_string(),
    };
    let ipam = summary.ipam.iter().map(|Ipam { cidr, allocated, available }| {
        let family = if cidr.addr().is_ipv6() { "IPv6" } else { "IPv4" };
        format!("{family}: {allocated}/{available} allocated from {cidr},")
    });
    let attach = if summary.attach == Mode::Tcx { "TCX" } else { "Legacy TC" };
    // Of a machine that could not be looked at, the files tell nothing of this.
    let known = |value: String| if summary.looked { value } else { "unknown".to_string() };
    let masquerading = if summary.masquerade {
        format!("nftables [IPv4: {}, IPv6: {}]", enabled(has(false)), enabled(has(true)))
    } else {
        "Disabled".to_string()
    };
    let (all, failing) = (status.controllers.len(), status.controllers.values().flatten().count());
    let objects = status.objects.iter().filter(|(_, count)| **count > 0);
    let objects = objects.map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>();
    let addresses: Vec<String> = summary.addresses.iter().map(ToString::to_string).collect();
    let identities = (Identity::LABELS_MIN, Identity::LABELS_MAX);
    let mut rows = vec![
        ("ciliate:", format!("{converged}   {}, generation {}", status.version, status.generation)),
        ("Daemon:", process),
        ("NodeMonitor:", monitor(readers)),
        ("Health daemon:", health::daemon(status, daemon)),
        ("Node:", known(format!("{} [{}]", summary.node, addresses.join(", ")))),
        ("Devices:", known(summary.devices.join(", "))),
        ("IPAM:", ipam.collect::<Vec<_>>().join(" ")),
        ("Routing:", known(routing(summary))),
        (ATTACH_MODE, known(attach.to_string())),
        ("Device Mode:", "veth".to_string()),
        ("Masquerading:", masquerading),
        ("Controller Status:", format!("{}/{all} healthy", all - failing)),
        ("Global Identity Range:", format!("min {}, max {}", identities.0, identities.1)),
        ("Encryption:", encryption(summary)),
        (health::NAME, health::summary(&status.health, daemon)),
        ("Endpoints:", summary.endpoints.to_string()),
        ("Peers:", summary.peers.to_string()),
        ("Services:", services(summary)),
        ("Backend checks:", checks(&status.backend_checks)),
        ("Conntrack GC:", collections(&status.conntrack_gc)),
        ("Objects:", objects.join(", ")),
    ];
    only_where_it_says_something(&mut rows, status, daemon);
    rows
}

/// Rows of what not every node has.
fn only_where_it_says_something(
    rows: &mut Vec<(&'static str, String)>,
    status: &Status,
    daemon: Process,
) {
    let summary = &status.summary;
    if !summary.acceleration.is_empty() {
        let at = rows.iter().position(|(name, _)| *name == "Services:").unwrap_or(rows.len());
        rows.insert(at + 1, ("XDP Acceleration:", acceleration(&summary.acceleration)));
    }
    if status.backend_checks.checked == 0 {
        rows.retain(|(name, _)| *name != "Backend checks:");
    }
    if let (Some(port), Some(underlay)) = (summary.tunnel_port, &summary.underlay) {
        let at = rows.iter().position(|(name, _)| *name == ATTACH_MODE).unwrap_or(rows.len());
        rows.insert(at, ("Tunnel:", format!("UDP port {port}, over {underlay}")));
    }
    if daemon != Process::Answers {
        // They are the daemon's.
        rows.retain(|(name, _)| *name != "Controller Status:");
    }
}
