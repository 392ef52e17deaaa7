//! VLAN tags, which the kernel keeps beside the packet: neither endpoints nor the tunnel have VLANs.

use ciliate::bpf_abi::*;

use crate::frames::*;
use crate::lab;
use crate::model::Action;
use crate::world::*;

const CUSTOMER: u16 = 0x8100;
const PROVIDER: u16 = 0x88a8;
/// A priority, and no VLAN.
const PRIORITY: (u16, u16) = (CUSTOMER, 0xe000);

/// Tags that a frame is of a VLAN with.
const TAGS: [&[(u16, u16)]; 5] = [
    &[(CUSTOMER, 7)],
    &[(PROVIDER, 7)],
    &[(CUSTOMER, 0xefff)],
    &[PRIORITY, (CUSTOMER, 7)],
    &[(PROVIDER, 7), (CUSTOMER, 8)],
];

fn ip(source: (std::net::Ipv4Addr, std::net::Ipv6Addr)) -> [Vec<u8>; 2] {
    [
        ethernet(LXC_MAC_A, MAC_A, TYPE_IPV4, &ipv4(source.0, B4, 64)),
        ethernet(LXC_MAC_A, MAC_A, TYPE_IPV6, &ipv6(source.1, B6, 64)),
    ]
}

#[test]
fn endpoints_send_none() {
    let request = arp(1, (MAC_A, A4), ([0; 6], ROUTER4));
    let [v4, v6] = ip((A4, A6));
    lab::run(|lab| {
        let device = lab.sandbox.lxc_a;
        for frame in [v4, v6, ethernet(BROADCAST, MAC_A, TYPE_ARP, &request)] {
            for tags in TAGS {
                let out = lab.send_tagged("cil_from_container", device, tags, &frame);
                assert_eq!(out.action, Action::Drop, "{tags:x?}: {frame:02x?}");
                let (counted, bytes) = (lab.counted(), counted_bytes(tags, &frame));
                let found = (counted.len(), counted[0].reason, counted[0].direction);
                assert_eq!(found, (1, DROP_UNSUPPORTED_L3, DIRECTION_EGRESS), "{tags:x?}");
                assert_eq!(counted[0].bytes, bytes, "{tags:x?}");
            }
            let plain = lab.container_sends(&frame);
            let tagged = lab.send_tagged("cil_from_container", device, &[PRIORITY], &frame);
            assert_eq!(tagged, plain, "with a priority only");
            lab.counted();
        }
    });
}

/// What of the tags is in the packet: all but the outermost, unless that was taken off as well.
fn counted_bytes(tags: &[(u16, u16)], frame: &[u8]) -> u64 {
    let inside = if tags[0] == PRIORITY { 0 } else { tags.len() - 1 };
    (frame.len() + 4 * inside) as u64
}

#[test]
fn the_tunnel_carries_none() {
    lab::run(|lab| {
        lab.add_tunnel();
        let device = lab.sandbox.cilium_vxlan;
        for frame in ip((REMOTE4, REMOTE6)) {
            for tags in TAGS {
                let out = lab.send_tagged("cil_from_overlay", device, tags, &frame);
                assert_eq!(out.action, Action::Drop, "{tags:x?}: {frame:02x?}");
                let reasons: Vec<_> = lab.counted().iter().map(|count| count.reason).collect();
                assert_eq!(reasons, [REASON_INTERFACE, DROP_VLAN_FILTERED], "{tags:x?}");
            }
            // As without: there is no tunnel key here.
            lab.send_tagged("cil_from_overlay", device, &[PRIORITY], &frame);
            let reasons: Vec<_> = lab.counted().iter().map(|count| count.reason).collect();
            assert_eq!(reasons, [REASON_INTERFACE, DROP_NO_TUNNEL_KEY]);
        }
    });
}

#[test]
fn those_of_the_host_are_its_own() {
    lab::run(|lab| {
        lab.route_past_host();
        let device = lab.sandbox.cilium_host;
        for frame in ip((SKIP4, SKIP6)) {
            let mut frame = frame;
            frame[..6].copy_from_slice(&HOST_MAC);
            assert_eq!(lab.send("cil_from_netdev", device, 0, &frame).action, Action::Redirect);
            assert_eq!(lab.host_sends(0, &frame).action, Action::Redirect);
            for (program, action) in
                [("cil_from_netdev", Action::Next), ("cil_from_host", Action::Pass)]
            {
                let out = lab.send_tagged(program, device, &[(CUSTOMER, 7)], &frame);
                assert_eq!((out.action, &out.frame), (action, &frame), "{program}");
            }
        }
    });
}
