//! Pairs of ours of which only the end in the endpoint's namespace can be seen, because somebody moved the
//! other one to a namespace that we don't know. The end that we see goes, the kernel takes the other one
//! along, and the pair is made anew.
//!
//! The end proves to be ours by alias and Ethernet address, which follow from the endpoint's name, and by
//! the record of the endpoint in `ciliate_device`: this node has wired it. Without the record it may be
//! the work of another ciliate, and stays.

use std::collections::BTreeMap;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;

use super::super::{Link, LinkInfo, Peer, Seen, Spec, pair};
use crate::apply::ExecError;
use crate::kernel::{Kernel, KernelError};
use crate::kinds::{Action, Change, Desired};
use crate::net::{IfName, Netns};
use crate::observe::{Round, facts};

/// By wanted link that isn't there: the end that is.
///
/// # Errors
/// A dump fails, or the records can't be read.
pub fn halves(
    round: &mut Round<'_>,
    desired: &Desired,
) -> Result<BTreeMap<IfName, Peer>, KernelError> {
    let host = round.links(&Netns::HOST)?;
    // Ends are told by their numbers, which may be the same in many namespaces. Whatever bears our mark,
    // leads to another namespace and isn't asked for may be the other end by another name.
    let may_be_end = |link: &&LinkInfo| {
        let asked = desired.links.contains_key(&link.ifname);
        link.owned() && link.link_netnsid.is_some() && !asked
    };
    let others: Vec<LinkInfo> = host.iter().filter(may_be_end).cloned().collect();
    let mut found = BTreeMap::new();
    for (key, wanted) in &desired.links {
        if host.iter().any(|link| link.ifname == *key) {
            continue;
        }
        let Some(peer) = wanted.spec.peer().filter(|peer| peer.netns != Netns::HOST) else {
            continue;
        };
        let there = round.links(&peer.netns)?;
        let half = there.iter().find(|link| is_half_of(link, peer));
        if let Some(half) = half.filter(|half| pair(half, &others).is_none()) {
            found.insert(*key, half.as_peer(peer.netns.clone(), peer.ifindex.is_some()));
        }
    }
    if found.is_empty() {
        return Ok(found);
    }
    let records = facts::devices(round.kernel)?;
    found.retain(|_, half| {
        let recorded = records.values().any(|record| record.mac == half.end.mac.0);
        recorded || desired.namespaces.contains_key(&half.netns)
    });
    Ok(found)
}

/// Whether the link looks like the end that is asked for, of a pair across namespaces.
fn is_half_of(link: &LinkInfo, peer: &Peer) -> bool {
    link.ifname == peer.ifname
        && may_be_half(link)
        && (&link.end.alias, link.end.mac) == (&peer.end.alias, peer.end.mac)
}

/// Whether the link may be such an end: it bears our mark, and its other end is in another namespace.
pub fn may_be_half(link: &LinkInfo) -> bool {
    link.owned() && link.link_netnsid.is_some()
}

/// The pair, without an end on the host.
pub(super) fn as_seen(peer: Peer) -> Seen {
    Seen {
        owned: true,
        kind: "veth".into(),
        ifindex: 0,
        end: peer.end.clone(),
        peer: Some(peer),
        tunnel: None,
    }
}

/// Whether the change is about such a pair.
pub(super) fn is_half(change: &Change<Link>) -> bool {
    change.expects().is_some_and(|seen| seen.ifindex == 0)
}

/// Removes the ends that are to be made anew and are still as they were found.
pub(super) fn remove(
    kernel: &mut Kernel,
    changes: &[&Change<Link>],
    results: &mut [Result<(), ExecError>],
) {
    for (index, change) in changes.iter().enumerate().filter(|(_, change)| is_half(change)) {
        let Action::Replace { to, .. } = &change.action else { continue };
        results[index] = remove_one(kernel, to);
    }
}

fn remove_one(kernel: &mut Kernel, to: &Spec) -> Result<(), ExecError> {
    let Some(peer) = to.peer() else { return Ok(()) };
    let there = Round::new(kernel).links(&peer.netns).map_err(ExecError::from)?;
    let Some(half) = there.iter().find(|link| is_half_of(link, peer)) else {
        return Ok(());
    };
    let mut message = LinkMessage::default();
    message.header.index = half.ifindex;
    let request = vec![(RouteNetlinkMessage::DelLink(message), 0)];
    match crate::apply::send(kernel, &peer.netns, "delete a link", request).pop() {
        Some(Err(error)) if error.errno() != Some(libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}
