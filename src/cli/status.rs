//! `ciliate status`: converged or not, laid out as `cilium status`.

use serde_json::json;

use super::{EXIT_NOT_CONVERGED, EXIT_OK, Failure, Format, Output, open};
use crate::config::Search;
use crate::daemon::control::{self, Problem, Status};
use crate::engine;
use crate::intent;
use crate::kinds::bpf_link::Mode;
use crate::lower::Ipam;

/// Show whether the kernel is as configured, and what is not
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 converged; 1 an error; 3 not converged. Asks the daemon if it runs, else looks itself."
)]
pub struct Arguments {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let loaded = engine::load(search);
    let runtime = match &loaded {
        Ok(loaded) => Some(loaded.intent.paths.runtime.clone()),
        // A daemon that has a good configuration runs on, whatever is on disk now.
        Err(invalid) => intent::paths_of(&invalid.document).ok().map(|paths| paths.runtime),
    };
    let running = runtime.and_then(|runtime| control::status(&runtime));
    let daemon = running.is_some();
    let status = match running {
        Some(status) => status,
        None => {
            let loaded = loaded.map_err(Failure::Invalid)?;
            let mut kernel = open(&loaded)?;
            let view = engine::view(&mut kernel, &loaded.intent)?;
            let mut status = Status::new(&loaded);
            status.describe(&view);
            status.converged = view.plan.is_converged();
            let pending = view.plan.ops.iter().map(|op| Problem {
                object: op.object().to_string(),
                error: format!("change pending: {}", op.line()),
            });
            let blocked = view.plan.blocked.iter().map(|blocked| Problem {
                object: blocked.origin.to_string(),
                error: blocked.reason.to_string(),
            });
            status.problems = pending.chain(blocked).collect();
            status
        }
    };
    match arguments.output {
        Format::Json => {
            let mut value = serde_json::to_value(&status).map_err(std::io::Error::from)?;
            value["daemon"] = json!(daemon);
            output.json(&value)?;
        }
        Format::Text => text(&status, daemon, output)?,
    }
    Ok(if status.converged { EXIT_OK } else { EXIT_NOT_CONVERGED })
}

fn text(status: &Status, daemon: bool, output: &mut Output) -> std::io::Result<()> {
    let summary = &status.summary;
    let enabled = |on: bool| if on { "Enabled" } else { "Disabled" };
    let has = |v6: bool| summary.ipam.iter().any(|ipam| ipam.cidr.addr().is_ipv6() == v6);
    let daemon = match daemon {
        true => format!("Ok   {} (pid {}, {} rounds)", status.version, status.pid, status.rounds),
        false => "not running".to_string(),
    };
    let converged = match status.converged {
        true => "Ok",
        // What keeps a round from its end is a problem: without one, it is under way.
        false if status.problems.is_empty() => "converging",
        false => "not converged",
    };
    let ipam = summary.ipam.iter().map(|Ipam { cidr, allocated, available }| {
        let family = if cidr.addr().is_ipv6() { "IPv6" } else { "IPv4" };
        format!("{family}: {allocated}/{available} allocated from {cidr},")
    });
    let attach = if summary.attach == Mode::Tcx { "TCX" } else { "Legacy TC" };
    let masquerading = if summary.masquerade {
        format!("nftables [IPv4: {}, IPv6: {}]", enabled(has(false)), enabled(has(true)))
    } else {
        "Disabled".to_string()
    };
    let objects = status.objects.iter().filter(|(_, count)| **count > 0);
    let objects = objects.map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>();
    let rows = [
        ("ciliate:", format!("{converged}   generation {}", status.generation)),
        ("Daemon:", daemon),
        ("Node:", format!("{} [{}]", summary.node, summary.addresses.join(", "))),
        ("Devices:", summary.devices.join(", ")),
        ("IPAM:", ipam.collect::<Vec<_>>().join(" ")),
        ("Routing:", "Network: Native   Host: Legacy".to_string()),
        ("Attach Mode:", attach.to_string()),
        ("Device Mode:", "veth".to_string()),
        ("Masquerading:", masquerading),
        ("Endpoints:", summary.endpoints.to_string()),
        ("Peers:", summary.peers.to_string()),
        ("Objects:", objects.join(", ")),
    ];
    for (name, value) in rows {
        output.line(format!("{name:<20}{value}").trim_end())?;
    }
    if let Some(error) = &status.config_error {
        output.line("Configuration on disk is refused, the last good one is in force:")?;
        output.line(error.trim_end())?;
    }
    for problem in &status.problems {
        output.line(&format!("! {}: {}", problem.object, problem.error))?;
    }
    Ok(())
}
