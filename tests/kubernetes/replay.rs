//! Recorded exchanges with a real API server (`recorded/`), answered in the order and at the times they had.
//!
//! A line of a recording is a request of a list-and-watch client and the answer, piece by piece, with the
//! milliseconds since the recording began; `managedFields` and the like are taken out. What is asked after the
//! end of the recording hangs, as a watch in which nothing happens.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::server::{Answer, Api, Asked};

/// A recording that is played.
pub struct Replay {
    begin: Instant,
    /// By path, and whether it is a watch.
    waiting: Mutex<BTreeMap<(String, bool), VecDeque<Value>>>,
    /// Nodes whose pods are asked for.
    asked: Mutex<Vec<String>>,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Clean,
    Open,
    Cut,
}

impl Replay {
    pub fn new(name: &str) -> Self {
        let file = format!("{}/recorded/{name}.jsonl", crate::HERE);
        let text = std::fs::read_to_string(file).unwrap();
        let mut waiting: BTreeMap<_, VecDeque<_>> = BTreeMap::new();
        for line in text.lines() {
            let exchange: Value = serde_json::from_str(line).unwrap();
            let (path, query) = exchange["uri"].as_str().unwrap().split_once('?').unwrap();
            let key = (path.to_owned(), query.contains("watch=true"));
            waiting.entry(key).or_default().push_back(exchange);
        }
        // What was asked first is answered first.
        for queue in waiting.values_mut() {
            queue.make_contiguous().sort_by_key(|exchange| exchange["t"].as_u64());
        }
        Self { begin: Instant::now(), waiting: Mutex::new(waiting), asked: Mutex::default() }
    }

    /// What was asked for so far: method and path with query.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// How many exchanges of the recording were not asked for.
    pub fn left(&self) -> usize {
        self.waiting.lock().unwrap().values().map(VecDeque::len).sum()
    }
}

impl Api for Replay {
    fn answer(&self, asked: &Asked) -> Option<Answer> {
        self.asked.lock().unwrap().push(format!("{} {}?{}", asked.method, asked.path, asked.query));
        let key = (asked.path.clone(), asked.is_watch());
        let next = self.waiting.lock().unwrap().get_mut(&key).and_then(VecDeque::pop_front);
        let Some(exchange) = next else {
            return Some(Answer { body: stream::pending().boxed(), ..Answer::whole(200, "") });
        };
        let status = u16::try_from(exchange["status"].as_u64()?).unwrap();
        let end = match exchange["end"].as_str().unwrap() {
            "server" => End::Clean,
            "client" => End::Open,
            cut => {
                assert!(cut.starts_with("upstream-"), "{cut}");
                End::Cut
            }
        };
        let at = |value: &Value| self.begin + Duration::from_millis(value.as_u64().unwrap());
        let node = asked.parameter("fieldSelector");
        let node = node.map(|field| field.strip_prefix("spec.nodeName=").unwrap().to_owned());
        let mut pieces: VecDeque<(Instant, String)> = VecDeque::new();
        for piece in exchange["chunks"].as_array().unwrap() {
            let text = selected(piece[1].as_str().unwrap(), node.as_deref(), asked.is_watch());
            pieces.extend(text.map(|text| (at(&piece[0]), text)));
        }
        let last = if end == End::Open { self.begin } else { at(&exchange["end_t"]) };
        let body = stream::unfold(pieces, move |mut pieces| async move {
            let Some((when, text)) = pieces.pop_front() else {
                sleep_until(last).await;
                return match end {
                    End::Clean => None,
                    End::Open => std::future::pending().await,
                    End::Cut => Some((Err(io::Error::other("connection reset")), pieces)),
                };
            };
            sleep_until(when).await;
            Some((Ok(Bytes::from(text)), pieces))
        });
        let json = exchange["type"].as_str().is_some_and(|kind| kind.contains("json"));
        let content_type = if json { "application/json" } else { "text/plain" };
        Some(Answer { status, content_type, body: body.boxed() })
    }
}

/// What a server with a field selector says: the recording has the pods of all nodes. A pod that gets its node
/// comes into sight with that, as something new.
fn selected(text: &str, node: Option<&str>, watch: bool) -> Option<String> {
    let Some(node) = node else { return Some(text.to_owned()) };
    let here = |pod: &Value| pod["spec"]["nodeName"] == node;
    let mut value: Value = serde_json::from_str(text).unwrap();
    if !watch {
        value["items"].as_array_mut().unwrap().retain(here);
    } else if value["object"]["kind"] == "Pod"
        && value["type"] != "BOOKMARK"
        && !here(&value["object"])
    {
        return None;
    }
    Some(format!("{value}\n"))
}
