//! ARP of an endpoint: answered for everyone, byte by byte.

use crate::frames::{BROADCAST, Mac, TYPE_ARP, arp, ethernet};
use crate::lab;
use crate::model::Action;
use crate::world::*;

const NO_MAC: Mac = [0; 6];

#[test]
fn any_address_is_at_the_host_side() {
    lab::run(|lab| {
        for target in [ROUTER4, B4, REMOTE4, WORLD4, UNUSED4] {
            for to in [BROADCAST, LXC_MAC_A] {
                let request = arp(1, (MAC_A, A4), (NO_MAC, target));
                let out = lab.container_sends(&ethernet(to, MAC_A, TYPE_ARP, &request));
                let reply = arp(2, (LXC_MAC_A, target), (MAC_A, A4));
                assert_eq!(out.action, Action::Redirect, "who-has {target}");
                assert_eq!(out.frame, ethernet(MAC_A, LXC_MAC_A, TYPE_ARP, &reply));
            }
        }
        assert_eq!(lab.counted(), [], "Cilium counts no ARP");
    });
}

#[test]
fn padding_stays() {
    lab::run(|lab| {
        let request = [arp(1, (MAC_A, A4), (NO_MAC, ROUTER4)), vec![0x5a; 18]].concat();
        let out = lab.container_sends(&ethernet(BROADCAST, MAC_A, TYPE_ARP, &request));
        let reply = [arp(2, (LXC_MAC_A, ROUTER4), (MAC_A, A4)), vec![0x5a; 18]].concat();
        assert_eq!(out.frame, ethernet(MAC_A, LXC_MAC_A, TYPE_ARP, &reply));
    });
}

#[test]
fn the_rest_goes_to_the_stack_untouched() {
    let request = arp(1, (MAC_A, A4), (NO_MAC, ROUTER4));
    let changed = |at: usize, value: u8| {
        let mut request = request.clone();
        request[at] = value;
        ethernet(BROADCAST, MAC_A, TYPE_ARP, &request)
    };
    let frames = [
        ("own address", ethernet(BROADCAST, MAC_A, TYPE_ARP, &arp(1, (MAC_A, A4), (NO_MAC, A4)))),
        ("other receiver", ethernet(MAC_B, MAC_A, TYPE_ARP, &request)),
        ("reply", changed(7, 2)),
        ("not Ethernet", changed(1, 6)),
        ("not IPv4", changed(2, 9)),
        ("long hardware addresses", changed(4, 8)),
        ("long protocol addresses", changed(5, 16)),
        ("cut off", ethernet(BROADCAST, MAC_A, TYPE_ARP, &request[..27])),
    ];
    lab::run(|lab| {
        for (what, frame) in &frames {
            let out = lab.container_sends(frame);
            assert_eq!((out.action, &out.frame), (Action::Pass, frame), "{what}");
        }
    });
}
