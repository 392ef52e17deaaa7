//! Maps that refuse to be written: what could not be done is said, of each entry.

use std::fs;

use ciliate::kernel::bpf_map::{Map, MapShape};

use crate::daemon::Daemon;
use crate::lab::{Lab, V4};
use crate::node::Text;
use crate::space::sh;

const HASH: u32 = 1;

fn hash(max_entries: u32) -> Map {
    let shape = MapShape { map_type: HASH, key_size: 4, value_size: 4, max_entries, flags: 0 };
    Map::create("frozen", shape).expect("make a map")
}

/// What the kernel says of a batch that it did in part, and of one that it refused.
#[test]
fn as_many_are_done_as_the_kernel_says() {
    if !crate::lab::able() {
        return;
    }
    let entries: Vec<[u8; 4]> = (1..=5_u32).map(u32::to_ne_bytes).collect();
    let entries: Vec<(&[u8], &[u8])> = entries.iter().map(|e| (&e[..], &e[..])).collect();
    let keys: Vec<&[u8]> = entries.iter().map(|(key, _)| *key).collect();
    let small = hash(3);
    let (done, error) = small.update(&entries).expect_err("there is room for three");
    assert_eq!((done, error.raw_os_error()), (3, Some(libc::E2BIG)));
    assert_eq!(small.entries().expect("the entries").len(), 3);

    let frozen = hash(8);
    frozen.update(&entries[..2]).expect("write two");
    sh(&format!("bpftool map freeze id {}", frozen.id()));
    let (done, error) = frozen.update(&entries[2..]).expect_err("it is frozen");
    assert_eq!((done, error.raw_os_error()), (0, Some(libc::EPERM)));
    let error = frozen.delete(&keys[..2]).expect_err("it is frozen");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert_eq!(frozen.entries().expect("the entries").len(), 2);
}

#[test]
fn a_frozen_map_is_told_by_apply_and_by_the_daemon() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    lab.a.apply();
    let pin = lab.a.bpf.join("maps/cilium_lxc");
    sh(&format!("bpftool map freeze pinned {}", pin.display()));
    // One goes, and three come.
    let mut text = Text::node_a(&lab).endpoint("client", &client, &["10.244.0.49"]);
    for number in 3..6 {
        let space = lab.space(&format!("client{number}"));
        text = text.endpoint(&space.name, &space, &[&format!("10.244.0.5{number}")]);
    }
    lab.a.write(&text);
    let ran = lab.a.ciliate(&["apply", "-o", "json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let json = ran.json();
    let ops = json["ops"].as_array().expect("ops");
    let of_the_map: Vec<_> =
        ops.iter().filter(|op| op["op"]["key"]["map"] == "cilium_lxc").collect();
    let count = |action: &str| {
        let of = |op: &&&serde_json::Value| op["op"]["action"].get(action).is_some();
        of_the_map.iter().filter(of).count()
    };
    assert!(count("create") >= 3 && count("delete") >= 1, "{of_the_map:#?}");
    for op in &of_the_map {
        let result = &op["result"];
        assert_eq!((&result["outcome"], &result["errno"]), (&"failed".into(), &1.into()), "{op}");
    }
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to say why", |status| {
        status.problems.iter().any(|p| format!("{p:?}").contains("Operation not permitted"))
    });
    let log = fs::read_to_string(&lab.a.log).expect("the log");
    assert!(log.contains("Operation not permitted"), "{log}");
    assert!(!log.contains("something else changes this"), "{log}");
    // Another map in its place takes it all.
    fs::remove_file(&pin).expect("remove the pin");
    daemon.wait("to write it all", |status| status.converged);
    daemon.stop();
    lab.note_bpf();
    drop(client2);
}
