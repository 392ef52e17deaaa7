//! The node most tests are about: two endpoints with both families, addresses of the node, a peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ciliate::bpf_abi::{
    DeviceValue, ENDPOINT_FLAG_AT_HOST_NETNS, ENDPOINT_FLAG_HOST, EndpointValue, IDENTITY_HOST,
    IDENTITY_WORLD_IPV4, IDENTITY_WORLD_IPV6, NodeValue,
};

use crate::frames::Mac;
use crate::model::World;

pub const A4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 49);
pub const B4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 50);
pub const ROUTER4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 26);
pub const NODE4: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 3);
/// An endpoint that lives in the node's own network namespace.
pub const NETNS4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 60);
pub const REMOTE4: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 124);
pub const WORLD4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// In the node's CIDR, but nobody's.
pub const UNUSED4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 99);

pub const A6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0x49);
pub const B6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0x50);
pub const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0x26);
pub const NODE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, 3);
pub const REMOTE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 1, 0, 0, 0x124);
pub const WORLD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
pub const UNUSED6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0x99);
/// Of endpoint A's interface.
pub const A_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa);

pub const MAC_A: Mac = [0x4a, 0xde, 0x3b, 0x33, 0xf8, 0x4b];
pub const MAC_B: Mac = [0x52, 0xc9, 0x01, 0x02, 0x03, 0x04];
pub const LXC_MAC_A: Mac = [0xea, 0xb4, 0x11, 0x10, 0x09, 0x5b];
pub const LXC_MAC_B: Mac = [0xc6, 0x3a, 0x05, 0x06, 0x07, 0x08];
pub const HOST_MAC: Mac = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
pub const NET_MAC: Mac = [0x06, 0x66, 0x77, 0x88, 0x99, 0xaa];

/// Wider than 16 bits, so that the parts of a mark can be told apart.
pub const IDENTITY_A: u32 = 0x0004_3210;
pub const IDENTITY_B: u32 = 0x0005_4321;
pub const IDENTITY_REMOTE: u32 = 40_000;

impl World {
    /// The world of this file's constants.
    pub fn standard(lxc_a: u32, lxc_b: u32, cilium_host: u32) -> Self {
        let device = |endpoint_id, identity, ipv4: Ipv4Addr, ipv6: Ipv6Addr, mac, node_mac| {
            let (ipv4_be, ipv6_be) = (ipv4.octets(), ipv6.octets());
            DeviceValue {
                endpoint_id,
                identity,
                ipv4_be,
                ipv6_be,
                mac,
                node_mac,
                ..Default::default()
            }
        };
        let endpoint = |ifindex, endpoint_id, identity, mac, node_mac| EndpointValue {
            ifindex,
            endpoint_id,
            identity,
            mac,
            node_mac,
            ..Default::default()
        };
        let a = endpoint(lxc_a, 32, IDENTITY_A, MAC_A, LXC_MAC_A);
        let b = endpoint(lxc_b, 33, IDENTITY_B, MAC_B, LXC_MAC_B);
        let host = EndpointValue { flags: ENDPOINT_FLAG_HOST, ..Default::default() };
        let netns = EndpointValue { flags: ENDPOINT_FLAG_AT_HOST_NETNS, ..Default::default() };
        let endpoints: [(IpAddr, EndpointValue); 9] = [
            (A4.into(), a),
            (A6.into(), a),
            (B4.into(), b),
            (B6.into(), b),
            (ROUTER4.into(), host),
            (ROUTER6.into(), host),
            (NODE4.into(), host),
            (NODE6.into(), host),
            (NETNS4.into(), netns),
        ];
        Self {
            node: NodeValue {
                router_ipv4_be: ROUTER4.octets(),
                router_ipv6_be: ROUTER6.octets(),
                host_ifindex: cilium_host,
                host_mac: HOST_MAC,
                net_mac: NET_MAC,
                ..Default::default()
            },
            devices: [
                (lxc_a, device(32, IDENTITY_A, A4, A6, MAC_A, LXC_MAC_A)),
                (lxc_b, device(33, IDENTITY_B, B4, B6, MAC_B, LXC_MAC_B)),
            ]
            .into(),
            endpoints: endpoints.into(),
            ipcache: vec![
                (Ipv4Addr::UNSPECIFIED.into(), 0, IDENTITY_WORLD_IPV4),
                (Ipv6Addr::UNSPECIFIED.into(), 0, IDENTITY_WORLD_IPV6),
                (A4.into(), 32, IDENTITY_A),
                (A6.into(), 128, IDENTITY_A),
                (B4.into(), 32, IDENTITY_B),
                (B6.into(), 128, IDENTITY_B),
                (NODE4.into(), 32, IDENTITY_HOST),
                (NODE6.into(), 128, IDENTITY_HOST),
                (Ipv4Addr::new(10, 244, 1, 0).into(), 24, IDENTITY_REMOTE),
                (Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 1, 0, 0, 0).into(), 80, IDENTITY_REMOTE),
            ],
        }
    }
}
