//! Programs of sockets: attached while there are services, made good when they are damaged, gone afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use ciliate::kernel::{bpf, pins};
use ciliate::kinds::cgroup_link::Attach;

use crate::lab::{DUAL, Lab};
use crate::node::{Node, Text};

const SERVICE: &str = "[[service]]\nname = \"web\"\ncluster-ips = [\"10.96.0.1:80\"]\n\
                       backends = [\"10.244.1.9:80\"]\n";

fn with_services(lab: &Lab) -> Text {
    let mut text = Text::node_a(lab);
    text.endpoints += SERVICE;
    text
}

/// Ids of the groups that the links are attached to; 0 for one that is gone.
fn groups(node: &Node) -> Vec<u64> {
    let links = pins::list(&node.bpf.join("cgroup")).expect("list the links");
    let group = |name: &String| {
        let link = bpf::obj_get(&pins::cgroup_link(&node.bpf, name)).expect("a link");
        bpf::cgroup_link_info(link).expect("what it is attached to").cgroup_id
    };
    links.iter().map(group).collect()
}

fn id(group: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(group).expect("the group"))
}

fn pin(node: &Node, program: &str) -> PathBuf {
    pins::cgroup_link(&node.bpf, program)
}

#[test]
fn attached_while_there_are_services() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let node = &lab.a;
    node.write(&Text::node_a(&lab));
    node.apply();
    assert!(groups(node).is_empty(), "there is nothing to translate");
    node.write(&with_services(&lab));
    node.apply();
    assert_eq!(groups(node), [id(&node.cgroup); Attach::ALL.len()]);
    node.assert_no_changes();
    node.write(&Text::node_a(&lab));
    node.apply();
    assert!(groups(node).is_empty());
    let mut text = with_services(&lab);
    text.other += "[load-balancing]\nsocket = false\n";
    node.write(&text);
    node.apply();
    assert!(groups(node).is_empty());
}

#[test]
fn links_come_back() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let node = &lab.a;
    node.write(&with_services(&lab));
    node.apply();
    let connect = pin(node, "cil_sock4_connect");
    let damages: [(&str, &dyn Fn()); 5] = [
        ("a pin is gone", &|| fs::remove_file(&connect).expect("remove")),
        ("all are", &|| fs::remove_dir_all(node.bpf.join("cgroup")).expect("remove")),
        ("a link is detached", &|| {
            node.space.sh(&format!("bpftool link detach pinned {}", connect.display()));
        }),
        ("the group is another", &|| {
            fs::remove_dir(&node.cgroup).expect("remove the group");
            fs::create_dir(&node.cgroup).expect("make another");
        }),
        ("a program is gone", &|| {
            let folder = node.bpf.join("programs");
            for digest in pins::list(&folder).expect("list the programs") {
                // Of one build, one has this.
                let _ = fs::remove_file(folder.join(&digest).join("cil_sock6_sendmsg"));
            }
        }),
    ];
    for (what, damage) in damages {
        damage();
        node.apply();
        assert_eq!(groups(node), [id(&node.cgroup); Attach::ALL.len()], "{what}");
        node.assert_no_changes();
    }
}

#[test]
fn node_ports_are_another_program() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let node = &lab.a;
    node.write(&with_services(&lab));
    node.apply();
    let mut text = with_services(&lab);
    text.other += "[load-balancing]\nnode-port-range = [20000, 20100]\n";
    node.write(&text);
    node.apply();
    node.assert_no_changes();
    assert_eq!(groups(node), [id(&node.cgroup); Attach::ALL.len()]);
}

#[test]
fn without_a_group_the_rest_is_done() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let node = &lab.a;
    node.write(&with_services(&lab));
    fs::remove_dir(&node.cgroup).expect("remove the group");
    let ran = node.ciliate(&["apply"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.all().contains("no control group of version 2"), "{ran:?}");
    assert!(groups(node).is_empty());
}
