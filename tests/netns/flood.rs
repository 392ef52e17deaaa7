//! A stream of numbered datagrams that are echoed: what doesn't come back is lost.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::space::Space;

/// Time between two datagrams: 2000 a second.
const INTERVAL: Duration = Duration::from_micros(500);
/// The same for processors that are emulated, and encrypt: 100 a second.
const INTERVAL_SLOW: Duration = Duration::from_millis(10);
/// Room for what arrives while a thread waits for a CPU.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// How long the last answers may take.
const TAIL: Duration = Duration::from_secs(2);

/// A flood that runs.
pub struct Flood {
    name: String,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    sender: JoinHandle<()>,
    echo: JoinHandle<()>,
    receiver: JoinHandle<Vec<bool>>,
}

fn socket(space: &Space, at: SocketAddr) -> UdpSocket {
    let socket = space.run(|| UdpSocket::bind(at)).expect("bind");
    sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).expect("a larger buffer");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("set a timeout");
    socket
}

impl Flood {
    /// Starts one from an address in a namespace to one in another.
    pub fn start(from: (&Space, &str), to: (&Space, &str)) -> Self {
        Self::at_pace(from, to, INTERVAL)
    }

    /// The same, slowly.
    pub fn slow(from: (&Space, &str), to: (&Space, &str)) -> Self {
        Self::at_pace(from, to, INTERVAL_SLOW)
    }

    fn at_pace(from: (&Space, &str), to: (&Space, &str), interval: Duration) -> Self {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let client = socket(from.0, (ip(from.1), 0).into());
        let server = socket(to.0, (ip(to.1), 0).into());
        let to = server.local_addr().expect("an address");
        Self::between(client, to, server, interval)
    }

    /// The same to a service, which sends it to the server at that address.
    pub fn through(
        from: (&Space, IpAddr),
        frontend: SocketAddr,
        (to, at): (&Space, SocketAddr),
    ) -> Self {
        Self::between(socket(from.0, (from.1, 0).into()), frontend, socket(to, at), INTERVAL)
    }

    fn between(client: UdpSocket, to: SocketAddr, server: UdpSocket, interval: Duration) -> Self {
        let name = format!("{:?} -> {to}", client.local_addr());
        client.connect(to).expect("connect");
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let echo = thread::spawn({
            let stop = stop.clone();
            move || echo(&server, &stop)
        });
        let receiver = thread::spawn({
            let (socket, stop) = (client.try_clone().expect("clone"), stop.clone());
            let sent = sent.clone();
            move || receive(&socket, &stop, &sent)
        });
        let sender = thread::spawn({
            let (stop, sent) = (stop.clone(), sent.clone());
            move || send(&client, &stop, &sent, interval)
        });
        Self { name, stop, sent, sender, echo, receiver }
    }

    /// Lets it run on for a while.
    pub fn run_on(&self, count: u64) {
        let target = self.sent.load(Ordering::Relaxed) + count;
        while self.sent.load(Ordering::Relaxed) < target {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it; every datagram has to have come back. Returns how many there were, and how many a
    /// second.
    #[track_caller]
    pub fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().expect("the sender");
        let received = self.receiver.join().expect("the receiver");
        self.echo.join().expect("the echo");
        let sent = self.sent.load(Ordering::Relaxed);
        let lost: Vec<usize> = (0..sent as usize)
            .filter(|number| !received.get(*number).copied().unwrap_or(false))
            .collect();
        assert!(
            lost.is_empty(),
            "{}: {} of {sent} lost, first {:?}",
            self.name,
            lost.len(),
            &lost[..lost.len().min(20)]
        );
        sent
    }
}

fn send(socket: &UdpSocket, stop: &AtomicBool, sent: &AtomicU64, interval: Duration) {
    let begin = Instant::now();
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        // An error would be a loss; the receiver will miss the number.
        let _ = socket.send(&number.to_be_bytes());
        number += 1;
        sent.store(number, Ordering::Relaxed);
        let due = begin + interval * number as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 8];
    let mut ended = None;
    while ended.is_none_or(|end: Instant| end.elapsed() < TAIL) {
        if let Ok((size, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..size], peer);
        } else if stop.load(Ordering::Relaxed) {
            ended.get_or_insert_with(Instant::now);
        }
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, sent: &AtomicU64) -> Vec<bool> {
    let mut received = Vec::new();
    let mut count = 0u64;
    let mut ended = None;
    while ended.is_none_or(|end: Instant| end.elapsed() < TAIL) {
        let mut buffer = [0; 8];
        if let Ok(8) = socket.recv(&mut buffer) {
            let number = u64::from_be_bytes(buffer) as usize;
            if received.len() <= number {
                received.resize(number + 1, false);
            }
            count += u64::from(!std::mem::replace(&mut received[number], true));
        }
        if stop.load(Ordering::Relaxed) {
            ended.get_or_insert_with(Instant::now);
            if count == sent.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    received
}
