//! The files themselves: whole whenever somebody looks, ours and nobody else's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use ciliate_kubernetes::folder::{Done, Folder, FolderError};
use ciliate_kubernetes::page::{MARK, Wanted, file, group, short};
use serde_json::json;

use crate::cluster::{Cluster, NODES, SERVICES, service};
use crate::{Scratch, pass, settle, start};

fn name(name: &str) -> String {
    file("service", &format!("default/{name}"))
}

fn wanted(names: &[&str], groups: &[&'static str]) -> Wanted {
    let files = names.iter().map(|of| (name(of), Some(format!("{MARK}# {of}\n"))));
    Wanted { files: files.collect(), groups: groups.iter().copied().collect(), afresh: true }
}

#[test]
fn only_what_differs_is_written() {
    let scratch = Scratch::make();
    let mut folder = Folder::open(scratch.path()).unwrap();
    let groups = ["service"];
    assert_eq!(folder.sync(wanted(&["a", "b"], &groups)).0, Done { written: 2, removed: 0 });
    let inode = |name| fs::metadata(scratch.path().join(self::name(name))).unwrap().ino();
    let (a, b) = (inode("a"), inode("b"));
    assert_eq!(folder.sync(wanted(&["a", "b"], &groups)).0, Done::default());
    let mut changed = wanted(&["a", "b"], &groups);
    changed.files.values_mut().flatten().last().unwrap().push_str("# changed\n");
    assert_eq!(folder.sync(changed).0, Done { written: 1, removed: 0 });
    assert_eq!((inode("a"), inode("b") == b), (a, false), "replaced, not written into");
    assert_eq!(folder.sync(wanted(&["a"], &groups)).0, Done { written: 0, removed: 1 });
    // Of what nothing is known nothing is removed.
    assert_eq!(folder.sync(wanted(&[], &["node", "endpoint"])).0, Done::default());
    assert_eq!(scratch.names().len(), 1);
}

/// What a crash leaves: a half-written file, and files of which the new process knows nothing.
#[test]
fn after_a_crash() {
    let scratch = Scratch::make();
    let groups = ["service"];
    Folder::open(scratch.path()).unwrap().sync(wanted(&["a", "b", "c"], &groups));
    fs::write(scratch.path().join(".kubernetes-service-default.b.toml"), "[[serv").unwrap();
    let mut folder = Folder::open(scratch.path()).unwrap();
    assert_eq!(scratch.names().len(), 3, "the half-written one is gone");
    assert_eq!(folder.sync(wanted(&["a", "b"], &groups)).0, Done { written: 0, removed: 1 });
}

/// As a service beside a DaemonSet: one would rename what the other is still writing.
#[test]
fn two_do_not_write_into_one_folder() {
    let scratch = Scratch::make();
    let first = Folder::open(scratch.path()).unwrap();
    fs::write(scratch.path().join(".kubernetes-service-default.b.toml"), "[[serv").unwrap();
    let second = Folder::open(scratch.path());
    assert!(matches!(second, Err(FolderError::Taken(_))), "{second:?}");
    assert_eq!(scratch.names().len(), 1, "what the first is writing is left to it");
    drop(first);
    Folder::open(scratch.path()).unwrap();
    assert_eq!(scratch.names().len(), 0);
}

#[test]
fn files_of_others_stay() {
    let scratch = Scratch::make();
    for (name, text) in [
        ("10-mine.toml", "[node]\n"),
        ("kubernetes-service-default.a.toml", "[[service]]\n"),
        ("kubernetes-service-default.z.toml", "# By hand.\n"),
        (".other", "x"),
    ] {
        fs::write(scratch.path().join(name), text).unwrap();
    }
    let before = scratch.files();
    let mut folder = Folder::open(scratch.path()).unwrap();
    let (done, errors) = folder.sync(wanted(&["a", "b"], &["service"]));
    assert_eq!(done, Done { written: 1, removed: 0 });
    assert!(matches!(errors.as_slice(), [FolderError::Foreign(_)]), "{errors:?}");
    let mut now = scratch.files();
    now.remove("kubernetes-service-default.b.toml").unwrap();
    assert_eq!(now, before);
}

/// A folder that can't be written to, and then can.
#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    // Root writes everywhere; nobody renames a file over a folder.
    let blocked = scratch.path().join("kubernetes-peer-node-b.toml");
    fs::create_dir(&blocked).unwrap();
    let adapter = start(cluster.clone(), &scratch);
    settle().await;
    assert!(adapter.line().contains("node-b.toml is in the way"), "{}", adapter.line());
    // Something else goes well, which does not make this well.
    cluster.put(SERVICES, service("web", "10.96.0.9", 80));
    settle().await;
    assert!(scratch.toml("kubernetes-service-default.web.toml").contains("[[service]]"));
    assert!(adapter.line().contains("node-b.toml is in the way"), "{}", adapter.line());
    assert!(!adapter.status.borrow().is_ready());
    fs::remove_dir(&blocked).unwrap();
    pass(Duration::from_secs(21)).await;
    assert!(scratch.toml("kubernetes-peer-node-b.toml").contains("[[peer]]"));
    assert!(adapter.status.borrow().is_ready());
}

