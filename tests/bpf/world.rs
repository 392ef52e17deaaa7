//! The node most tests are about: two endpoints with both families, addresses of the node, a peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ciliate::bpf_abi::{
    DeviceValue, ENDPOINT_FLAG_AT_HOST_NETNS, ENDPOINT_FLAG_HOST, EndpointValue, IDENTITY_HOST,
    IDENTITY_REMOTE_NODE, IDENTITY_WORLD_IPV4, IDENTITY_WORLD_IPV6,
    IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT, IPCACHE_FLAG_IPV6_TUNNEL_ENDPOINT, IPCACHE_FLAG_SKIP_TUNNEL,
    IpcacheValue, NODE_FLAG_TWO_WORLDS, NodeValue,
};

use crate::frames::Mac;
use crate::model::World;
use crate::sandbox::Sandbox;

pub const A4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 49);
pub const B4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 50);
pub const ROUTER4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 26);
pub const NODE4: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 3);
/// The peer, on the wire that both nodes are on.
pub const PEER4: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
/// Behind a tunnel endpoint of the other family, behind none, and not behind one although there is one.
pub const OTHER_FAMILY4: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 1);
pub const NO_TUNNEL4: Ipv4Addr = Ipv4Addr::new(10, 244, 3, 1);
pub const SKIP4: Ipv4Addr = Ipv4Addr::new(10, 244, 4, 1);
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
pub const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, 2);
pub const OTHER_FAMILY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 2, 0, 0, 1);
pub const NO_TUNNEL6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 3, 0, 0, 1);
pub const SKIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 4, 0, 0, 1);
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
pub const TUNNEL_MAC: Mac = [0x0a, 0x77, 0x66, 0x55, 0x44, 0x33];

/// Wider than 16 bits, so that the parts of a mark can be told apart.
pub const IDENTITY_A: u32 = 0x0004_3210;
pub const IDENTITY_B: u32 = 0x0005_4321;
pub const IDENTITY_REMOTE: u32 = 40_000;

impl World {
    /// The world of this file's constants.
    pub fn standard(sandbox: &Sandbox) -> Self {
        let (lxc_a, lxc_b) = (sandbox.lxc_a, sandbox.lxc_b);
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
                host_ifindex: sandbox.cilium_host,
                net_ifindex: sandbox.cilium_net,
                host_mac: HOST_MAC,
                net_mac: NET_MAC,
                flags: NODE_FLAG_TWO_WORLDS,
                tunnel_mac: TUNNEL_MAC,
                ..Default::default()
            },
            devices: [
                (lxc_a, device(32, IDENTITY_A, A4, A6, MAC_A, LXC_MAC_A)),
                (lxc_b, device(33, IDENTITY_B, B4, B6, MAC_B, LXC_MAC_B)),
            ]
            .into(),
            endpoints: endpoints.into(),
            ipcache: ipcache(),
            ..Self::default()
        }
    }
}

/// Tunnel endpoints are in it; a node without a tunnel takes no notice of them.
fn ipcache() -> Vec<(IpAddr, u8, IpcacheValue)> {
    let plain = |address: IpAddr, len, identity| (address, len, IpcacheValue::new(identity));
    let behind = |address: IpAddr, endpoint: Option<IpAddr>, flags| {
        let (len, mut tunnel_endpoint_be) = (if address.is_ipv4() { 24 } else { 80 }, [0; 16]);
        match endpoint {
            Some(IpAddr::V4(v4)) => tunnel_endpoint_be[..4].copy_from_slice(&v4.octets()),
            Some(IpAddr::V6(v6)) => tunnel_endpoint_be = v6.octets(),
            None => {}
        }
        let flags = flags | IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT;
        let identity = IDENTITY_REMOTE;
        (address, len, IpcacheValue { identity, tunnel_endpoint_be, flags, ..Default::default() })
    };
    let (by_v4, by_v6) = (Some(PEER4.into()), Some(PEER6.into()));
    let v6_flag = IPCACHE_FLAG_IPV6_TUNNEL_ENDPOINT;
    vec![
        plain(Ipv4Addr::UNSPECIFIED.into(), 0, IDENTITY_WORLD_IPV4),
        plain(Ipv6Addr::UNSPECIFIED.into(), 0, IDENTITY_WORLD_IPV6),
        plain(A4.into(), 32, IDENTITY_A),
        plain(A6.into(), 128, IDENTITY_A),
        plain(B4.into(), 32, IDENTITY_B),
        plain(B6.into(), 128, IDENTITY_B),
        plain(NODE4.into(), 32, IDENTITY_HOST),
        plain(NODE6.into(), 128, IDENTITY_HOST),
        plain(PEER4.into(), 32, IDENTITY_REMOTE_NODE),
        plain(PEER6.into(), 128, IDENTITY_REMOTE_NODE),
        behind(REMOTE4.into(), by_v4, 0),
        behind(REMOTE6.into(), by_v4, 0),
        behind(OTHER_FAMILY4.into(), by_v6, v6_flag),
        behind(OTHER_FAMILY6.into(), by_v6, v6_flag),
        behind(NO_TUNNEL4.into(), None, 0),
        behind(NO_TUNNEL6.into(), None, v6_flag),
        behind(SKIP4.into(), by_v4, IPCACHE_FLAG_SKIP_TUNNEL),
        behind(SKIP6.into(), by_v6, IPCACHE_FLAG_SKIP_TUNNEL | v6_flag),
    ]
}
