//! `acceleration`: drivers send on what is for a backend elsewhere, and the answers; tc's programs have the rest.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use ciliate::kernel::{bpf, pins};

use super::kept::Transfer;
use super::talk::{tcp, udp};
use super::{ENDS, NODE_PORT, PORT, Place, at, everywhere, ip, service};
use crate::daemon::wait_until;
use crate::offload;

const NATIVE: &str = "acceleration = \"native\"";
const BEST_EFFORT: &str = "acceleration = \"best-effort\"";

impl Place {
    /// Packets come with their checksums, as over a wire, and the wire takes what node a's driver sends.
    fn as_with_hardware(&self) -> Option<OwnedFd> {
        let lab = &self.lab;
        offload::finish_checksums(&lab.outside, "eth0");
        offload::finish_checksums(&lab.b.space, "eth0");
        Some(offload::pass(&lab.wire, "p3"))
    }

    /// What the driver's program has sent out, and what tc's programs have.
    fn forwarded(&self) -> [u64; 2] {
        let listed = self.lab.a.ciliate(&["bpf", "metrics", "list", "-o", "json"]).json();
        let counters = listed["entries"].as_array().expect("counters");
        let of = |file: &str| {
            let forwards = counters.iter().filter(|counter| {
                counter["file"] == file
                    && counter["reason_code"] == 0
                    && counter["direction"] == "egress"
            });
            forwards.filter_map(|counter| counter["packets"].as_u64()).sum()
        };
        [of("bpf_xdp.c"), of("bpf_host.c")]
    }

    /// What `status` says of it.
    fn acceleration(&self) -> String {
        let status = self.lab.a.ciliate(&["status"]).all();
        let row = status.lines().find_map(|line| line.strip_prefix("XDP Acceleration:"));
        row.unwrap_or("not asked for").trim().to_owned()
    }

    /// Through services to node b's endpoint; whom it saw.
    #[track_caller]
    fn talk(&self) {
        for ends in &ENDS {
            let (frontend, backend) = (at(ends.node, NODE_PORT), at(ends.there, PORT));
            let outside = &self.lab.outside;
            assert_eq!(
                tcp(outside, frontend, &self.there, backend),
                ip(ends.node),
                "TCP {frontend}"
            );
            assert_eq!(
                udp(outside, frontend, &self.there, backend),
                ip(ends.node),
                "UDP {frontend}"
            );
        }
    }
}

fn there() -> [SocketAddr; 2] {
    ENDS.each_ref().map(|ends| at(ends.there, PORT))
}

#[test]
fn everywhere_by_route() {
    everywhere(false, NATIVE, Place::as_with_hardware);
}

#[test]
fn everywhere_by_tunnel() {
    everywhere(true, NATIVE, Place::as_with_hardware);
}

/// As veths are: nothing has a checksum, so everything is tc's.
#[test]
fn everywhere_without_checksums() {
    everywhere(false, NATIVE, |place| Some(offload::pass(&place.lab.wire, "p3")));
}

/// Megabytes by the driver, and hardly a packet by tc; and a program that is taken away comes back.
#[test]
fn the_driver_sends() {
    let Some(place) = Place::new(false) else { return };
    let _wire = place.as_with_hardware();
    place.serve(NATIVE, &service(&there(), ""));
    assert_eq!(place.acceleration(), "Native   [eth0]");
    // Neighbours are found by tc.
    place.talk();
    let [driver, tc] = place.forwarded();
    place.talk();
    let [driver, tc] = [place.forwarded()[0] - driver, place.forwarded()[1] - tc];
    // 300 kB each way, in segments of at most 1500 bytes, of both families.
    assert!(driver > 800 && tc < 20, "{driver} packets by the driver, {tc} by tc");

    let pin = pins::xdp_link(&place.lab.a.bpf, offload::ifindex(&place.lab.a.space, "eth0"));
    let attached = || place.lab.a.space.sh("ip link show dev eth0").contains("xdp");
    assert!(attached());
    fs::remove_file(&pin).expect("remove the pin");
    assert!(wait_until(super::talk::PATIENCE, || !attached()), "the kernel takes it off");
    place.talk();
    place.lab.a.apply();
    assert!(attached());
    crate::space::sh(&format!("bpftool link detach pinned {}", pin.display()));
    assert!(!attached());
    place.lab.a.apply();
    assert!(attached());
    place.talk();
    place.serve("", &service(&there(), ""));
    assert_eq!(place.acceleration(), "not asked for");
    assert!(!attached() && !pin.exists());
    place.talk();
}

