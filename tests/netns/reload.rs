//! Files that change under the daemon: every way editors and tools write them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;

use ciliate::daemon::control;
use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::lab::{Lab, V4};
use crate::node::{Node, Text};
use crate::snapshot::Snapshot;
use crate::space::Space;
use crate::traffic::{answers, ping};

/// Node a with `client` and, at choice, `client2`.
fn text(lab: &Lab, client: &Space, client2: Option<&Space>) -> Text {
    let text = Text::node_a(lab).endpoint("client", client, &["10.244.0.49"]);
    match client2 {
        Some(space) => text.endpoint("client2", space, &["10.244.0.50"]),
        None => text,
    }
}

/// Writes beside and renames over, as editors do.
fn rename_over(path: &Path, text: &str) {
    let beside = path.with_extension("toml~");
    fs::write(&beside, text).expect("write");
    fs::rename(&beside, path).expect("rename");
}

#[test]
fn every_way_of_saving_is_noticed() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    let (one, two) = (text(&lab, &client, None), text(&lab, &client, Some(&client2)));
    let (one, two) = (one.render(&lab.a), two.render(&lab.a));
    let config = &lab.a.config;
    fs::write(config, &one).expect("write");
    let daemon = Daemon::start(&lab.a);
    let expect = |what: &str, generation: u64, reachable: bool| {
        daemon.wait(what, |s| s.converged && s.generation == generation);
        assert_eq!(answers(&client, "10.244.0.50"), reachable, "{what}");
    };
    expect("to start", 1, false);
    fs::write(config, &two).expect("write");
    expect("to see a write in place", 2, true);
    rename_over(config, &one);
    expect("to see a rename", 3, false);
    // As ConfigMaps and others swap symlinks.
    let (first, second) = (lab.dir.join("first.toml"), lab.dir.join("second.toml"));
    fs::write(&first, &two).expect("write");
    fs::write(&second, &one).expect("write");
    for (target, generation, reachable) in [(&first, 4, true), (&second, 5, false)] {
        let link = lab.dir.join("swap.toml");
        symlink(target, &link).expect("make a symlink");
        fs::rename(&link, config).expect("swap the symlink");
        expect("to see a symlink swapped", generation, reachable);
    }
    daemon.signal(Signal::HUP);
    expect("to stay on SIGHUP without a change", 5, false);
    daemon.stop();
    // Nothing is wrong about folders of pins that went with their endpoint.
    let log = fs::read_to_string(&lab.a.log).expect("read the log");
    assert!(!log.contains("watch"), "{log}");
}

/// What is written beside the configuration wakes nobody: else a refusal in a log there would be read as a
/// change, refused and logged again, without end. As a ConfigMap does it, the file is behind two links.
#[test]
fn a_log_beside_the_configuration_is_no_change() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    let folder = lab.dir.join("feed");
    let config = folder.join("n.toml");
    for (name, text) in [
        ("one", text(&lab, &client, None).render(&lab.a)),
        ("two", text(&lab, &client, Some(&client2)).render(&lab.a)),
        ("bad", "x = ".to_string()),
    ] {
        fs::create_dir_all(folder.join(name)).expect("create a folder");
        fs::write(folder.join(name).join("n.toml"), text).expect("write");
    }
    let swap = |name: &str| {
        symlink(name, folder.join("..next")).expect("make a symlink");
        fs::rename(folder.join("..next"), folder.join("..data")).expect("swap the symlink");
    };
    swap("one");
    symlink("..data/n.toml", &config).expect("make a symlink");
    let _ = fs::remove_file(&lab.a.config);
    symlink(&config, &lab.a.config).expect("make a symlink");
    let mut node = Node::new("a", lab.a.space.clone(), &lab.dir);
    node.log = folder.join("log");
    let daemon = Daemon::start_of(&node, &config);
    daemon.wait("to start", |status| status.converged);
    swap("bad");
    let status = daemon.wait("to refuse", |status| status.config_error.is_some());
    // The timer's rounds, or those of a daemon that wakes itself up.
    daemon.wait("to go on", |now| now.rounds > status.rounds + 2);
    let refusals = || {
        let log = fs::read_to_string(&node.log).expect("read the log");
        log.matches("configuration refused").count()
    };
    assert_eq!(refusals(), 1);
    let answer = reload(&node);
    assert!(answer.contains("\"reloaded\":false"), "{answer}");
    assert_eq!(refusals(), 2, "who asks is told");
    swap("two");
    daemon.wait("to see a link swapped", |s| s.converged && s.generation == 2);
    daemon.stop();
}

