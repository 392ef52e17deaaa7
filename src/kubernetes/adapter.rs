//! The loop: what the watches tell goes into the stores, and what follows from those into the folder.
//!
//! Changes are gathered until there is a pause, and never longer than [`GATHER_MAX`]: a cluster in which
//! something changes all the time must not keep a change waiting. Imports all the others.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{Stream, StreamExt, select_all};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

use crate::folder::Folder;
use crate::mapping::Mapping;
use crate::nodes::is_key;
use crate::objects::KEY_ANNOTATION;
use crate::settings::Settings;
use crate::status::Status;
use crate::stores::{Stores, Touched};
use crate::watch::{News, watch};

/// A pause this long ends the gathering of changes.
const GATHER: Duration = Duration::from_millis(10);
/// How long the first of many changes waits at most.
pub const GATHER_MAX: Duration = Duration::from_millis(500);
/// How often the files are looked at, and what failed is tried again.
const LOOK: Duration = Duration::from_secs(10);

/// Starts the watches, and runs for ever.
pub async fn run(client: Client, settings: Settings, folder: Folder, status: Sender<Status>) {
    let here = Some(format!("spec.nodeName={}", settings.node));
    let news = select_all([
        watch::<Node>(&client, None, |all| &mut all.nodes, |_, _| Touched::All),
        watch::<Service>(
            &client,
            None,
            |all| &mut all.services,
            |name, _| Touched::Service(name.into()),
        ),
        watch::<EndpointSlice>(
            &client,
            None,
            |all| &mut all.slices,
            |_, of| Touched::Service(of.service.clone()),
        ),
        watch::<Pod>(&client, here, |all| &mut all.pods, |_, _| Touched::Endpoints),
        watch::<Namespace>(&client, None, |all| &mut all.namespaces, |_, _| Touched::Endpoints),
    ]);
    let (mapping, stores, touched) = (Mapping::new(settings), Stores::default(), BTreeSet::new());
    let (nodes, gathering, publishing) = (Api::all(client), None, None);
    let adapter =
        Adapter { mapping, folder, status, stores, touched, nodes, gathering, publishing };
    adapter.follow(news).await;
}

struct Adapter {
    mapping: Mapping,
    folder: Folder,
    status: Sender<Status>,
    stores: Stores,
    /// What has changed and is not written yet,
    touched: BTreeSet<Touched>,
    /// and when the first and the last of that came.
    gathering: Option<(Instant, Instant)>,
    nodes: Api<Node>,
    /// The last attempt to publish the key.
    publishing: Option<JoinHandle<()>>,
}

impl Adapter {
    async fn follow(mut self, mut news: impl Stream<Item = News> + Unpin) {
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
                    self.status.send_modify(Status::calm);
                    self.touched.insert(Touched::All);
                    self.gather();
                }
                Some(told) = news.next() => self.hear(told),
                else => return,
            }
        }
    }

    fn hear(&mut self, News { kind, told, answered }: News) {
        let change = match told {
            Ok(change) => change,
            Err(why) => return self.status.send_modify(|status| status.failed(kind, why)),
        };
        if answered {
            self.status.send_if_modified(|status| status.works(&kind));
        }
        let touched = change(&mut self.stores);
        if !touched.is_empty() {
            self.touched.extend(touched);
            self.gather();
        }
    }

    fn gather(&mut self) {
        let now = Instant::now();
        let first = self.gathering.map_or(now, |(first, _)| first);
        self.gathering = Some((first, now));
    }

    fn write(&mut self) {
        let begin = std::time::Instant::now();
        let touched = std::mem::take(&mut self.touched);
        let done = self.folder.sync(self.mapping.wanted(&self.stores, touched));
        // What failed is tried again, and no sooner forgotten.
        self.touched.extend(done.1.first().map(|_| Touched::All));
        self.status.send_modify(|status| {
            status.wrote(&self.stores, &self.folder, done, begin.elapsed());
        });
    }

    /// Makes the key in the own `Node` that of the file: of no other node, and only where it differs.
    fn publish(&mut self) {
        let Some(path) = &self.mapping.settings.public_key else { return };
        let Some(node) = self.stores.nodes.objects.get(&self.mapping.settings.node) else { return };
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
        let (api, name) = (self.nodes.clone(), self.mapping.settings.node.clone());
        self.publishing = Some(tokio::spawn(async move {
            let patch = serde_json::json!({"metadata": {"annotations": {KEY_ANNOTATION: key}}});
            match api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => info!("the public key of node {name} is published"),
                Err(error) => warn!("can't publish the public key of node {name}: {error}"),
            }
        }));
    }
}