/// A peer with a larger MTU is more than the driver of a veth can take.
#[test]
fn the_kernel_in_place_of_the_driver() {
    let Some(place) = Place::new(false) else { return };
    let _wire = place.as_with_hardware();
    place.lab.wire.sh("ip link set p3 mtu 9000");
    place.write(NATIVE, &service(&there(), ""));
    let ran = place.lab.a.ciliate(&["apply"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.all().contains("eth0 runs no XDP program at its driver"), "{ran:?}");
    assert_eq!(place.acceleration(), "None   [eth0]");
    place.talk();

    place.write(BEST_EFFORT, &service(&there(), ""));
    let ran = place.lab.a.ciliate(&["apply"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    place.lab.note_bpf();
    place.lab.a.assert_no_changes();
    assert_eq!(place.acceleration(), "Generic   [eth0]");
    place.talk();
    let [driver, tc] = place.forwarded();
    place.talk();
    let [driver, tc] = [place.forwarded()[0] - driver, place.forwarded()[1] - tc];
    assert!(driver > 800 && tc < 20, "{driver} packets by the program, {tc} by tc");

    // The driver can again, and nothing else will do.
    place.lab.wire.sh("ip link set p3 mtu 1500");
    place.serve(NATIVE, &service(&there(), ""));
    assert_eq!(place.acceleration(), "Native   [eth0]");
    place.talk();
}

/// Somebody else's program stays, and everything goes by tc until it is gone.
#[test]
fn a_foreign_program_in_the_way() {
    let Some(place) = Place::new(false) else { return };
    let _wire = place.as_with_hardware();
    let link = offload::pass(&place.lab.a.space, "eth0");
    let before = bpf::xdp_link_info(&link).expect("the foreign link");
    place.write(BEST_EFFORT, &service(&there(), ""));
    let ran = place.lab.a.ciliate(&["apply"]);
    place.lab.note_bpf();
    assert!(
        ran.all().contains("eth0 runs an XDP program that does not belong to ciliate"),
        "{ran:?}"
    );
    assert_eq!(place.acceleration(), "None   [eth0]");
    place.talk();
    assert_eq!(place.forwarded()[0], 0);
    assert_eq!(bpf::xdp_link_info(&link).expect("the foreign link"), before);
    bpf::link_detach(&link).expect("take it off");
    drop(link);
    place.lab.a.apply();
    place.lab.note_bpf();
    assert_eq!(place.acceleration(), "Native   [eth0]");
    place.talk();
}

/// A connection goes on while acceleration comes and goes: the flows are in maps that both programs have.
#[test]
fn switched_on_and_off() {
    let Some(place) = Place::new(false) else { return };
    let _wire = place.as_with_hardware();
    place.serve("", &service(&there(), ""));
    let outside = &place.lab.outside;
    let transfers: Vec<Transfer> = ENDS
        .iter()
        .zip(there())
        .map(|(ends, backend)| {
            Transfer::start(outside, at(ends.node, NODE_PORT), &place.there, backend)
        })
        .collect();
    for balancing in [
        NATIVE,
        "",
        BEST_EFFORT,
        "algorithm = \"maglev\"\nmaglev-table-size = 251\nacceleration = \"native\"",
        "",
    ] {
        place.serve(balancing, &service(&there(), ""));
        let before = place.forwarded()[0];
        for transfer in &transfers {
            transfer.assert_alive(balancing);
        }
        let sent = place.forwarded()[0] - before;
        assert_eq!(sent > 0, balancing.contains("acceleration"), "{sent} with {balancing:?}");
    }
    for transfer in transfers {
        assert!(transfer.finish() > 1000);
    }
}
