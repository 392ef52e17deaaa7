//! The command line of `ciliate-kubernetes`: reads the arguments, connects, and runs until it is told to end.
//!
//! Imports `adapter`, `folder`, `mapping`, `metrics`, `status`.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ciliate_kubernetes::adapter;
use ciliate_kubernetes::folder::Folder;
use ciliate_kubernetes::mapping::Settings;
use ciliate_kubernetes::metrics;
use ciliate_kubernetes::status::Status;
use clap::Parser;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long a server may take to go on with an answer; watches say something or end within less.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes ciliate's configuration from the Kubernetes API.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Name of this node in the cluster. Default: the hostname in lower case, as the kubelet's
    #[arg(long)]
    node: Option<String>,
    /// Where the files are written
    #[arg(long, default_value = "/run/ciliate/conf.d")]
    directory: PathBuf,
    /// Kubeconfig file. Default: that of the pod, else $KUBECONFIG, else ~/.kube/config
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Where the container runtime's hook puts a link to each pod's network namespace, named by the pod's uid
    #[arg(long, default_value = "/run/ciliate/sandboxes")]
    sandboxes: String,
    /// Name of the cluster, a label of every endpoint
    #[arg(long, default_value = "default")]
    cluster: String,
    /// First and last node port, as `node-port-range` of [load-balancing]
    #[arg(long, default_value = "30000-32767", value_parser = ports)]
    node_ports: (u16, u16),
    /// File with this node's WireGuard public key. With it the nodes' keys are exchanged
    #[arg(long)]
    public_key: Option<PathBuf>,
    /// Address and port to answer at with metrics, like 127.0.0.1:9967. Default: none
    #[arg(long)]
    metrics: Option<SocketAddr>,
}

/// Why the adapter can't start.
#[derive(Debug, thiserror::Error)]
#[error("can't {what}: {source}; {advice}")]
struct StartError {
    what: String,
    source: Box<dyn std::error::Error>,
    advice: &'static str,
}

/// Makes an error one of these.
fn failed<E: Into<Box<dyn std::error::Error>>>(
    what: impl Into<String>,
    advice: &'static str,
) -> impl FnOnce(E) -> StartError {
    let what = what.into();
    move |source| StartError { what, source: source.into(), advice }
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let range = text.split_once('-').and_then(|(first, last)| {
        Some((first.parse().ok().filter(|port| *port > 0)?, last.parse().ok()?))
    });
    let range = range.filter(|(first, last): &(u16, u16)| first <= last);
    range.ok_or_else(|| "write it like 30000-32767".to_owned())
}

async fn connect(file: Option<&Path>) -> Result<Client, StartError> {
    const OTHER: &str = "name a kubeconfig that can be used with --kubeconfig";
    let mut config = match file {
        Some(path) => {
            let what = || format!("read the kubeconfig {}", path.display());
            let read = Kubeconfig::read_from(path).map_err(failed(what(), OTHER))?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(read, &options).await;
            config.map_err(failed(what(), OTHER))?
        }
        None => Config::infer().await.map_err(failed("find a cluster", OTHER))?,
    };
    if let Some(path) = &config.auth_info.token_file
        && std::fs::read_to_string(path).is_ok_and(|token| token.trim_end() != token)
    {
        let why = "it ends in a line break or blank, which no header can have";
        return Err(failed(format!("use the token file {path}"), "remove that")(why));
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(failed("use the kubeconfig", OTHER))
}

async fn start(arguments: Arguments) -> Result<(), StartError> {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let hostname = hostname.map(|name| name.trim().to_lowercase());
    let node = arguments.node.map_or(hostname, Ok);
    let node = node.map_err(failed("read the hostname", "name the node with --node"))?;
    let client = connect(arguments.kubeconfig.as_deref()).await?;
    let folder = Folder::open(arguments.directory);
    let folder = folder.map_err(failed("use the directory", "name another with --directory"))?;
    let (cluster, sandboxes) = (arguments.cluster, arguments.sandboxes);
    let (node_ports, public_key) = (arguments.node_ports, arguments.public_key);
    let settings = Settings { node, cluster, sandboxes, node_ports, public_key };
    let (sender, status) = watch::channel(Status::default());
    if let Some(address) = arguments.metrics {
        let what = format!("answer at {address}");
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(failed(what, "choose another address with --metrics"))?;
        tokio::spawn(metrics::serve(listener, status.clone()));
    }
    let signals = |kind| signal(kind).map_err(failed("handle signals", "report this"));
    let (mut terminate, mut interrupt) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tokio::select! {
        () = adapter::run(client, settings, folder, sender) => {}
        () = tell(status) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    Ok(())
}

/// Tells systemd how it goes. A manager that isn't there or doesn't listen is no reason to stop working.
async fn tell(mut status: watch::Receiver<Status>) {
    loop {
        let line = status.borrow_and_update().line();
        let _ = sd_notify::notify(&[NotifyState::Status(&line)]);
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("start", "check the limits of this process"));
    match runtime.and_then(|runtime| runtime.block_on(start(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
