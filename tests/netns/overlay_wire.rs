//! What is on the wire, byte by byte, both ways: another node's part is played by hand, by a socket on the
//! tunnel's port that takes packets apart and builds them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use ciliate::intent::identity_of_labels;

use crate::capture::Capture;
use crate::fleet::{Fleet, MEMBERS, await_counted, counted};
use crate::frames::{self, BROADCAST, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, UDP};
use crate::lab::{DUAL, Families, V4, V6};

/// Ports of the packets that [`frames::udp`] makes.
pub const SOURCE_PORT: u16 = 1000;
pub const PORT: u16 = 2000;
pub const MAC: frames::Mac = [2, 0, 0, 0, 0, 0xc];
const PATIENCE: Duration = Duration::from_secs(5);

/// The header in front of the inner frame.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    first: [u8; 4],
    pub port: u16,
}

/// RFC 7348: the flag that there is a network identifier, and 24 reserved bits.
pub const VXLAN: Header = Header { first: [0x08, 0, 0, 0], port: 8472 };
/// RFC 8926: version 0, no options; no flags; what is inside is Ethernet.
/// Geneve, without options.
pub const GENEVE: Header = Header { first: [0, 0, 0x65, 0x58], port: 6081 };

impl Header {
    /// A packet for the socket.
    pub fn around(self, vni: u32, frame: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = vni.to_be_bytes();
        [&self.first[..], &[a, b, c, 0], frame].concat()
    }

    /// Network identifier and inner frame of a packet from the socket.
    fn apart(self, packet: &[u8]) -> (u32, &[u8]) {
        assert_eq!(packet[..4], self.first, "flags and protocol");
        assert_eq!(packet[7], 0, "reserved");
        (u32::from_be_bytes([0, packet[4], packet[5], packet[6]]), &packet[8..])
    }
}

/// Node c, played by hand.
pub struct ByHand {
    header: Header,
    socket: UdpSocket,
    node: SocketAddr,
}

impl ByHand {
    pub fn new(fleet: &Fleet, header: Header) -> Self {
        let v6 = usize::from(!fleet.lab.families.v4);
        let address =
            |node: usize| -> IpAddr { MEMBERS[node].underlay[v6].parse().expect("an address") };
        let bind = || UdpSocket::bind((address(2), header.port));
        let socket = fleet.lab.others[0].space.run(bind).expect("bind");
        socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        leave_out_checksums(&socket, v6 == 1);
        Self { header, socket, node: (address(0), header.port).into() }
    }

    pub fn send(&self, vni: u32, frame: &[u8]) {
        self.socket.send_to(&self.header.around(vni, frame), self.node).expect("send");
    }

    /// The next packet with UDP in it; what else comes out of a node is of its kernel's own.
    fn receive(&self) -> (u32, Inner) {
        loop {
            let mut buffer = [0; 2048];
            let (size, _) = self.socket.recv_from(&mut buffer).expect("a packet from the tunnel");
            let (vni, frame) = self.header.apart(&buffer[..size]);
            if let Some(inner) = Inner::read(frame) {
                return (vni, inner);
            }
        }
    }
}

