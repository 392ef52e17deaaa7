//! What a real API server said, from beginning to end.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::replay::Replay;
use crate::{Adapter, HERE, Scratch, pass, server, settings};

const CONTROL_PLANE: &str = "cilium-kubeproxy-control-plane";

/// Plays a recording up to a time, and has the files there.
async fn played(name: &str, node: &str, until_ms: u64) -> (Scratch, Arc<Replay>, Adapter) {
    let scratch = Scratch::make();
    let replay = Arc::new(Replay::new(name));
    let client = server::client(replay.clone());
    let adapter = Adapter::start(client, settings(node), &scratch);
    pass(Duration::from_millis(until_ms)).await;
    (scratch, replay, adapter)
}

/// Compares a folder with the one that is kept; `UPDATE_EXPECT=1` replaces that.
fn expect(scratch: &Scratch, name: &str) {
    let kept = std::path::PathBuf::from(format!("{HERE}/expected/{name}"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let _ = fs::remove_dir_all(&kept);
        fs::create_dir_all(&kept).unwrap();
        for (file, text) in scratch.files() {
            fs::write(kept.join(file), text).unwrap();
        }
    }
    let mut expected = std::collections::BTreeMap::new();
    for entry in fs::read_dir(&kept).unwrap().map(Result::unwrap) {
        let text = fs::read_to_string(entry.path()).unwrap();
        expected.insert(entry.file_name().into_string().unwrap(), text);
    }
    let found = scratch.files();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
    for (file, text) in found {
        assert_eq!(text, expected[&file], "{name}/{file}");
    }
}

/// The life of a cluster, at the moments that differ.
#[tokio::test(start_paused = true)]
async fn a_life_of_a_cluster() {
    // Two pods and two services, on both nodes: what the network tests bring to life.
    let (scratch, ..) = played("lifecycle", CONTROL_PLANE, 19_500).await;
    expect(&scratch, "two-nodes/control-plane");
    let (scratch, ..) = played("lifecycle", "cilium-kubeproxy-worker", 19_500).await;
    expect(&scratch, "two-nodes/worker");
    // Services of every type, an endpoint that terminates, one that is not ready.
    let (scratch, ..) = played("lifecycle", CONTROL_PLANE, 60_000).await;
    expect(&scratch, "everything");
    let (scratch, replay, adapter) = played("lifecycle", CONTROL_PLANE, 239_000).await;
    expect(&scratch, "end");
    assert_eq!(replay.left(), 0, "all of the recording was asked for");
    assert!(adapter.line().contains(", 2 nodes, "), "{}", adapter.line());
}

/// Pages of two.
#[tokio::test(start_paused = true)]
async fn lists_in_pages() {
    let (scratch, replay, _adapter) = played("paged", CONTROL_PLANE, 5_000).await;
    expect(&scratch, "paged");
    let pages = replay.asked().iter().filter(|asked| asked.contains("continue=")).count();
    assert!(pages >= 9, "{:#?}", replay.asked());
}

/// The server is killed, refuses connections, answers 503, and forgets versions that it had told.
#[tokio::test(start_paused = true)]
async fn the_server_crashes() {
    let (scratch, ..) = played("apiserver-crash", CONTROL_PLANE, 5_300).await;
    expect(&scratch, "crash/before");
    for at in [5_600, 10_000, 14_000, 21_000] {
        let (scratch, ..) = played("apiserver-crash", CONTROL_PLANE, at).await;
        let written = scratch.files();
        expect_within(&written, &["crash/before", "crash/after"], at);
    }
    let (scratch, replay, adapter) = played("apiserver-crash", CONTROL_PLANE, 120_000).await;
    expect(&scratch, "crash/after");
    assert_eq!(replay.left(), 0);
    assert!(adapter.line().contains("files of"), "{}", adapter.line());
}

/// Each file is one of those of the folders.
fn expect_within(found: &std::collections::BTreeMap<String, String>, folders: &[&str], at: u64) {
    for (file, text) in found {
        let kept =
            |folder: &&str| fs::read_to_string(format!("{HERE}/expected/{folder}/{file}")).ok();
        assert!(
            folders.iter().filter_map(kept).any(|kept| kept == *text),
            "{file} at {at}: {text}"
        );
    }
}

/// Objects are deleted while the node is cut off: no event tells, the list does.
#[tokio::test(start_paused = true)]
async fn deletions_that_no_event_tells() {
    let (scratch, ..) = played("partition-missed-deletes", CONTROL_PLANE, 4_000).await;
    expect(&scratch, "partition/before");
    let (scratch, ..) = played("partition-missed-deletes", CONTROL_PLANE, 17_000).await;
    expect(&scratch, "partition/before");
    let (scratch, replay, _adapter) =
        played("partition-missed-deletes", CONTROL_PLANE, 120_000).await;
    expect(&scratch, "partition/after");
    assert_eq!(replay.left(), 0);
}
