//! The Kubernetes adapter against recorded and made-up API servers, through the real client.
//!
//! Most tests run in this process with a clock that stands still while anything is to be done: pauses cost
//! nothing, and none of them is measured. What is written is real files.

mod churn;
mod cluster;
mod facts;
mod failures;
mod folder;
mod in_cluster;
mod packaging;
mod product;
mod program;
mod recordings;
mod replay;
mod server;
mod size;
mod strange;
mod wireguard;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ciliate_kubernetes::adapter;
use ciliate_kubernetes::folder::Folder;
use ciliate_kubernetes::settings::Settings;
use ciliate_kubernetes::status::Status;
use kube::Client;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::server::Api;

/// Where these tests are.
pub const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/kubernetes");

/// A folder that goes with the test.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn make() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The files, by name; those that begin with a dot too.
    pub fn files(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.path()).unwrap().map(Result::unwrap);
        let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
        entries.map(|entry| (name(&entry), fs::read_to_string(entry.path()).unwrap())).collect()
    }

    /// The names of the files.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap().map(Result::unwrap);
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A file without its comments.
    pub fn toml(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path().join(name))
            .unwrap_or_else(|_| panic!("{name}: {:?}", self.names()));
        text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
    }

    /// The comments of a file.
    pub fn comments(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path().join(name)).unwrap();
        text.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect()
    }
}

pub fn settings(node: &str) -> Settings {
    Settings {
        node: node.into(),
        cluster: "default".into(),
        sandboxes: "/run/ciliate/sandboxes".into(),
        node_ports: (30_000, 32_767),
        public_key: None,
    }
}

/// An adapter at work in this process.
pub struct Adapter {
    task: JoinHandle<()>,
    pub status: watch::Receiver<Status>,
}

impl Adapter {
    pub fn start(client: Client, settings: Settings, scratch: &Scratch) -> Self {
        let folder = Folder::open(scratch.path()).unwrap();
        let (sender, status) = watch::channel(Status::default());
        Self { task: tokio::spawn(adapter::run(client, settings, folder, sender)), status }
    }

    pub fn line(&self) -> String {
        self.status.borrow().line()
    }

    /// A number of the metrics.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.status.borrow().metrics();
        let line =
            text.lines().find_map(|line| line.strip_prefix(&format!("ciliate_kubernetes_{name} ")));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An adapter on `node-a` of an API server.
pub fn start(api: impl Api, scratch: &Scratch) -> Adapter {
    Adapter::start(server::client(Arc::new(api)), settings("node-a"), scratch)
}

/// Lets all that is to be done in a time be done; the clock is made to stand still otherwise.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Long enough for whatever is told to be written.
pub async fn settle() {
    pass(Duration::from_secs(1)).await;
}
