//! Services with the kernel's own TCP and UDP: what it sends has checksums that a device is still to fill in, and
//! segments larger than any packet.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::lab::{self, Lab};
use crate::model::services::{LOOPBACK4, LOOPBACK6};
use crate::service_world::*;
use crate::traffic::set_up;

/// Longer than a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(20);
const LEN: usize = 1 << 20;

/// Runs something in a namespace, on a thread of its own.
fn within<T: Send + 'static>(
    namespace: &str,
    task: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let file = File::open(format!("/run/netns/{namespace}")).expect("the namespace");
    thread::spawn(move || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(file.as_fd(), network).expect("setns");
        task()
    })
}

/// A server that sends back what one client sends; tells who the client was.
fn echo(namespace: &str, at: SocketAddr) -> thread::JoinHandle<IpAddr> {
    let listener = within(namespace, move || TcpListener::bind(at).expect("bind"));
    let listener = listener.join().expect("a listener");
    thread::spawn(move || {
        let (mut stream, client) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("all the client sends");
        stream.write_all(&bytes).expect("answer");
        client.ip()
    })
}

/// Sends a megabyte to a service and has it back.
fn talk(service: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&service, PATIENCE)?;
    assert_eq!(stream.peer_addr()?, service);
    stream.set_read_timeout(Some(PATIENCE))?;
    let sent: Vec<u8> = (0..LEN).map(|index| ((index * 7) >> 3) as u8).collect();
    stream.write_all(&sent)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    assert!(answer == sent, "{} bytes, not what was sent", answer.len());
    Ok(())
}

fn on_a_node(test: impl Fn(&mut Lab, Ends) + Send + Sync) {
    lab::run(|lab| {
        set_up(lab);
        add_services(lab);
        for ends in [ENDS4, ENDS6] {
            test(lab, ends);
        }
    });
}

fn only_b(lab: &mut Lab, ends: Ends, port: u16, protocol: u8) {
    let mut world = lab.world.clone();
    let backends = vec![u32::from(ends.base) + TO_B];
    world.services.get_mut(&(ends.vip, port, protocol)).expect("a service").backends = backends;
    lab.describe(world);
}

#[test]
fn tcp_to_another_endpoint() {
    on_a_node(|lab, ends| {
        only_b(lab, ends, 80, 6);
        let server = echo("b", (ends.b, 1000).into());
        let service = (ends.vip, 80).into();
        within("a", move || talk(service)).join().expect("a client").expect("an echo");
        assert_eq!(server.join().expect("a server"), ends.a, "the client as it is");
    });
}

#[test]
fn tcp_to_itself() {
    on_a_node(|_, ends| {
        let server = echo("a", (ends.a, 2000).into());
        let service = (ends.vip, 1000).into();
        within("a", move || talk(service)).join().expect("a client").expect("an echo");
        let hidden = if ends.a.is_ipv4() { LOOPBACK4.into() } else { IpAddr::from(LOOPBACK6) };
        assert_eq!(server.join().expect("a server"), hidden);
    });
}

#[test]
fn udp_in_one_datagram_and_in_pieces() {
    on_a_node(|lab, ends| {
        only_b(lab, ends, 2000, 17);
        let server = within("b", move || UdpSocket::bind((ends.b, 1000)).expect("bind"));
        let server = server.join().expect("a server");
        server.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let client = within("a", move || UdpSocket::bind((ends.a, 0)).expect("bind"));
        let client = client.join().expect("a client");
        client.set_read_timeout(Some(PATIENCE)).expect("a limit");
        client.connect((ends.vip, 2000)).expect("connect");
        for len in [10, 4000] {
            client.send(&vec![5; len]).expect("send");
            let mut buffer = [0; 8000];
            let (got, from) = server.recv_from(&mut buffer).expect("the datagram");
            assert_eq!((got, from.ip()), (len, ends.a));
            server.send_to(&buffer[..got], from).expect("answer");
            assert_eq!(client.recv(&mut buffer).expect("the answer"), len);
        }
    });
}

#[test]
fn clients_are_told_of_refusals() {
    on_a_node(|lab, ends| {
        only_b(lab, ends, 2000, 17);
        // Without a backend; and with one that does not listen, whose own error is translated.
        for port in [1000, 2000] {
            let client = within("a", move || UdpSocket::bind((ends.a, 0)).expect("bind"));
            let client = client.join().expect("a client");
            client.set_read_timeout(Some(PATIENCE)).expect("a limit");
            client.connect((ends.vip, port)).expect("connect");
            client.send(b"anybody").expect("send");
            let error = client.recv(&mut [0; 10]).expect_err("nobody is there");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{}: {port}", ends.vip);
        }
    });
}
