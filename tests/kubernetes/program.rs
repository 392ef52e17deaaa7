//! The program itself, by TCP: started, asked, told to end, started wrongly.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, PODS, SERVICES, SLICES, pod, service, slice};
use crate::{Scratch, server};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ciliate-kubernetes");

pub fn kubeconfig(scratch: &Scratch, server: SocketAddr, user: &str) -> std::path::PathBuf {
    let path = scratch.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: \"http://{server}\"}}}}]\nusers: [{{name: u, user: {user}}}]\n"
    );
    fs::write(&path, text).unwrap();
    path
}

/// Ends with the test.
pub struct Program(pub Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so; the test is over if that never happens.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

pub fn populated() -> Cluster {
    let cluster = Cluster::new();
    cluster.put(SERVICES, service("web", "10.96.0.9", 80));
    cluster.put(SLICES, slice("web", &["10.244.1.1"], 80));
    cluster.put(PODS, pod("client", "10.244.0.49"));
    cluster
}

/// From start to end, with a service manager that listens and somebody who asks for metrics.
#[tokio::test]
async fn a_life() {
    let (scratch, files) = (Scratch::make(), Scratch::make());
    let cluster = populated();
    let api = server::listen(Arc::new(cluster.clone())).await;
    let manager = UnixDatagram::bind(scratch.path().join("notify")).unwrap();
    manager.set_nonblocking(true).unwrap();
    let metrics = free_port();
    let config = kubeconfig(&scratch, api, "{token: abc}");
    let mut program = Command::new(PROGRAM);
    program.args(["--node", "node-a", "--metrics", &metrics.to_string()]);
    program.arg("--kubeconfig").arg(config).arg("--directory").arg(files.path());
    program.env("NOTIFY_SOCKET", scratch.path().join("notify")).stderr(Stdio::null());
    let mut program = Program(program.spawn().unwrap());
    let mut told = String::new();
    let mut listen = || {
        let mut buffer = [0; 4096];
        while let Ok(length) = manager.recv(&mut buffer) {
            told += &String::from_utf8_lossy(&buffer[..length]);
            told.push('\n');
        }
        told.clone()
    };
    until("ready", || listen().contains("READY=1")).await;
    let line = "STATUS=4 files of 1 endpointslices, 1 namespaces, 2 nodes, 1 pods, 1 services";
    until("the first files", || listen().contains(line)).await;
    assert_eq!(files.names().len(), 4);
    let (ready, text) = (get(metrics, "/ready").unwrap(), get(metrics, "/metrics").unwrap());
    assert!(ready.starts_with("HTTP/1.1 200 OK\r\n"), "{ready}");
    for sample in [
        "objects{kind=\"nodes\"} 2",
        "complete{kind=\"pods\"} 1",
        "files 4",
        "watch_failing{kind=\"services\"} 0",
    ] {
        assert!(text.contains(&format!("ciliate_kubernetes_{sample}\n")), "{sample}: {text}");
    }
    cluster.put(SERVICES, service("db", "10.96.0.10", 80));
    until("a change", || files.names().len() == 5).await;
    cluster.set_down(true);
    until("a failure is told", || listen().contains("the last good files stay")).await;
    assert!(get(metrics, "/metrics").unwrap().contains("watch_failing{kind=\"services\"} 1\n"));
    let before = files.files();
    let pid = program.0.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    assert!(program.0.wait().unwrap().success());
    assert!(listen().contains("STOPPING=1"));
    assert_eq!(files.files(), before, "they stay when it ends");
}

/// A server that is asked too much says so, and is heard: the state is told at once, and the rest goes on. The user's
/// name for the server comes from a program that the kubeconfig names.
#[tokio::test]
async fn asked_too_much() {
    let (scratch, files) = (Scratch::make(), Scratch::make());
    let cluster = populated();
    cluster.refuse(PODS, Some((429, "Too many requests, please try again later.")));
    let api = server::listen(Arc::new(cluster.clone())).await;
    let (plugin, ran) = (scratch.path().join("plugin"), scratch.path().join("ran"));
    let credential = r#"{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {"token": "abc"}}"#;
    let script = format!("#!/bin/sh\ntouch {}\necho '{credential}'\n", ran.display());
    fs::write(&plugin, script).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    let user = format!(
        "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: \"{}\", interactiveMode: Never}}}}",
        plugin.display()
    );
    let config = kubeconfig(&scratch, api, &user);
    let metrics = free_port();
    let mut program = Command::new(PROGRAM);
    program.args(["--node", "node-a", "--metrics", &metrics.to_string(), "--kubeconfig"]);
    program.arg(config).arg("--directory").arg(files.path()).stderr(Stdio::null());
    let _program = Program(program.spawn().unwrap());
    let says = |path: &str, what: &str| get(metrics, path).is_some_and(|text| text.contains(what));
    until("it is told", || says("/ready", "can't watch pods, the last good files stay")).await;
    assert!(get(metrics, "/ready").unwrap().starts_with("HTTP/1.1 503 "));
    until("the services", || files.names().len() == 3).await;
    assert!(ran.exists());
    cluster.refuse(PODS, None);
    until("the pod", || files.names().len() == 4).await;
    until("ready", || says("/ready", "200 OK")).await;
}

/// SIGKILL at any time: whoever reads finds whole files, and the next one finishes the work.
#[tokio::test]
async fn killed_while_writing() {
    let (scratch, files) = (Scratch::make(), Scratch::make());
    let cluster = populated();
    for number in 0..400 {
        let ip = format!("10.96.{}.{}", 1 + number / 250, 1 + number % 250);
        cluster.put(SERVICES, service(&format!("s{number}"), &ip, 80));
    }
    let api = server::listen(Arc::new(cluster.clone())).await;
    let config = kubeconfig(&scratch, api, "{token: abc}");
    let start = || {
        let mut program = Command::new(PROGRAM);
        program
            .args(["--node", "node-a", "--kubeconfig"])
            .arg(&config)
            .arg("--directory")
            .arg(files.path());
        Program(program.stderr(Stdio::null()).spawn().unwrap())
    };
    for count in [1, 50, 150, 300] {
        let program = start();
        until("some files", || fs::read_dir(files.path()).unwrap().count() >= count).await;
        drop(program);
        for (name, text) in files.files() {
            if name.starts_with("kubernetes-") {
                toml::from_str::<toml::Table>(&text)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(text.contains("name = "), "{name} is whole: {text}");
            }
        }
    }
    let _program = start();
    let ours = |name: &String| name.starts_with("kubernetes-");
    until("all files", || files.names().len() == 404 && files.names().iter().all(ours)).await;
}

fn refused(arguments: &[&str], file: Option<&Path>) -> String {
    let mut program = Command::new(PROGRAM);
    program.args(arguments).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    let output = program
        .args(file.map(|file| ["--kubeconfig".as_ref(), file.as_os_str()]).into_iter().flatten());
    let output = output.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).to_string()
}