/// Sends packets without a UDP checksum, as tunnels do, and takes such of IPv6 (RFC 6935).
#[allow(unsafe_code, reason = "rustix doesn't have these options of a socket")]
fn leave_out_checksums(socket: &UdpSocket, v6: bool) {
    const UDP_NO_CHECK6_TX: libc::c_int = 101;
    const UDP_NO_CHECK6_RX: libc::c_int = 102;
    let options = match v6 {
        false => vec![(libc::SOL_SOCKET, libc::SO_NO_CHECK)],
        true => vec![(libc::IPPROTO_UDP, UDP_NO_CHECK6_TX), (libc::IPPROTO_UDP, UDP_NO_CHECK6_RX)],
    };
    for (level, option) in options {
        let (on, length) = (1 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
        let fd = socket.as_raw_fd();
        // SAFETY: the descriptor is the socket's, which lives through the call; the option is read from an
        // integer of the length that is given.
        let result = unsafe { libc::setsockopt(fd, level, option, (&raw const on).cast(), length) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

/// A UDP packet that was in a tunnel.
#[derive(Debug, PartialEq)]
struct Inner {
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    destination_port: u16,
    payload: Vec<u8>,
}

impl Inner {
    fn read(frame: &[u8]) -> Option<Self> {
        let packet = &frame[14..];
        let address = |at: usize, v6: bool| match v6 {
            false => IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes")),
            true => IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen")),
        };
        let (source, destination, hop_limit, protocol, udp) =
            match u16::from_be_bytes([frame[12], frame[13]]) {
                TYPE_IPV4 => {
                    (address(12, false), address(16, false), packet[8], packet[9], &packet[20..])
                }
                TYPE_IPV6 => {
                    (address(8, true), address(24, true), packet[7], packet[6], &packet[40..])
                }
                _ => return None,
            };
        (protocol == UDP).then(|| Self {
            source,
            destination,
            hop_limit,
            destination_port: u16::from_be_bytes([udp[2], udp[3]]),
            payload: udp[8..].to_vec(),
        })
    }
}

/// A frame with a datagram in it.
pub fn datagram(source: &str, destination: &str, hop_limit: u8) -> Vec<u8> {
    let packet = match (source.parse(), destination.parse()) {
        (Ok(IpAddr::V4(source)), Ok(IpAddr::V4(destination))) => {
            let packet = frames::ipv4(source, destination, hop_limit);
            return frames::ethernet(BROADCAST, MAC, TYPE_IPV4, &packet);
        }
        (Ok(IpAddr::V6(source)), Ok(IpAddr::V6(destination))) => {
            ipv6(source, destination, hop_limit)
        }
        other => panic!("{other:?}"),
    };
    frames::ethernet(BROADCAST, MAC, TYPE_IPV6, &packet)
}

/// With its checksum, which IPv6 asks for.
fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8) -> Vec<u8> {
    let mut udp = frames::udp(b"hello");
    let length = (udp.len() as u32).to_be_bytes();
    let (from, to) = (source.octets(), destination.octets());
    let sum = frames::checksum(&[&from, &to, &length, &[0, 0, 0, UDP], &udp]);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    frames::ipv6_with(source, destination, hop_limit, UDP, &udp)
}

#[test]
fn vxlan_over_ipv4() {
    both_ways(V4, VXLAN, "");
}

#[test]
fn vxlan_over_ipv6() {
    both_ways(V6, VXLAN, "");
}

#[test]
fn vxlan_over_ipv4_past_the_host() {
    both_ways(V4, VXLAN, "host-routing = \"bpf\"\n");
}

#[test]
fn vxlan_over_ipv6_past_the_host() {
    both_ways(V6, VXLAN, "host-routing = \"bpf\"\n");
}

/// Packets by a node that is played by hand, out and in.
pub fn both_ways(underlay: Families, header: Header, routing: &str) {
    let Some(fleet) = Fleet::new(DUAL, underlay) else { return };
    let protocol = if header.port == GENEVE.port { "geneve" } else { "vxlan" };
    fleet.apply(1, &format!("tunnel-protocol = \"{protocol}\"\n{routing}"));
    let node_c = ByHand::new(&fleet, header);
    outwards(&fleet, &node_c);
    inwards(&fleet, &node_c);
    refused(&fleet, &node_c);
}

/// What node a sends: the sender's identity, one world, and a remote node where it is the host; no hop
/// less.
fn outwards(fleet: &Fleet, node_c: &ByHand) {
    let labels = [("app".to_string(), "busybox-a".to_string())].into();
    let identity = identity_of_labels(&labels).number();
    for plan in fleet.plans() {
        let there = if plan.v6 { "fd00:10:42:2::9" } else { "10.42.2.9" };
        for (space, source, vni) in
            [(&fleet.busybox_a, plan.busybox_a, identity), (&fleet.lab.a.space, plan.router_a, 6)]
        {
            let bound: IpAddr = source.parse().expect("an address");
            let socket = space.run(|| UdpSocket::bind((bound, 0))).expect("bind");
            socket.send_to(b"out", (there, PORT)).expect("send");
            let expected = Inner {
                source: bound,
                destination: there.parse().expect("an address"),
                hop_limit: 64,
                destination_port: PORT,
                payload: b"out".to_vec(),
            };
            assert_eq!(node_c.receive(), (vni, expected), "from {source}");
        }
    }
}

/// What node a takes: any identity but that of a host, one hop less.
fn inwards(fleet: &Fleet, node_c: &ByHand) {
    for plan in fleet.plans() {
        let there = if plan.v6 { "fd00:10:42:2::9" } else { "10.42.2.9" };
        let listen: IpAddr = plan.busybox_a.parse().expect("an address");
        let socket = fleet.busybox_a.run(|| UdpSocket::bind((listen, PORT))).expect("bind");
        socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        for vni in [2, 4, 6, 256, 65_535, 0x00ff_ffff] {
            node_c.send(vni, &datagram(there, plan.busybox_a, 64));
            let mut buffer = [0; 16];
            let (size, from) = socket.recv_from(&mut buffer).expect("a datagram");
            assert_eq!(&buffer[..size], b"hello");
            let expected: SocketAddr = (there.parse::<IpAddr>().expect("one"), SOURCE_PORT).into();
            assert_eq!(from, expected, "vni {vni}");
        }
        // Two hops are left, and one of them is this.
        let hops = if plan.v6 { "ip6[7]" } else { "ip[8]" };
        let filter = format!("udp port {PORT} and {hops} = 1");
        let capture = Capture::start(&fleet.busybox_a, "eth0", 1, &filter);
        node_c.send(300, &datagram(there, plan.busybox_a, 2));
        assert!(socket.recv_from(&mut [0; 16]).is_ok());
        assert_eq!(capture.lines().len(), 1, "one hop less");
        if !plan.v6 {
            let before = counted(&fleet.lab.a, "TTL exceeded");
            node_c.send(300, &datagram(there, plan.busybox_a, 1));
            await_counted(&fleet.lab.a, "TTL exceeded", before + 1);
        }
    }
}

/// What node a drops, with the reason that it counts.
fn refused(fleet: &Fleet, node_c: &ByHand) {
    let node = &fleet.lab.a;
    for plan in fleet.plans() {
        let there = if plan.v6 { "fd00:10:42:2::9" } else { "10.42.2.9" };
        let nobody = if plan.v6 { "fd00:10:42::250" } else { "10.42.0.250" };
        let whole = datagram(there, plan.busybox_a, 64);
        // No version of IP. Frames that are cut off don't get past the kernel's tunnel.
        let mut broken = whole.clone();
        broken[14] &= 0x0f;
        for (vni, frame, reason) in [
            (1, &whole, "Invalid identity"),
            (300, &datagram(there, nobody, 64), "Stale or unroutable IP"),
            (300, &broken, "Invalid packet"),
        ] {
            let before = counted(node, reason);
            for _ in 0..3 {
                node_c.send(vni, frame);
            }
            await_counted(node, reason, before + 3);
        }
    }
    // Not IP: the stack's business, which has none with it.
    let before = drops(fleet);
    let (c, a) = (Ipv4Addr::new(10, 42, 2, 9), Ipv4Addr::new(10, 42, 0, 97));
    let ask = frames::arp(1, (MAC, c), ([0; 6], a));
    node_c.send(300, &frames::ethernet(BROADCAST, MAC, TYPE_ARP, &ask));
    // Whatever became of it, it has when the next one is counted.
    let invalid = counted(node, "Invalid identity");
    let plan = fleet.plans().next().expect("a family");
    node_c.send(1, &datagram("10.42.2.9", plan.busybox_a, 64));
    await_counted(node, "Invalid identity", invalid + 1);
    assert_eq!(drops(fleet), before + 1);
}

/// All drops that node a counts of what comes out of the tunnel.
fn drops(fleet: &Fleet) -> u64 {
    let listed = fleet.lab.a.ciliate(&["bpf", "metrics", "list", "-o", "json"]).json();
    let entries = listed["entries"].as_array().expect("a list").iter();
    let drops = entries.filter(|entry| {
        entry["reason_code"].as_u64() >= Some(130) && entry["file"] == "bpf_overlay.c"
    });
    drops.map(|entry| entry["packets"].as_u64().expect("a number")).sum()
}
