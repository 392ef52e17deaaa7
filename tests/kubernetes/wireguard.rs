//! Keys by way of an annotation: this node's is published, the others' are read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ciliate::kernel::private_key;
use serde_json::json;

use crate::cluster::{Cluster, NODES};
use crate::{Adapter, HERE, Scratch, pass, server, settings, settle, start};

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
    let file = keys.path().join("public");
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

/// From the private key that ciliate makes to the peer on another node: the line of the daemon's unit that the page on
/// installing gives writes the file, the adapter sends what is in it for its own node, and the other one writes it down.
/// The program `ciliate` is stood in for; `netns::wireguard` has what the real one prints.
#[tokio::test(start_paused = true)]
async fn from_the_unit_to_the_peer() {
    let (scratch, other, keys) = (Scratch::make(), Scratch::make(), Scratch::make());
    let public = private_key::replace(&keys.path().join("wireguard.key")).unwrap().to_string();
    let program = keys.path().join("ciliate");
    let script = format!("#!/bin/sh\n[ \"$*\" = 'wireguard pubkey' ] && echo '{public}'\n");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let page = fs::read_to_string(format!("{HERE}/../../packaging/kubernetes/README.md")).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix("ExecStartPost=")).unwrap();
    let said = page.split("--public-key=").find_map(|rest| rest.strip_prefix('/')).unwrap();
    let said = format!("/{}", said.split('`').next().unwrap());
    let file = keys.path().join("wireguard.pub");
    let line = line.replace(&said, file.to_str().unwrap());
    assert!(line.contains(file.to_str().unwrap()), "{said} is what the unit writes: {line}");
    let path = format!("{}:{}", keys.path().display(), std::env::var("PATH").unwrap());
    let ran = Command::new("sh").args(["-ec", &line]).env("PATH", path).status().unwrap();
    assert!(ran.success());
    let cluster = Cluster::new();
    let with_key = |node: &str, file: &std::path::Path| {
        let mut settings = settings(node);
        settings.public_key = Some(file.to_owned());
        settings
    };
    let client = || server::client(Arc::new(cluster.clone()));
    let _own = Adapter::start(client(), with_key("node-a", &file), &scratch);
    let _other = Adapter::start(client(), with_key("node-b", &keys.path().join("none")), &other);
    pass(Duration::from_secs(60)).await;
    let body = json!({"metadata": {"annotations": {ANNOTATION: &public}}});
    assert_eq!(cluster.patches(), [("/api/v1/nodes/node-a".to_owned(), body)]);
    let expected = format!("public-key = \"{public}\"");
    assert!(other.toml("kubernetes-peer-node-a.toml").contains(&expected));
    assert!(!scratch.toml("kubernetes-node-node-a.toml").contains("public-key"));
}
