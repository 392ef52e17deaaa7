//! Which backend a client outside gets.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::talk::{PATIENCE, connect, listen};
use super::{ENDS, Ends, NODE_PORT, PORT, Place, WIDE, at, service};
use crate::space::Space;

/// A server that tells each client its address, until it is dropped.
struct Server {
    at: SocketAddr,
    space: Space,
    done: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(space: &Space, at: SocketAddr) -> Self {
        let listener: TcpListener = listen(space, at);
        let done = Arc::new(AtomicBool::new(false));
        let seen = done.clone();
        let serve = move || {
            for stream in listener.incoming() {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                use std::io::Write;
                let _ = stream.expect("a client").write_all(at.to_string().as_bytes());
            }
        };
        Self { at, space: space.clone(), done, thread: Some(thread::spawn(serve)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        let _ = connect(&self.space, self.at, PATIENCE);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Who answers.
#[track_caller]
fn asked(from: &Space, frontend: SocketAddr) -> IpAddr {
    let mut stream = connect(from, frontend, PATIENCE)
        .unwrap_or_else(|error| panic!("{} to {frontend}: {error}", from.name));
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    text.parse::<SocketAddr>().expect("an address").ip()
}

/// How often each answers.
fn answers(from: &Space, frontend: SocketAddr, count: usize) -> BTreeMap<IpAddr, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        *answers.entry(asked(from, frontend)).or_insert(0) += 1;
    }
    answers
}

/// One backend on the node, one on the other, of a family.
fn servers(place: &Place, ends: &Ends) -> [Server; 2] {
    [
        Server::start(&place.here, at(ends.here, PORT)),
        Server::start(&place.there, at(ends.there, PORT)),
    ]
}

fn backends() -> Vec<SocketAddr> {
    ENDS.iter().flat_map(|ends| [at(ends.here, PORT), at(ends.there, PORT)]).collect()
}

const ALL: usize = 60;

#[test]
fn policies_and_affinity() {
    let Some(place) = Place::new(false) else { return };
    for (more, fewest, most) in [
        ("", 2, 2),
        ("external-traffic-policy = \"local\"", 1, 1),
        ("internal-traffic-policy = \"local\"", 2, 2),
        ("session-affinity = \"1h\"", 1, 1),
    ] {
        place.serve("", &service(&backends(), more));
        for ends in &ENDS {
            let _servers = servers(&place, ends);
            let seen = answers(&place.lab.outside, at(ends.external, WIDE), ALL);
            assert!((fewest..=most).contains(&seen.len()), "{more:?}: {seen:?}");
            if more.starts_with("external") {
                assert_eq!(seen.keys().next(), Some(&super::ip(ends.here)));
            }
        }
    }
}

/// By Maglev a flow goes to one backend whichever node is asked; and by weights.
#[test]
fn maglev() {
    let Some(place) = Place::new(false) else { return };
    for size in ["", "maglev-table-size = 251"] {
        let balancing = format!("algorithm = \"maglev\"\n{size}");
        let affine = service(&backends(), "session-affinity = \"1h\"");
        place.serve(&balancing, &affine);
        for ends in &ENDS {
            let _servers = servers(&place, ends);
            // With affinity the client's port is no part of what is hashed.
            let frontend = at(ends.node, NODE_PORT);
            assert_eq!(answers(&place.lab.outside, frontend, 10).len(), 1);
        }
        place.serve(&balancing, &service(&backends(), ""));
        for ends in &ENDS {
            let _servers = servers(&place, ends);
            let seen = answers(&place.lab.outside, at(ends.external, WIDE), ALL);
            assert_eq!(seen.len(), 2, "both are in the table: {seen:?}");
        }
    }
}
