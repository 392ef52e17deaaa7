//! Frames at random, the same on every run. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::frames::*;
use crate::lab::TUNNEL_PORT;
use crate::model::services::{LOOPBACK4, LOOPBACK6};
use crate::service_world::{VIP4, VIP6};
use crate::truncated::shortest;
use crate::world::*;

/// Deterministic random numbers (xorshift64*).
pub struct Random(u64);

impl Random {
    /// `seed` is anything but zero.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn mac(&mut self) -> Mac {
        self.pick(&[BROADCAST, MAC_A, MAC_B, LXC_MAC_A, LXC_MAC_B, HOST_MAC, NET_MAC])
    }

    fn v4(&mut self) -> Ipv4Addr {
        let groups = [[224, 0, 0, 22].into(), [255; 4].into(), [169, 254, 9, 9].into()];
        let nodes = [A4, A4, B4, B4, ROUTER4, NODE4, NETNS4, WORLD4, UNUSED4, PEER4];
        let nodes = [&nodes[..], &[REMOTE4, OTHER_FAMILY4, NO_TUNNEL4, SKIP4]].concat();
        let nodes = [&nodes[..], &[VIP4; 6], &[LOOPBACK4]].concat();
        self.pick(&[&nodes[..], &groups, &[Ipv4Addr::UNSPECIFIED]].concat())
    }

    fn v6(&mut self) -> Ipv6Addr {
        let group = solicited_node(B6);
        let nodes = [A6, A6, B6, B6, ROUTER6, NODE6, WORLD6, UNUSED6, PEER6];
        let nodes = [&nodes[..], &[REMOTE6, OTHER_FAMILY6, NO_TUNNEL6, SKIP6]].concat();
        let nodes = [&nodes[..], &[VIP6; 6], &[LOOPBACK6]].concat();
        self.pick(&[&nodes[..], &[A_LINK_LOCAL, group, Ipv6Addr::UNSPECIFIED]].concat())
    }

    fn ipv4(&mut self) -> Vec<u8> {
        let options = 4 * if self.chance(80) { 0 } else { self.below(11) };
        let options = self.bytes(options);
        let ends = (self.source4(), self.v4());
        let ttl = self.pick(&[0, 1, 2, 64, 64, 255]);
        let (protocol, payload) = match self.below(100) {
            0..20 => (ICMP4, self.icmp4(ends)),
            _ => self.l4(),
        };
        let mut packet = ipv4_whole(ends, ttl, protocol, &options, &payload);
        if self.chance(15) {
            // Few identifications, so that pieces find each other.
            packet[5] = self.pick(&[1, 2]);
            let piece = self.pick(&[[0x20, 0], [0x20, 0xb9], [0, 0xb9], [0x40, 0]]);
            packet[6..8].copy_from_slice(&piece);
        }
        packet
    }

    /// A message, some about a packet that may have been sent.
    fn icmp4(&mut self, (source, destination): (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
        let kind = self.pick(&[8, 0, 3, 11, 12, 5, 13]);
        if !matches!(kind, 3 | 11 | 12) {
            return icmp4(kind, 0, &[&[0x12, self.pick(&[3, 4])][..], &[0; 4]].concat());
        }
        let ends = if self.chance(80) { (destination, source) } else { (self.v4(), self.v4()) };
        let (protocol, payload) = self.l4();
        let mut quote = ipv4_whole(ends, 64, protocol, &[], &payload);
        if self.chance(20) {
            let len = self.below(quote.len());
            quote.truncate(len);
        }
        icmp4(kind, 1, &[&[0; 4][..], &quote].concat())
    }

    /// Protocol and packet of something with ports, or of nothing known. Few ports, so that packets find
    /// their flows.
    fn l4(&mut self) -> (u8, Vec<u8>) {
        let to = self.pick(&[80, 80, 1000, 1000, 2000, 2000, TUNNEL_PORT]);
        let ports = [self.pick(&[1000_u16, 40_000]), to];
        let ports = if self.chance(50) { ports } else { [ports[1], ports[0]] };
        let head = [ports[0].to_be_bytes(), ports[1].to_be_bytes()].concat();
        let len = if self.chance(95) { self.below(100) } else { self.below(2500) };
        let rest = self.bytes(len);
        match self.below(100) {
            0..45 => {
                let flags = self.pick(&[TCP_SYN, TCP_SYN | TCP_ACK, TCP_ACK, TCP_FIN, TCP_RST]);
                let segment = tcp(if self.chance(90) { flags } else { self.next() as u8 }, &rest);
                (TCP, [&head, &segment[4..]].concat())
            }
            45..85 => (self.pick(&[UDP, UDP, 132]), [&head[..], &rest].concat()),
            _ => (self.pick(&[UDP, TCP, 2, 47, 50, 59, 1, 58]), rest),
        }
    }

    fn source4(&mut self) -> Ipv4Addr {
        if self.chance(60) { A4 } else { self.v4() }
    }

    fn source6(&mut self) -> Ipv6Addr {
        if self.chance(60) { A6 } else { self.v6() }
    }

    /// A message, some of it neighbour discovery, behind some extension headers.
    fn ipv6(&mut self) -> Vec<u8> {
        let (source, destination) = (self.source6(), self.v6());
        let (mut next, mut payload) = if self.chance(60) {
            let kind = self.pick(&[135, 135, 135, 136, 133, 128, 1, 3, 137, 143]);
            let len = 8 * self.below(3);
            let (target, options) = (self.v6(), self.bytes(len));
            let code = if self.chance(95) { 0 } else { 7 };
            let body = nd_body(self.next() as u8, target, &options);
            (ICMP6, icmp6(source, destination, kind, code, &body))
        } else if self.chance(15) {
            (ICMP6, self.icmp6_error((source, destination)))
        } else {
            self.l4()
        };
        if self.chance(15) {
            let piece = self.pick(&[[0, 1], [0x05, 0xc9], [0x05, 0xc8], [0, 0]]);
            let header = [&[next, 0][..], &piece, &[0, 0, 0, self.pick(&[1, 2])]].concat();
            (next, payload) = (44, [header, payload].concat());
        }
        for _ in 0..if self.chance(70) { 0 } else { self.below(7) } {
            let kind = self.pick(&[0, 43, 60, 51]);
            let units = self.below(3) as u8;
            let len =
                if kind == 51 { 8 + 4 * usize::from(units) } else { 8 + 8 * usize::from(units) };
            let mut header = self.bytes(len);
            (header[0], header[1]) = (next, units);
            (next, payload) = (kind, [header, payload].concat());
        }
        let hop_limit = self.pick(&[255, 255, 255, 64, 64, 2, 1, 0]);
        ipv6_with(source, destination, hop_limit, next, &payload)
    }

    fn icmp6_error(&mut self, (source, destination): (Ipv6Addr, Ipv6Addr)) -> Vec<u8> {
        let (from, to) =
            if self.chance(80) { (destination, source) } else { (self.v6(), self.v6()) };
        let (protocol, payload) = self.l4();
        let mut quote = ipv6_with(from, to, 64, protocol, &payload);
        if self.chance(20) {
            let len = self.below(quote.len());
            quote.truncate(len);
        }
        let kind = self.pick(&[1, 2, 3, 4]);
        icmp6(source, destination, kind, 0, &[&[0; 4][..], &quote].concat())
    }

    /// A frame that says something to some program, most of the time.
    pub fn frame(&mut self) -> Vec<u8> {
        let (ethertype, packet) = match self.below(100) {
            0..30 => (TYPE_IPV4, self.ipv4()),
            30..80 => (TYPE_IPV6, self.ipv6()),
            80..92 => {
                let sides = [(self.mac(), self.v4()), (self.mac(), self.v4())];
                let operation = self.pick(&[1, 1, 1, 2]);
                (TYPE_ARP, [arp(operation, sides[0], sides[1]), vec![0; self.below(20)]].concat())
            }
            _ => {
                let len = 1 + self.below(100);
                (self.pick(&[0x8100, 0x88a8, 0x88cc, 0x0026, 0x05ff, 0x0600]), self.bytes(len))
            }
        };
        let mut frame = ethernet(self.mac(), self.mac(), ethertype, &packet);
        self.damage(&mut frame);
        frame
    }

    /// Cuts off and changes bytes of some frames, as far as a test run takes the result.
    fn damage(&mut self, frame: &mut Vec<u8>) {
        if self.chance(15) {
            for _ in 0..1 + self.below(4) {
                let at = self.below(frame.len().min(110));
                frame[at] = self.next() as u8;
            }
        }
        if self.chance(15) {
            frame.truncate(ETH_LEN + self.below(frame.len() - ETH_LEN + 1));
        }
        let shortest = shortest(frame);
        if frame.len() < shortest {
            let missing = self.bytes(shortest - frame.len());
            frame.extend(missing);
        }
    }
}
