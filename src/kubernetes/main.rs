//! The command line of `ciliate-kubernetes`: reads the arguments, connects, and runs until it is told to end.
//!
//! Imports `adapter`, `folder`, `settings`, `status`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ciliate_kubernetes::adapter;
use ciliate_kubernetes::folder::Folder;
use ciliate_kubernetes::settings::Settings;
use ciliate_kubernetes::status::{Status, serve};
use clap::Parser;
use kube::{Client, Config, config};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Writes ciliate's configuration from the Kubernetes API.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// Where the files are written
    #[arg(long, default_value = "/run/ciliate/conf.d")]
    directory: PathBuf,
    /// Kubeconfig file. Default: $KUBECONFIG, else ~/.kube/config, else what the cluster gives a pod
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Address and port to answer at with metrics, like 127.0.0.1:9967. Default: none
    #[arg(long)]
    metrics: Option<SocketAddr>,
}

/// Why the adapter can't start, and what helps.
#[derive(Debug, thiserror::Error)]
#[error("can't {0}: {1}; {2}")]
struct StartError(String, String, &'static str);

fn failed<E: Display>(what: impl Display, remedy: &'static str) -> impl FnOnce(E) -> StartError {
    let what = what.to_string();
    move |why| StartError(what, why.to_string(), remedy)
}

async fn connect(file: Option<&Path>) -> Result<Client, StartError> {
    const REMEDY: &str = "name another with --kubeconfig";
    let what = file.map(|path| format!("read the kubeconfig {}", path.display()));
    let what = what.unwrap_or_else(|| "find a cluster".to_owned());
    let config = async {
        let Some(path) = file else { return Ok(Config::infer().await?) };
        let read = config::Kubeconfig::read_from(path)?;
        Ok::<_, Box<dyn Error>>(Config::from_custom_kubeconfig(read, &Default::default()).await?)
    };
    let mut config = config.await.map_err(failed(what, REMEDY))?;
    if let Some(path) = &config.auth_info.token_file
        && std::fs::read_to_string(path).is_ok_and(|token| token.trim_end() != token)
    {
        let why = "it ends in a line break or blank, which no header can have";
        return Err(failed(format!("use the token file {path}"), "remove that")(why));
    }
    // How long a server may take to go on with an answer; watches say something or end within less.
    config.read_timeout = Some(std::time::Duration::from_secs(60));
    config.reset_reader_on_write = true;
    // What a server refuses for now the watches ask again: they say so, and never wait for minutes.
    config.default_retry = false;
    Client::try_from(config).map_err(failed("use the kubeconfig", REMEDY))
}

async fn start(arguments: Arguments) -> Result<(), StartError> {
    let client = connect(arguments.kubeconfig.as_deref()).await?;
    let folder = Folder::open(arguments.directory);
    let folder = folder.map_err(failed("use the directory", "name another with --directory"))?;
    let (sender, mut status) = watch::channel(Status::default());
    if let Some(address) = arguments.metrics {
        let failed = failed(format!("answer at {address}"), "name another with --metrics");
        let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        tokio::spawn(serve(listener, status.clone()));
    }
    // A manager that isn't there or doesn't listen is no reason to stop working.
    let tell = async {
        while status.changed().await.is_ok() {
            let line = status.borrow_and_update().line();
            let _ = sd_notify::notify(&[NotifyState::Status(&line)]);
        }
    };
    let terminate = signal(SignalKind::terminate());
    let mut terminate = terminate.map_err(failed("handle signals", "check the limits"))?;
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tokio::select! {
        () = adapter::run(client, arguments.settings, folder, sender) => {}
        () = tell => {}
        _ = terminate.recv() => {}
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let ended = start(Arguments::parse()).await;
    let failed = ended.inspect_err(|error| tracing::error!("{error}")).is_err();
    ExitCode::from(u8::from(failed))
}
