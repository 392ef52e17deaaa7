//! Route messages → what was seen. Pure: decodes values that `kernel` received.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteScope,
};

use super::{Key, Scope, Seen};
use crate::net::{IfName, Netns};

/// `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;

/// Decodes a route message; `None` for one that can't be one of ours (no device, several next hops,
/// other families).
pub fn decode(
    netns: &Netns,
    message: &RouteMessage,
    names: &BTreeMap<u32, IfName>,
) -> Option<(Key, Seen)> {
    let unspecified: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut address, mut table, mut metric) = (unspecified, message.header.table.into(), 0);
    let (mut via, mut src, mut mtu_bytes, mut dev) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => address = ip(a)?,
            RouteAttribute::Table(t) => table = *t,
            RouteAttribute::Priority(p) => metric = *p,
            RouteAttribute::Gateway(a) => via = ip(a),
            RouteAttribute::PrefSource(a) => src = ip(a),
            RouteAttribute::Oif(index) => dev = names.get(index).copied(),
            RouteAttribute::MultiPath(_) => return None,
            RouteAttribute::Metrics(metrics) => {
                mtu_bytes = metrics.iter().find_map(|m| match m {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let scope = match message.header.scope {
        RouteScope::Universe => Scope::Universe,
        RouteScope::Link => Scope::Link,
        other => Scope::Other(other.into()),
    };
    let dst = IpNet::new(address, message.header.destination_prefix_length).ok()?;
    let key = Key { netns: netns.clone(), table, dst, metric };
    Some((key, Seen { via, dev: dev?, src, scope, mtu_bytes }))
}

/// The address in a route attribute.
pub fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
