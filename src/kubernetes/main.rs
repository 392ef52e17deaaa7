//! The command line of `ciliate-kubernetes`: reads the arguments, connects, and runs until it is told to end.
//!
//! Imports `adapter`, `folder`, `settings`, `status`.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ciliate_kubernetes::adapter;
use ciliate_kubernetes::folder::{Folder, FolderError};
use ciliate_kubernetes::settings::Settings;
use ciliate_kubernetes::status::{Status, serve};
use clap::Parser;
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
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
    #[command(flatten)]
    settings: Settings,
    /// Where the files are written
    #[arg(long, default_value = "/run/ciliate/conf.d")]
    directory: PathBuf,
    /// Kubeconfig file. Default: that of the pod, else $KUBECONFIG, else ~/.kube/config
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Address and port to answer at with metrics, like 127.0.0.1:9967. Default: none
    #[arg(long)]
    metrics: Option<SocketAddr>,
}

/// Why the adapter can't start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("can't read the kubeconfig {}: {error}; name another with --kubeconfig", path.display())]
    Kubeconfig { path: PathBuf, error: KubeconfigError },
    #[error("can't find a cluster: {0}; name a kubeconfig with --kubeconfig")]
    Cluster(#[from] InferConfigError),
    #[error(
        "can't use the token file {0}: it ends in a line break or blank, which no header can have; remove that"
    )]
    Token(String),
    #[error("can't use the kubeconfig: {0}; name another with --kubeconfig")]
    Client(#[from] kube::Error),
    #[error("can't use the directory: {0}; name another with --directory")]
    Folder(#[from] FolderError),
    #[error("can't answer at {0}: {1}; choose another address with --metrics")]
    Metrics(SocketAddr, std::io::Error),
    #[error("can't handle signals: {0}; check the limits of this process")]
    Signals(#[from] std::io::Error),
}

async fn connect(file: Option<PathBuf>) -> Result<Client, StartError> {
    let mut config = match file {
        Some(path) => {
            let failed = |error| StartError::Kubeconfig { path: path.clone(), error };
            let read = Kubeconfig::read_from(&path).map_err(failed)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(read, &options).await.map_err(failed)?
        }
        None => Config::infer().await?,
    };
    if let Some(path) = &config.auth_info.token_file
        && std::fs::read_to_string(path).is_ok_and(|token| token.trim_end() != token)
    {
        return Err(StartError::Token(path.clone()));
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}

async fn start(arguments: Arguments) -> Result<(), StartError> {
    let client = connect(arguments.kubeconfig).await?;
    let folder = Folder::open(arguments.directory)?;
    let (sender, status) = watch::channel(Status::default());
    if let Some(address) = arguments.metrics {
        let failed = |error| StartError::Metrics(address, error);
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        tokio::spawn(serve(listener, status.clone()));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tokio::select! {
        () = adapter::run(client, arguments.settings, folder, sender) => {}
        () = tell(status) => {}
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    Ok(())
}

/// Tells systemd how it goes. A manager that isn't there or doesn't listen is no reason to stop working.
async fn tell(mut status: watch::Receiver<Status>) {
    while status.changed().await.is_ok() {
        let line = status.borrow_and_update().line();
        let _ = sd_notify::notify(&[NotifyState::Status(&line)]);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    match start(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
