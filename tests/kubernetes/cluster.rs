//! An API server that is made up: objects, their history, pages, bookmarks, and failures when a test wants them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::server::{Answer, Api, Asked};

pub const NODES: &str = "/api/v1/nodes";
pub const SERVICES: &str = "/api/v1/services";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub const PODS: &str = "/api/v1/pods";
pub const NAMESPACES: &str = "/api/v1/namespaces";

/// The server. Its clones are the same one.
#[derive(Clone)]
pub struct Cluster {
    state: Arc<Mutex<State>>,
    /// Counts whatever may matter to a watch.
    ticks: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By path, then by namespace and name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// Of each path the versions and events.
    history: BTreeMap<String, Vec<(u64, String)>>,
    /// Versions up to this are forgotten.
    forgotten: u64,
    /// Paths that are refused, and with what.
    refused: BTreeMap<String, (u16, String)>,
    /// Nobody answers.
    down: bool,
    /// How often all watches were cut off.
    cuts: u64,
    asked: Vec<String>,
    /// Paths and bodies of what was to be changed.
    patches: Vec<(String, Value)>,
    /// Of this path no page is given but the first.
    broken: Option<String>,
}

impl Cluster {
    /// Two nodes and a namespace.
    pub fn new() -> Self {
        let state = State { version: 100, ..State::default() };
        let cluster = Self { state: Arc::new(Mutex::new(state)), ticks: Arc::default() };
        cluster.put(NODES, node("node-a", "172.18.0.3", "10.244.0.0/24"));
        cluster.put(NODES, node("node-b", "172.18.0.2", "10.244.1.0/24"));
        cluster.put(NAMESPACES, json!({"metadata": {"name": "default"}}));
        cluster
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn tick(&self) {
        self.ticks.send_modify(|ticks| *ticks += 1);
    }

    fn tell(&self, path: &str, kind: &str, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        state.history.entry(path.to_owned()).or_default().push((version, line));
        let known = state.objects.entry(path.to_owned()).or_default();
        match kind {
            "DELETED" => drop(known.remove(&key(&object))),
            "BOOKMARK" => {}
            _ => drop(known.insert(key(&object), object)),
        }
        drop(state);
        self.tick();
    }

    /// Makes or replaces an object.
    pub fn put(&self, path: &str, mut object: Value) {
        let state = self.state();
        let known = state.objects.get(path).is_some_and(|all| all.contains_key(&key(&object)));
        drop(state);
        if object["metadata"]["creationTimestamp"].is_null() {
            object["metadata"]["creationTimestamp"] = json!("2026-11-21T04:04:13Z");
        }
        self.tell(path, if known { "MODIFIED" } else { "ADDED" }, object);
    }

    /// Changes an object, named by `namespace/name`.
    pub fn change(&self, path: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(path, name);
        change(&mut object);
        self.tell(path, "MODIFIED", object);
    }

    /// Removes an object.
    pub fn remove(&self, path: &str, name: &str) {
        self.tell(path, "DELETED", self.get(path, name));
    }

    /// An object as it is.
    pub fn get(&self, path: &str, name: &str) -> Value {
        self.state().objects[path][name].clone()
    }

    /// Tells a version, and nothing else.
    pub fn bookmark(&self, path: &str) {
        self.tell(path, "BOOKMARK", json!({"kind": "Any", "apiVersion": "v1", "metadata": {}}));
    }

    /// Forgets the history: watches from before are told 410.
    pub fn forget(&self) {
        let mut state = self.state();
        state.version += 1;
        state.forgotten = state.version;
        state.history.clear();
    }

    /// Ends all watches, each in the middle of an object.
    pub fn cut(&self) {
        self.state().cuts += 1;
        self.tick();
    }

    /// Cuts all off and answers nobody, or answers again.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
        self.cut();
    }

    /// Refuses a path, or no longer.
    pub fn refuse(&self, path: &str, answer: Option<(u16, &str)>) {
        let refused = &mut self.state().refused;
        match answer {
            Some((status, text)) => drop(refused.insert(path.into(), (status, text.into()))),
            None => drop(refused.remove(path)),
        }
    }

    /// Gives no page of a path but the first, or all.
    pub fn break_after_a_page(&self, path: &str, broken: bool) {
        self.state().broken = broken.then(|| path.to_owned());
    }

    /// Method and path with query of all that was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// What was to be changed: paths and bodies.
    pub fn patches(&self) -> Vec<(String, Value)> {
        self.state().patches.clone()
    }

