//! The loops: what the watches tell goes into the stores, and what follows from those into the folder.
//!
//! Changes are gathered until there is a pause, and never longer than [`GATHER_MAX`]: a cluster in which
//! something changes all the time must not keep a change waiting. The watches are `kube`'s: lists in pages,
//! bookmarks, lists again when a watch is too old. Imports all the others.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::Patch;
use kube::runtime::watcher::{Config, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch::Sender;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::folder::Folder;
use crate::mapping::wanted;
use crate::nodes::is_key;
use crate::objects::{self, KEY_ANNOTATION};
use crate::services::Memory;
use crate::settings::Settings;
use crate::status::Status;
use crate::stores::{Store, Stores};

/// A pause this long ends the gathering of changes.
const GATHER: Duration = Duration::from_millis(10);
/// How long the first of many changes waits at most.
pub const GATHER_MAX: Duration = Duration::from_millis(500);
/// How often the files are looked at, and what failed is tried again.
const LOOK: Duration = Duration::from_secs(10);
/// How long a watch lasts: a server that is gone without a word is noticed five seconds later.
const WATCH_S: u32 = 40;

struct Adapter {
    client: Client,
    settings: Settings,
    status: Sender<Status>,
    known: Sender<Stores>,
}

/// Starts the watches, and runs for ever.
pub async fn run(client: Client, settings: Settings, folder: Folder, status: Sender<Status>) {
    let here = Some(format!("spec.nodeName={}", settings.node));
    let it = Adapter { client, settings, status, known: Sender::default() };
    tokio::join!(
        it.watch(objects::node, None, |all| &mut all.nodes),
        it.watch(objects::service, None, |all| &mut all.services),
        it.watch(objects::slice, None, |all| &mut all.slices),
        it.watch(objects::pod, here, |all| &mut all.pods),
        it.watch(objects::namespace, None, |all| &mut all.namespaces),
        it.write(folder),
        it.publish(),
    );
}

impl Adapter {
    /// Watches a kind for ever; only objects with some fields, if they are given.
    async fn watch<K, T: Eq>(
        &self,
        keep: fn(K) -> Option<T>,
        field_selector: Option<String>,
        store: fn(&mut Stores) -> &mut Store<T>,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let config = Config { field_selector, ..Config::default() }.timeout(WATCH_S);
        let mut events = std::pin::pin!(watcher(Api::<K>::all(self.client.clone()), config));
        let kind = K::plural(&());
        let tell = |count| self.status.send_if_modified(|status| status.works(&kind, count));
        tell(None);
        // Asked by hand, not by the stream: there a list that is asked for counts as a success, and one that is
        // refused would be asked for every second for ever. By itself it begins anew after two good minutes.
        let mut backoff = DefaultBackoff::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // That a list is asked for says nothing of the answer.
                    let answered = !matches!(event, Event::Init);
                    self.known.send_if_modified(|stores| {
                        let differs = store(stores).take(event, keep);
                        let _ = answered && tell(store(stores).count());
                        differs
                    });
                }
                Err(error) => {
                    self.status.send_modify(|status| status.failed(&kind, &described(&error)));
                    sleep(backoff.next().unwrap_or_default()).await;
                }
            }
        }
    }

    async fn write(&self, mut folder: Folder) {
        let (mut memory, mut look, mut failed) = (Memory::new(), Instant::now(), false);
        let mut news = self.known.subscribe();
        loop {
            let _ = timeout_at(look, news.changed()).await;
            let most = Instant::now() + GATHER_MAX;
            let pause = || most.min(Instant::now() + GATHER);
            while timeout_at(pause(), news.changed()).await.is_ok() && Instant::now() < most {}
            // What failed is tried again, and no sooner forgotten.
            let afresh = failed || Instant::now() >= look;
            look = if afresh { Instant::now() + LOOK } else { look };
            let known = news.borrow_and_update();
            let done = folder.sync(wanted(&known, &self.settings, &mut memory, afresh));
            failed = !done.1.is_empty();
            self.status.send_modify(|status| status.wrote(folder.count(), done));
        }
    }

    /// Makes the key in the own `Node` that of the file: of no other node, and only where it differs.
    async fn publish(&self) {
        let Some(path) = &self.settings.public_key else { return };
        let (nodes, name) = (Api::<Node>::all(self.client.clone()), &self.settings.node);
        let mut written = self.status.subscribe();
        while written.changed().await.is_ok() {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let key = text.trim();
            let differs = |node: &objects::Node| node.public_key.as_deref() != Some(key);
            let differs = self.known.borrow().nodes.get(name).is_some_and(differs);
            if !is_key(key) {
                warn!("{} has no WireGuard public key", path.display());
            } else if differs {
                let patch = serde_json::json!({"metadata": {"annotations": {KEY_ANNOTATION: key}}});
                match nodes.patch_metadata(name, &Default::default(), &Patch::Merge(patch)).await {
                    Ok(_) => info!("the public key of node {name} is published"),
                    Err(error) => warn!("can't publish the public key of node {name}: {error}"),
                }
            }
        }
    }
}

/// An error with its causes: each on its own says too little.
fn described(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| (**error).source());
    causes.map(ToString::to_string).fold(error.to_string(), |text, cause| {
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}