/// Asks for the configuration to be read, and waits for the answer.
fn reload(node: &Node) -> String {
    let mut stream = UnixStream::connect(control::path(&node.runtime)).expect("connect");
    stream.write_all(b"{\"command\":\"reload\"}\n").expect("ask");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("an answer");
    line
}

/// The folder is moved away for longer than the daemon needs to see that, and another takes its place.
#[test]
fn a_folder_that_comes_back_is_noticed() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    let (folder, away) = (lab.dir.join("etc"), lab.dir.join("away"));
    let config = folder.join("a.toml");
    let (one, two) = (text(&lab, &client, None), text(&lab, &client, Some(&client2)));
    fs::create_dir(&folder).expect("create a folder");
    fs::write(&config, one.render(&lab.a)).expect("write");
    let _ = fs::remove_file(&lab.a.config);
    symlink(&config, &lab.a.config).expect("make a symlink");
    let daemon = Daemon::start_of(&lab.a, &config);
    daemon.wait("to start", |status| status.converged);
    fs::rename(&folder, &away).expect("move the folder away");
    daemon.wait("to miss its file", |status| status.config_error.is_some());
    fs::create_dir(&folder).expect("create a folder");
    fs::write(&config, two.render(&lab.a)).expect("write");
    daemon.wait("to read the new file", |s| s.converged && s.generation == 2);
    assert_eq!(ping(&client, "10.244.0.50"), 63);
    daemon.stop();
}

/// A file that is a link out of the folder is followed to where it leads, however it is written there.
#[test]
fn what_a_link_leads_to_is_watched() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    let (folder, elsewhere) = (lab.dir.join("etc"), lab.dir.join("elsewhere"));
    let (first, last) = (elsewhere.join("first.conf"), elsewhere.join("last.conf"));
    let (one, two) = (text(&lab, &client, None), text(&lab, &client, Some(&client2)));
    let (one, two) = (one.render(&lab.a), two.render(&lab.a));
    for folder in [&folder, &elsewhere] {
        fs::create_dir(folder).expect("create a folder");
    }
    fs::write(&first, &one).expect("write");
    symlink(&first, folder.join("a.toml")).expect("make a symlink");
    let _ = fs::remove_file(&lab.a.config);
    symlink(&first, &lab.a.config).expect("make a symlink");
    let daemon = Daemon::start_of(&lab.a, &folder);
    daemon.wait("to start", |status| status.converged);
    fs::write(&first, &two).expect("write");
    daemon.wait("to see a write in place", |s| s.converged && s.generation == 2);
    rename_over(&first, &one);
    daemon.wait("to see a rename", |s| s.converged && s.generation == 3);
    // The link now leads elsewhere, to a link that is followed as well.
    fs::write(&last, &two).expect("write");
    symlink("last.conf", elsewhere.join("way")).expect("make a symlink");
    symlink(elsewhere.join("way"), folder.join("next")).expect("make a symlink");
    fs::rename(folder.join("next"), folder.join("a.toml")).expect("swap the symlink");
    daemon.wait("to see the link swapped", |s| s.converged && s.generation == 4);
    assert_eq!(ping(&client, "10.244.0.50"), 63);
    fs::write(&last, &one).expect("write");
    daemon.wait("to see a write behind two links", |s| s.converged && s.generation == 5);
    // Files that come are noticed in the folder itself as before.
    fs::write(folder.join("b.toml"), "[routing]\nmtu = 1400\n").expect("write");
    daemon.wait("to see a new file", |s| s.converged && s.generation == 6);
    daemon.stop();
}

