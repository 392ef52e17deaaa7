//! An underlay without Ethernet: what `ciliate monitor` shows of the packets that come by it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use crate::frames;
use crate::lab::{DUAL, Lab};
use crate::node::{Text, endpoint};
use crate::overlay_wire::{MAC, VXLAN};
use crate::points::{Names, shown};
use crate::reader::Reader;
use crate::space::Space;

/// A device whose other end is this test.
#[allow(unsafe_code, reason = "this request is in no library that is here")]
fn tun(space: &Space, name: &str) -> File {
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
    /// `IFF_TUN | IFF_NO_PI`: packets begin with their IP header.
    const FLAGS: u16 = 0x1001;
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&FLAGS.to_ne_bytes());
    let file = space.run(|| {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("open");
        // SAFETY: the request is a `struct ifreq`, of 40 bytes, and lives through the call.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        file
    });
    space.sh(&format!(
        "ip addr add 10.9.0.1/24 dev {name}; ip addr add fd00:9::1/64 dev {name} nodad\n\
         ip link set {name} up"
    ));
    file
}

fn packet(from: IpAddr, to: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let udp = frames::udp_between(1000, port, payload);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => frames::ipv4_of(frames::UDP, from, to, 64, &udp),
        (IpAddr::V6(from), IpAddr::V6(to)) => frames::ipv6_with(from, to, 64, frames::UDP, &udp),
        other => panic!("{other:?}"),
    }
}

#[test]
fn packets_are_shown_as_they_are() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let client = lab.space("client");
    let mut device = tun(&lab.a.space, "tun0");
    let (own, peer): ([IpAddr; 2], [IpAddr; 2]) = (
        [Ipv4Addr::new(10, 9, 0, 1).into(), Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1).into()],
        [Ipv4Addr::new(10, 9, 0, 2).into(), Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2).into()],
    );
    let netns = format!("netns = {:?}", client.path());
    lab.a.write(&Text {
        node: "name = \"node-a\"\naddresses = [\"10.9.0.1\", \"fd00:9::1\"]\n\
               devices = [\"tun0\"]\ncidrs = [\"10.244.0.0/24\", \"fd00:10:244::/80\"]\n"
            .into(),
        routing: "mode = \"tunnel\"\n".into(),
        peers: "[[peer]]\nname = \"node-b\"\naddresses = [\"10.9.0.2\", \"fd00:9::2\"]\n\
                cidrs = [\"10.244.1.0/24\", \"fd00:10:244:1::/80\"]\n"
            .into(),
        endpoints: endpoint("client", &netns, &["10.244.0.49", "fd00:10:244::49"]),
        ..Text::default()
    });
    lab.a.apply();
    let names = Names::of(&lab.a);
    let reader = Reader::start(&lab.a, &["--type", "trace"]);
    let mut expected = Vec::new();
    for (own, peer, none) in [(own[0], peer[0], "0.0.0.0"), (own[1], peer[1], "::")] {
        // A port of nobody's, and that of the tunnel.
        device.write_all(&packet(peer, own, 4000, b"hello")).expect("send");
        let inner = frames::ipv4(Ipv4Addr::new(10, 244, 1, 7), Ipv4Addr::new(10, 244, 0, 49), 64);
        let inner = frames::ethernet(frames::BROADCAST, MAC, frames::TYPE_IPV4, &inner);
        let outer = packet(peer, own, VXLAN.port, &VXLAN.around(300, &inner));
        device.write_all(&outer).expect("send");
        let end = |address: IpAddr, port: u16| std::net::SocketAddr::new(address, port);
        let shown = |packet: String| {
            format!(
                "<- network flow # , identity remote-node->unknown state unknown ifindex tun0 \
                 orig-ip {none}: {packet}"
            )
        };
        expected.push(shown(format!("{} -> {} udp", end(peer, 1000), end(own, 4000))));
        let tunnel = if own.is_ipv6() { format!("[{peer}]:#") } else { format!("{peer}:#") };
        expected.push(shown(format!(
            "10.244.1.7:1000 -> 10.244.0.49:2000 udp [tunnel {tunnel} -> {} vxlan]",
            end(own, VXLAN.port)
        )));
    }
    reader.wait("the last packet", |line| {
        line.starts_with("<- network") && line.contains("[tunnel [fd00:9::2]")
    });
    assert_eq!(shown(reader, &names, "<- network"), expected);
    lab.a.destroy();
    drop(device);
}
