//! Watches of the API, by `kube`: lists in pages, bookmarks, lists again when a watch is too old.
//!
//! Imports `objects`, `stores`.

use std::fmt::Debug;

use futures::StreamExt;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;

use crate::objects::Keep;
use crate::stores::{Store, Stores, kept};

/// How long a watch lasts: a server that is gone without a word is noticed five seconds later.
const WATCH_S: u32 = 40;

/// What a watch says of its kind.
pub struct News {
    pub kind: &'static str,
    pub what: What,
}

/// What there is to say.
pub enum What {
    /// How the stores change; true if they do.
    Change(Box<dyn FnOnce(&mut Stores) -> bool + Send>),
    /// The same, and a list is asked for: that says nothing of the answer.
    Asks(Box<dyn FnOnce(&mut Stores) -> bool + Send>),
    /// It has failed, and tries again.
    Failed(String),
}

/// Watches a kind until nobody listens; only objects with some `fields`, if they are given.
pub fn start<K>(
    (client, news): (&Client, &Sender<News>),
    kind: &'static str,
    fields: Option<String>,
    store: fn(&mut Stores) -> &mut Store<K::Kept>,
) where
    K: Keep + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    K::Kept: 'static,
{
    let config = watcher::Config { field_selector: fields, ..watcher::Config::default() };
    let mut events = watcher(Api::<K>::all(client.clone()), config.timeout(WATCH_S)).boxed();
    let news = news.clone();
    tokio::spawn(async move {
        // Asked by hand, not by the stream: there a list that is asked for counts as a success, and one that is
        // refused would be asked for every second for ever. By itself it begins anew after two good minutes.
        let mut backoff = DefaultBackoff::default();
        while let Some(event) = events.next().await {
            let (what, pause) = match event {
                Ok(event) => {
                    let what = if matches!(event, Event::Init) { What::Asks } else { What::Change };
                    let event = kept(event);
                    (what(Box::new(move |stores| store(stores).take(event))), None)
                }
                Err(error) => (What::Failed(described(&error)), backoff.next()),
            };
            if news.send(News { kind, what }).await.is_err() {
                return;
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
    });
}

/// An error with its causes: each on its own says too little.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        cause = error.source();
    }
    text
}