#[test]
fn what_it_cannot_start_with() {
    let (scratch, files) = (Scratch::make(), Scratch::make());
    let directory = files.path().to_str().unwrap();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let said = refused(&["--directory", directory], None);
    assert!(said.contains("can't find a cluster") && said.contains("--kubeconfig"), "{said}");
    let said = refused(&["--directory", directory], Some(Path::new("/nonexistent/config")));
    assert!(said.contains("can't read the kubeconfig /nonexistent/config"), "{said}");
    // A header can't have a line break in it: without this every request would fail.
    let token = scratch.path().join("token");
    fs::write(&token, "abc\n").unwrap();
    let config = kubeconfig(&scratch, nowhere, &format!("{{tokenFile: \"{}\"}}", token.display()));
    let said = refused(&["--directory", directory], Some(&config));
    assert!(said.contains("it ends in a line break or blank"), "{said}");
    let config = kubeconfig(&scratch, nowhere, "{token: abc}");
    let said = refused(&["--directory", config.to_str().unwrap()], Some(&config));
    assert!(said.contains("can't make"), "{said}");
    let said = refused(&["--directory", directory, "--node-ports", "2-1"], Some(&config));
    assert!(said.contains("write it like 30000-32767"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _listener = std::net::TcpListener::bind(taken).unwrap();
    let said = refused(&["--directory", directory, "--metrics", &taken.to_string()], Some(&config));
    assert!(said.contains("can't answer at"), "{said}");
}
