//! The API server is lost in every way: the last good files stay, and what is missed is made up for.

use std::time::Duration;

use serde_json::json;

use crate::cluster::{Cluster, NODES, PODS, SERVICES, SLICES, pod, service, slice};
use crate::{Adapter, Scratch, pass, settle, start};

/// A cluster with a bit of everything, and its files.
async fn populated() -> (Scratch, Cluster, Adapter) {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    cluster.put(PODS, pod("client", "10.244.0.49"));
    for (name, ip) in [("web", "10.96.0.9"), ("db", "10.96.0.10")] {
        cluster.put(SERVICES, service(name, ip, 80));
        cluster.put(SLICES, slice(name, &["10.244.1.1"], 80));
    }
    let adapter = start(cluster.clone(), &scratch);
    settle().await;
    assert_eq!(scratch.names().len(), 5, "{:?}", scratch.names());
    (scratch, cluster, adapter)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down() {
    let (scratch, cluster, adapter) = populated().await;
    let before = scratch.files();
    cluster.set_down(true);
    // Changed where nobody sees it.
    cluster.remove(SERVICES, "default/db");
    cluster.remove(PODS, "default/client");
    pass(Duration::from_secs(600)).await;
    assert_eq!(scratch.files(), before);
    assert!(adapter.line().contains("the last good files stay"), "{}", adapter.line());
    cluster.forget();
    cluster.set_down(false);
    pass(Duration::from_secs(130)).await;
    let names = [
        "kubernetes-node-node-a.toml",
        "kubernetes-peer-node-b.toml",
        "kubernetes-service-default.web.toml",
    ];
    assert_eq!(scratch.names(), names);
    assert!(adapter.line().contains("files of"), "{}", adapter.line());
}

/// A watch that is cut off goes on from where it was: no list is asked for.
#[tokio::test(start_paused = true)]
async fn cut_off_in_the_middle_of_an_object() {
    let (scratch, cluster, adapter) = populated().await;
    let lists = || cluster.asked().iter().filter(|asked| asked.contains("limit=")).count();
    let before = lists();
    cluster.cut();
    cluster.change(SLICES, "default/web-x2k4d", |slice| {
        slice["endpoints"][0]["addresses"] = json!(["10.244.1.2"]);
    });
    pass(Duration::from_secs(5)).await;
    assert!(scratch.toml("kubernetes-service-default.web.toml").contains("10.244.1.2:80"));
    assert_eq!(lists(), before);
    // A watch on which nothing happens doesn't say that it is there again.
    pass(Duration::from_secs(130)).await;
    assert!(adapter.line().contains("files of"), "{}", adapter.line());
}

/// 410 in a stream that began with 200.
#[tokio::test(start_paused = true)]
async fn too_old() {
    let (scratch, cluster, adapter) = populated().await;
    let before = scratch.files();
    cluster.remove(SERVICES, "default/db");
    cluster.change(NODES, "node-b", |node| {
        node["status"]["addresses"][0]["address"] = json!("172.18.0.22");
    });
    // In one go, so that the watches never saw it.
    cluster.forget();
    cluster.cut();
    pass(Duration::from_millis(20)).await;
    let now = scratch.files();
    assert!(now == before || !now.contains_key("kubernetes-service-default.db.toml"));
    pass(Duration::from_secs(20)).await;
    assert!(!scratch.names().contains(&"kubernetes-service-default.db.toml".to_owned()));
    assert!(scratch.toml("kubernetes-peer-node-b.toml").contains("172.18.0.22"));
    assert!(adapter.line().contains("files of"), "{}", adapter.line());
}

/// Bookmarks tell how far a watch is: what was forgotten before one does no harm.
#[tokio::test(start_paused = true)]
async fn bookmarks_save_lists() {
    let (_scratch, cluster, _adapter) = populated().await;
    for path in [NODES, SERVICES, SLICES, PODS, crate::cluster::NAMESPACES] {
        cluster.bookmark(path);
    }
    pass(Duration::from_secs(1)).await;
    let lists = || cluster.asked().iter().filter(|asked| asked.contains("limit=")).count();
    let before = lists();
    cluster.cut();
    pass(Duration::from_secs(5)).await;
    let resumed = |asked: &&String| asked.contains(SERVICES) && asked.contains("watch=");
    let asked = cluster.asked();
    let versions: Vec<_> =
        asked.iter().filter(resumed).map(|asked| asked.rsplit('=').next().unwrap()).collect();
    assert_ne!(versions.first(), versions.last(), "it goes on from the bookmark: {versions:?}");
    assert_eq!(lists(), before);
}

/// A new process knows nothing; the files of the last one stay until it does.
#[tokio::test(start_paused = true)]
async fn a_restart_while_the_server_is_down() {
    let (scratch, cluster, adapter) = populated().await;
    let before = scratch.files();
    drop(adapter);
    settle().await;
    cluster.set_down(true);
    cluster.remove(SERVICES, "default/db");
    let adapter = start(cluster.clone(), &scratch);
    pass(Duration::from_secs(300)).await;
    assert_eq!(scratch.files(), before);
    cluster.set_down(false);
    pass(Duration::from_secs(130)).await;
    assert_eq!(scratch.names().len(), 4);
    assert_eq!(adapter.metric("files_written_total"), 0, "what is right is not written again");
    assert_eq!(adapter.metric("files_removed_total"), 1);
}

/// Part of what a file is made of is not known: that file waits, the others don't.
#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_there_yet() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    cluster.refuse(SLICES, Some((503, "starting")));
    cluster.put(SERVICES, service("web", "10.96.0.9", 80));
    cluster.put(SLICES, slice("web", &["10.244.1.1"], 80));
    let _adapter = start(cluster.clone(), &scratch);
    pass(Duration::from_secs(60)).await;
    assert_eq!(scratch.names(), ["kubernetes-node-node-a.toml", "kubernetes-peer-node-b.toml"]);
    cluster.refuse(SLICES, None);
    pass(Duration::from_secs(130)).await;
    assert!(scratch.toml("kubernetes-service-default.web.toml").contains("10.244.1.1:80"));
}

/// The list breaks off between two pages: what came of it counts for nothing.
#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_off() {
    let (scratch, cluster, _adapter) = populated().await;
    for number in 0..600 {
        let ip = format!("10.96.{}.{}", 1 + number / 250, 1 + number % 250);
        cluster.put(SERVICES, service(&format!("s{number}"), &ip, 80));
    }
    pass(Duration::from_secs(2)).await;
    assert_eq!(scratch.names().len(), 605);
    // The second page is refused again and again.
    cluster.break_after_a_page(SERVICES, true);
    cluster.forget();
    cluster.cut();
    pass(Duration::from_secs(120)).await;
    assert_eq!(scratch.names().len(), 605);
    // One of the first page's is gone when the list comes whole.
    cluster.remove(SERVICES, "default/s1");
    cluster.break_after_a_page(SERVICES, false);
    pass(Duration::from_secs(130)).await;
    assert_eq!(scratch.names().len(), 604);
}