    fn watch(&self, state: &State, asked: &Asked) -> Answer {
        let from: u64 = asked.parameter("resourceVersion").unwrap().parse().unwrap();
        if from < state.forgotten {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "too old resource version", "reason": "Expired", "code": 410});
            let error = json!({"type": "ERROR", "object": status});
            return Answer::whole(200, format!("{error}\n"));
        }
        let (cluster, path, cuts) = (self.clone(), asked.path.clone(), state.cuts);
        let changes = self.ticks.subscribe();
        let body = stream::unfold((changes, from), move |(mut changes, told)| {
            let (cluster, path) = (cluster.clone(), path.clone());
            async move {
                loop {
                    changes.mark_unchanged();
                    if let Some((piece, told)) = cluster.news(&path, cuts, told) {
                        return Some((piece, (changes, told)));
                    }
                    changes.changed().await.ok()?;
                }
            }
        });
        Answer { body: body.boxed(), ..Answer::whole(200, "") }
    }

    /// What a watch that was told a version is told next.
    fn news(&self, path: &str, cuts: u64, told: u64) -> Option<(io::Result<Bytes>, u64)> {
        if told == u64::MAX {
            return Some((Err(io::Error::other("connection reset")), told));
        }
        let state = self.state();
        if state.cuts != cuts {
            return Some((Ok(Bytes::from("{\"type\":\"MODIFIED\",\"obj")), u64::MAX));
        }
        let events = state.history.get(path)?;
        let new = &events[events.partition_point(|(version, _)| *version <= told)..];
        let last = new.last()?.0;
        let text: String = new.iter().map(|(_, line)| line.as_str()).collect();
        Some((Ok(Bytes::from(text)), last))
    }
}

impl Api for Cluster {
    fn answer(&self, asked: &Asked) -> Option<Answer> {
        let mut state = self.state();
        state.asked.push(format!("{} {}?{}", asked.method, asked.path, asked.query));
        if state.down {
            return None;
        }
        if let Some((status, text)) = state.refused.get(&asked.path) {
            return Some(Answer::whole(*status, text.as_str()));
        }
        let next_page = asked.parameter("continue").is_some();
        if next_page && state.broken.as_ref() == Some(&asked.path) {
            return None;
        }
        if asked.method == "PATCH" {
            let patch: Value = serde_json::from_str(&asked.body).unwrap();
            state.patches.push((asked.path.clone(), patch.clone()));
            drop(state);
            let (path, name) = asked.path.rsplit_once('/').unwrap();
            let annotations = patch["metadata"]["annotations"].as_object().unwrap().clone();
            self.change(path, name, |node| {
                for (key, value) in annotations {
                    node["metadata"]["annotations"][key] = value;
                }
            });
            return Some(Answer::whole(200, self.get(path, name).to_string()));
        }
        Some(if asked.is_watch() { self.watch(&state, asked) } else { list(&state, asked) })
    }
}

fn list(state: &State, asked: &Asked) -> Answer {
    let node = asked.parameter("fieldSelector");
    let node = node.as_deref().map(|field| field.strip_prefix("spec.nodeName=").unwrap());
    let all = state.objects.get(&asked.path).into_iter().flatten().map(|(_, object)| object);
    let all: Vec<_> =
        all.filter(|object| node.is_none_or(|node| object["spec"]["nodeName"] == node)).collect();
    let number = |name| asked.parameter(name).and_then(|text| text.parse::<usize>().ok());
    let from = number("continue").unwrap_or(0);
    let until = number("limit").map_or(all.len(), |limit| (from + limit).min(all.len()));
    let mut metadata = json!({"resourceVersion": state.version.to_string()});
    if until < all.len() {
        metadata["continue"] = json!(until.to_string());
    }
    let list = json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": all[from..until]});
    Answer::whole(200, list.to_string())
}

fn key(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

pub fn node(name: &str, address: &str, cidr: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]}})
}

/// A service in `default` with one TCP port without a name.
pub fn service(name: &str, cluster_ip: &str, port: u16) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"type": "ClusterIP",
        "clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ports": [{"port": port, "protocol": "TCP"}]}})
}

/// A slice of it.
pub fn slice(service: &str, addresses: &[&str], port: u16) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false}}))
        .collect();
    json!({"metadata": {"name": format!("{service}-x2k4d"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "", "port": port, "protocol": "TCP"}]})
}

/// A pod in `default` on `node-a`.
pub fn pod(name: &str, address: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "uid": format!("uid-of-{name}"), "labels": {"run": name}},
        "spec": {"nodeName": "node-a", "containers": [], "serviceAccountName": "default"},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}})
}
