//! Messages that are written and read without a library in between, held against that library.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ciliate::kinds::{owner, route};
use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;
use proptest::prelude::*;

use super::worlds;

const IFINDEX: u32 = 7;

fn encoded(key: &route::Key, route: &route::Seen) -> Vec<u8> {
    let mut bytes = Vec::new();
    route::encode(key, route, IFINDEX, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn a_route_is_read_as_it_was_written((key, _, seen) in worlds::routes()) {
        let names = BTreeMap::from([(IFINDEX, seen.dev)]);
        let bytes = encoded(&key, &seen);
        let read = route::decode(&key.netns, &bytes, &names);
        prop_assert_eq!(read, Some(route::Decoded { protocol: owner::PROTOCOL, key, seen }));
    }

    #[test]
    fn a_route_cut_within_an_attribute_is_not_read((key, _, seen) in worlds::routes()) {
        let names = BTreeMap::from([(IFINDEX, seen.dev)]);
        let bytes = encoded(&key, &seen);
        for length in (0..bytes.len()).filter(|length| length % 4 != 0) {
            prop_assert_eq!(route::decode(&key.netns, &bytes[..length], &names), None);
        }
    }

    #[test]
    fn the_library_reads_a_route_and_writes_the_same((key, _, seen) in worlds::routes()) {
        // Of one family: the library knows it from the header, and ours from the length.
        let same = |ip: &IpAddr| ip.is_ipv6() == key.dst.addr().is_ipv6();
        let seen = route::Seen { via: seen.via.filter(same), src: seen.src.filter(same), ..seen };
        let bytes = encoded(&key, &seen);
        let mut header = NetlinkHeader::default();
        header.message_type = libc::RTM_NEWROUTE;
        let message = RouteNetlinkMessage::deserialize(&header, &bytes).unwrap();
        let mut again = vec![0; message.buffer_len()];
        message.serialize(&mut again);
        prop_assert_eq!(again, bytes, "{:?}", message);
    }
}