/// Somebody changes and removes files.
#[tokio::test(start_paused = true)]
async fn files_come_back() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    cluster.put(SERVICES, service("web", "10.96.0.9", 80));
    let _adapter = start(cluster, &scratch);
    settle().await;
    let before = scratch.files();
    fs::remove_file(scratch.path().join("kubernetes-peer-node-b.toml")).unwrap();
    let web = scratch.path().join("kubernetes-service-default.web.toml");
    fs::write(&web, before["kubernetes-service-default.web.toml"].replace("10.96", "10.97"))
        .unwrap();
    pass(Duration::from_secs(21)).await;
    assert_eq!(scratch.files(), before);
}

#[test]
fn long_names_stay_apart() {
    let (one, other) = ("a".repeat(253), format!("{}b", "a".repeat(252)));
    assert_eq!(short("node-a"), "node-a");
    assert_eq!(short(&one).len(), 63);
    assert_ne!(short(&one), short(&other));
    let of = |name: &str| file("endpoint", &format!("{}/{name}", "n".repeat(63)));
    assert!(of(&one).len() <= 240 && of(&one).ends_with(".toml"), "{}", of(&one));
    assert_ne!(of(&one), of(&other));
    assert_eq!(
        ["kubernetes-endpoint-a.toml", "kubernetes-node-b.toml", "10-a.toml"].map(group),
        ["endpoint", "node", ""]
    );
}

/// Nodes that say what can't be: they are left out, and nothing else is.
#[tokio::test(start_paused = true)]
async fn nodes_that_claim_what_others_have() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    for (name, address, cidr) in [
        ("node-c", "172.18.0.2", "10.244.2.0/24"),
        ("node-d", "127.0.0.1", "10.244.3.0/24"),
        ("node-e", "172.18.0.5", "10.244.0.0/16"),
        ("node-f", "172.18.0.6", "172.18.0.0/16"),
        ("node-g", "10.244.1.9", "10.244.6.0/24"),
        ("node-h", "172.18.0.8", "169.254.0.0/16"),
        ("node-i", "172.18.0.9", "169.254.7.7/32"),
        ("node-j", "fd00:18::a", "10.244.9.0/24"),
    ] {
        let mut node = crate::cluster::node(name, address, cidr);
        node["metadata"]["creationTimestamp"] = json!("2026-11-22T04:04:13Z");
        cluster.put(NODES, node);
    }
    let _adapter = start(cluster, &scratch);
    settle().await;
    for (name, why) in [
        ("c", "172.18.0.2/32 overlaps 172.18.0.2/32 of node node-b"),
        ("d", "127.0.0.1 can't be reached by others"),
        ("e", "10.244.0.0/16 overlaps 10.244.0.0/24 of node node-a"),
        ("f", "172.18.0.0/16 overlaps 172.18.0.2/32 of node node-b"),
        ("g", "10.244.1.9/32 overlaps 10.244.1.0/24 of node node-b"),
        ("h", "169.254.0.0/16 is no network of endpoints"),
        ("i", "169.254.7.7/32 is no network of endpoints"),
        ("j", "fd00:18::a: no tunnel leads to its family"),
    ] {
        let file = format!("kubernetes-peer-node-{name}.toml");
        assert!(scratch.comments(&file).contains(why), "{}", scratch.comments(&file));
        assert_eq!(scratch.toml(&file).trim(), "");
    }
    assert!(scratch.toml("kubernetes-peer-node-b.toml").contains("[[peer]]"));
}
