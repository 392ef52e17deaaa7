//! TCP between two network namespaces: request and response, connect and request and response, stream.
//!
//! Blocking sockets of std. The server is a thread, the client whoever calls; both are pinned to one CPU, so
//! that a figure is what all of the path costs and not how fast another CPU wakes up.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{
    CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_getaffinity, sched_setaffinity,
};

const PORT: u16 = 5001;
/// First byte of a connection: what it is for.
const ECHO: u8 = b'e';
const ONCE: u8 = b'o';
const SINK: u8 = b's';
/// Bytes of one write of a stream.
const CHUNK: usize = 128 << 10;
/// How long a new path may take until it carries packets.
const READY: Duration = Duration::from_secs(10);

/// Moves this thread into a namespace.
pub fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).expect("a namespace");
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(file.as_fd(), kind).expect("enter a namespace");
}

/// Keeps this thread on the last CPU that it may use.
pub fn pin() {
    let allowed = sched_getaffinity(None).expect("CPUs");
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).expect("a CPU");
    let mut one = CpuSet::new();
    one.set(last);
    sched_setaffinity(None, &one).expect("pin a thread");
}

/// Starts a server in a namespace, on an address there.
pub fn serve(namespace: &str, address: IpAddr) {
    let (namespace, (ready, wait)) = (namespace.to_string(), mpsc::channel());
    thread::spawn(move || {
        enter(&namespace);
        pin();
        let listener = TcpListener::bind(SocketAddr::new(address, PORT)).expect("listen");
        ready.send(()).expect("somebody waits");
        for stream in listener.incoming() {
            // An echo lasts as long as the bench: it must not keep others waiting.
            let mut stream = stream.expect("a connection");
            stream.set_nodelay(true).expect("no delay");
            let mut mode = [0];
            match stream.read_exact(&mut mode).map(|()| mode[0]) {
                Ok(ECHO) => drop(thread::spawn(move || answer(&mut stream))),
                Ok(ONCE) => drop(stream.write_all(&mode)),
                Ok(_) => drop(take(&mut stream)),
                Err(_) => {}
            }
        }
    });
    wait.recv().expect("a server");
}

fn answer(stream: &mut TcpStream) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
}

/// Says when everything has come.
fn take(stream: &mut TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while stream.read(&mut chunk)? > 0 {}
    stream.write_all(&[0])
}

/// A client, in the namespace it is called in.
pub struct Client {
    server: SocketAddr,
    echo: TcpStream,
}

impl Client {
    pub fn connect(server: IpAddr) -> Self {
        let server = SocketAddr::new(server, PORT);
        let begin = Instant::now();
        let echo = loop {
            match open(server, ECHO) {
                Ok(stream) => break stream,
                Err(error) => assert!(begin.elapsed() < READY, "no way to {server}: {error}"),
            }
            thread::sleep(Duration::from_millis(50));
        };
        Self { server, echo }
    }

    /// The median time of a request and its response, in µs.
    pub fn request(&mut self, count: usize) -> f64 {
        let mut byte = [0];
        median((0..count).map(|_| {
            let begin = Instant::now();
            self.echo.write_all(&byte).expect("a request");
            self.echo.read_exact(&mut byte).expect("a response");
            begin.elapsed().as_secs_f64() * 1e6
        }))
    }

    /// The same with a connection of its own for each.
    pub fn connect_request(&self, count: usize) -> f64 {
        median((0..count).map(|_| {
            let begin = Instant::now();
            let mut stream = open(self.server, ONCE).expect("a connection");
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a response");
            assert_eq!(stream.read(&mut byte).expect("the end"), 0);
            drop(stream);
            begin.elapsed().as_secs_f64() * 1e6
        }))
    }

    /// Bytes in a second, for about `time`.
    pub fn stream(&self, time: Duration) -> f64 {
        let chunk = vec![0; CHUNK];
        let mut stream = open(self.server, SINK).expect("a connection");
        let (begin, mut bytes) = (Instant::now(), 0);
        while begin.elapsed() < time {
            stream.write_all(&chunk).expect("a stream");
            bytes += chunk.len();
        }
        stream.shutdown(std::net::Shutdown::Write).expect("the end");
        stream.read_exact(&mut [0]).expect("an answer");
        bytes as f64 / begin.elapsed().as_secs_f64()
    }
}

/// Opens a connection and says what for.
fn open(server: SocketAddr, mode: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(2))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[mode])?;
    Ok(stream)
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
