//! The loop: what the watches tell goes into the stores, and what follows from those into the folder.
//!
//! Changes are gathered until there is a pause, and never longer than [`GATHER_MAX`]: a cluster in which
//! something changes all the time must not keep a change waiting. Imports all the others.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

use crate::folder::Folder;
use crate::mapping::{Settings, wanted};
use crate::nodes::is_key;
use crate::objects::KEY_ANNOTATION;
use crate::page::LEFT_OUT;
use crate::status::Status;
use crate::stores::Stores;
use crate::watch::{News, What, start};

/// A pause this long ends the gathering of changes.
const GATHER: Duration = Duration::from_millis(10);
/// How long the first of many changes waits at most.
pub const GATHER_MAX: Duration = Duration::from_millis(500);
/// How often the files are looked at, and what failed is tried again.
const LOOK: Duration = Duration::from_secs(10);
/// Told and not yet looked at. Full, it makes the watches wait.
const NEWS_MAX: usize = 1024;

/// Starts the watches, and runs for ever.
pub async fn run(
    client: Client,
    settings: Settings,
    folder: Folder,
    status: watch::Sender<Status>,
) {
    let (sender, news) = mpsc::channel(NEWS_MAX);
    let here = format!("spec.nodeName={}", settings.node);
    let to = (&client, &sender);
    start::<Node>(to, "nodes", None, |stores| &mut stores.nodes);
    start::<Service>(to, "services", None, |stores| &mut stores.services);
    start::<EndpointSlice>(to, "endpointslices", None, |stores| &mut stores.slices);
    start::<Pod>(to, "pods", Some(here), |stores| &mut stores.pods);
    start::<Namespace>(to, "namespaces", None, |stores| &mut stores.namespaces);
    let (stores, nodes) = (Stores::default(), Api::all(client.clone()));
    let (gathering, publishing) = (None, None);
    let adapter = Adapter { settings, folder, status, stores, nodes, gathering, publishing };
    adapter.follow(news).await;
}

struct Adapter {
    settings: Settings,
    folder: Folder,
    status: watch::Sender<Status>,
    stores: Stores,
    nodes: Api<Node>,
    /// When the first and the last of the changes came that are not written yet.
    gathering: Option<(Instant, Instant)>,
    /// The last attempt to publish the key.
    publishing: Option<JoinHandle<()>>,
}

impl Adapter {
    async fn follow(mut self, mut news: mpsc::Receiver<News>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.gathering.map(|(first, last)| (last + GATHER).min(first + GATHER_MAX));
            tokio::select! {
                // In this order: however much there is to hear, what is due is written.
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.gathering = None;
                    self.write();
                    self.publish();
                }
                _ = look.tick() => {
                    self.folder.audit();
                    self.status.send_modify(Status::calm);
                    self.changed();
                }
                Some(told) = news.recv() => self.hear(told),
                else => return,
            }
        }
    }

    fn hear(&mut self, News { kind, what }: News) {
        let change = match what {
            What::Failed(why) => {
                return self.status.send_modify(|status| status.failed(kind, why));
            }
            What::Asks(change) => change,
            What::Change(change) => {
                self.status.send_if_modified(|status| status.works(kind));
                change
            }
        };
        if change(&mut self.stores) {
            self.changed();
        }
    }

    fn changed(&mut self) {
        let now = Instant::now();
        let first = self.gathering.map_or(now, |(first, _)| first);
        self.gathering = Some((first, now));
    }

    fn write(&mut self) {
        let begin = std::time::Instant::now();
        let wanted = wanted(&self.stores, &self.settings);
        let left_out = wanted.files.values().map(|text| text.matches(LEFT_OUT).count()).sum();
        let (done, errors) = self.folder.sync(wanted);
        self.status.send_modify(|status| {
            status.counts(&self.stores, left_out);
            status.wrote(done, &errors, self.folder.count(), begin.elapsed());
        });
    }

    /// Makes the key in the own `Node` that of the file: of no other node, and only where it differs.
    fn publish(&mut self) {
        let Some(path) = &self.settings.public_key else { return };
        let Some(node) = self.stores.nodes.objects.get(&self.settings.node) else { return };
        if self.publishing.as_ref().is_some_and(|attempt| !attempt.is_finished()) {
            return;
        }
        let key = match std::fs::read_to_string(path) {
            Ok(text) if is_key(text.trim()) => text.trim().to_owned(),
            Ok(_) => return warn!("{} has no WireGuard public key", path.display()),
            Err(error) => return warn!("can't read the public key {}: {error}", path.display()),
        };
        if node.public_key.as_ref() == Some(&key) {
            return;
        }
        let (api, name) = (self.nodes.clone(), self.settings.node.clone());
        self.publishing = Some(tokio::spawn(async move {
            let patch = serde_json::json!({"metadata": {"annotations": {KEY_ANNOTATION: key}}});
            match api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => info!("the public key of node {name} is published"),
                Err(error) => warn!("can't publish the public key of node {name}: {error}"),
            }
        }));
    }
}
