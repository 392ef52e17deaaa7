//! Services of the node that most tests are about: with backends on it, behind the tunnel and outside, itself and the
//! client among them, or none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ciliate::bpf_abi::{
    NODE_FLAG_NODE_PORT, NODE_FLAG_SERVICES, SERVICE_FLAG_AFFINITY, SERVICE_FLAG_EXTERNAL_IP,
    SERVICE_FLAG_ROUTABLE, UnderlayValue,
};

use crate::frames::{TCP, UDP};
use crate::lab::Lab;
use crate::model::World;
use crate::model::services::{Backend, Frontend};
use crate::world::*;

pub const VIP4: Ipv4Addr = Ipv4Addr::new(10, 96, 94, 95);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x95);
pub const SCTP: u8 = 132;

/// Seconds that clients are kept.
pub const AFFINITY_S: u32 = 600;

/// One family's addresses.
#[derive(Clone, Copy)]
pub struct Ends {
    pub vip: IpAddr,
    pub a: IpAddr,
    pub b: IpAddr,
    pub remote: IpAddr,
    pub far: IpAddr,
    pub node: IpAddr,
    /// Added to the numbers of backends and services.
    pub base: u16,
}

pub const ENDS4: Ends = Ends {
    vip: IpAddr::V4(VIP4),
    a: IpAddr::V4(A4),
    b: IpAddr::V4(B4),
    remote: IpAddr::V4(REMOTE4),
    far: IpAddr::V4(WORLD4),
    node: IpAddr::V4(NODE4),
    base: 0,
};
pub const ENDS6: Ends = Ends {
    vip: IpAddr::V6(VIP6),
    a: IpAddr::V6(A6),
    b: IpAddr::V6(B6),
    remote: IpAddr::V6(REMOTE6),
    far: IpAddr::V6(WORLD6),
    node: IpAddr::V6(NODE6),
    base: 20,
};

/// Numbers of backends.
pub const TO_B: u32 = 1;
pub const TO_REMOTE: u32 = 2;
pub const TO_A: u32 = 3;
pub const TO_NODE: u32 = 4;
pub const TO_FAR: u32 = 5;

fn of_family(world: &mut World, ends: Ends) {
    let backends = [
        (TO_B, ends.b, 1000),
        (TO_REMOTE, ends.remote, 80),
        (TO_A, ends.a, 2000),
        (TO_NODE, ends.node, 1000),
        (TO_FAR, ends.far, 80),
    ];
    let base = u32::from(ends.base);
    for (id, address, port) in backends {
        world.backends.insert(base + id, Backend { address, port, state: 0 });
    }
    let services: [(u16, u16, u8, &[u32]); 9] = [
        (1, 80, TCP, &[TO_B, TO_REMOTE, TO_FAR]),
        (2, 2000, UDP, &[TO_B, TO_A]),
        (3, 1000, TCP, &[TO_A]),
        (4, 1000, UDP, &[]),
        (5, 80, SCTP, &[TO_REMOTE]),
        (6, 1000, SCTP, &[TO_B]),
        (7, 2000, SCTP, &[TO_REMOTE]),
        (8, 2000, TCP, &[TO_FAR]),
        (9, 80, UDP, &[TO_NODE]),
    ];
    for (number, port, protocol, ids) in services {
        let backends = ids.iter().map(|id| base + id).collect();
        let mut frontend =
            Frontend { rev_nat: ends.base + number, backends, ..Frontend::default() };
        if number == 8 {
            (frontend.flags, frontend.affinity_s) = (SERVICE_FLAG_AFFINITY, AFFINITY_S);
            frontend.internal = Some(vec![base + TO_B, base + TO_REMOTE]);
        }
        world.services.insert((ends.vip, port, protocol), frontend);
    }
}

/// From now on the node has these services.
pub fn add_services(lab: &mut Lab) {
    let mut world = lab.world.clone();
    world.node.flags |= NODE_FLAG_SERVICES;
    of_family(&mut world, ENDS4);
    of_family(&mut world, ENDS6);
    lab.describe(world);
}

/// The same for clients outside as well. These have ports from 40000 on, and so has the node.
pub fn serve_outside(lab: &mut Lab) {
    add_services(lab);
    let mut world = lab.world.clone();
    world.node.flags |= NODE_FLAG_NODE_PORT;
    for frontend in world.services.values_mut() {
        frontend.flags |= SERVICE_FLAG_ROUTABLE | SERVICE_FLAG_EXTERNAL_IP;
    }
    lab.describe(world);
    lab.set_underlay(UnderlayValue {
        ipv4_be: NODE4.octets(),
        ipv6_be: NODE6.octets(),
        port_min: 40_000,
        port_max: u16::MAX,
    });
}
