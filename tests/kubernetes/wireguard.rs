//! Keys by way of an annotation: this node's is published, the others' are read.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::cluster::{Cluster, NODES};
use crate::{Adapter, Scratch, pass, server, settings, settle, start};

const ANNOTATION: &str = "network.cilium.io/wg-pub-key";
const KEYS: [&str; 3] = [
    "IKwg++mojsgZ5mw3McPgcg5Cq9qe/dfNOz3det8U12o=",
    "aNTh4WkDfDWPHGOhUKGTE8FfSzzsSMwnXr8wEBMWjD4=",
    "SKuGvQvTWyVvJoAgbpEcWhcFXnEHjGfU8UsWqEfa0m0=",
];

fn annotate(cluster: &Cluster, node: &str, key: &str) {
    cluster.change(NODES, node, |node| node["metadata"]["annotations"][ANNOTATION] = json!(key));
}

#[tokio::test(start_paused = true)]
async fn keys_are_exchanged() {
    let (scratch, keys, cluster) = (Scratch::make(), Scratch::make(), Cluster::new());
    let file = keys.0.join("public");
    annotate(&cluster, "node-b", KEYS[1]);
    let mut settings = settings("node-a");
    settings.public_key = Some(file.clone());
    let _adapter = Adapter::start(server::client(Arc::new(cluster.clone())), settings, &scratch);
    settle().await;
    // The peers' are there, whether ours is or not.
    assert!(
        scratch
            .toml("kubernetes-peer-node-b.toml")
            .contains(&format!("public-key = \"{}\"", KEYS[1]))
    );
    let patches = || {
        cluster
            .asked()
            .iter()
            .filter(|asked| asked.starts_with("PATCH"))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(patches(), [""; 0]);
    fs::write(&file, format!("{}\n", KEYS[0])).unwrap();
    pass(Duration::from_secs(60)).await;
    assert_eq!(cluster.get(NODES, "node-a")["metadata"]["annotations"][ANNOTATION], KEYS[0]);
    assert_eq!(patches(), ["PATCH /api/v1/nodes/node-a?"], "once, and of no other node");
    // A new key, and somebody who takes it away.
    fs::write(&file, KEYS[2]).unwrap();
    pass(Duration::from_secs(30)).await;
    assert_eq!(cluster.get(NODES, "node-a")["metadata"]["annotations"][ANNOTATION], KEYS[2]);
    annotate(&cluster, "node-a", "mine");
    settle().await;
    assert_eq!(cluster.get(NODES, "node-a")["metadata"]["annotations"][ANNOTATION], KEYS[2]);
    assert_eq!(patches().len(), 3);
}

/// What is no key, or another node's, would stop the whole configuration.
#[tokio::test(start_paused = true)]
async fn keys_that_are_none() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    for (name, address, cidr) in
        [("node-c", "172.18.0.4", "10.244.2.0/24"), ("node-d", "172.18.0.5", "10.244.3.0/24")]
    {
        let mut node = crate::cluster::node(name, address, cidr);
        node["metadata"]["creationTimestamp"] = json!("2026-11-22T04:04:13Z");
        cluster.put(NODES, node);
    }
    for (node, key) in [("node-b", KEYS[1]), ("node-c", KEYS[1]), ("node-d", "c2hvcnQ=")] {
        annotate(&cluster, node, key);
    }
    let mut settings = settings("node-a");
    settings.public_key = Some("/nonexistent/key".into());
    let _adapter = Adapter::start(server::client(Arc::new(cluster)), settings, &scratch);
    settle().await;
    assert!(scratch.toml("kubernetes-peer-node-b.toml").contains("public-key"));
    for (node, why) in [("c", "another node has too"), ("d", "which is none")] {
        let file = format!("kubernetes-peer-node-{node}.toml");
        assert!(
            !scratch.toml(&file).contains("public-key") && scratch.toml(&file).contains("[[peer]]")
        );
        assert!(scratch.comments(&file).contains(why), "{}", scratch.comments(&file));
    }
}

/// Without the option nothing is published, and nothing is written that a node without encryption refuses.
#[tokio::test(start_paused = true)]
async fn without_the_option() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    annotate(&cluster, "node-b", KEYS[1]);
    let _adapter = start(cluster.clone(), &scratch);
    pass(Duration::from_secs(30)).await;
    assert!(!scratch.toml("kubernetes-peer-node-b.toml").contains("public-key"));
    assert!(cluster.asked().iter().all(|asked| asked.starts_with("GET")));
}
