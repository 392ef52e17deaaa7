//! Clients and servers that don't have the same address for each other.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::space::Space;

/// Longer than a busy machine takes.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// As long as what is not answered is waited for.
pub const IMPATIENCE: Duration = Duration::from_secs(1);

/// More than fits in what a device is given at once.
const LEN: usize = 300_000;

pub fn listen(space: &Space, at: SocketAddr) -> TcpListener {
    space.run(|| TcpListener::bind(at)).unwrap_or_else(|error| panic!("listen at {at}: {error}"))
}

pub fn connect(space: &Space, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = space.run(|| TcpStream::connect_timeout(&to, patience))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A UDP socket that hears from one peer alone.
pub fn connected(space: &Space, to: SocketAddr) -> UdpSocket {
    let any: IpAddr = if to.is_ipv6() { [0u16; 8].into() } else { [0u8; 4].into() };
    let socket = space.run(|| UdpSocket::bind((any, 0))).expect("bind");
    space.run(|| socket.connect(to)).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    socket
}

/// Sends data to a frontend and has it back. Returns whom the backend saw.
#[track_caller]
pub fn tcp(from: &Space, frontend: SocketAddr, to: &Space, backend: SocketAddr) -> IpAddr {
    let listener = listen(to, backend);
    let server = thread::spawn(move || {
        let (mut stream, peer) = listener.accept().expect("accept");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("read what the client sent");
        stream.write_all(&received).expect("send it back");
        peer.ip()
    });
    let mut stream = connect(from, frontend, PATIENCE).unwrap_or_else(|error| {
        // Lets the server's accept return.
        let _ = to.run(|| TcpStream::connect(backend));
        panic!("TCP from {} to {frontend}: {error}", from.name)
    });
    let data: Vec<u8> = (0..LEN).map(|n| (n % 251) as u8).collect();
    stream.write_all(&data).expect("send");
    stream.shutdown(Shutdown::Write).expect("end of data");
    let mut echo = Vec::new();
    stream.read_to_end(&mut echo).expect("read the echo");
    assert!(echo == data, "TCP from {} to {frontend}: the echo differs", from.name);
    server.join().expect("the server")
}

/// Sends a datagram to a frontend and has one back. Returns whom the backend saw.
#[track_caller]
pub fn udp(from: &Space, frontend: SocketAddr, to: &Space, backend: SocketAddr) -> IpAddr {
    let server = to.run(|| UdpSocket::bind(backend)).expect("bind");
    server.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    let client = connected(from, frontend);
    client.send(b"ask").expect("ask");
    let mut buffer = [0; 16];
    let (size, peer) = server
        .recv_from(&mut buffer)
        .unwrap_or_else(|error| panic!("UDP from {} to {frontend}: {error}", from.name));
    assert_eq!(&buffer[..size], b"ask");
    server.send_to(b"reply", peer).expect("send back");
    let size = client
        .recv(&mut buffer)
        .unwrap_or_else(|error| panic!("UDP back from {frontend} to {}: {error}", from.name));
    assert_eq!(&buffer[..size], b"reply");
    peer.ip()
}
