//! What the adapter writes is read by what will read it: as the product does, without a complaint.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ciliate::config::{Document, Search};
use ciliate::intent::{self, identity_of_labels};
use serde_json::json;

use crate::cluster::{Cluster, PODS, SERVICES, SLICES, pod, service, slice};
use crate::{HERE, Scratch, settle, start};

pub fn complaints(folder: &Path) -> Option<String> {
    let document = Document::load(&Search::path(folder));
    let Err(problems) = intent::read(&document) else { return None };
    Some(problems.iter().map(|problem| format!("{problem:?}\n")).collect())
}

fn folders(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            folders(&entry, found);
        } else if !found.contains(&folder.to_owned()) {
            found.push(folder.to_owned());
        }
    }
}

/// All that follows from the recordings.
#[test]
fn recordings_are_configurations() {
    let mut found = Vec::new();
    folders(&PathBuf::from(format!("{HERE}/expected")), &mut found);
    assert!(found.len() >= 8, "{found:?}");
    for folder in found {
        assert_eq!(complaints(&folder), None, "{}", folder.display());
    }
}

/// Two sets of labels of which one number would be derived: ciliate refuses that, so one is given another.
#[tokio::test(start_paused = true)]
async fn identities_that_clash() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    let labels = |run: &str| -> BTreeMap<String, String> {
        let labels = [
            ("k8s:io.cilium.k8s.policy.cluster", "default"),
            ("k8s:io.cilium.k8s.policy.serviceaccount", "default"),
            ("k8s:io.kubernetes.pod.namespace", "default"),
            ("k8s:run", run),
        ];
        labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    };
    let mut seen = BTreeMap::new();
    let clash = (0..).map(|number| format!("x{number}")).find_map(|run| {
        let number = identity_of_labels(&labels(&run)).number();
        seen.insert(number, run.clone()).map(|earlier| (earlier, run))
    });
    let (one, other) = clash.unwrap();
    for (number, run) in [&one, &other, &other].into_iter().enumerate() {
        let mut pod = pod(&format!("p{number}"), &format!("10.244.0.{}", 10 + number));
        pod["metadata"]["labels"] = json!({"run": run});
        cluster.put(PODS, pod);
    }
    let _adapter = start(cluster, &scratch);
    settle().await;
    assert_eq!(complaints(scratch.path()), None);
    let given = |name: &str| {
        scratch.toml(&format!("kubernetes-endpoint-default.{name}.toml")).contains("identity = ")
    };
    assert_eq!(["p0", "p1", "p2"].map(given), [false, true, true]);
}

/// All endpoints of a service are on their way out: they are its backends all the same, with that state, and ciliate
/// uses them as long as there are no better ones.
#[tokio::test(start_paused = true)]
async fn only_terminating_backends() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    let mut web = service("web", "10.96.0.9", 80);
    web["spec"]["ports"] = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let mut slices = slice("web", &["10.244.1.1", "10.244.1.2"], 8080);
    slices["ports"] = json!([{"name": "a", "port": 8080}, {"name": "b", "port": 8081}]);
    for endpoint in slices["endpoints"].as_array_mut().unwrap() {
        endpoint["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
    }
    cluster.put(SERVICES, web);
    cluster.put(SLICES, slices);
    let _adapter = start(cluster, &scratch);
    settle().await;
    assert_eq!(complaints(scratch.path()), None);
    let toml = scratch.toml("kubernetes-service-default.web.toml");
    let toml: toml::Table = toml.parse().unwrap();
    for (service, port) in toml["service"].as_array().unwrap().iter().zip([8080, 8081]) {
        let backends = service["backends"].as_array().unwrap();
        let expected = ["10.244.1.1", "10.244.1.2"].map(|ip| {
            let address = ("address".to_owned(), toml::Value::from(format!("{ip}:{port}")));
            let state = ("state".to_owned(), toml::Value::from("terminating"));
            toml::Value::Table([address, state].into_iter().collect())
        });
        assert_eq!(backends.as_slice(), expected);
    }
}
