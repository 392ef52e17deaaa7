//! Much, and all the time.

use std::time::Duration;

use serde_json::json;

use crate::cluster::{Cluster, SERVICES, SLICES, service, slice};
use crate::{Scratch, pass, settle, start};

const SERVICES_MAX: usize = 5000;

fn name(number: usize) -> String {
    format!("s{number}")
}

fn populate(cluster: &Cluster, services: usize) {
    for number in 0..services {
        let (high, low) = (number / 250, number % 250 + 1);
        cluster.put(SERVICES, service(&name(number), &format!("10.96.{high}.{low}"), 80));
        cluster.put(SLICES, slice(&name(number), &[&format!("10.244.1.{low}")], 80));
    }
}

/// Something changes every two milliseconds: a change is in its file within a second all the same, and many
/// changes are one batch.
#[tokio::test(start_paused = true)]
async fn a_change_is_never_kept_waiting() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    populate(&cluster, 50);
    let adapter = start(cluster.clone(), &scratch);
    settle().await;
    let before = adapter.metric("batches_total");
    let noise = cluster.clone();
    let noise = tokio::spawn(async move {
        for round in 0_u32.. {
            let slice = format!("default/s{}-x2k4d", round % 49);
            let address = format!("10.244.1.{}", round % 200 + 1);
            noise.change(SLICES, &slice, |slice| {
                slice["endpoints"][0]["addresses"] = json!([address]);
            });
            pass(Duration::from_millis(2)).await;
        }
    });
    pass(Duration::from_secs(10)).await;
    for port in [8080, 8081, 8082] {
        cluster
            .change(SLICES, "default/s49-x2k4d", |slice| slice["ports"][0]["port"] = json!(port));
        pass(Duration::from_secs(1)).await;
        assert!(
            scratch.toml("kubernetes-service-default.s49.toml").contains(&format!(":{port}\""))
        );
    }
    noise.abort();
    let batches = adapter.metric("batches_total") - before;
    assert!((13..40).contains(&batches), "{batches} batches in 13 seconds of 500 changes each");
}

/// Every service has its file, each change is in one of them, and the others are not touched.
#[tokio::test(start_paused = true)]
async fn five_thousand_services() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    populate(&cluster, SERVICES_MAX);
    let adapter = start(cluster.clone(), &scratch);
    settle().await;
    let pages = cluster
        .asked()
        .iter()
        .filter(|asked| asked.contains(SERVICES) && asked.contains("continue="))
        .count();
    assert_eq!(pages, SERVICES_MAX / 500 - 1);
    let before = scratch.files();
    assert_eq!(before.len(), SERVICES_MAX + 2);
    assert_eq!(adapter.metric("files_written_total"), before.len() as u64);
    cluster.change(SLICES, "default/s4711-x2k4d", |slice| slice["endpoints"] = json!([]));
    cluster.remove(SERVICES, "default/s7");
    settle().await;
    let now = scratch.files();
    let differs = |file: &&String| now.get(*file) != Some(&before[*file]);
    let changed: Vec<_> = before.keys().filter(differs).cloned().collect();
    let expected = ["kubernetes-service-default.s4711.toml", "kubernetes-service-default.s7.toml"];
    assert_eq!(changed, expected);
    assert_eq!(adapter.metric("files_written_total"), before.len() as u64 + 1);
    // All at once, and then the whole history is lost.
    for number in 100..600 {
        let slice = format!("default/{}-x2k4d", name(number));
        cluster.change(SLICES, &slice, |slice| slice["ports"][0]["port"] = json!(81));
    }
    for number in 1000..1100 {
        cluster.remove(SERVICES, &format!("default/{}", name(number)));
    }
    cluster.forget();
    cluster.cut();
    pass(Duration::from_secs(60)).await;
    let now = scratch.files();
    assert_eq!(now.len(), SERVICES_MAX + 2 - 101);
    let moved = now.values().filter(|text| text.contains(":81\"")).count();
    assert_eq!(moved, 500);
}

/// More than ciliate takes: the newest services are left out, with a reason, and the others are served.
#[tokio::test(start_paused = true)]
async fn more_than_there_is_room_for() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    let many: Vec<String> =
        (0..1400).map(|n| format!("10.245.{}.{}", n / 250, n % 250 + 1)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for number in 0..210 {
        let mut service = service(&name(number), &format!("10.96.0.{}", number + 1), 80);
        service["metadata"]["creationTimestamp"] =
            json!(format!("2026-11-21T04:{:02}:{:02}Z", number / 60, number % 60));
        cluster.put(SERVICES, service);
        cluster.put(SLICES, slice(&name(number), &many, 80));
    }
    let _adapter = start(cluster, &scratch);
    settle().await;
    let said = scratch.comments("kubernetes-service-default.s0.toml");
    assert!(said.contains("90 backends of default/s0: a service has at most 1310"), "{said}");
    let served = |text: &&String| text.contains("[[service]]");
    assert_eq!(scratch.files().values().filter(served).count(), 262_144 / 2620);
    let said = scratch.comments("kubernetes-service-default.s209.toml");
    assert!(
        said.contains("default/s209: with it there are too many frontends and backends"),
        "{said}"
    );
}
