//! Servers behind a service that die and come back, and clients that talk to them.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::daemon::PATIENCE;
use crate::space::Space;

/// A server of TCP. It says its name to who asks for it, answers HTTP, and sends everything else back.
pub struct Server {
    space: Space,
    address: SocketAddr,
    name: &'static str,
    /// What HTTP is answered.
    pub status: Arc<AtomicU16>,
    dead: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts it.
    pub fn start(space: &Space, address: &str, name: &'static str) -> Self {
        let address = address.parse().expect("an address");
        let mut server = Self {
            space: space.clone(),
            address,
            name,
            status: Arc::new(AtomicU16::new(200)),
            dead: Arc::default(),
            accepting: None,
        };
        server.revive();
        server
    }

    /// Nobody listens any more. Connections that there are stay.
    pub fn die(&mut self) {
        self.dead.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("the server");
        }
    }

    /// Listens again.
    pub fn revive(&mut self) {
        let (dead, status) = (Arc::new(AtomicBool::new(false)), self.status.clone());
        self.dead = dead.clone();
        let (address, name) = (self.address, self.name);
        let listener = self.space.run(|| TcpListener::bind(address)).expect("listen");
        listener.set_nonblocking(true).expect("make it not wait");
        let accept = move || {
            while !dead.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let status = status.clone();
                        thread::spawn(move || serve(stream, name, &status));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        };
        self.accepting = Some(thread::spawn(accept));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.die();
    }
}

/// Until the client has had enough. One that goes away at once was a health check.
fn serve(mut stream: TcpStream, name: &str, status: &AtomicU16) {
    stream.set_nonblocking(false).expect("make it wait");
    let mut buffer = vec![0; 65_536];
    while let Ok(size) = stream.read(&mut buffer) {
        let answer = match &buffer[..size] {
            [] => return,
            b"name" => name.as_bytes().to_vec(),
            asked if asked.starts_with(b"GET ") => {
                let status = status.load(Ordering::Relaxed);
                let head = format!("HTTP/1.1 {status} As Told\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
                return;
            }
            other => other.to_vec(),
        };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// Connects and asks for the server's name.
pub fn ask(from: &Space, service: &str) -> Result<(TcpStream, String), ErrorKind> {
    let service: SocketAddr = service.parse().expect("an address");
    let patience = Duration::from_secs(5);
    let connect = || TcpStream::connect_timeout(&service, patience);
    let mut stream = from.run(connect).map_err(|error| error.kind())?;
    stream.set_read_timeout(Some(patience)).expect("set a timeout");
    stream.write_all(b"name").map_err(|error| error.kind())?;
    let mut buffer = [0; 64];
    let size = stream.read(&mut buffer).map_err(|error| error.kind())?;
    Ok((stream, String::from_utf8_lossy(&buffer[..size]).into_owned()))
}

/// How often each server answers so many connections. All have to be answered.
#[track_caller]
pub fn tally(from: &Space, service: &str, count: usize) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for number in 0..count {
        let (_, name) = ask(from, service)
            .unwrap_or_else(|error| panic!("connection {number} to {service}: {error:?}"));
        *tally.entry(name).or_default() += 1;
    }
    tally
}

/// Data that goes to a server and back, for as long as nobody ends it.
pub struct Transfer {
    done: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    thread: JoinHandle<Result<(), String>>,
}

impl Transfer {
    /// Begins one with the server of a name.
    #[track_caller]
    pub fn start(from: &Space, service: &str, name: &str) -> Self {
        let begin = Instant::now();
        let stream = loop {
            match ask(from, service) {
                Ok((stream, found)) if found == name => break stream,
                Ok(_) => assert!(begin.elapsed() < PATIENCE, "{name} never answers at {service}"),
                Err(error) => panic!("{service}: {error:?}"),
            }
        };
        let (done, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let what = format!("transfer to {name} of {service}");
        let run = {
            let (done, bytes) = (done.clone(), bytes.clone());
            move || exchange(stream, &done, &bytes).map_err(|error| format!("{what}: {error}"))
        };
        Self { done, bytes, thread: thread::spawn(run) }
    }

    /// Waits until more has arrived.
    #[track_caller]
    pub fn goes_on(&self, when: &str) {
        let (begin, before) = (Instant::now(), self.bytes.load(Ordering::Relaxed));
        while self.bytes.load(Ordering::Relaxed) < before + 100_000 {
            assert!(!self.thread.is_finished(), "a transfer broke off {when}");
            assert!(begin.elapsed() < PATIENCE, "a transfer stands still {when}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it. Everything has to have come back as it was sent.
    #[track_caller]
    pub fn finish(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        if let Err(error) = self.thread.join().expect("the transfer") {
            panic!("{error}");
        }
        self.bytes.load(Ordering::Relaxed)
    }
}

fn exchange(mut stream: TcpStream, done: &AtomicBool, bytes: &AtomicU64) -> Result<(), String> {
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    let mut seed = 1u32;
    let (mut sent, mut back) = (vec![0u8; 20_000], vec![0u8; 20_000]);
    while !done.load(Ordering::Relaxed) {
        for byte in &mut sent {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (seed >> 24) as u8;
        }
        stream.write_all(&sent).map_err(|error| format!("send: {error}"))?;
        stream.read_exact(&mut back).map_err(|error| format!("receive: {error}"))?;
        if sent != back {
            return Err("other data came back".to_owned());
        }
        bytes.fetch_add(sent.len() as u64, Ordering::Relaxed);
        // The machine has other things to do.
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
