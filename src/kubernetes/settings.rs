//! What the adapter is told, by options. Imports nothing.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

/// What the files depend on beside the API.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Name of this node in the cluster
    #[arg(long, default_value_t = hostname(), value_parser = NonEmptyStringValueParser::new())]
    pub node: String,
    /// Name of the cluster, a label of every endpoint
    #[arg(long, default_value = "default")]
    pub cluster: String,
    /// Where the container runtime's hook puts a link to each pod's network namespace, named by the pod's uid
    #[arg(long, default_value = "/run/ciliate/sandboxes")]
    pub sandboxes: String,
    /// First and last node port, as `node-port-range` of [load-balancing]
    #[arg(long, default_value = "30000-32767", value_parser = ports)]
    pub node_ports: (u16, u16),
    /// File with this node's WireGuard public key. With it the nodes' keys are exchanged
    #[arg(long)]
    pub public_key: Option<PathBuf>,
}

/// In lower case, as the kubelet's. If there is none, the parser asks for one.
fn hostname() -> String {
    hostname::get().unwrap_or_default().to_string_lossy().to_lowercase()
}

fn ports(text: &str) -> Result<(u16, u16), &'static str> {
    let range = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    range.filter(|(first, last)| (1..=*last).contains(first)).ok_or("write it like 30000-32767")
}
