//! Watches of the API, by `kube`: lists in pages, bookmarks, lists again when a watch is too old.
//!
//! Imports `objects`, `stores`.

use std::fmt::Debug;

use futures::stream::{BoxStream, StreamExt, unfold};
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::objects::Keep;
use crate::stores::{Store, Stores, Touched};

/// How long a watch lasts: a server that is gone without a word is noticed five seconds later.
const WATCH_S: u32 = 40;

/// Changes what is known, and says what that touches.
pub type Change = Box<dyn FnOnce(&mut Stores) -> Vec<Touched> + Send>;

/// What a watch says of its kind.
pub struct News {
    pub kind: String,
    /// Or why it has failed; it tries again by itself.
    pub told: Result<Change, String>,
    /// Whether the server has answered: that a list is asked for says nothing of the answer.
    pub answered: bool,
}

/// Watches a kind for ever; only objects with some `fields`, if they are given. `touches` says what an object, given
/// with its key, is part of.
pub fn watch<K>(
    client: &Client,
    fields: Option<String>,
    store: fn(&mut Stores) -> &mut Store<K::Kept>,
    touches: fn(&str, &K::Kept) -> Touched,
) -> BoxStream<'static, News>
where
    K: Keep + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    K::Kept: 'static,
{
    let config = watcher::Config { field_selector: fields, ..watcher::Config::default() };
    let events = watcher(Api::<K>::all(client.clone()), config.timeout(WATCH_S)).boxed();
    // Asked by hand, not by the stream: there a list that is asked for counts as a success, and one that is
    // refused would be asked for every second for ever. By itself it begins anew after two good minutes.
    let begin = (events, DefaultBackoff::default(), None);
    unfold(begin, move |(mut events, mut backoff, pause)| async move {
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        let event = events.next().await?;
        let answered = matches!(&event, Ok(event) if !matches!(event, Event::Init));
        let pause = event.as_ref().err().and_then(|_| backoff.next());
        let told = event
            .map_err(|error| described(&error))
            .map(|event| -> Change { Box::new(move |stores| store(stores).take(event, touches)) });
        Some((News { kind: K::plural(&()).into(), told, answered }, (events, backoff, pause)))
    })
    .boxed()
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