/// SIGHUP reads what no notification tells of: here a write by another name of the same file.
#[test]
fn sighup_reads_again() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, client2, _) = lab.walk_through();
    let elsewhere = lab.dir.join("elsewhere");
    fs::create_dir(&elsewhere).expect("create a folder");
    let target = elsewhere.join("target.toml");
    fs::write(&target, text(&lab, &client, None).render(&lab.a)).expect("write");
    let _ = fs::remove_file(&lab.a.config);
    fs::hard_link(&target, &lab.a.config).expect("make a hard link");
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to start", |status| status.converged);
    fs::write(&target, text(&lab, &client, Some(&client2)).render(&lab.a)).expect("write");
    daemon.signal(Signal::HUP);
    daemon.wait("to read on SIGHUP", |s| s.converged && s.generation == 2);
    assert_eq!(ping(&client, "10.244.0.50"), 63);
    daemon.stop();
}

#[test]
fn a_bad_file_leaves_the_last_good_state_in_force() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    let good = fs::read_to_string(&lab.a.config).expect("read the configuration");
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to start", |status| status.converged);
    let golden = lab.a.view().observed;
    rename_over(&lab.a.config, &good.replace("10.244.0.49", "10.99.0.49"));
    let status = daemon.wait("to refuse", |status| status.config_error.is_some());
    let error = status.config_error.expect("an error");
    assert!(error.contains("10.99.0.49") && error.contains("^"), "{error}");
    assert_eq!(status.generation, 1);
    assert_eq!(ping(&client, "10.244.0.50"), 63);
    // Repair goes on by the last good configuration.
    lab.a.space.sh("ip route del 10.244.1.0/24");
    let repaired = crate::daemon::wait_until(crate::daemon::PATIENCE, || {
        !lab.a.space.sh("ip route show 10.244.1.0/24").is_empty()
    });
    assert!(repaired, "no repair with a bad file on disk");
    rename_over(&lab.a.config, &good);
    daemon.wait("to accept", |status| status.config_error.is_none() && status.converged);
    daemon.wait_repaired(&golden, "the good file again");
    daemon.stop();
}

#[test]
fn sigterm_leaves_the_kernel_as_it_is() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to start", |status| status.converged);
    let (kernel, observed) = (Snapshot::of(&lab.a.space), lab.a.view().observed);
    let pins = crate::snapshot::tree(&lab.a.bpf);
    daemon.stop();
    kernel.assert_same(&Snapshot::of(&lab.a.space), "after SIGTERM");
    crate::node::assert_equal(&observed, &lab.a.view().observed, "before", "after");
    assert_eq!(pins, crate::snapshot::tree(&lab.a.bpf));
    assert_eq!(ping(&client, "10.244.0.50"), 63);
    assert_status_without_daemon(&lab.a);
}

fn assert_status_without_daemon(node: &Node) {
    let ran = node.ciliate(&["status", "-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!((&ran.json()["daemon"], &ran.json()["converged"]), (&false.into(), &true.into()));
}

/// A daemon runs on, whatever is on disk, and `status` says so: the file may not even be TOML.
#[test]
fn status_is_the_daemons_whatever_is_on_disk() {
    let Some(lab) = Lab::new(V4) else { return };
    lab.walk_through();
    let good = fs::read_to_string(&lab.a.config).expect("read the configuration");
    let status = || lab.a.ciliate(&["status", "-o", "json"]);
    let daemon = Daemon::start(&lab.a);
    daemon.wait("to start", |status| status.converged);
    for wrong in ["surplus = 1\n", "x = \n", "[[endpoint\n", "[paths\n"] {
        rename_over(&lab.a.config, &format!("{wrong}{good}"));
        let ran = status();
        let json = ran.json();
        let error = &json["config_error"];
        assert!(error.as_str().is_some_and(|text| text.contains(":1:")), "{wrong}: {ran:?}");
        assert_eq!(
            (&json["daemon_state"], &json["pid"]),
            (&"running".into(), &daemon.pid().into())
        );
        assert_eq!((&json["converged"], ran.code), (&true.into(), 0), "{wrong}");
        daemon.wait("to refuse", |status| status.config_error.is_some());
        assert_eq!(status().json()["config_error"].as_str(), error.as_str(), "{wrong}");
        rename_over(&lab.a.config, &good);
        daemon.wait("to accept", |status| status.config_error.is_none() && status.converged);
    }
    daemon.stop();
    rename_over(&lab.a.config, "x = \n");
    let ran = status();
    assert!(ran.code == 1 && ran.stdout.is_empty() && ran.stderr.contains(":1:"), "{ran:?}");
    rename_over(&lab.a.config, &good);
}
