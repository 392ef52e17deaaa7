//! Health in `ciliate status`: whether the nodes reach each other, and which fails how.

use std::fmt::Write as _;

use super::output::table;
use super::status::Process;
use crate::daemon::control::Status;
use crate::daemon::health::table::{Finding, Health, NodeHealth, Path, Side};

/// The row that says how many nodes are reachable.
pub const NAME: &str = "Cluster health:";

/// Whether probes are made and answered.
pub fn daemon(status: &Status, process: Process) -> String {
    let failing = status.controllers.iter().filter(|(name, _)| name.starts_with("health-"));
    let failing = failing.filter_map(|(_, error)| error.as_ref()).next();
    match (status.health.enabled, failing) {
        (false, _) => "Disabled".to_owned(),
        (true, _) if process != Process::Answers => process.to_string(),
        (true, None) if !has_endpoint(&status.health) => {
            "Ok   no health endpoint: `cidrs` is too small for one; see health-addresses".to_owned()
        }
        (true, None) => "Ok".to_owned(),
        (true, Some(error)) => format!("Warning   {error}"),
    }
}

/// Whether the other nodes can probe the way to an endpoint here.
fn has_endpoint(health: &Health) -> bool {
    let mut own = health.nodes.iter().filter(|node| node.local).peekable();
    // Before the first round no node is known.
    own.peek().is_none()
        || own.any(|node| node.paths.iter().any(|path| path.side == Side::Endpoint))
}

/// How many nodes are reachable, and since when that is known.
pub fn summary(health: &Health, process: Process) -> String {
    if !health.enabled {
        return "Disabled".to_owned();
    }
    match process {
        Process::Answers => {}
        Process::Absent => return "unknown   the daemon is not running".to_owned(),
        silent => return format!("unknown   the daemon {silent}"),
    }
    let (reachable, unknown) = health.counts();
    let mut text = format!("{reachable}/{} reachable", health.nodes.len());
    if unknown > 0 {
        let _ = write!(text, ", {unknown} not probed yet");
    }
    if let Some(probed) = &health.probed {
        let _ = write!(text, "   ({probed})");
    }
    text
}

/// The nodes, indented: all of them, or those with something wrong.
pub fn nodes(health: &Health, all: bool) -> Vec<String> {
    let shown = |node: &&NodeHealth| all || node.reachable() == Some(false);
    let nodes: Vec<&NodeHealth> = health.nodes.iter().filter(shown).collect();
    if nodes.is_empty() {
        return Vec::new();
    }
    let rows: Vec<Vec<String>> = nodes.iter().map(|node| row(node)).collect();
    let mut rows = table(&["Name", "IP", "Node", "Endpoints"], &rows).into_iter();
    let mut lines: Vec<String> =
        rows.next().map(|headings| format!("  {headings}")).into_iter().collect();
    for (node, row) in nodes.iter().zip(rows) {
        lines.push(format!("  {row}"));
        for path in node.paths.iter().filter(|path| all || path.reachable() == Some(false)) {
            lines.extend(details(path));
        }
    }
    lines
}

fn row(node: &NodeHealth) -> Vec<String> {
    let name =
        if node.local { format!("{} (localhost)", node.name) } else { node.name.to_string() };
    let address = node.paths.iter().find(|path| path.side == Side::Node);
    let state = |side| {
        if !node.paths.iter().any(|path| path.side == side) {
            return "none".to_owned();
        }
        match node.reachable_at(Some(side)) {
            Some(true) => "reachable",
            Some(false) => "unreachable",
            None => "unknown",
        }
        .to_owned()
    };
    let address = address.map(|path| path.address.to_string()).unwrap_or_default();
    vec![name, address, state(Side::Node), state(Side::Endpoint)]
}

/// What was found at one address.
fn details(path: &Path) -> [String; 3] {
    let side = match path.side {
        Side::Node => "Node",
        Side::Endpoint => "Endpoint",
    };
    let probed = path.probed.as_deref().unwrap_or("not probed yet");
    let line = |what: &str, finding: &Finding| {
        let found = match (&path.probed, &finding.error, finding.rtt_us) {
            (None, ..) => "unknown".to_owned(),
            (_, None, Some(rtt)) => format!("OK, RTT={}.{:03} ms", rtt / 1000, rtt % 1000),
            (_, None, None) => "OK".to_owned(),
            (_, Some(error), _) => match &finding.last_success {
                Some(time) => format!("{error}; answered last {time}"),
                None => format!("{error}; never answered"),
            },
        };
        format!("      {what} {found}")
    };
    [
        format!("    {side} {} ({probed}):", path.address),
        line("ICMP:", &path.icmp),
        line("HTTP:", &path.http),
    ]
}
