//! The kernel's WireGuard: what a device has, and changing that.
//!
//! Imports the parent module and `net`. netlink-packet-wireguard has the messages. wireguard-control was looked
//! at: it can't remove one allowed IP, refuses peers with some 300 of them, returns those with 130 as several
//! peers, and makes the device anew each time. Changes are sent in messages that the kernel takes whole, with
//! nothing in them that is not to change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};

use super::genl::Family;
use super::netlink::NetlinkError;
use super::private_key::PrivateKey;
use super::{Kernel, KernelError};
use crate::net::{KEY_BYTES, PublicKey};

/// Allowed IPs in one message, and peers. A list of attributes has at most 64 KiB; an allowed IP has 44 bytes, a
/// peer without any 104.
const ALLOWED_IPS_MAX: usize = 500;
const PEERS_MAX: usize = 200;

/// A peer that allowed IPs are given to, so that the peer that has them loses them, and that goes with them in the
/// same message: kernels before 6.16 have no other way to take one from a peer that leaves the rest alone. The
/// key is nobody's: no private key leads to a point of so small an order.
const NOBODY: [u8; KEY_BYTES] = {
    let mut key = [0; KEY_BYTES];
    key[0] = 1;
    key
};

/// What a device has.
#[derive(Debug, Clone, Default)]
pub struct Device {
    /// `None`: it has no private key.
    pub public_key: Option<PublicKey>,
    pub port: u16,
    pub fwmark: u32,
    pub peers: BTreeMap<PublicKey, Peer>,
}

/// What a device has of a peer.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    pub endpoint: Option<SocketAddr>,
    /// In seconds; 0 is off.
    pub keepalive_s: u16,
    pub allowed_ips: BTreeSet<IpNet>,
    /// Whether there is a preshared key.
    pub preshared: bool,
    /// Since 1970; zero: none yet.
    pub last_handshake: Duration,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

/// What is to change of a device. `None` stays as it is.
#[derive(Debug, Default)]
pub struct DeviceChange<'a> {
    pub private_key: Option<&'a PrivateKey>,
    pub port: Option<u16>,
    pub fwmark: Option<u32>,
}

/// What is to change of a peer, which is made if it isn't there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerChange {
    pub key: PublicKey,
    pub to: PeerTo,
}

/// See [`PeerChange`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerTo {
    /// Has these; `None` stays as it is. Allowed IPs are added, and taken from a peer that has them.
    Be {
        endpoint: Option<SocketAddr>,
        keepalive_s: Option<u16>,
        /// A preshared key is taken away.
        unshare: bool,
        allow: BTreeSet<IpNet>,
    },
    /// Is no more.
    Gone,
}

fn failed(operation: &'static str, source: NetlinkError) -> KernelError {
    KernelError::Netlink { operation, source }
}

/// The kernel's WireGuard.
fn family(kernel: &mut Kernel) -> Result<Option<&mut Family>, KernelError> {
    if kernel.wireguard.is_none() {
        let found = Family::find::<WireguardMessage>();
        kernel.wireguard = found.map_err(|error| failed("look for WireGuard", error))?;
    }
    Ok(kernel.wireguard.as_mut())
}

/// The same for whoever has no node to look at; `None` if the kernel doesn't say.
pub fn is_known() -> Option<bool> {
    Family::find::<WireguardMessage>().ok().map(|found| found.is_some())
}

/// Whether the kernel has WireGuard, or a module with it.
///
/// # Errors
/// It doesn't say.
pub fn is_there(kernel: &mut Kernel) -> Result<bool, KernelError> {
    Ok(family(kernel)?.is_some())
}

fn message(
    cmd: WireguardCmd,
    ifindex: u32,
    more: impl IntoIterator<Item = WireguardAttribute>,
) -> WireguardMessage {
    let attributes = [WireguardAttribute::IfIndex(ifindex)].into_iter().chain(more).collect();
    WireguardMessage { cmd, attributes }
}

/// What a device has; `None` if it is gone, or no device of WireGuard.
///
/// # Errors
/// It can't be read.
pub fn device(kernel: &mut Kernel, ifindex: u32) -> Result<Option<Device>, KernelError> {
    let Some(family) = family(kernel)? else { return Ok(None) };
    let answers = family.dump(message(WireguardCmd::GetDevice, ifindex, []));
    let answers = match answers {
        Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::EOPNOTSUPP)) => {
            return Ok(None);
        }
        other => other.map_err(|error| failed("read a WireGuard device", error))?,
    };
    let mut device = Device::default();
    for attribute in answers.into_iter().flat_map(|answer| answer.attributes) {
        match attribute {
            WireguardAttribute::PublicKey(key) => device.public_key = Some(PublicKey(key)),
            WireguardAttribute::ListenPort(port) => device.port = port,
            WireguardAttribute::Fwmark(mark) => device.fwmark = mark,
            WireguardAttribute::Peers(peers) => {
                peers.into_iter().for_each(|peer| add_peer(&mut device, peer));
            }
            _ => {}
        }
    }
    Ok(Some(device))
}

