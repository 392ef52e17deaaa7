//! A recorded cluster of Kubernetes, as packets: what `ciliate-kubernetes` made of two nodes, two pods and two
//! services (`tests/kubernetes/expected/two-nodes`, which its own tests compare with what it writes) is the
//! configuration of two nodes here, beside a file of the operator's.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use crate::daemon::{Daemon, PATIENCE, wait_until};
use crate::lab::{Lab, V4};
use crate::node::Node;
use crate::space::Space;

/// Where pods' namespaces are handed over, as the adapter writes it.
const SANDBOXES: &str = "/run/ciliate/sandboxes";
const CLIENTS: &str = "10.96.94.94:9494";
const SERVERS: &str = "10.96.94.95:9494";

/// The files of a node of the cluster. The namespaces' folder is the lab's, not the machine's.
fn follow(dir: &Path, node: &mut Node, cluster: &str) {
    let folder = dir.join(format!("{}.d", node.name));
    fs::create_dir(&folder).expect("make a folder");
    node.config.clone_from(&folder);
    let _ = fs::create_dir(&node.cgroup);
    let (runtime, bpf, cgroup) =
        (node.runtime.display(), node.bpf.display(), node.cgroup.display());
    let operators = format!(
        "[routing]\nmode = \"native\"\nauto-direct-node-routes = true\nnative-cidrs = [\"10.0.0.0/8\"]\n\
         [health]\nenabled = false\n[paths]\nruntime = \"{runtime}\"\nstate = \"{runtime}-state\"\n\
         bpf = \"{bpf}\"\ncgroup = \"{cgroup}\"\n"
    );
    fs::write(folder.join("10-node.toml"), operators).expect("write");
    let sandboxes = dir.join("sandboxes");
    let _ = fs::create_dir(&sandboxes);
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/expected/two-nodes");
    for entry in fs::read_dir(written.join(cluster)).expect("the adapter's files") {
        let file = entry.expect("an entry").path();
        let text = fs::read_to_string(&file).expect("text");
        let text = text.replace(SANDBOXES, &sandboxes.display().to_string());
        fs::write(folder.join(file.file_name().expect("a name")), text).expect("write");
    }
}

/// What a CNI plugin does: a link to the namespace, named by the pod's uid.
fn hand_over(lab: &Lab, node: &Node, pod: &str) -> Space {
    let space = lab.space(pod);
    let file = node.config.join(format!("kubernetes-endpoint-default.{pod}.toml"));
    let text = fs::read_to_string(file).expect("the pod's file");
    let link = text.lines().find_map(|line| line.strip_prefix("netns = ")).expect("a namespace");
    std::os::unix::fs::symlink(space.path(), link.trim_matches('"')).expect("link");
    space
}

/// Connects by a service; the pod behind it listens at its own address. Returns whom the pod saw.
#[track_caller]
fn by_service(from: &Space, service: &str, pod: &Space, listens: &str) -> IpAddr {
    let (service, listens): (SocketAddr, SocketAddr) =
        (service.parse().expect("an address"), listens.parse().expect("an address"));
    let listener = pod.run(|| TcpListener::bind(listens)).expect("listen");
    let server = thread::spawn(move || {
        let (mut stream, peer) = listener.accept().expect("accept");
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).expect("read");
        stream.write_all(&asked).expect("write");
        peer.ip()
    });
    let stream = from.run(|| TcpStream::connect_timeout(&service, PATIENCE));
    let mut stream = stream.unwrap_or_else(|error| {
        let _ = pod.run(|| TcpStream::connect(listens));
        panic!("from {} to {service}: {error}", from.name)
    });
    assert_eq!(stream.peer_addr().expect("whom we asked"), service);
    stream.write_all(b"ping").expect("write");
    let mut answer = [0; 4];
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    stream.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"ping");
    server.join().expect("the server")
}

#[test]
fn two_pods_reach_each_other_by_their_services() {
    let Some(mut lab) = Lab::new(V4) else { return };
    let dir = lab.dir.clone();
    follow(&dir, &mut lab.a, "control-plane");
    follow(&dir, &mut lab.b, "worker");
    let (client, server) = (hand_over(&lab, &lab.a, "client"), hand_over(&lab, &lab.b, "server"));
    for node in lab.nodes() {
        node.apply();
    }
    lab.note_bpf();
    let (at_client, at_server) = ("10.244.0.49:9494", "10.244.1.124:9494");
    let of = |address: &str| address.parse::<SocketAddr>().expect("an address").ip();
    assert_eq!(by_service(&client, SERVERS, &server, at_server), of(at_client));
    assert_eq!(by_service(&server, CLIENTS, &client, at_client), of(at_server));
    // The daemon follows the files, which are replaced as the adapter does it: the pod ends, and comes back.
    let daemon = Daemon::start(&lab.a);
    let file = lab.a.config.join("kubernetes-service-default.serversvc.toml");
    let text = fs::read_to_string(&file).expect("the service's file");
    let replace = |text: &str| {
        let beside = lab.a.config.join(".kubernetes-service-default.serversvc.toml");
        fs::write(&beside, text).expect("write");
        fs::rename(&beside, &file).expect("rename");
    };
    replace(&text.replace("backends = [\"10.244.1.124:9494\"]", "backends = []"));
    let service: SocketAddr = SERVERS.parse().expect("an address");
    let refused = || {
        let stream = client.run(|| TcpStream::connect_timeout(&service, PATIENCE));
        stream.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    // The pod listens all the same: nobody asks it.
    let listens = server.run(|| TcpListener::bind(at_server)).expect("listen");
    assert!(wait_until(PATIENCE, refused), "a service without backends refuses");
    drop(listens);
    replace(&text);
    daemon.wait("to have followed", |status| status.converged && status.generation > 2);
    assert_eq!(by_service(&client, SERVERS, &server, at_server), of(at_client));
    daemon.stop();
}
