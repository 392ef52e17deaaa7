//! The part of the model that is about packets that are too long for the tunnel.

use std::net::{IpAddr, Ipv4Addr};

use ciliate::bpf_abi::*;

use super::{Action, Fate, Run, addresses, cached, icmp6, v4};
use crate::flows::Packet;
use crate::frames::{ETH_LEN, ICMP4, Mac, TYPE_IPV4, checksum, ethernet, icmp4};

/// What becomes of a packet of an endpoint that is; `None` for others.
pub fn too_long(
    run: &Run<'_>,
    device: &DeviceValue,
    destination: IpAddr,
    packet: &Packet,
) -> Option<Fate> {
    let (node, bytes) = (&run.world.node, &run.frame[ETH_LEN..]);
    let flags = cached(run.world, destination)?.flags;
    let may_be_cut = destination.is_ipv4() && bytes[6] & 0x40 == 0;
    let mtu = if destination.is_ipv6() { node.tunnel_mtu.max(1280) } else { node.tunnel_mtu };
    if node.tunnel_ifindex == 0
        || node.tunnel_mtu == 0
        || flags & 3 != IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT
        || may_be_cut
        || bytes.len() <= usize::from(mtu)
    {
        return None;
    }
    let macs = (device.mac, device.node_mac);
    let answer = match destination {
        _ if packet.is_error => None,
        IpAddr::V4(_) => frag_needed(v4(&node.router_ipv4_be), macs, run.frame, mtu),
        IpAddr::V6(_) => icmp6::error(run.world, macs, run.frame, (2, u32::from(mtu))),
    };
    let answer = answer.map(|answer| (Action::Redirect, answer, run.mark));
    Some(answer.ok_or(DROP_FRAG_NEEDED))
}

fn frag_needed(
    router: Ipv4Addr,
    (to, from): (Mac, Mac),
    frame: &[u8],
    mtu: u16,
) -> Option<Vec<u8>> {
    let packet = &frame[ETH_LEN..];
    let is_later_piece = packet[6] & 0x1f != 0 || packet[7] != 0;
    let Ok((IpAddr::V4(source), _)) = addresses(frame) else { return None };
    if router.is_unspecified() || is_later_piece {
        return None;
    }
    let quote = &packet[..packet.len().min(576 - 28)];
    let message = icmp4(3, 4, &[&[0, 0][..], &mtu.to_be_bytes(), quote].concat());
    let len = (20 + message.len() as u16).to_be_bytes();
    let mut header = [&[0x45, 0][..], &len, &[0, 0, 0x40, 0, 64, ICMP4, 0, 0]].concat();
    header.extend(router.octets());
    header.extend(source.octets());
    let sum = checksum(&[&header]).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    Some(ethernet(to, from, TYPE_IPV4, &[header, message].concat()))
}