/// Adds what a message says of a peer. One with many allowed IPs comes in several pieces, of which the first has
/// all the rest.
fn add_peer(device: &mut Device, attributes: WireguardPeer) {
    let key = attributes.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::PublicKey(key) => Some(PublicKey(*key)),
        _ => None,
    });
    let Some(key) = key else { return };
    let peer = device.peers.entry(key).or_default();
    for attribute in attributes.0 {
        match attribute {
            WireguardPeerAttribute::Endpoint(endpoint) => peer.endpoint = Some(endpoint),
            WireguardPeerAttribute::PersistentKeepalive(seconds) => peer.keepalive_s = seconds,
            WireguardPeerAttribute::PresharedKey(key) => peer.preshared = key != [0; KEY_BYTES],
            WireguardPeerAttribute::LastHandshake(time) => {
                let seconds = u64::try_from(time.seconds).unwrap_or(0);
                peer.last_handshake = Duration::from_secs(seconds);
            }
            WireguardPeerAttribute::RxBytes(bytes) => peer.rx_bytes = bytes,
            WireguardPeerAttribute::TxBytes(bytes) => peer.tx_bytes = bytes,
            WireguardPeerAttribute::AllowedIps(allowed) => {
                peer.allowed_ips.extend(allowed.iter().filter_map(allowed_ip));
            }
            _ => {}
        }
    }
}

fn allowed_ip(attributes: &WireguardAllowedIp) -> Option<IpNet> {
    let (mut address, mut bits) = (None, None);
    for attribute in attributes.iter() {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(ip) => address = Some(*ip),
            WireguardAllowedIpAttr::Cidr(length) => bits = Some(*length),
            _ => {}
        }
    }
    IpNet::new(address?, bits?).ok()
}

fn allow(net: &IpNet) -> WireguardAllowedIp {
    let family = match net.addr() {
        IpAddr::V4(_) => WireguardAddressFamily::Ipv4,
        IpAddr::V6(_) => WireguardAddressFamily::Ipv6,
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(net.addr()),
        WireguardAllowedIpAttr::Cidr(net.prefix_len()),
    ])
}

/// Changes what a device is, and of its sessions nothing unless it is given another private key.
///
/// # Errors
/// The kernel has no WireGuard, or refuses.
pub fn change(
    kernel: &mut Kernel,
    ifindex: u32,
    change: &DeviceChange<'_>,
) -> Result<(), KernelError> {
    let key = change.private_key.map(|key| WireguardAttribute::PrivateKey(key.bytes()));
    let port = change.port.map(WireguardAttribute::ListenPort);
    let mark = change.fwmark.map(WireguardAttribute::Fwmark);
    let attributes = key.into_iter().chain(port).chain(mark);
    let message = message(WireguardCmd::SetDevice, ifindex, attributes);
    send(kernel, "change a WireGuard device", vec![message])
        .and_then(|outcomes| outcomes.into_iter().collect())
}

/// Changes peers, each in as few messages as can be. Of those that aren't named nothing changes. Returns what
/// became of each, in order.
///
/// # Errors
/// The kernel has no WireGuard, or doesn't answer.
pub fn change_peers(
    kernel: &mut Kernel,
    ifindex: u32,
    changes: &[PeerChange],
) -> Result<Vec<Result<(), KernelError>>, KernelError> {
    let pieces: Vec<(usize, WireguardPeer, usize)> = changes
        .iter()
        .enumerate()
        .flat_map(|(index, change)| pieces(change).into_iter().map(move |(p, n)| (index, p, n)))
        .collect();
    // A refused message says nothing of which of its peers was meant: they are then tried one by one.
    let mut results: Vec<Result<(), KernelError>> = changes.iter().map(|_| Ok(())).collect();
    let (mut messages, mut members) = (Vec::new(), Vec::new());
    let mut rest = pieces.as_slice();
    while !rest.is_empty() {
        let mut allowed = 0;
        let fits = |(_, _, count): &&(usize, WireguardPeer, usize)| {
            allowed += count;
            allowed <= ALLOWED_IPS_MAX
        };
        let count = rest.iter().take(PEERS_MAX).take_while(fits).count().max(1);
        let (batch, after) = rest.split_at(count);
        messages.push(of_peers(ifindex, batch.iter().map(|(_, peer, _)| peer.clone())));
        members.push(batch);
        rest = after;
    }
    let outcomes = send(kernel, "change WireGuard peers", messages)?;
    for (batch, outcome) in members.into_iter().zip(outcomes) {
        if outcome.is_ok() {
            continue;
        }
        let single: Vec<_> =
            batch.iter().map(|(_, peer, _)| of_peers(ifindex, [peer.clone()])).collect();
        let outcomes = send(kernel, "change a WireGuard peer", single)?;
        for ((index, ..), outcome) in batch.iter().zip(outcomes) {
            if results[*index].is_ok() {
                results[*index] = outcome;
            }
        }
    }
    Ok(results)
}

