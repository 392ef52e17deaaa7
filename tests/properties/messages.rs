//! Messages that are written and read without a library in between, held against that library.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ciliate::kinds::{owner, route};
use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;
use proptest::prelude::*;

use super::worlds;

const IFINDEX: u32 = 7;

/// The library knows the family from the header, and ours from the length.
fn of_one_family(mut key: route::Key, way: route::Way) -> (route::Key, route::Way) {
    let v6 = key.dst.addr().is_ipv6();
    if let Some(only) = &mut key.only {
        only.from = only.from.filter(|_| v6);
    }
    let same = |ip: &IpAddr| ip.is_ipv6() == v6;
    let way = route::Way { via: way.via.filter(same), src: way.src.filter(same), ..way };
    (key, way)
}

fn encoded(key: &route::Key, way: &route::Way) -> Vec<u8> {
    let mut bytes = Vec::new();
    route::encode(key, way, IFINDEX, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn a_route_is_read_as_it_was_written((key, spec, _) in worlds::routes()) {
        let (key, way) = of_one_family(key, spec.route);
        let names = BTreeMap::from([(IFINDEX, way.dev.unwrap())]);
        let bytes = encoded(&key, &way);
        let read = route::decode(&key.netns, &bytes, &names);
        let seen = route::Seen::plain(way);
        prop_assert_eq!(read, Some(route::Decoded { protocol: owner::PROTOCOL, key, seen }));
    }

    #[test]
    fn a_route_cut_within_an_attribute_is_not_read((key, spec, _) in worlds::routes()) {
        let (key, way) = of_one_family(key, spec.route);
        let names = BTreeMap::from([(IFINDEX, way.dev.unwrap())]);
        let bytes = encoded(&key, &way);
        for length in (0..bytes.len()).filter(|length| length % 4 != 0) {
            prop_assert_eq!(route::decode(&key.netns, &bytes[..length], &names), None);
        }
    }

    #[test]
    fn the_library_reads_a_route_and_writes_the_same((key, spec, _) in worlds::routes()) {
        let (key, way) = of_one_family(key, spec.route);
        let bytes = encoded(&key, &way);
        let mut header = NetlinkHeader::default();
        header.message_type = libc::RTM_NEWROUTE;
        let message = RouteNetlinkMessage::deserialize(&header, &bytes).unwrap();
        let mut again = vec![0; message.buffer_len()];
        message.serialize(&mut again);
        prop_assert_eq!(again, bytes, "{:?}", message);
    }
}
