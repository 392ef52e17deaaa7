//! Packets between namespaces: pings, TCP and UDP exchanges.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::space::Space;

const PATIENCE: Duration = Duration::from_secs(5);

/// Pings once and returns the TTL of the answer, as the asker sees it.
#[track_caller]
pub fn ping(from: &Space, to: &str) -> u8 {
    let text = from.sh(&format!("ping -n -c 1 -W 5 {to}"));
    let ttl = text.split("ttl=").nth(1).and_then(|rest| rest.split(' ').next());
    ttl.and_then(|ttl| ttl.parse().ok()).unwrap_or_else(|| panic!("no TTL in {text}"))
}

/// Whether a ping is answered within a second.
pub fn answers(from: &Space, to: &str) -> bool {
    from.try_sh(&format!("ping -n -c 1 -W 1 {to}")).is_ok()
}

/// Sends data both ways over TCP, more than fits in a segment. Returns whom the server saw.
#[track_caller]
pub fn tcp(from: &Space, to: &Space, address: &str) -> IpAddr {
    let address: IpAddr = address.parse().expect("an address");
    let listener = to.run(|| TcpListener::bind((address, 0))).expect("listen");
    let target = listener.local_addr().expect("where we listen");
    let data: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let server = thread::spawn(move || {
        let (mut stream, peer) = listener.accept().expect("accept");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("read what the client sent");
        stream.write_all(&received).expect("send it back");
        peer.ip()
    });
    let connect = || TcpStream::connect_timeout(&target, PATIENCE);
    let mut stream = from.run(connect).unwrap_or_else(|error| {
        // Lets the server's accept return.
        let _ = to.run(|| TcpStream::connect(target));
        panic!("TCP from {} to {target}: {error}", from.name)
    });
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    stream.write_all(&data).expect("send");
    stream.shutdown(std::net::Shutdown::Write).expect("end of data");
    let mut echo = Vec::new();
    stream.read_to_end(&mut echo).expect("read the echo");
    assert!(echo == data, "TCP from {} to {target}: the echo differs", from.name);
    server.join().expect("the server")
}

/// Sends a datagram and gets one back. Returns whom the server saw.
#[track_caller]
pub fn udp(from: &Space, to: &Space, address: &str) -> IpAddr {
    let address: IpAddr = address.parse().expect("an address");
    let bind = |address: IpAddr| move || UdpSocket::bind((address, 0));
    let server = to.run(bind(address)).expect("bind");
    let any: IpAddr = if address.is_ipv6() { [0u16; 8].into() } else { [0u8; 4].into() };
    let client = from.run(bind(any)).expect("bind");
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    }
    let target = server.local_addr().expect("where we listen");
    client.send_to(b"ask", target).unwrap_or_else(|e| panic!("{} to {target}: {e}", from.name));
    let seen = answer(&server, b"ask", b"reply", &from.name, target);
    let mut buffer = [0; 16];
    let (size, _) = client
        .recv_from(&mut buffer)
        .unwrap_or_else(|e| panic!("UDP back from {target} to {}: {e}", from.name));
    assert_eq!(&buffer[..size], b"reply");
    seen
}

#[track_caller]
fn answer(
    server: &UdpSocket,
    expected: &[u8],
    reply: &[u8],
    from: &str,
    target: SocketAddr,
) -> IpAddr {
    let mut buffer = [0; 16];
    let (size, peer) = server
        .recv_from(&mut buffer)
        .unwrap_or_else(|error| panic!("UDP from {from} to {target}: {error}"));
    assert_eq!(&buffer[..size], expected);
    server.send_to(reply, peer).expect("send back");
    peer.ip()
}

/// Ping, TCP and UDP. Returns whom the server saw, which TCP and UDP have to agree on.
#[track_caller]
pub fn exchange(from: &Space, to: &Space, address: &str) -> IpAddr {
    ping(from, address);
    let (tcp, udp) = (tcp(from, to, address), udp(from, to, address));
    assert_eq!(tcp, udp, "source of TCP and of UDP from {} to {address}", from.name);
    tcp
}