/// Takes allowed IPs from whoever has them. The rest of what those peers have is not touched.
///
/// # Errors
/// The kernel has no WireGuard, or refuses.
pub fn disallow(
    kernel: &mut Kernel,
    ifindex: u32,
    nets: &BTreeSet<IpNet>,
) -> Result<(), KernelError> {
    let nets: Vec<&IpNet> = nets.iter().collect();
    let nobody = |more| {
        let key = WireguardPeerAttribute::PublicKey(NOBODY);
        WireguardPeer([key].into_iter().chain(more).collect())
    };
    let gone = || nobody(vec![WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe)]);
    let messages = nets
        .chunks(ALLOWED_IPS_MAX)
        .map(|chunk| {
            let taken = chunk.iter().map(|net| allow(net)).collect();
            let taker = nobody(vec![WireguardPeerAttribute::AllowedIps(taken)]);
            of_peers(ifindex, [taker, gone()])
        })
        .collect();
    send(kernel, "take allowed IPs from WireGuard peers", messages)
        .and_then(|outcomes| outcomes.into_iter().collect())
}

fn of_peers(ifindex: u32, peers: impl IntoIterator<Item = WireguardPeer>) -> WireguardMessage {
    let peers = WireguardAttribute::Peers(peers.into_iter().collect());
    message(WireguardCmd::SetDevice, ifindex, [peers])
}

/// A change as peers of messages, each with the number of its allowed IPs.
fn pieces(change: &PeerChange) -> Vec<(WireguardPeer, usize)> {
    let key = WireguardPeerAttribute::PublicKey(change.key.0);
    let (endpoint, keepalive_s, unshare, nets) = match &change.to {
        PeerTo::Gone => {
            let gone = WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe);
            return vec![(WireguardPeer(vec![key, gone]), 0)];
        }
        PeerTo::Be { endpoint, keepalive_s, unshare, allow } => {
            (*endpoint, *keepalive_s, *unshare, allow.iter().collect::<Vec<_>>())
        }
    };
    let mut attributes = vec![key.clone()];
    attributes.extend(unshare.then_some(WireguardPeerAttribute::PresharedKey([0; KEY_BYTES])));
    attributes.extend(endpoint.map(WireguardPeerAttribute::Endpoint));
    attributes.extend(keepalive_s.map(WireguardPeerAttribute::PersistentKeepalive));
    let mut chunks = nets.chunks(ALLOWED_IPS_MAX);
    let first = chunks.next().unwrap_or_default();
    let list = |chunk: &[&IpNet]| {
        WireguardPeerAttribute::AllowedIps(chunk.iter().map(|net| allow(net)).collect())
    };
    if !first.is_empty() {
        attributes.push(list(first));
    }
    let mut pieces = vec![(WireguardPeer(attributes), first.len())];
    pieces.extend(chunks.map(|chunk| (WireguardPeer(vec![key.clone(), list(chunk)]), chunk.len())));
    pieces
}

fn send(
    kernel: &mut Kernel,
    operation: &'static str,
    messages: Vec<WireguardMessage>,
) -> Result<Vec<Result<(), KernelError>>, KernelError> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    kernel.writes += 1;
    let Some(family) = family(kernel)? else {
        let source = NetlinkError::Kernel { errno: libc::EOPNOTSUPP, message: String::new() };
        return Err(failed(operation, source));
    };
    let outcomes = family.change(messages).map_err(|source| failed(operation, source))?;
    Ok(outcomes.into_iter().map(|one| one.map_err(|source| failed(operation, source))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::Emitable;

    /// Whatever is asked for has to fit into an attribute, whose length has 16 bits.
    #[test]
    fn pieces_fit_into_messages() {
        let allow: BTreeSet<IpNet> = (0..1200u32)
            .map(|n| IpNet::new(IpAddr::from((u128::from(n) << 64).to_be_bytes()), 64).unwrap())
            .collect();
        let endpoint = Some("[fc00::1]:51871".parse().unwrap());
        let to = PeerTo::Be { endpoint, keepalive_s: Some(25), unshare: true, allow };
        let pieces = pieces(&PeerChange { key: PublicKey([7; 32]), to });
        assert_eq!(pieces.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [500, 500, 200]);
        let longest = of_peers(1, [pieces[0].0.clone()]).buffer_len();
        assert!(longest < 32 * 1024, "{longest}");
        let small = PeerTo::Be {
            endpoint,
            keepalive_s: Some(25),
            unshare: true,
            allow: BTreeSet::from(["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]),
        };
        let piece = super::pieces(&PeerChange { key: PublicKey([7; 32]), to: small }).remove(0).0;
        let full = of_peers(1, vec![piece; PEERS_MAX]).buffer_len();
        assert!(full < 64 * 1024, "{full}");
    }
}
